"""Backend: the calls that a scope makes on a mem0 client, and what each must do. A new backend implements this."""

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
"""Maximum number of rows fetched to find rows of other sessions among them."""


class Backend(ABC):
    """The calls that a scope makes on a mem0 client.

    Every call names one user: by `user_id`, or by "user_id" in the filters of a request, which the scope adds. A
    backend need not check whose rows it returns: `ScopedClient` does. It must check rows before it deletes or counts
    them. Every failure is a `BackendError` that quotes nothing. An async method runs its sync twin in a thread. A
    client with real async overrides it.

    Attributes:
        transcripts: The client's own transcript store, if it has one.
    """

    transcripts: TurnStore | None = None

    @abstractmethod
    def add(self, user_id: str, request: AddRequest) -> Rows:
        """Store messages; return the rows that were stored. A request without messages stores nothing."""

    @abstractmethod
    def search(self, request: SearchRequest) -> Rows:
        """Return matching rows, best first, without expired ones."""

    def search_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        """As `search`, without the rows of one session; for a blank query the latest rows.

        Stores differ in whether the filter "not this session" matches rows without a session. So more rows are fetched,
        and those of the session are left out here.
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
        """Return all rows, or the latest `limit`, without expired ones, the latest first. There is no other cap."""

    @abstractmethod
    def list_including_expired(self, user_id: str) -> Rows:
        """Return all rows of a user, also expired ones, the latest first."""

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
        """Correct a row of this user and remove its old text everywhere.

        Returns:
            The row as it is now; None where it is gone.

        Raises:
            ErasureError: Some of the old text is left.
        """

    @abstractmethod
    def delete(self, user_id: str, memory_id: str) -> bool:
        """Delete a row of this user and remove its text everywhere.

        Returns:
            False where the row was gone already.

        Raises:
            ErasureError: Some of it is left.
        """

    @abstractmethod
    def history(self, user_id: str, memory_id: str) -> Changes:
        """Return the changes of a row of this user, oldest first."""

    @abstractmethod
    def erase(self, user_id: str) -> Mapping[str, int]:
        """Delete everything of a user and check that nothing is left.

        Returns:
            How many rows of each kind were deleted, by the names of `ErasureReceipt`.

        Raises:
            ErasureError: Something is still there.
        """

    @abstractmethod
    def erasure_token(self, user_id: str) -> ErasureToken | None:
        """Return a token that changes when the user is erased; None if the client cannot tell."""

    @abstractmethod
    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        """Return if the user was not erased since the token was made, or if the client cannot tell.

        Raises:
            BackendError: The user was erased since; retryable.
        """

    def files(self) -> Paths:
        """Return the files on this machine that the client writes. Nothing else may write there."""
        return []

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Make several calls: all in one thread, or each as a coroutine if the client's async is real.

        Args:
            work: Makes the calls, sync.
            awork: Makes the same calls, async.
        """
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


def added_rows(user_id: str, request: AddRequest, results: Rows, created_at: str) -> Rows:
    """Return the rows that an add of `mem0.Memory` stored, in the form in which a listing returns them.

    Args:
        user_id: Whose rows.
        request: What was added.
        results: mem0's results: each an id, a text and, for verbatim text, a role.
        created_at: The rows' date, as ISO 8601.
    """
    last_day = {"expiration_date": request.expires_on} if request.expires_on else {}
    return [
        {
            "id": result["id"],
            "memory": result["memory"],
            "user_id": user_id,
            "role": result.get("role"),
            "metadata": dict(request.metadata),
            "created_at": created_at,
            "updated_at": created_at,
            **last_day,
        }
        for result in results
    ]


def expiration_of(request: UpdateRequest) -> dict[str, str | None]:
    """Return the last day of a correction as an argument of mem0's update; none to keep the day there is."""
    return {} if request.expires_on is ... else {"expiration_date": request.expires_on}


def fetch_sizes(k: int) -> Iterator[int]:
    """Yield how many rows to fetch, growing, where k are wanted and some may be left out."""
    size = max(k, min(2 * k, _MAX_FETCH))
    yield size
    while size < _MAX_FETCH:
        size = min(2 * size, _MAX_FETCH)
        yield size


def exclude_session(found: Rows, session_id: str, k: int, size: int) -> Rows | None:
    """Return the best k rows that are not of one session.

    Args:
        found: Rows, best first.
        session_id: The session to leave out.
        k: Maximum number of rows.
        size: How many rows were asked for.

    Returns:
        None where asking for more than `size` rows may find more.
    """
    others = [row for row in found if (row.get("metadata") or {}).get(SESSION_KEY) != session_id]
    return None if len(others) < k and len(found) == size < _MAX_FETCH else others[:k]


def __getattr__(name: str) -> Any:
    # mem0 takes a second to import, so its types are loaded only for those who ask for them.
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    mem0 = load_mem0()
    globals()[name] = client = mem0.Memory | mem0.MemoryClient
    return client
