"""What a call on a scope was given, checked as a whole and made into what a port takes. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from .backends.base import AddRequest, SearchRequest
from .errors import InputError
from .messages import (
    MessageLike,
    to_text_messages,
    validate_count,
    validate_date,
    validate_query,
    validate_text,
    validate_threshold,
    validate_timestamp,
)
from .scope import SESSION_KEY, Scope, validate_id, validate_memory_id, validate_metadata


def add_request(
    messages: MessageLike | Sequence[MessageLike],
    *,
    session_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    infer: bool | None = None,
    at: datetime | date | str | None = None,
    expires_on: date | str | None = None,
    wait: bool = True,
    since: Sequence[Any] | None = None,
) -> AddRequest:
    """What an add stores. It names no user: whose it is, the port is told beside it.

    Args:
        messages: What was said, in any shape that `messages.to_text_messages` takes.
        session_id: The session it was said in; kept among the metadata.
        metadata: What the caller wants stored with it.
        infer: Whether facts are extracted; None where the client decides.
        at: When it was said; None for now.
        expires_on: The last day on which it is shown; None for good.
        wait: Whether a hosted platform is waited for.
        since: Where the user stood when what is said here was begun; see `Backend.beginning`.

    Raises:
        ScopeError: Metadata or session_id would leave or forge the scope.
        InputError: A value that means nothing; see `messages.to_text_messages`.
    """
    stored = validate_metadata(metadata)
    if session_id is not None:
        stored[SESSION_KEY] = validate_id(session_id, SESSION_KEY)
    if infer is not None and type(infer) is not bool:
        raise InputError("infer must be True, False or None")
    said = to_text_messages(messages)
    return AddRequest(
        messages=[{"role": one.role, "content": one.content} for one in said],
        speakers=[one.name for one in said],
        metadata=stored,
        infer=infer,
        said_at=None if at is None else validate_timestamp(at, "at"),
        expires_on=None if expires_on is None else validate_date(expires_on, "expires_on"),
        wait=bool(wait),
        since=since,
    )


def search_request(
    scope: Scope,
    query: str,
    k: int,
    threshold: float | None,
    filters: Mapping[str, Any] | None,
    session_id: str | None,
) -> SearchRequest:
    """What a search asks, pinned to the scope's user; see `ScopedMemory.search`.

    Raises:
        ScopeError: The filters or session_id name anything but metadata.
        InputError: An empty query, k below 1, a threshold outside 0 to 1.
    """
    return SearchRequest(
        query=validate_query(query),
        filters=scope.query_filter(filters, session_id),
        k=validate_count(k, "k"),
        threshold=validate_threshold(threshold),
    )


def list_request(
    scope: Scope, session_id: str | None, filters: Mapping[str, Any] | None, limit: int | None
) -> tuple[dict[str, Any], int | None]:
    """What a listing asks, pinned to the scope's user; see `ScopedMemory.get_all`.

    Returns:
        The pinned filter, and how many rows are wanted, None for all.

    Raises:
        ScopeError: As `search_request`.
        InputError: limit is below 1.
    """
    return scope.query_filter(filters, session_id), None if limit is None else validate_count(limit, "limit")


def update_request(
    memory_id: str, text: str | None, metadata: Mapping[str, Any] | None
) -> tuple[str, tuple[str | None, dict[str, Any] | None]]:
    """What a correction changes; see `ScopedMemory.update`.

    Returns:
        The id, and the new text and metadata, each None where it stays.

    Raises:
        ScopeError: The id is no UUID, or the metadata would forge the scope.
        InputError: Neither text nor metadata, or text that cannot be stored.
    """
    if text is None and metadata is None:
        raise InputError("update needs a new text, metadata, or both")
    return validate_memory_id(memory_id), (
        None if text is None else validate_text(text, "text"),
        None if metadata is None else validate_metadata(metadata),
    )
