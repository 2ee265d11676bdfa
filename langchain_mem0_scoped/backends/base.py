"""Backend: the few calls a scope makes on a mem0 client, and what each promises, whichever client it is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from ..mem0_compat import load_mem0
from ..requests import AddRequest, ErasureToken, ListRequest, SearchRequest, UpdateRequest
from ..scope import SESSION_KEY, Scope

if TYPE_CHECKING:
    import mem0

    from ..transcripts.base import TurnStore

    Client: TypeAlias = mem0.Memory | mem0.MemoryClient
    """A mem0 client: what `local_memory()` returns, any other `mem0.Memory`, or a `mem0.MemoryClient`."""

T = TypeVar("T")

Row: TypeAlias = dict[str, Any]
"""A memory as mem0 returns it: id, memory, user_id, metadata, created_at, …"""

Rows: TypeAlias = list[Row]
Changes: TypeAlias = list[dict[str, Any]]
"""What happened to a memory, oldest first: "event" (ADD, UPDATE), "new_memory", "created_at", …"""
Paths: TypeAlias = list[Path]

_MAX_FETCH: Final = 1_000
"""At most so many matches are searched for those from other sessions."""


class Backend(ABC):
    """A mem0 client behind the calls a scope makes.

    Every call names one user: by `user_id`, or by the filters of a request, which a scope has pinned to its user. A
    backend does not check who owns the rows it returns: `ScopedClient` compares each with its user. Failures are
    `BackendError`. The async methods run the sync one in a thread; a client with real async overrides them.

    Attributes:
        transcripts: Where the client itself keeps conversations; None where it does not.
    """

    transcripts: TurnStore | None = None

    @abstractmethod
    def add(self, user_id: str, request: AddRequest) -> Rows:
        """Store messages; return the rows that were stored. A request without messages stores nothing."""

    @abstractmethod
    def search(self, request: SearchRequest) -> Rows:
        """Return matching rows, best first, expired ones left out."""

    def search_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        """As `search`, without the rows of one session; for a blank query the latest rows.

        Stores differ in whether "not this session" covers memories of no session, so more rows are fetched and those
        of the session left out here.
        """
        for size in fetch_sizes(request.k):
            if request.query:
                found = self.search(replace(request, k=size))
            else:
                found = self.list(ListRequest(request.filters, size))
            if (others := exclude_session(found, session_id, request.k, size)) is not None:
                return others
        return []

    @abstractmethod
    def list(self, request: ListRequest) -> Rows:
        """Return all rows, or the latest `limit`: what was said last first, expired ones left out, no other cap."""

    @abstractmethod
    def list_including_expired(self, user_id: str) -> Rows:
        """Return all rows of a user, expired ones too: what was said last first."""

    def count(self, user_id: str) -> int:
        """Return how many rows `list` returns without a filter.

        Raises:
            ScopeError: A row is another user's.
        """
        return len(Scope(user_id).require_own(self.list(ListRequest({"user_id": user_id}))))

    @abstractmethod
    def get(self, user_id: str, memory_id: str) -> Row | None:
        """Return a row of this user; None where there is none.

        A client that cannot ask by user may return another user's row. `ScopedClient` refuses it.
        """

    @abstractmethod
    def update(self, user_id: str, request: UpdateRequest) -> Row | None:
        """Correct a row of this user and leave its old text nowhere; return it as it is now, None where it is gone."""

    @abstractmethod
    def delete(self, user_id: str, memory_id: str) -> bool:
        """Remove a row of this user and leave its text nowhere; return False where it is gone already."""

    @abstractmethod
    def history(self, user_id: str, memory_id: str) -> Changes:
        """Return what happened to a row of this user, oldest first."""

    @abstractmethod
    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove everything of a user, look again, and return how many rows of each kind were removed.

        Raises:
            ErasureError: Something is still there.
        """

    @abstractmethod
    def erasure_token(self, user_id: str) -> ErasureToken | None:
        """Return a token that changes when the user is erased; None where the client cannot tell."""

    @abstractmethod
    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        """Return if the user was not erased since the token was made, or that cannot be known.

        Raises:
            BackendError: The user was erased since; retryable.
        """

    def files(self) -> Paths:
        """Return the files of this machine that the client writes: nothing else may be written there."""
        return []

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Make several calls: all in one thread, or each as a coroutine where the client's async is real."""
        return await asyncio.to_thread(work)

    async def aadd(self, user_id: str, request: AddRequest) -> Rows:
        return await asyncio.to_thread(self.add, user_id, request)

    async def asearch(self, request: SearchRequest) -> Rows:
        return await asyncio.to_thread(self.search, request)

    async def asearch_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        return await asyncio.to_thread(self.search_other_sessions, request, session_id)

    async def alist(self, request: ListRequest) -> Rows:
        return await asyncio.to_thread(self.list, request)

    async def alist_including_expired(self, user_id: str) -> Rows:
        return await asyncio.to_thread(self.list_including_expired, user_id)

    async def acount(self, user_id: str) -> int:
        return await asyncio.to_thread(self.count, user_id)

    async def aget(self, user_id: str, memory_id: str) -> Row | None:
        return await asyncio.to_thread(self.get, user_id, memory_id)

    async def aupdate(self, user_id: str, request: UpdateRequest) -> Row | None:
        return await asyncio.to_thread(self.update, user_id, request)

    async def adelete(self, user_id: str, memory_id: str) -> bool:
        return await asyncio.to_thread(self.delete, user_id, memory_id)

    async def ahistory(self, user_id: str, memory_id: str) -> Changes:
        return await asyncio.to_thread(self.history, user_id, memory_id)

    async def aerase(self, user_id: str) -> Mapping[str, int]:
        return await asyncio.to_thread(self.erase, user_id)


class ProvidesBackend(Protocol):
    """A client that provides its own backend: one that keeps users apart and makes each call one transaction."""

    @property
    def backend(self) -> Backend:
        """The client's backend."""


def fetch_sizes(k: int) -> Iterator[int]:
    """Yield how many matches to fetch, more each time, where some of them may have to be left out."""
    size = max(k, min(2 * k, _MAX_FETCH))
    yield size
    while size < _MAX_FETCH:
        size = min(2 * size, _MAX_FETCH)
        yield size


def exclude_session(found: Rows, session_id: str, k: int, size: int) -> Rows | None:
    """Return the best k rows that are not of this session; None where fetching more than `size` may give more."""
    others = [row for row in found if (row.get("metadata") or {}).get(SESSION_KEY) != session_id]
    return None if len(others) < k and len(found) == size < _MAX_FETCH else others[:k]


def __getattr__(name: str) -> Any:
    # mem0 takes a second to import, so its types are loaded only for those who ask for them.
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    mem0 = load_mem0()
    globals()[name] = client = mem0.Memory | mem0.MemoryClient
    return client
