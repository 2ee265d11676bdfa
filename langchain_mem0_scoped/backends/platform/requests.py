"""What is said to mem0's hosted platform, and how its answers are read: every request names its user here, and once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from ...errors import BackendError, ScopeError
from ...scope import Scope
from ..base import AddRequest, Row, SearchRequest

PAGE_SIZE: Final = 200
"""Rows of a page: the most that the platform gives (its API description, `page_size`)."""

MOST_FOUND: Final = 1_000
"""Rows of a search: the most that the platform gives (its API description, `top_k`)."""

DEDUP_KEY: Final = "langchain_mem0_scoped"
"""The metadata key under which an add is known again, should its answer be lost; no record shows it."""

_PLAIN = re.compile(r"[A-Za-z0-9_@+:~-][A-Za-z0-9_@+:.~-]*")
"""User ids that stay one segment of a path, whatever a proxy on the way decodes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, complete but for the platform's address and key. Its `repr` leaves out what it says.

    Attributes:
        doing: What for, in the words of an error.
        method: HTTP's.
        path: Begins and ends with a slash.
        params: The query string.
        body: Sent as JSON.
        repeatable: Whether sending it twice does no more than sending it once.
        may_be_gone: Whether 404 is an answer rather than an error.
    """

    doing: str
    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotent: bool = True
    may_be_gone: bool = False


# -- requests


def add(user_id: str, batch: AddRequest, mark: str) -> Request:
    """Store messages, under a mark by which they are found again."""
    body: dict[str, Any] = {
        "messages": batch.messages,
        "user_id": Scope(user_id).user_id,
        "metadata": {**batch.metadata, DEDUP_KEY: mark},
        "infer": batch.infer is not False,
    }
    if batch.said_at is not None:
        body["timestamp"] = int(datetime.fromisoformat(batch.said_at).timestamp())
    if batch.expires_on is not None:
        body["expiration_date"] = batch.expires_on
    return Request("add", "POST", "/v3/memories/add/", body=body, idempotent=False)


def search(question: SearchRequest, k: int) -> Request:
    """Find rows."""
    body: dict[str, Any] = {"query": question.query, "filters": filters_of(question.filters), "top_k": k}
    if question.threshold is not None:
        body["threshold"] = question.threshold
    return Request("search", "POST", "/v3/memories/search/", body=body)


def remains(user_id: str) -> Request:
    """Search for whatever is left of a user, expired rows too."""
    body = {
        "query": "anything",
        "filters": filters_of({"user_id": user_id}),
        "top_k": MOST_FOUND,
        "threshold": 0.0,
        "show_expired": True,
    }
    return Request("delete_all", "POST", "/v3/memories/search/", body=body)


def page(doing: str, filters: Mapping[str, Any], number: int, *, show_expired: bool) -> Request:
    """Read a page of rows, counted from 1."""
    body: dict[str, Any] = {"filters": filters_of(filters)}
    if show_expired:
        body["show_expired"] = True
    params = {"page": number, "page_size": PAGE_SIZE}
    return Request(doing, "POST", "/v3/memories/", params, body, may_be_gone=number > 1)


def get(memory_id: str, doing: str = "get") -> Request:
    """Read a row."""
    return Request(doing, "GET", f"/v1/memories/{_uuid(memory_id)}/", may_be_gone=True)


def update(memory_id: str, text: str | None, metadata: Mapping[str, Any] | None) -> Request:
    """Correct a row; its metadata are given whole."""
    body = {} if text is None else {"text": text}
    if metadata is not None:
        body |= {"metadata": dict(metadata)}  # type: ignore[dict-item]
    return Request("update", "PUT", f"/v1/memories/{_uuid(memory_id)}/", body=body, may_be_gone=True)


def delete(memory_id: str, doing: str = "delete") -> Request:
    """Remove a row."""
    return Request(doing, "DELETE", f"/v1/memories/{_uuid(memory_id)}/", may_be_gone=True)


def history(memory_id: str, doing: str = "history") -> Request:
    """Read what happened to a row."""
    return Request(doing, "GET", f"/v1/memories/{_uuid(memory_id)}/history/", may_be_gone=True)


def event(event_id: str, doing: str) -> Request:
    """Ask how far something queued has come."""
    return Request(doing, "GET", f"/v1/event/{_uuid(event_id)}/", may_be_gone=True)


def delete_all(user_id: str) -> Request:
    """Remove a user's rows; queued."""
    return Request("delete_all", "DELETE", "/v1/memories/", {"user_id": Scope(user_id).user_id})


def delete_user(user_id: str) -> Request | None:
    """Remove the platform's own entry of a user; queued.

    The id is part of the path here. One that a proxy on the way could turn into another path is never sent so: None.
    """
    if not _PLAIN.fullmatch(Scope(user_id).user_id):
        return None
    return Request("delete_all", "DELETE", f"/v2/entities/user/{quote(user_id, safe='')}/", may_be_gone=True)


def _uuid(given: object) -> str:
    """An id as part of a path: what is no UUID could turn one path into another.

    Raises:
        ScopeError: It is none.
    """
    text = str(given)
    try:
        if str(UUID(text)) == text.lower():
            return text.lower()
    except ValueError:
        pass
    raise ScopeError("an id of the hosted platform must be a UUID; nothing was sent")


def filters_of(pinned: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a scope's pinned filter into the platform's: the user, whatever other ids his rows have, then metadata.

    By the platform's documentation, now or before, a filter that does not mention an id leaves out rows which have it.
    `*` there stands for any value but none, so a condition that always holds stands beside it for rows without.
    Conditions the platform has no words for are left to `conditions.matches_filters`, which looks at every answer.
    """
    conditions = dict(pinned)
    parts: list[dict[str, Any]] = [
        {"user_id": Scope(conditions.pop("user_id")).user_id},
        {"OR": [{"run_id": "*"}, {"agent_id": "*"}, {"app_id": "*"}, {"created_at": {"gte": "1000-01-01"}}]},
    ]
    # What "" and "*" mean there is not said.
    plain = {key: value for key, value in conditions.items() if isinstance(value, str) and value not in ("", "*")}
    parts += [{"metadata": {key: value}} for key, value in plain.items()]
    return {"AND": parts}


# -- answers


def rows_in(answer: Any) -> list[Row]:
    """The rows of a search's answer, or of a page's.

    Raises:
        BackendError: It holds none.
    """
    if not has_results(answer):
        raise unexpected_response("a list of results")
    return [row_of(one) for one in answer["results"]]


def has_results(answer: Any) -> bool:
    """Whether an answer holds a list of results, empty or not."""
    return isinstance(answer, Mapping) and isinstance(answer.get("results"), list)


def row_of(given: Any) -> Row:
    """A row in the form in which other clients show it.

    Raises:
        BackendError: It is none.
    """
    if not isinstance(given, Mapping) or not isinstance(given.get("id"), str):
        raise unexpected_response("a memory with an id")
    if not isinstance(given.get("memory") or "", str):
        raise unexpected_response("a memory of text")
    found = given.get("metadata")
    metadata = dict(found) if isinstance(found, Mapping) else {}
    metadata.pop(DEDUP_KEY, None)
    return {
        "id": given["id"],
        "memory": given.get("memory") or "",
        "user_id": given.get("user_id"),
        "score": given.get("score"),
        "metadata": metadata,
        "created_at": _utc(given.get("created_at")),
        "updated_at": _utc(given.get("updated_at")),
        "expiration_date": given.get("expiration_date"),
    }


def status_of(answer: Any) -> str:
    """How far something queued has come: "PENDING", "RUNNING", "SUCCEEDED", "FAILED"."""
    return str(answer.get("status") or "").upper() if isinstance(answer, Mapping) else ""


def event_in(answer: Any) -> str | None:
    """The event to follow, where an answer names one."""
    found = answer.get("event_id") if isinstance(answer, Mapping) else None
    return found if isinstance(found, str) and found else None


def pending(batch: AddRequest, user_id: str, event_id: str | None) -> list[Row]:
    """What is known of an add that is not waited for: a row for each message, without an id, that says so."""
    status = {"status": "PENDING", **({} if event_id is None else {"event_id": event_id})}
    return [
        {
            "id": "",
            "memory": message["content"],
            "user_id": user_id,
            "role": message["role"],
            "metadata": {**batch.metadata, **status},
        }
        for message in batch.messages
    ]


def reason_in(answer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Why the platform says an event failed, without a word of what it was to store.

    Quotations are taken out, and every word that stands in the messages: what is left of most reasons is the reason.
    """
    if not isinstance(answer, Mapping):
        return ""
    said = {word for message in messages for word in _WORD.findall(str(message.get("content", "")).casefold())}
    given = str(answer.get("error") or "")
    unquoted = re.sub(r"\"[^\"]*\"|'[^']*'|`[^`]*`|“[^”]*”|«[^»]*»|\{.*\}|\[.*\]", "…", given, flags=re.DOTALL)
    kept = _WORD.sub(lambda word: "…" if word.group().casefold() in said else word.group(), unquoted)
    return re.sub(r"(?:…\W*)+", "… ", kept).strip()[:200]


_WORD = re.compile(r"\w+")


def unexpected_response(expected: str) -> BackendError:
    """The error for an answer of another form."""
    return BackendError(f"mem0's platform gave an answer of another form than its description: expected {expected}")


def told_history(rows: Any, memory_id: str, scope: Scope) -> list[dict[str, Any]]:
    """What happened to a row, oldest first: only what it says now is told, and nothing of the words it came from.

    Raises:
        ScopeError: A row is another user's.
        BackendError: It is no history, or another row's.
    """
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise unexpected_response("a list of changes")
    scope.require_own([dict(row) for row in rows])
    if any(str(row.get("memory_id")).lower() != memory_id.lower() for row in rows):
        raise unexpected_response("changes of the memory that was asked for")
    told = sorted(
        (
            {key: row.get(key) for key in ("id", "memory_id", "event", "new_memory", "created_at", "updated_at")}
            for row in rows
        ),
        key=lambda row: str(_utc(row["created_at"])),
    )
    for row in told[:-1]:
        row["new_memory"] = None
    return [{**row, "old_memory": None} for row in told]


def _utc(moment: Any) -> str | None:
    try:
        return datetime.fromisoformat(str(moment)).astimezone(UTC).isoformat()
    except ValueError:
        return None if moment is None else str(moment)


def json_of(text: str) -> Any:
    """Read an answer's body.

    Raises:
        ValueError: It is no JSON; without the text.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
