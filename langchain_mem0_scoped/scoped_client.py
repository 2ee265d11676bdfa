"""One user's scope on one client: how it is bound, what it lets out, and what a turn does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from . import backends as clients
from .backends.base import SearchRequest
from .errors import MemoryNotFoundError
from .records import MemoryList, MemoryRecord, record_from
from .requests import add_request
from .scope import Scope
from .transcripts import base as transcripts

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends import Client
    from .backends.base import Backend, Row
    from .messages import MessageLike
    from .transcripts.base import TranscriptStore

T = TypeVar("T")

_NOT_FOUND = "this user has no memory of that id"


class ScopedClient:
    """What `ScopedMemory` stands on: through this the rest of the package reaches a client, and names no user."""

    __slots__ = ("__weakref__", "_bound", "_client", "_scope", "_transcripts")

    def __init__(self, user_id: str, *, client: Client | None = None, transcripts: str | Engine | None = None) -> None:
        self._scope = Scope(user_id)
        clients.check_client(client)
        self._client = client
        self._transcripts = transcripts
        self._bound: tuple[Client, Backend] | None = None

    @property
    def user_id(self) -> str:
        """Whose memories these are; fixed at construction."""
        return self._scope.user_id

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # What is bound belongs to this process: a copy, here or in another one, binds its own.
        kept = {"_client": self._client, "_scope": self._scope, "_transcripts": self._transcripts}
        return None, {**kept, "_bound": None}

    def _bind(self) -> tuple[Client, Backend]:
        if self._bound is None:
            client = clients.resolve(self._client)
            transcripts.bind(client, self._transcripts)
            self._bound = client, clients.backend_for(client)
        return self._bound

    def _backend(self) -> Backend:
        return self._bind()[1]

    async def _abackend(self) -> Backend:
        if self._bound is None and not (clients.is_open(self._client) and self._transcripts is None):
            # The first call imports mem0 and opens a file: not on the event loop.
            await asyncio.to_thread(self._bind)
        return self._backend()

    async def _run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Do several calls without blocking the event loop; see `Backend.run_sync_or_async`."""
        return await (await self._abackend()).run_sync_or_async(work, awork)

    # -- what comes out

    def _all_rows_of_user(self) -> list[Row]:
        """All of this user's rows as the client keeps them, what was said last first: also those no longer shown."""
        return self._scope.require_own(self._backend().list_including_expired(self.user_id))

    async def _aall_rows_of_user(self) -> list[Row]:
        """Async twin of `_all_rows_of_user`."""
        rows = await (await self._abackend()).alist_including_expired(self.user_id)
        # There may be thousands: not on the event loop.
        return await asyncio.to_thread(self._scope.require_own, rows)

    def _own(self, rows: list[Row]) -> MemoryList:
        return MemoryList(map(record_from, self._scope.require_own(rows)))

    def _found(self, row: Row | None) -> MemoryRecord:
        """By id means fetch, own, act: one answer for what is missing and what is somebody else's."""
        if row is None or not self._scope.owns(row):
            row = None  # Some error trackers send local variables along.
            raise MemoryNotFoundError(_NOT_FOUND)
        return record_from(row)

    def _erase_transcripts(self) -> int:
        store = transcripts.store_of(self._bind()[0])
        return 0 if store is None else store.erase(self.user_id)

    # -- a turn, which is read at its beginning and written at its end: an erasure in between stops it

    def _begin(self) -> Sequence[Any] | None:
        """Note where this user stands, for `_remember`; None where the client cannot tell."""
        return self._backend().beginning(self.user_id)

    def _transcript_store(self) -> TranscriptStore:
        """Where this client's conversations are logged.

        Raises:
            BackendError: Nowhere.
        """
        return transcripts.require_store(self._bind()[0])

    def _check_not_erased(self, since: Sequence[Any] | None) -> None:
        """Let a turn that began then go on.

        Raises:
            BackendError: The user was erased since.
        """
        self._backend().check_not_erased(self.user_id, since)

    def _remember(
        self,
        said: MessageLike | Sequence[MessageLike],
        session_id: str | None,
        since: Sequence[Any] | None,
        infer: bool | None = None,
    ) -> MemoryList:
        """As `add`, for what was said in a turn that began then.

        Raises:
            BackendError: As `add`, or the user was erased since: what was said may quote what was erased.
        """
        batch = add_request(said, session_id=session_id, infer=infer, since=since)
        return self._own(self._backend().add(self.user_id, batch) if batch.messages else [])

    async def _aremember(
        self,
        said: MessageLike | Sequence[MessageLike],
        session_id: str | None,
        since: Sequence[Any] | None,
        infer: bool | None = None,
    ) -> MemoryList:
        """Async twin of `_remember`."""
        batch = add_request(said, session_id=session_id, infer=infer, since=since)
        return self._own(await (await self._abackend()).aadd(self.user_id, batch) if batch.messages else [])

    def _search_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        """What matches a clean query best, or for "" the latest; this session's own memories left out."""
        return self._own(
            self._backend().search_other_sessions(SearchRequest(query, self._scope.query_filter(), k, None), session_id)
        )

    async def _asearch_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        """Async twin of `_search_other_sessions`."""
        asked = SearchRequest(query, self._scope.query_filter(), k, None)
        return self._own(await (await self._abackend()).asearch_other_sessions(asked, session_id))


def raise_if_missing(existed: bool) -> None:
    """Raise what is raised for an id that is missing, where nothing was deleted."""
    if not existed:
        raise MemoryNotFoundError(_NOT_FOUND)
