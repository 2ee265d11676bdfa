"""mem0's hosted platform behind the port: what takes several requests is written once, for threads and event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from ...errors import BackendError, ErasureError, InputError
from ...filters import matches_filters
from ...scope import Scope
from ..base import AddRequest, Backend, Row, SearchRequest, exclude_session, fetch_sizes
from . import requests
from .transport import OutcomeUnknown, Transport

if TYPE_CHECKING:
    import mem0

T = TypeVar("T")

Steps = Generator["requests.Request | list[requests.Request] | float", Any, T]
"""What is to be done: send a request, or several at once, or wait for so many seconds; answered with what came."""

EVENT_TIMEOUT: Final = 120.0
"""Seconds for which an event is followed at most."""

LOST_ADD_TIMEOUT: Final = 5.0
"""Seconds for which an add whose answer was lost is looked for before it is sent again."""

ERASURE_TIMEOUT: Final = 10.0
"""Seconds that the platform is given, once an erasure is done, until nothing answers any more."""

_SENDS: Final = 4
_PASSES: Final = 5
_ROUNDS: Final = 3
_AT_ONCE: Final = 50
_THREADS: Final = 8


class PlatformBackend(Backend):
    """Speaks to the platform with one `mem0.MemoryClient`: over its address, its key and its connections."""

    def __init__(self, client: mem0.MemoryClient) -> None:
        self._transport = Transport(client)

    # -- the two drivers

    def _run(self, steps: Steps[T]) -> T:
        answer, failure = None, None
        while True:
            try:
                step = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration as done:
                result: T = done.value
                return result
            answer, failure = None, None
            try:
                if isinstance(step, requests.Request):
                    answer = self._transport.send(step)
                elif isinstance(step, list):
                    with ThreadPoolExecutor(min(_THREADS, len(step) or 1)) as pool:
                        answer = list(pool.map(self._transport.send, step))
                else:
                    time.sleep(step)
            except BackendError as error:
                failure = error

    async def _arun(self, steps: Steps[T]) -> T:
        answer, failure = None, None
        while True:
            try:
                step = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration as done:
                result: T = done.value
                return result
            answer, failure = None, None
            try:
                if isinstance(step, requests.Request):
                    answer = await self._transport.asend(step)
                elif isinstance(step, list):
                    answer = await asyncio.gather(*map(self._transport.asend, step))
                else:
                    await asyncio.sleep(step)
            except BackendError as error:
                failure = error

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        return await awork()

    # -- the port, twice

    def add(self, user_id: str, batch: AddRequest) -> list[Row]:
        return self._run(_add(user_id, batch))

    async def aadd(self, user_id: str, batch: AddRequest) -> list[Row]:
        return await self._arun(_add(user_id, batch))

    def search(self, question: SearchRequest) -> list[Row]:
        return self._run(_search(question))

    async def asearch(self, question: SearchRequest) -> list[Row]:
        return await self._arun(_search(question))

    def search_other_sessions(self, question: SearchRequest, session_id: str) -> list[Row]:
        return self._run(_search_other_sessions(question, session_id))

    async def asearch_other_sessions(self, question: SearchRequest, session_id: str) -> list[Row]:
        return await self._arun(_search_other_sessions(question, session_id))

    def rows(self, filters: dict[str, Any], limit: int | None) -> list[Row]:
        return self._run(_rows(filters, limit))

    async def alist(self, filters: dict[str, Any], limit: int | None) -> list[Row]:
        return await self._arun(_rows(filters, limit))

    def list_including_expired(self, user_id: str) -> list[Row]:
        return self._run(_stored(user_id))

    async def alist_including_expired(self, user_id: str) -> list[Row]:
        return await self._arun(_stored(user_id))

    def get(self, memory_id: str) -> Row | None:
        return self._run(_get(memory_id))

    async def aget(self, memory_id: str) -> Row | None:
        return await self._arun(_get(memory_id))

    def update(self, user_id: str, memory_id: str, text: str | None, metadata: dict[str, Any] | None) -> Row | None:
        return self._run(_update(user_id, memory_id, text, metadata))

    async def aupdate(
        self, user_id: str, memory_id: str, text: str | None, metadata: dict[str, Any] | None
    ) -> Row | None:
        return await self._arun(_update(user_id, memory_id, text, metadata))

    def delete(self, user_id: str, memory_id: str) -> bool:
        return self._run(_delete(memory_id))

    async def adelete(self, user_id: str, memory_id: str) -> bool:
        return await self._arun(_delete(memory_id))

    def history(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        return self._run(_history(user_id, memory_id))

    async def ahistory(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        return await self._arun(_history(user_id, memory_id))

    def erase(self, user_id: str) -> Mapping[str, int]:
        return self._run(_erase(user_id))

    async def aerase(self, user_id: str) -> Mapping[str, int]:
        return await self._arun(_erase(user_id))

    def beginning(self, user_id: str) -> None:
        """None: the platform does not tell of erasures."""

    def check_not_erased(self, user_id: str, since: Sequence[Any] | None) -> None:
        """Nothing to go by."""


# -- adding


def _add(user_id: str, batch: AddRequest) -> Steps[list[Row]]:
    """Store messages, and stay until the platform says that they are.

    An add that is sent again must not store twice, and the platform has no key to tell it by. So each carries a mark in
    its metadata. Where an answer is lost, the mark is looked for among the user's rows; only when it does not turn up
    is the add sent again, under the same mark, and what then stands there beyond the last answer's rows is removed.
    Nothing tells of one that the platform finishes only after that: it stays, beside the one sent again.
    """
    mark = uuid4().hex
    lost: BackendError | None = None
    for sent in range(_SENDS):
        try:
            answer = yield requests.add(user_id, batch, mark)
        except BackendError as error:
            if lost is None and not isinstance(error, OutcomeUnknown):
                raise
            lost = error
        else:
            return (yield from _or_unknown(_taken_on(user_id, batch, mark, answer, again=sent > 0)))
        if found := (yield from _or_unknown(_find_lost_add(user_id, batch, mark))):
            return _as_said(found, batch)
    raise _unknown(lost)


def _taken_on(user_id: str, batch: AddRequest, mark: str, answer: Any, *, again: bool) -> Steps[list[Row]]:
    event_id, status = requests.event_in(answer), requests.status_of(answer)
    if event_id is None and not requests.has_results(answer):
        raise requests.unexpected_response("an event or its results")
    # One that was sent again is waited for whatever the caller said: only when it is done can it be told from the one
    # that was lost, whose rows would stay for good. To return at once would be to store twice.
    if not batch.wait and not again and batch.infer is not False and status != "FAILED":
        return requests.pending(batch, user_id, event_id)
    if event_id is not None and status != "SUCCEEDED":
        answer = yield from _poll_event(event_id, "add", batch.messages)
    elif status == "FAILED":
        raise _event_failed("add", answer, batch.messages)
    found = yield from _marked(user_id, mark)
    return _as_said((yield from _remove_duplicates(found, answer)) if again else found, batch)


def _or_unknown(steps: Steps[T]) -> Steps[T]:
    """Do what follows once an add may have been acted on: whoever meets a failure then must not simply add again."""
    try:
        return (yield from steps)
    except BackendError as error:
        if not error.retryable:
            raise
        lost = error
    raise _unknown(lost)


def _unknown(lost: BackendError | None) -> BackendError:
    return BackendError(
        f"it is not known whether mem0's platform has stored this: {lost}; look for it before adding it again"
    )


def _marked(user_id: str, mark: str) -> Steps[list[Row]]:
    rows = yield from _listed("add", {"user_id": user_id, requests.DEDUP_KEY: mark}, show_expired=True)
    rows.reverse()
    rows.sort(key=_when)
    return rows


def _as_said(rows: list[Row], batch: AddRequest) -> list[Row]:
    """Give the rows of messages that are kept verbatim the order of these, and who said each."""
    if batch.infer is not False:
        return rows
    by_text: dict[str, list[Row]] = {}
    for row in reversed(rows):
        by_text.setdefault(row["memory"], []).append(row)
    said = [
        {**by_text[message["content"]].pop(), "role": message["role"]}
        for message in batch.messages
        if by_text.get(message["content"])
    ]
    return said + [row for rest in by_text.values() for row in rest]


def _find_lost_add(user_id: str, batch: AddRequest, mark: str) -> Steps[list[Row]]:
    """Look for an add whose answer was lost, until all of it is there."""
    extracts = batch.infer is not False
    expected = 0 if extracts else len(batch.messages)
    # What is kept verbatim is there at once, or never.
    for seconds in _growing(LOST_ADD_TIMEOUT if extracts else LOST_ADD_TIMEOUT / 10):
        yield seconds
        found = yield from _marked(user_id, mark)
        if expected and len(found) >= expected:
            return found
        if extracts:  # How many facts there will be nobody knows: as many as two looks find.
            expected = len(found)
    return []


def _remove_duplicates(found: list[Row], answer: Any) -> Steps[list[Row]]:
    """Keep what the last answer tells of, and remove what an earlier one that was lost has stored as well."""
    results = answer.get("results") if isinstance(answer, Mapping) else None
    told = {str(one.get("id")) for one in results or () if isinstance(one, Mapping)}
    if not any(row["id"] in told for row in found):
        return found
    twice = [row["id"] for row in found if row["id"] not in told]
    if twice:
        yield [requests.delete(memory_id, "add") for memory_id in twice]
    return [row for row in found if row["id"] in told]


def _poll_event(event_id: str, doing: str, messages: Sequence[Mapping[str, str]] = ()) -> Steps[Any]:
    """Follow an event to its end.

    Raises:
        BackendError: It failed, or takes longer than `EVENT_TIMEOUT`.
    """
    for seconds in _growing(EVENT_TIMEOUT):
        answer = yield requests.event(event_id, doing)
        status = requests.status_of(answer)
        if status == "SUCCEEDED":
            return answer
        if status == "FAILED":
            raise _event_failed(doing, answer, messages)
        if answer is not None and not status:
            raise requests.unexpected_response("how far an event has come")
        yield seconds
    raise BackendError(
        f"mem0's platform has taken {doing} on, but not finished it in {EVENT_TIMEOUT:.0f} s", retryable=False
    )


def _event_failed(doing: str, answer: Any, messages: Sequence[Mapping[str, str]]) -> BackendError:
    reason = requests.reason_in(answer, messages)
    return BackendError(f"mem0's platform could not finish {doing}" + (f": {reason}" if reason else ""))


def _growing(seconds: float) -> Iterator[float]:
    """Pauses that grow from 50 ms to 1 s and together last so long."""
    pause, spent = 0.05, 0.0
    while spent < seconds:
        yield pause
        spent += pause
        pause = min(pause * 1.4, 1.0)


# -- reading


def _search(question: SearchRequest) -> Steps[list[Row]]:
    if question.k > requests.MOST_FOUND:
        raise InputError(f"k must be at most {requests.MOST_FOUND:,} on mem0's platform, got {question.k:,}")
    wide = question.k
    while True:
        found = _own(question.filters, requests.rows_in((yield requests.search(question, wide))))
        kept = [row for row in found if matches_filters(row["metadata"], _conditions(question.filters))][: question.k]
        if len(kept) == question.k or len(found) < wide or wide == requests.MOST_FOUND:
            return kept
        wide = min(wide * 4, requests.MOST_FOUND)


def _search_other_sessions(question: SearchRequest, session_id: str) -> Steps[list[Row]]:
    for wide in fetch_sizes(min(question.k, requests.MOST_FOUND)):
        if question.query:
            wider = SearchRequest(question.query, question.filters, wide, question.threshold)
            found = yield from _search(wider)
        else:
            found = yield from _rows(question.filters, wide)
        if (others := exclude_session(found, session_id, question.k, wide)) is not None:
            return others
    return []


def _rows(filters: Mapping[str, Any], limit: int | None) -> Steps[list[Row]]:
    found = yield from _listed("list", filters, show_expired=False)
    return _latest_first(row for row in found if matches_filters(row["metadata"], _conditions(filters)))[:limit]


def _stored(user_id: str) -> Steps[list[Row]]:
    return _latest_first((yield from _listed("list", {"user_id": user_id}, show_expired=True)))


def _latest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (_when(row), row["id"]), reverse=True)


def _when(row: Row) -> str:
    return row["created_at"] or ""


def _listed(doing: str, filters: Mapping[str, Any], *, show_expired: bool) -> Steps[list[Row]]:
    """Read all pages; again where rows came or went meanwhile, which moves others from one page to the next."""
    ever: dict[str, Row] = {}
    for _ in range(_PASSES):
        seen: dict[str, Row] = {}
        counts: set[object] = set()
        number, more = 1, True
        while more:
            answer = yield requests.page(doing, filters, number, show_expired=show_expired)
            if answer is None:
                break
            rows = {row["id"]: row for row in _own(filters, requests.rows_in(answer))}
            # A page of nothing new is the last, whatever it says.
            number, more = number + 1, answer.get("next") is not None and not rows.keys() <= seen.keys()
            seen |= rows
            counts.add(answer.get("count"))
        ever |= seen
        if counts == {len(seen)}:
            return list(seen.values())
    return list(ever.values())


def _own(filters: Mapping[str, Any], rows: list[Row]) -> list[Row]:
    return Scope(filters["user_id"]).require_own(rows)


def _conditions(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in filters.items() if key not in ("user_id", requests.DEDUP_KEY)}


def _get(memory_id: str) -> Steps[Row | None]:
    answer = yield requests.get(memory_id)
    return None if answer is None else _that(memory_id, requests.row_of(answer))


def _that(memory_id: str, row: Row) -> Row:
    if row["id"].lower() != memory_id.lower():
        raise requests.unexpected_response("the memory that was asked for")
    return row


def _history(user_id: str, memory_id: str) -> Steps[list[dict[str, Any]]]:
    answer = yield requests.history(memory_id)
    return [] if answer is None else requests.told_history(answer, memory_id, Scope(user_id))


# -- changing


def _update(user_id: str, memory_id: str, text: str | None, metadata: Mapping[str, Any] | None) -> Steps[Row | None]:
    before = yield requests.get(memory_id, "update")
    if before is None or _that(memory_id, requests.row_of(before))["user_id"] != user_id:
        return None
    # The platform takes metadata whole.
    whole = None if metadata is None else {**(before.get("metadata") or {}), **metadata}
    if (yield requests.update(memory_id, text, whole)) is None:
        return None
    row = yield from _get(memory_id)
    if row is not None and text is not None and row["memory"] != text:
        raise BackendError("mem0's platform reported success, but the memory still has its old text")
    return row


def _delete(memory_id: str) -> Steps[bool]:
    # Gone already is as good: the answer to the first attempt may have been lost.
    yield requests.delete(memory_id)
    if (yield requests.get(memory_id, "delete")) is not None:
        raise ErasureError("mem0's platform reported a deletion, but the memory still answers", kinds=("memories",))
    return True


# -- erasing


def _erase(user_id: str) -> Steps[Mapping[str, int]]:
    mine = {"user_id": user_id}
    rows = yield from _listed("delete_all", mine, show_expired=True)
    ids = {row["id"] for row in rows}
    texts = [{"content": row["memory"]} for row in rows]
    for request in (requests.delete_all(user_id), requests.delete_user(user_id)):
        answer = None if request is None else (yield request)
        if (event_id := requests.event_in(answer)) is not None:
            yield from _poll_event(event_id, "delete_all", texts)
    for _ in range(_ROUNDS):
        # By one reading of its documentation the platform leaves rows that other code gave further ids.
        left = {row["id"] for row in (yield from _listed("delete_all", mine, show_expired=True))}
        if not left:
            break
        ids |= left
        for some in _some(sorted(left)):
            yield [requests.delete(memory_id, "delete_all") for memory_id in some]
    kinds: tuple[str, ...] = ()
    for seconds in _growing(ERASURE_TIMEOUT):
        kinds = yield from _left(user_id, ids)
        if not kinds:
            return {"memories": len(ids)}
        yield seconds
    raise ErasureError(f"erasure is not finished, still there: {', '.join(kinds)}; call delete_all again", kinds=kinds)


def _left(user_id: str, ids: set[str]) -> Steps[tuple[str, ...]]:
    """What still answers: a search, a list, any memory by its id, or the history of any."""
    kinds: dict[str, None] = {}
    if (yield from _listed("delete_all", {"user_id": user_id}, show_expired=True)):
        kinds["memories"] = None
    if requests.rows_in((yield requests.remains(user_id))):
        kinds["memories"] = None
    for some in _some(sorted(ids)):
        if any((yield [requests.get(memory_id, "delete_all") for memory_id in some])):
            kinds["memories"] = None
        if any((yield [requests.history(memory_id, "delete_all") for memory_id in some])):
            kinds["history"] = None
    return tuple(kinds)


def _some(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
