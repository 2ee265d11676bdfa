"""The requests that are sent to mem0's hosted platform. Each names its user or a memory's id; pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import EllipsisType
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID, uuid4

from ...errors import ScopeError
from ...requests import AddRequest, SearchRequest
from ...scope import Scope

PAGE_SIZE: Final = 200
"""Rows of a page: the platform's maximum (its API description, `page_size`)."""

MAX_TOP_K: Final = 1_000
"""Rows of a search: the platform's maximum (its API description, `top_k`)."""

DEDUP_KEY: Final = "langchain_mem0_scoped"
"""The metadata key that holds an add's random id, by which a lost add is found. No record shows it."""

_VERBATIM: Final = "verbatim-"
"""How the dedup id of text that is stored verbatim begins: the platform tells it of no row."""

_PATH_SAFE = re.compile(r"[A-Za-z0-9_@+:~-][A-Za-z0-9_@+:.~-]*")
"""User ids that stay one segment of a path, even if a proxy decodes the path."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, without the platform's address and key. Its `repr` leaves out parameters and body.

    Attributes:
        operation: What it is for, as errors name it.
        method: The HTTP method.
        path: The path, with a slash at both ends.
        params: The query string.
        body: Sent as JSON.
        idempotent: Whether sending it twice has the same effect as sending it once.
        may_be_gone: Whether the status 404 is an answer rather than an error.
    """

    operation: str
    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotent: bool = True
    may_be_gone: bool = False


def add(user_id: str, request: AddRequest, dedup_id: str) -> Request:
    """Store messages.

    Args:
        user_id: Whose messages.
        request: What to store. Names are left out: the platform's API description has none.
        dedup_id: Stored with each row under `DEDUP_KEY`.
    """
    body: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "user_id": Scope(user_id).user_id,
        "metadata": {**request.metadata, DEDUP_KEY: dedup_id},
        "infer": request.infer is not False,
    }
    if request.said_at is not None:
        body["timestamp"] = int(datetime.fromisoformat(request.said_at).timestamp())
    if request.expires_on is not None:
        body["expiration_date"] = request.expires_on
    return Request("add", "POST", "/v3/memories/add/", body=body, idempotent=False)


def new_dedup_id(request: AddRequest) -> str:
    """Return a new id for an add, from which `is_verbatim` reads whether its text is kept as it is."""
    return f"{_VERBATIM if request.infer is False else ''}{uuid4().hex}"


def is_verbatim(dedup_id: object) -> bool:
    """Return whether a row was stored verbatim, by the id of its add."""
    return isinstance(dedup_id, str) and dedup_id.startswith(_VERBATIM)


def search(request: SearchRequest, top_k: int) -> Request:
    """Search for rows; `top_k` may be more than the request's k."""
    body: dict[str, Any] = {"query": request.query, "filters": filters_of(request.filters), "top_k": top_k}
    if request.threshold is not None:
        body["threshold"] = request.threshold
    return Request("search", "POST", "/v3/memories/search/", body=body)


def search_remaining(user_id: str) -> Request:
    """Search for any row that is left of a user, expired rows too."""
    body = {
        "query": "anything",
        "filters": filters_of({"user_id": user_id}),
        "top_k": MAX_TOP_K,
        "threshold": 0.0,
        "show_expired": True,
    }
    return Request("delete_all", "POST", "/v3/memories/search/", body=body)


def page(operation: str, filters: Mapping[str, Any], number: int, *, show_expired: bool) -> Request:
    """Read one page of rows. The first page has the number 1."""
    body: dict[str, Any] = {"filters": filters_of(filters)}
    if show_expired:
        body["show_expired"] = True
    params = {"page": number, "page_size": PAGE_SIZE}
    return Request(operation, "POST", "/v3/memories/", params, body, may_be_gone=number > 1)


def get(memory_id: str, operation: str = "get") -> Request:
    """Read one row."""
    return Request(operation, "GET", f"/v1/memories/{_uuid(memory_id)}/", may_be_gone=True)


def update(
    memory_id: str,
    text: str | None,
    metadata: Mapping[str, Any] | None,
    expires_on: str | EllipsisType | None = ...,
) -> Request:
    """Change one row. Metadata replaces the row's metadata as a whole; a last day of None removes the row's."""
    body: dict[str, Any] = {} if text is None else {"text": text}
    if expires_on is not ...:
        body["expiration_date"] = expires_on
    if metadata is not None:
        body["metadata"] = dict(metadata)
    return Request("update", "PUT", f"/v1/memories/{_uuid(memory_id)}/", body=body, may_be_gone=True)


def delete(memory_id: str, operation: str = "delete") -> Request:
    """Delete one row."""
    return Request(operation, "DELETE", f"/v1/memories/{_uuid(memory_id)}/", may_be_gone=True)


def history(memory_id: str, operation: str = "history") -> Request:
    """Read the changes of one row."""
    return Request(operation, "GET", f"/v1/memories/{_uuid(memory_id)}/history/", may_be_gone=True)


def event(event_id: str, operation: str) -> Request:
    """Read the status of a queued operation."""
    return Request(operation, "GET", f"/v1/event/{_uuid(event_id)}/", may_be_gone=True)


def delete_all(user_id: str) -> Request:
    """Delete all rows of a user; the platform queues this."""
    return Request("delete_all", "DELETE", "/v1/memories/", {"user_id": Scope(user_id).user_id})


def delete_user(user_id: str) -> Request | None:
    """Delete the platform's own record of a user; the platform queues this.

    Returns:
        None for an id that a proxy could turn into another path: the id is part of the path here.
    """
    if not _PATH_SAFE.fullmatch(Scope(user_id).user_id):
        return None
    return Request("delete_all", "DELETE", f"/v2/entities/user/{quote(user_id, safe='')}/", may_be_gone=True)


def filters_of(pinned: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a scope's filter into the platform's: the user, rows with any other ids, then metadata.

    Some versions of the platform's documentation say that a filter which does not mention an id leaves out rows that
    have one. `*` matches any value but none, so a condition that always holds is added for rows without ids.
    The platform has no operators for metadata: `filters.matches_filters` checks these conditions in each answer.

    Args:
        pinned: The user's id as "user_id", and conditions on metadata.
    """
    conditions = dict(pinned)
    parts: list[dict[str, Any]] = [
        {"user_id": Scope(conditions.pop("user_id")).user_id},
        {"OR": [{"run_id": "*"}, {"agent_id": "*"}, {"app_id": "*"}, {"created_at": {"gte": "1000-01-01"}}]},
    ]
    # The platform's documentation does not say what "" and "*" mean in metadata.
    plain = {key: value for key, value in conditions.items() if isinstance(value, str) and value not in ("", "*")}
    parts += [{"metadata": {key: value}} for key, value in plain.items()]
    return {"AND": parts}


def _uuid(value: object) -> str:
    """Return an id in lower case, to be part of a path: anything but a UUID could turn one path into another.

    Raises:
        ScopeError: It is not a UUID.
    """
    text = str(value)
    try:
        if str(UUID(text)) == text.lower():
            return text.lower()
    except ValueError:
        pass
    raise ScopeError("an id of mem0's hosted platform must be a UUID, got something else; nothing was sent")
