"""What each call on mem0's hosted platform sends, step by step, and what it makes of the answers; no I/O here.

A call is a generator. It yields what is to be done next (a request, several at once, or a pause) and receives the
answer. `PlatformBackend` drives it, in a thread or on an event loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from ...errors import BackendError, ErasureError, InputError
from ...filters import matches_filters
from ...records import last_day
from ...requests import ListRequest, SearchRequest, UpdateRequest
from ...scope import Scope
from ..base import Changes, Row, Rows, exclude_session, fetch_sizes
from . import requests, responses
from .requests import Request

T = TypeVar("T")

Step: TypeAlias = Request | list[Request] | float
"""A request, several requests to be sent at once, or seconds to wait."""

Steps: TypeAlias = Generator[Step, Any, T]
"""A call: yields steps, receives the answer of each (a list of answers for several requests), returns its result."""

EVENT_TIMEOUT: Final = 120.0
"""Seconds for which an event is polled at most."""

ERASURE_TIMEOUT: Final = 10.0
"""Seconds the platform has, after an erasure, until no row answers any more."""

_LIST_PASSES: Final = 5
"""How often all pages are read, where rows come or go meanwhile."""

_ERASURE_ROUNDS: Final = 3
"""How often rows that are left are deleted one by one."""

_BATCH: Final = 50
"""Requests that are sent at once."""


def pauses(seconds: float) -> Iterator[float]:
    """Yield pauses that grow from 50 ms to 1 s, until their sum is at least `seconds`."""
    pause, spent = 0.05, 0.0
    while spent < seconds:
        yield pause
        spent += pause
        pause = min(pause * 1.4, 1.0)


def poll_event(event_id: str, operation: str, texts: Iterable[str]) -> Steps[Any]:
    """Poll an event to its end; return it.

    Args:
        event_id: The event.
        operation: What it does, as errors name it.
        texts: What it stores or deletes; no error quotes them.

    Raises:
        BackendError: It failed, or is not finished within `EVENT_TIMEOUT`.
    """
    for pause in pauses(EVENT_TIMEOUT):
        answer = yield requests.event(event_id, operation)
        status = responses.status_of(answer)
        if status == "SUCCEEDED":
            return answer
        if status == "FAILED":
            raise event_failed(operation, answer, texts)
        if answer is not None and not status:
            raise responses.unexpected_response("the status of an event")
        yield pause
    raise BackendError(
        f"mem0's platform accepted {operation}, but did not finish it within {EVENT_TIMEOUT:.0f} s; "
        "it may still finish, so look before you repeat it",
        retryable=False,
    )


def event_failed(operation: str, answer: Any, texts: Iterable[str]) -> BackendError:
    """Return the error for an event that failed."""
    reason = responses.failure_reason(answer, texts)
    return BackendError(f"mem0's platform could not finish {operation}" + (f": {reason}" if reason else ""))


# -- reading


def search(request: SearchRequest) -> Steps[Rows]:
    """Return matching rows, best first. Conditions the platform cannot check are checked here, on more rows if needed.

    Raises:
        InputError: k is above the platform's maximum.
        ScopeError: A row is another user's.
    """
    if request.k > requests.MAX_TOP_K:
        raise InputError(f"k must be at most {requests.MAX_TOP_K:,} on mem0's platform, got {request.k:,}")
    top_k = request.k
    while True:
        found = _require_own(request.filters, responses.parse_rows((yield requests.search(request, top_k))))
        matching = _matching(found, request.filters)[: request.k]
        if len(matching) == request.k or len(found) < top_k or top_k == requests.MAX_TOP_K:
            return matching
        top_k = min(top_k * 4, requests.MAX_TOP_K)


def search_other_sessions(request: SearchRequest, session_id: str) -> Steps[Rows]:
    """See `Backend.search_other_sessions`."""
    for size in fetch_sizes(min(request.k, requests.MAX_TOP_K)):
        if request.query:
            found = yield from search(SearchRequest(request.query, request.filters, size, request.threshold))
        else:
            found = yield from list_rows(ListRequest(request.filters, size))
        if (others := exclude_session(found, session_id, request.k, size)) is not None:
            return others
    return []


def list_rows(request: ListRequest) -> Steps[Rows]:
    """Return rows that are not expired, the latest first."""
    found = yield from read_pages("list", request.filters, show_expired=False)
    return _latest_first(_matching(found, request.filters))[: request.limit]


def list_including_expired(user_id: str) -> Steps[Rows]:
    """Return all rows of a user, the latest first."""
    return _latest_first((yield from read_pages("list", {"user_id": user_id}, show_expired=True)))


def count(user_id: str) -> Steps[int]:
    """Return how many rows of a user are not expired, from the first page and the last.

    The platform describes a page's `count` as the number of memories that match the filters, and hides expired ones by
    default. Whether `count` leaves out the hidden ones is not described. So it is used only where the last page, as
    computed from it, is the last and holds exactly the remaining rows; otherwise all pages are read.
    """
    filters = {"user_id": user_id}
    first = yield requests.page("count", filters, 1, show_expired=False)
    rows = _require_own(filters, responses.parse_rows(first))
    if first.get("next") is None:
        return len({row["id"] for row in rows})
    total = first.get("count")
    if type(total) is int and total > requests.PAGE_SIZE == len(rows):
        number, remaining = (total - 1) // requests.PAGE_SIZE + 1, (total - 1) % requests.PAGE_SIZE + 1
        last = yield requests.page("count", filters, number, show_expired=False)
        if last is not None and last.get("next") is None and last.get("count") == total:
            rows = _require_own(filters, responses.parse_rows(last))
            if len(rows) == remaining:
                return total
    return len((yield from read_pages("count", filters, show_expired=False)))


def read_pages(operation: str, filters: Mapping[str, Any], *, show_expired: bool) -> Steps[Rows]:
    """Read all pages; again where rows came or went meanwhile, which moves other rows between pages.

    Args:
        operation: As errors name it.
        filters: A scope's filter.
        show_expired: Whether expired rows are included.

    Returns:
        Each row once, in no particular order. Where no two passes agree, every row that any of them saw.

    Raises:
        ScopeError: A row is another user's.
    """
    all_seen: dict[str, Row] = {}
    for _ in range(_LIST_PASSES):
        seen: dict[str, Row] = {}
        counts: set[object] = set()
        number, more = 1, True
        while more:
            answer = yield requests.page(operation, filters, number, show_expired=show_expired)
            if answer is None:
                break
            rows = {row["id"]: row for row in _require_own(filters, responses.parse_rows(answer))}
            # A page without new rows is the last, whatever `next` says.
            number, more = number + 1, answer.get("next") is not None and not rows.keys() <= seen.keys()
            seen |= rows
            counts.add(answer.get("count"))
        all_seen |= seen
        if counts == {len(seen)}:
            return list(seen.values())
    return list(all_seen.values())


def get(memory_id: str) -> Steps[Row | None]:
    """Return a row; None where there is none."""
    answer = yield requests.get(memory_id)
    return None if answer is None else _require_id(memory_id, responses.parse_row(answer))


def history(user_id: str, memory_id: str) -> Steps[Changes]:
    """Return the changes of a row, oldest first."""
    answer = yield requests.history(memory_id)
    return [] if answer is None else responses.parse_history(answer, memory_id, Scope(user_id))


def sort_key(row: Row) -> str:
    """Return what rows are sorted by: when they were created."""
    return row["created_at"] or ""


def _latest_first(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: (sort_key(row), row["id"]), reverse=True)


def _matching(rows: Rows, filters: Mapping[str, Any]) -> Rows:
    conditions = {key: value for key, value in filters.items() if key not in ("user_id", requests.DEDUP_KEY)}
    return [row for row in rows if matches_filters(row["metadata"], conditions)]


def _require_own(filters: Mapping[str, Any], rows: Rows) -> Rows:
    return Scope(filters["user_id"]).require_own(rows)


def _require_id(memory_id: str, row: Row) -> Row:
    if row["id"].lower() != memory_id.lower():
        raise responses.unexpected_response("the memory that was asked for")
    return row


# -- changing


def update(user_id: str, request: UpdateRequest) -> Steps[Row | None]:
    """Correct a row; return it as it is now, None where it is gone.

    Raises:
        BackendError: The row still has its old text.
    """
    memory_id, metadata = request.memory_id, request.metadata
    before = yield requests.get(memory_id, "update")
    if before is None or _require_id(memory_id, responses.parse_row(before))["user_id"] != user_id:
        return None
    if metadata is not None:
        # The platform replaces metadata as a whole.
        metadata = {**(before.get("metadata") or {}), **metadata}
    if (yield requests.update(memory_id, request.text, metadata, request.expires_on)) is None:
        return None
    row = yield from get(memory_id)
    if row is not None and request.text is not None and row["memory"] != request.text:
        raise BackendError(
            "mem0's platform reported a successful update, but the memory still has its old text; call update again"
        )
    if row is not None and request.expires_on not in (..., last_day(row["expiration_date"])):
        raise BackendError(
            "mem0's platform reported a successful update, but the memory still has its old last day; call update again"
        )
    return row


def delete(memory_id: str) -> Steps[bool]:
    """Delete a row. One that is gone counts as deleted: the answer to an earlier attempt may have been lost.

    Raises:
        ErasureError: The row is still there.
    """
    yield requests.delete(memory_id)
    if (yield requests.get(memory_id, "delete")) is not None:
        raise ErasureError(
            "mem0's platform reported a deletion, but the memory is still there; call delete again",
            kinds=("memories",),
        )
    return True


# -- erasing


def erase(user_id: str) -> Steps[Mapping[str, int]]:
    """Delete everything of a user, wait until nothing answers any more, and return how many rows were deleted.

    Raises:
        ErasureError: Something is still there after `ERASURE_TIMEOUT`.
    """
    filters = {"user_id": user_id}
    rows = yield from read_pages("delete_all", filters, show_expired=True)
    ids = {row["id"] for row in rows}
    texts = [row["memory"] for row in rows]
    for request in (requests.delete_all(user_id), requests.delete_user(user_id)):
        answer = None if request is None else (yield request)
        if (event_id := responses.event_id_of(answer)) is not None:
            yield from poll_event(event_id, "delete_all", texts)
    for _ in range(_ERASURE_ROUNDS):
        # The platform may leave rows to which other code gave further ids; its documentation can be read both ways.
        left = {row["id"] for row in (yield from read_pages("delete_all", filters, show_expired=True))}
        if not left:
            break
        ids |= left
        for batch in _batches(sorted(left)):
            yield [requests.delete(memory_id, "delete_all") for memory_id in batch]
    kinds: tuple[str, ...] = ()
    for pause in pauses(ERASURE_TIMEOUT):
        kinds = yield from _find_remaining(user_id, ids)
        if not kinds:
            return {"memories": len(ids)}
        yield pause
    raise ErasureError(
        f"the erasure is not finished, still there: {', '.join(kinds)}; call delete_all again", kinds=kinds
    )


def _find_remaining(user_id: str, ids: set[str]) -> Steps[tuple[str, ...]]:
    """Return what still answers: a search, a list, any memory by its id, or the history of any."""
    kinds: dict[str, None] = {}
    if (yield from read_pages("delete_all", {"user_id": user_id}, show_expired=True)):
        kinds["memories"] = None
    if responses.parse_rows((yield requests.search_remaining(user_id))):
        kinds["memories"] = None
    for batch in _batches(sorted(ids)):
        if any((yield [requests.get(memory_id, "delete_all") for memory_id in batch])):
            kinds["memories"] = None
        if any((yield [requests.history(memory_id, "delete_all") for memory_id in batch])):
            kinds["history"] = None
    return tuple(kinds)


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
