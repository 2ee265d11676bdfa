"""The few calls ScopedMemory needs of a mem0 client, and what each promises; nothing here knows which client it is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from ..scope import SESSION_KEY

T = TypeVar("T")

Row = dict[str, Any]
"""A memory as mem0 shows it: id, memory, user_id, metadata, created_at, …"""

_WIDEST: Final = 1_000
"""How many matches are looked through for those from other sessions, at most."""


@dataclass(frozen=True, slots=True)
class AddRequest:
    """What one add stores, already inside the scope. Its `repr` leaves out what was said.

    Attributes:
        messages: `{"role", "content"}` in order; never empty.
        metadata: Checked metadata, the session included.
        infer: True to have facts extracted, False to keep the text verbatim, None for True where there is a model.
        said_at: ISO 8601, or None for now.
        expires_on: YYYY-MM-DD, or None.
        wait: False to return before a hosted platform has finished, unless an answer was lost on the way.
        since: Where the user stood when what is said here was begun; see `Backend.beginning`.
        speakers: Who said each message, where it was told; for a client to which a name is no more than a name.
    """

    messages: list[dict[str, str]] = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    infer: bool | None
    said_at: str | None
    expires_on: str | None
    wait: bool
    since: Sequence[Any] | None = None
    speakers: Sequence[str | None] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search, already inside the scope. Its `repr` leaves out what is looked for.

    Attributes:
        query: What to look for.
        filters: The pinned filter.
        k: At most so many rows.
        threshold: Lowest score, or None for the client's default.
    """

    query: str = field(repr=False)
    filters: dict[str, Any] = field(repr=False)
    k: int
    threshold: float | None


class Backend(ABC):
    """A mem0 client behind the calls a scope makes.

    Every method names its user; none checks ownership, which is ScopedMemory's part. Failures are BackendError. The
    async twins run the sync call in a thread; a client with real async overrides them.
    """

    @abstractmethod
    def add(self, user_id: str, batch: AddRequest) -> list[Row]:
        """Store messages; return the rows that were stored."""

    @abstractmethod
    def search(self, question: SearchRequest) -> list[Row]:
        """Return matching rows, best first, expired ones left out."""

    def search_other_sessions(self, question: SearchRequest, session_id: str) -> list[Row]:
        """As `search`, or for a blank query as `rows`; what was learnt in this session left out.

        Stores differ in whether "not this session" covers memories of no session, so more are asked for instead.
        """
        for wide in fetch_sizes(question.k):
            found = self.search(replace(question, k=wide)) if question.query else self.rows(question.filters, wide)
            if (others := exclude_session(found, session_id, question.k, wide)) is not None:
                break
        return others or []

    @abstractmethod
    def rows(self, filters: dict[str, Any], limit: int | None) -> list[Row]:
        """Return all rows, or `limit` of them: what was said last comes first; expired ones left out, no other cap."""

    @abstractmethod
    def list_including_expired(self, user_id: str) -> list[Row]:
        """Return all rows of a user, expired ones too: what was said last comes first."""

    @abstractmethod
    def get(self, memory_id: str) -> Row | None:
        """Return the row of that id, whosever it is, or None."""

    @abstractmethod
    def update(self, user_id: str, memory_id: str, text: str | None, metadata: dict[str, Any] | None) -> Row | None:
        """Correct a row this user owns, leaving its old text nowhere; return it as it is now, None where it is gone."""

    @abstractmethod
    def delete(self, user_id: str, memory_id: str) -> bool:
        """Remove a row this user owns, leaving its text nowhere. False where it is gone."""

    @abstractmethod
    def history(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        """Return what happened to a row this user owns, oldest first."""

    @abstractmethod
    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove all of this user's data, look again, and count what went, by kind.

        Raises:
            ErasureError: Something is still there.
        """

    @abstractmethod
    def beginning(self, user_id: str) -> Sequence[Any] | None:
        """Note where a user stands, for an add that must fail if the user is erased before it.

        Returns:
            A few numbers, which may be kept as JSON; None where the client cannot tell.
        """

    @abstractmethod
    def check_not_erased(self, user_id: str, since: Sequence[Any] | None) -> None:
        """Let a call that began at `since` go on.

        Raises:
            BackendError: The user was erased since.
        """

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Do several calls on this client: all of them in one thread, or each as its async twin where that is real."""
        return await asyncio.to_thread(work)

    async def aadd(self, user_id: str, batch: AddRequest) -> list[Row]:
        return await asyncio.to_thread(self.add, user_id, batch)

    async def asearch(self, question: SearchRequest) -> list[Row]:
        return await asyncio.to_thread(self.search, question)

    async def asearch_other_sessions(self, question: SearchRequest, session_id: str) -> list[Row]:
        return await asyncio.to_thread(self.search_other_sessions, question, session_id)

    async def alist(self, filters: dict[str, Any], limit: int | None) -> list[Row]:
        return await asyncio.to_thread(self.rows, filters, limit)

    async def alist_including_expired(self, user_id: str) -> list[Row]:
        return await asyncio.to_thread(self.list_including_expired, user_id)

    async def aget(self, memory_id: str) -> Row | None:
        return await asyncio.to_thread(self.get, memory_id)

    async def aupdate(
        self, user_id: str, memory_id: str, text: str | None, metadata: dict[str, Any] | None
    ) -> Row | None:
        return await asyncio.to_thread(self.update, user_id, memory_id, text, metadata)

    async def adelete(self, user_id: str, memory_id: str) -> bool:
        return await asyncio.to_thread(self.delete, user_id, memory_id)

    async def ahistory(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.history, user_id, memory_id)

    async def aerase(self, user_id: str) -> Mapping[str, int]:
        return await asyncio.to_thread(self.erase, user_id)


def fetch_sizes(k: int) -> Iterator[int]:
    """How many matches to ask for, again and again, where some of them may be of no use."""
    wide = max(k, min(2 * k, _WIDEST))
    yield wide
    while wide < _WIDEST:
        wide = min(2 * wide, _WIDEST)
        yield wide


def exclude_session(found: list[Row], session_id: str, k: int, wide: int) -> list[Row] | None:
    """The best k of what was found that are not of this session; None where asking for more may give more."""
    others = [row for row in found if (row.get("metadata") or {}).get(SESSION_KEY) != session_id]
    return None if len(others) < k and len(found) == wide < _WIDEST else others[:k]


@runtime_checkable
class TransactionalClient(Protocol):
    """A mem0.Memory that keeps each user apart: one call is one transaction, and a user is erased as a whole.

    Such a client lists what was said last first, its own update and delete leave no old text behind, and its search
    leaves out rows that have nothing in common with the query.
    """

    def beginning(self, user_id: str) -> Sequence[Any] | None:
        """Note where a user stands."""

    def check_not_erased(self, user_id: str, since: Sequence[Any] | None) -> None:
        """Let a call that began at `since` go on.

        Raises:
            BackendError: The user was erased since.
        """

    def since(self, beginning: Sequence[Any] | None) -> AbstractContextManager[None]:
        """Have this thread's calls go by where the user stood then: an erasure since stops them."""

    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove a user in one transaction, look again, and count the rows by kind, in the words of ErasureReceipt.

        Raises:
            ErasureError: Something is still there.
        """
