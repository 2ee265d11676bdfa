"""How answers of mem0's hosted platform are read: rows, events, reasons, changes. Pure, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ...errors import BackendError
from ...requests import AddRequest
from ...scope import Scope
from ..base import Changes, Row, Rows
from .requests import DEDUP_KEY, is_verbatim

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|“[^”]*”|«[^»]*»|\{.*\}|\[.*\]", flags=re.DOTALL)


def parse_json(text: str) -> Any:
    """Parse an answer's body.

    Raises:
        ValueError: It is not JSON. The error does not hold the text.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


def unexpected_response(expected: str) -> BackendError:
    """Return the error for an answer of another form than the platform's API description gives."""
    return BackendError(
        f"mem0's platform gave an answer of an unexpected form: expected {expected}; "
        "check the host, and whether there is a newer version of this package"
    )


# -- rows


def parse_rows(answer: Any) -> Rows:
    """Return the rows of a search or a page.

    Raises:
        BackendError: It has another form.
    """
    if not has_results(answer):
        raise unexpected_response("a list of results")
    return [parse_row(row) for row in answer["results"]]


def has_results(answer: Any) -> bool:
    """Return whether an answer holds a list of results, empty or not."""
    return isinstance(answer, Mapping) and isinstance(answer.get("results"), list)


def parse_row(answer: Any) -> Row:
    """Return a row in the form in which mem0.Memory returns it, without `DEDUP_KEY`.

    Raises:
        BackendError: It has another form.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("id"), str):
        raise unexpected_response("a memory with an id")
    if not isinstance(answer.get("memory") or "", str):
        raise unexpected_response("a memory whose text is a str")
    given = answer.get("metadata")
    metadata = dict(given) if isinstance(given, Mapping) else {}
    dedup_id = metadata.pop(DEDUP_KEY, None)
    return {
        "id": answer["id"],
        "memory": answer.get("memory") or "",
        "user_id": answer.get("user_id"),
        "score": answer.get("score"),
        "metadata": metadata,
        "created_at": _to_utc(answer.get("created_at")),
        "updated_at": _to_utc(answer.get("updated_at")),
        "expiration_date": answer.get("expiration_date"),
        "extracted": not is_verbatim(dedup_id),
    }


def pending_rows(user_id: str, request: AddRequest, event_id: str | None) -> Rows:
    """Return what an add that is not waited for returns: a row for each message, without an id, "PENDING" in metadata.

    Args:
        user_id: Whose rows.
        request: What is being added.
        event_id: The platform's event, if it named one.
    """
    status = {"status": "PENDING", **({} if event_id is None else {"event_id": event_id})}
    return [
        {
            "id": "",
            "memory": message.content,
            "user_id": user_id,
            "role": message.role,
            "metadata": {**request.metadata, **status},
            "expiration_date": request.expires_on,
        }
        for message in request.messages
    ]


def _to_utc(timestamp: Any) -> str | None:
    try:
        return datetime.fromisoformat(str(timestamp)).astimezone(UTC).isoformat()
    except ValueError:
        return None if timestamp is None else str(timestamp)


# -- events


def status_of(answer: Any) -> str:
    """Return a queued operation's status: "PENDING", "RUNNING", "SUCCEEDED", "FAILED", or "" where there is none."""
    return str(answer.get("status") or "").upper() if isinstance(answer, Mapping) else ""


def event_id_of(answer: Any) -> str | None:
    """Return the id of the event to poll, where an answer names one."""
    event_id = answer.get("event_id") if isinstance(answer, Mapping) else None
    return event_id if isinstance(event_id, str) and event_id else None


def failure_reason(answer: Any, texts: Iterable[str]) -> str:
    """Return why an event failed, without any word of the texts it was about.

    Quotations are removed, and every word that is in the texts. Most reasons stay readable.

    Args:
        answer: The event.
        texts: What the event was to store or delete.
    """
    if not isinstance(answer, Mapping):
        return ""
    private = {word for text in texts for word in _WORD.findall(str(text).casefold())}
    unquoted = _QUOTED.sub("…", str(answer.get("error") or ""))
    kept = _WORD.sub(lambda word: "…" if word.group().casefold() in private else word.group(), unquoted)
    return re.sub(r"(?:…\W*)+", "… ", kept).strip()[:200]


# -- changes


def parse_history(answer: Any, memory_id: str, scope: Scope) -> Changes:
    """Return the changes of a row, oldest first. Only the last has text, and none has the conversation it came from.

    Args:
        answer: What the platform answered.
        memory_id: Which row.
        scope: Whose row.

    Raises:
        ScopeError: A change is of another user's row.
        BackendError: It has another form, or is of another row.
    """
    if not isinstance(answer, list) or not all(isinstance(change, Mapping) for change in answer):
        raise unexpected_response("a list of changes")
    scope.require_own([dict(change) for change in answer])
    if any(str(change.get("memory_id")).lower() != memory_id.lower() for change in answer):
        raise unexpected_response("changes of the memory that was asked for")
    changes = sorted(
        (
            {key: change.get(key) for key in ("id", "memory_id", "event", "new_memory", "created_at", "updated_at")}
            for change in answer
        ),
        key=lambda change: str(_to_utc(change["created_at"])),
    )
    for change in changes[:-1]:
        change["new_memory"] = None
    return [{**change, "old_memory": None} for change in changes]
