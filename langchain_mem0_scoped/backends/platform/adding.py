"""How an add reaches mem0's hosted platform exactly once, although the platform has no idempotency key; no I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import BackendError
from ...requests import AddRequest
from ..base import Row, Rows
from . import requests, responses
from .operations import Steps, T, event_failed, pauses, poll_event, read_pages, sort_key
from .transport import OutcomeUnknown

LOST_ADD_TIMEOUT: Final = 5.0
"""Seconds for which an add whose answer was lost is searched for before it is sent again."""

_ATTEMPTS: Final = 4
"""How often an add is sent at most."""


def add(user_id: str, request: AddRequest) -> Steps[Rows]:
    """Store messages and wait for confirmation.

    An add that is sent again must not be stored twice. So each carries a random id in its metadata, under `DEDUP_KEY`.
    Where an answer is lost, the user's rows with this id are searched for. Only if there are none is the add sent
    again, with the same id. Rows with this id that the last answer does not name are then deleted as duplicates.

    A lost add that the platform finishes only after that is not detected: its rows stay beside those of the second.

    Raises:
        BackendError: The platform refused or failed, or it is not known whether it stored the messages.
    """
    dedup_id = requests.new_dedup_id(request)
    lost: BackendError | None = None
    for attempt in range(_ATTEMPTS):
        try:
            answer = yield requests.add(user_id, request, dedup_id)
        except BackendError as error:
            if lost is None and not isinstance(error, OutcomeUnknown):
                raise
            lost = error
        else:
            return (yield from _or_unknown(_confirm_add(user_id, request, dedup_id, answer, repeated=attempt > 0)))
        if found := (yield from _or_unknown(find_lost_add(user_id, request, dedup_id))):
            return in_message_order(found, request)
    raise _outcome_unknown(lost)


def _confirm_add(user_id: str, request: AddRequest, dedup_id: str, answer: Any, *, repeated: bool) -> Steps[Rows]:
    event_id, status = responses.event_id_of(answer), responses.status_of(answer)
    texts = [message.content for message in request.messages]
    if event_id is None and not responses.has_results(answer):
        raise responses.unexpected_response("an event or its results")
    # A repeated add is waited for, whatever `wait` is. Its rows are known only when it is finished, and only then can
    # the rows of the lost add be distinguished from them and deleted.
    if not request.wait and not repeated and request.infer is not False and status != "FAILED":
        return responses.pending_rows(user_id, request, event_id)
    if event_id is not None and status != "SUCCEEDED":
        answer = yield from poll_event(event_id, "add", texts)
    elif status == "FAILED":
        raise event_failed("add", answer, texts)
    found = yield from _find_by_dedup_id(user_id, dedup_id)
    if repeated:
        found = yield from remove_duplicates(found, answer)
    return in_message_order(found, request)


def _or_unknown(steps: Steps[T]) -> Steps[T]:
    """Take steps after an add may have been stored. A retryable failure of theirs must not invite another add."""
    try:
        return (yield from steps)
    except BackendError as error:
        if not error.retryable:
            raise
        failure = error
    raise _outcome_unknown(failure)


def _outcome_unknown(failure: BackendError | None) -> BackendError:
    text = (
        f"it is not known whether mem0's platform has stored this add: {failure}; search for it before you add it again"
    )
    return BackendError(text, status=None if failure is None else failure.status)


def _find_by_dedup_id(user_id: str, dedup_id: str) -> Steps[Rows]:
    rows = yield from read_pages("add", {"user_id": user_id, requests.DEDUP_KEY: dedup_id}, show_expired=True)
    rows.reverse()
    rows.sort(key=sort_key)
    return rows


def in_message_order(rows: Rows, request: AddRequest) -> Rows:
    """Return rows of verbatim text in the order of their messages, with each message's role; other rows as they are.

    Args:
        rows: What was stored, oldest first.
        request: What was to be stored.
    """
    if request.infer is not False:
        return rows
    by_text: dict[str, list[Row]] = {}
    for row in reversed(rows):
        by_text.setdefault(row["memory"], []).append(row)
    ordered = [
        {**by_text[message.content].pop(), "role": message.role}
        for message in request.messages
        if by_text.get(message.content)
    ]
    return ordered + [row for rest in by_text.values() for row in rest]


def find_lost_add(user_id: str, request: AddRequest, dedup_id: str) -> Steps[Rows]:
    """Search for the rows of an add whose answer was lost, until they are complete; [] where there are none in time."""
    extracts = request.infer is not False
    expected = 0 if extracts else len(request.messages)
    # Verbatim text is stored at once or never.
    for pause in pauses(LOST_ADD_TIMEOUT if extracts else LOST_ADD_TIMEOUT / 10):
        yield pause
        found = yield from _find_by_dedup_id(user_id, dedup_id)
        if expected and len(found) >= expected:
            return found
        if extracts:
            # The number of facts is not known. They are complete when two searches find the same number.
            expected = len(found)
    return []


def remove_duplicates(rows: Rows, answer: Any) -> Steps[Rows]:
    """Delete rows that the answer does not name: an earlier add, whose answer was lost, stored them.

    Args:
        rows: All rows with the add's id.
        answer: The answer to the last add, or its event.

    Returns:
        The rows that stay: those the answer names, or all where it names none of them.
    """
    results = answer.get("results") if isinstance(answer, Mapping) else None
    named = {str(result.get("id")) for result in results or () if isinstance(result, Mapping)}
    if not any(row["id"] in named for row in rows):
        return rows
    if duplicates := [row["id"] for row in rows if row["id"] not in named]:
        yield [requests.delete(memory_id, "add") for memory_id in duplicates]
    return [row for row in rows if row["id"] in named]
