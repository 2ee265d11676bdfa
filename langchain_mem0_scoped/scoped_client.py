"""ScopedClient: one user on one backend, with every operation and the ownership check, once. Views depend on this."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from . import backends
from .backends.base import Changes, Paths, Row, Rows
from .errors import InputError, MemoryNotFoundError
from .records import ErasureReceipt, MemoryList, MemoryRecord, is_expired, record_from
from .requests import AddRequest, ErasureToken, ListRequest, SearchRequest, UpdateRequest
from .scope import Scope, validate_memory_id
from .transcripts import binding
from .transcripts.base import TranscriptStore, Turn
from .transcripts.separate import SeparateTurn

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends.base import Backend, Client

T = TypeVar("T")

Stores: TypeAlias = list[TranscriptStore]

_NOT_FOUND: Final = "this user has no memory of that id"


class ScopedClient:
    """One user on one backend.

    Args:
        user_id: Whose memories; validated by `Scope`.
        client: A `mem0.Memory`, a `mem0.MemoryClient`, or None for the process's default client.
        transcripts: A SQLAlchemy URL or Engine for transcripts, for a client that has no store of its own.

    Raises:
        ScopeError: The user_id is refused.
        InputError: The client is not one.
    """

    __slots__ = ("__weakref__", "_bound", "_scope", "client", "transcripts")

    def __init__(self, user_id: str, *, client: Client | None = None, transcripts: str | Engine | None = None) -> None:
        self._scope = Scope(user_id)
        backends.check_client(client)
        self.client = client
        self.transcripts = transcripts
        self._bound: tuple[Client, Backend] | None = None

    @property
    def user_id(self) -> str:
        """Whose memories these are."""
        return self._scope.user_id

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # A scope that names no client finds the default of the other process.
        self.require_picklable()
        return None, {"client": None, "_scope": self._scope, "transcripts": self.transcripts, "_bound": None}

    def require_picklable(self) -> None:
        """Refuse to be pickled with a client or an Engine, which belong to this process.

        Raises:
            InputError: The scope names one of them.
        """
        if self.client is not None or not isinstance(self.transcripts, (str, NoneType)):
            raise InputError(
                "a scope with a client cannot be pickled, because a client belongs to its process: send the user_id, "
                "and build the scope there; or call set_default_client() in both and build it without a client"
            )

    def __copy__(self) -> ScopedClient:
        return ScopedClient(self.user_id, client=self.client, transcripts=self.transcripts)

    def __deepcopy__(self, memo: dict[int, Any]) -> ScopedClient:
        # A client cannot be copied. A copy of a scope in this process works on the same one.
        return copy.copy(self)

    # -- the backend

    def _bind(self) -> tuple[Client, Backend]:
        if self._bound is None:
            client = backends.resolve(self.client)
            backend = backends.backend_for(client)
            binding.bind(client, self.transcripts, backend.files() if self.transcripts is not None else ())
            self._bound = client, backend
        return self._bound

    @property
    def _backend(self) -> Backend:
        return self._bind()[1]

    async def _abackend(self) -> Backend:
        if self._bound is None and not (backends.is_open(self.client) and self.transcripts is None):
            # The first call imports mem0 and opens a file: not on the event loop.
            await asyncio.to_thread(self._bind)
        return self._backend

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Make several calls without blocking the event loop; see `Backend.run_sync_or_async`."""
        return await (await self._abackend()).run_sync_or_async(work, awork)

    # -- the ownership check

    def _owned(self, rows: Rows) -> MemoryList:
        return MemoryList(map(record_from, self._scope.require_own(rows)))

    def _found(self, row: Row | None) -> MemoryRecord:
        """Raise the same error for missing and foreign rows."""
        if row is None or not self._scope.owns(row):
            row = None  # Some error trackers record local variables.
            raise MemoryNotFoundError(_NOT_FOUND)
        return record_from(row)

    def _pinned(self, request: SearchRequest) -> SearchRequest:
        return replace(request, filters=self._scope.query_filter(request.filters))

    # -- writing

    def add(self, request: AddRequest) -> MemoryList:
        """Store memories of messages; see `ScopedMemory.add`."""
        return self._owned(self._backend.add(self.user_id, request) if request.messages else [])

    async def aadd(self, request: AddRequest) -> MemoryList:
        """Async twin of `add`."""
        return self._owned(await (await self._abackend()).aadd(self.user_id, request) if request.messages else [])

    def update(self, request: UpdateRequest) -> MemoryRecord:
        """Correct a memory; see `ScopedMemory.update`."""
        backend = self._backend
        memory = self._found(backend.get(self.user_id, request.memory_id))
        _check_correctable(memory["expires_on"], request)
        return self._found(backend.update(self.user_id, request))

    async def aupdate(self, request: UpdateRequest) -> MemoryRecord:
        """Async twin of `update`."""
        backend = await self._abackend()
        memory = self._found(await backend.aget(self.user_id, request.memory_id))
        _check_correctable(memory["expires_on"], request)
        return self._found(await backend.aupdate(self.user_id, request))

    def delete(self, memory_id: str) -> None:
        """Delete a memory; see `ScopedMemory.delete`."""
        memory_id = validate_memory_id(memory_id)
        backend = self._backend
        self._found(backend.get(self.user_id, memory_id))
        _require_deleted(backend.delete(self.user_id, memory_id))

    async def adelete(self, memory_id: str) -> None:
        """Async twin of `delete`."""
        memory_id = validate_memory_id(memory_id)
        backend = await self._abackend()
        self._found(await backend.aget(self.user_id, memory_id))
        _require_deleted(await backend.adelete(self.user_id, memory_id))

    def delete_all(self) -> ErasureReceipt:
        """Erase this user; see `ScopedMemory.delete_all`."""
        self._check_names_store()
        erased = self._backend.erase(self.user_id)
        return ErasureReceipt.of(self.user_id, erased, self._erase_transcripts())

    async def adelete_all(self) -> ErasureReceipt:
        """Async twin of `delete_all`."""
        backend = await self._abackend()
        self._check_names_store()
        erased = await backend.aerase(self.user_id)
        return ErasureReceipt.of(self.user_id, erased, await asyncio.to_thread(self._erase_transcripts))

    def _check_names_store(self) -> None:
        if self.client is None:
            backends.check_names_store(self._bind()[0])

    def _erase_transcripts(self) -> int:
        return sum(store.erase(self.user_id) for store in self.transcript_stores())

    # -- reading

    def search(self, request: SearchRequest) -> MemoryList:
        """Find memories; see `ScopedMemory.search`."""
        return self._owned(self._backend.search(self._pinned(request)))

    async def asearch(self, request: SearchRequest) -> MemoryList:
        """Async twin of `search`."""
        return self._owned(await (await self._abackend()).asearch(self._pinned(request)))

    def search_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        """Find the memories outside one session that match a query best; for a blank query the latest.

        Args:
            query: What to search for, validated or "".
            session_id: The session whose memories are left out.
            k: Maximum number of rows.
        """
        request = self._pinned(SearchRequest(query, {}, k))
        return self._owned(self._backend.search_other_sessions(request, session_id))

    async def asearch_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        """Async twin of `search_other_sessions`."""
        request = self._pinned(SearchRequest(query, {}, k))
        return self._owned(await (await self._abackend()).asearch_other_sessions(request, session_id))

    def list(self, request: ListRequest) -> MemoryList:
        """List memories; see `ScopedMemory.get_all`."""
        return self._owned(self._backend.list(replace(request, filters=self._scope.query_filter(request.filters))))

    async def alist(self, request: ListRequest) -> MemoryList:
        """Async twin of `list`."""
        rows = await (await self._abackend()).alist(replace(request, filters=self._scope.query_filter(request.filters)))
        # There may be thousands: not on the event loop.
        return await asyncio.to_thread(self._owned, rows)

    def all_rows(self) -> Rows:
        """Return all of this user's rows, also expired ones, the latest first, as the client returns them."""
        return self._scope.require_own(self._backend.list_including_expired(self.user_id))

    async def aall_rows(self) -> Rows:
        """Async twin of `all_rows`."""
        rows = await (await self._abackend()).alist_including_expired(self.user_id)
        return await asyncio.to_thread(self._scope.require_own, rows)

    def get(self, memory_id: str) -> MemoryRecord:
        """Read one memory; see `ScopedMemory.get`."""
        return self._found(self._backend.get(self.user_id, validate_memory_id(memory_id)))

    async def aget(self, memory_id: str) -> MemoryRecord:
        """Async twin of `get`."""
        memory_id = validate_memory_id(memory_id)
        return self._found(await (await self._abackend()).aget(self.user_id, memory_id))

    def history(self, memory_id: str) -> Changes:
        """Return what happened to a memory; see `ScopedMemory.history`."""
        memory_id = validate_memory_id(memory_id)
        backend = self._backend
        self._found(backend.get(self.user_id, memory_id))
        return backend.history(self.user_id, memory_id)

    async def ahistory(self, memory_id: str) -> Changes:
        """Async twin of `history`."""
        memory_id = validate_memory_id(memory_id)
        backend = await self._abackend()
        self._found(await backend.aget(self.user_id, memory_id))
        return await backend.ahistory(self.user_id, memory_id)

    def count(self) -> int:
        """Return how many memories `list` returns; see `ScopedMemory.count`."""
        return self._backend.count(self.user_id)

    async def acount(self) -> int:
        """Async twin of `count`."""
        return await (await self._abackend()).acount(self.user_id)

    # -- a turn: read at its beginning, stored at its end; an erasure in between stops it

    def erasure_token(self) -> ErasureToken | None:
        """Return a token that changes when this user is erased; None if the client cannot tell."""
        return self._backend.erasure_token(self.user_id)

    def check_not_erased(self, token: ErasureToken | None) -> None:
        """Return if this user was not erased since the token was made, or if the client cannot tell.

        Raises:
            BackendError: The user was erased since.
        """
        self._backend.check_not_erased(self.user_id, token)

    def transcript_store(self) -> TranscriptStore:
        """Return the store of this client's transcripts, and bind the client to it.

        Raises:
            BackendError: There is no store.
        """
        client, backend = self._bind()
        return binding.require_store(client, backend.transcripts)

    def transcript_stores(self) -> Stores:
        """Return every store that may hold transcripts of this user."""
        client, backend = self._bind()
        return binding.stores_of(client, backend.transcripts)

    def clear_transcript(self, session_id: str) -> None:
        """Remove a session's messages from every store that may hold some.

        Raises:
            BackendError: There is no store, or one failed.
        """
        self.transcript_store()
        for store in self.transcript_stores():
            store.clear(self.user_id, session_id)

    @contextmanager
    def turn(self, session_id: str, token: ErasureToken | None) -> Iterator[Turn]:
        """Store one turn of a session: append its messages, then remember some of it.

        What was appended is durable when the block ends, also where remembering failed. No transaction is open while
        the block runs.

        Args:
            session_id: Which session.
            token: Made when the turn began; see `erasure_token`.

        Raises:
            ConcurrentWrite: Another writer logged some of these messages meanwhile; nothing was stored: run the turn
                again.
            BackendError: The store failed, or the user was erased since the token was made: nothing was stored. Or
                remembering failed: then `Turn.appended` is True.
        """
        store, backend = self.transcript_store(), self._backend
        own = backend.transcripts
        if own is not None and own is store:
            with own.turn(self.user_id, session_id, token) as turn:
                yield turn
        else:
            yield SeparateTurn(store, backend, self.user_id, session_id, token)

    def files(self) -> Paths:
        """Return the files on this machine that hold memories and transcripts. Nothing else may write there."""
        return [*self._backend.files(), *(file for store in self.transcript_stores() for file in store.files())]


class HasScopedClient(Protocol):
    """Anything that is bound to one user: a `ScopedMemory`, a `ScopedChatMessageHistory`.

    Functions such as `create_memory_tools` take either.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> memory: HasScopedClient = ScopedMemory("u_alice")
        >>> memory.scoped_client.user_id
        'u_alice'
    """

    @property
    def scoped_client(self) -> ScopedClient:
        """The user and the backend it works on."""


def _check_correctable(last_day: str | None, request: UpdateRequest) -> None:
    if request.expires_on is ... and is_expired(last_day, datetime.now(UTC).date()):
        raise MemoryNotFoundError(
            "this memory is past its last day, so no search would find the correction: pass expires_on=None or a day "
            "to come, and it is found again"
        )


def _require_deleted(existed: bool) -> None:
    if not existed:
        raise MemoryNotFoundError(_NOT_FOUND)
