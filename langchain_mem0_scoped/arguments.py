"""What a call on a scope was given, checked as a whole and made into what a port takes. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from .clients.port import Batch, Question
from .errors import InputError
from .messages import (
    MessageLike,
    checked_count,
    checked_day,
    checked_moment,
    checked_query,
    checked_text,
    checked_threshold,
    spoken,
)
from .scope import SESSION_KEY, Scope, checked_id, checked_memory_id, checked_metadata


def batch_of(
    messages: MessageLike | Sequence[MessageLike],
    *,
    session_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    infer: bool | None = None,
    at: datetime | date | str | None = None,
    expires_on: date | str | None = None,
    wait: bool = True,
    since: Sequence[Any] | None = None,
) -> Batch:
    """What an add stores. It names no user: whose it is, the port is told beside it.

    Args:
        messages: What was said, in any shape that `messages.spoken` takes.
        session_id: The session it was said in; kept among the metadata.
        metadata: What the caller wants stored with it.
        infer: Whether facts are extracted; None where the client decides.
        at: When it was said; None for now.
        expires_on: The last day on which it is shown; None for good.
        wait: Whether a hosted platform is waited for.
        since: Where the user stood when what is said here was begun; see `Port.beginning`.

    Raises:
        ScopeError: Metadata or session_id would leave or forge the scope.
        InputError: A value that means nothing; see `messages.spoken`.
    """
    stored = checked_metadata(metadata)
    if session_id is not None:
        stored[SESSION_KEY] = checked_id(session_id, SESSION_KEY)
    if infer is not None and type(infer) is not bool:
        raise InputError("infer must be True, False or None")
    said = spoken(messages)
    return Batch(
        messages=[{"role": one.role, "content": one.content} for one in said],
        speakers=[one.name for one in said],
        metadata=stored,
        infer=infer,
        said_at=None if at is None else checked_moment(at, "at"),
        expires_on=None if expires_on is None else checked_day(expires_on, "expires_on"),
        wait=bool(wait),
        since=since,
    )


def question_of(
    scope: Scope,
    query: str,
    k: int,
    threshold: float | None,
    filters: Mapping[str, Any] | None,
    session_id: str | None,
) -> Question:
    """What a search asks, pinned to the scope's user; see `ScopedMemory.search`.

    Raises:
        ScopeError: The filters or session_id name anything but metadata.
        InputError: An empty query, k below 1, a threshold outside 0 to 1.
    """
    return Question(
        query=checked_query(query),
        filters=scope.pinned(filters, session_id),
        k=checked_count(k, "k"),
        threshold=checked_threshold(threshold),
    )


def listing_of(
    scope: Scope, session_id: str | None, filters: Mapping[str, Any] | None, limit: int | None
) -> tuple[dict[str, Any], int | None]:
    """What a listing asks, pinned to the scope's user; see `ScopedMemory.get_all`.

    Returns:
        The pinned filter, and how many rows are wanted, None for all.

    Raises:
        ScopeError: As `question_of`.
        InputError: limit is below 1.
    """
    return scope.pinned(filters, session_id), None if limit is None else checked_count(limit, "limit")


def correction_of(
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
    return checked_memory_id(memory_id), (
        None if text is None else checked_text(text, "text"),
        None if metadata is None else checked_metadata(metadata),
    )
