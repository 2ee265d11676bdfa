"""The arguments of one operation, validated once: add, search, list, update. Pure, no I/O.

A request names no user. `ScopedClient` adds its own user to it, as the last step before a backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from types import EllipsisType
from typing import Any, Final, TypeAlias

from .errors import InputError
from .messages import (
    MessageLike,
    TextMessage,
    to_text_messages,
    validate_count,
    validate_date,
    validate_query,
    validate_text,
    validate_threshold,
    validate_timestamp,
)
from .scope import SESSION_KEY, validate_filters, validate_id, validate_memory_id, validate_metadata

ErasureToken: TypeAlias = Sequence[Any]
"""A token that changes when a user is erased, so that nothing read before an erasure is stored after it.

It is a few JSON values. Only the storage that made it can read it.
"""


@dataclass(frozen=True, slots=True)
class AddRequest:
    """What one add stores. Its `repr` leaves out the text.

    Attributes:
        messages: The messages, in order. Without any, nothing is stored.
        metadata: Validated metadata, the session included.
        infer: True to extract facts, False to keep the text verbatim, None for True where the client has a model.
        said_at: When the messages were said, as ISO 8601 in UTC; None for now.
        expires_on: YYYY-MM-DD, or None.
        wait: False to return before the hosted platform has finished.
        erasure_token: Made when the turn of these messages began. If the user was erased since, nothing is stored.
    """

    messages: Sequence[TextMessage] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    infer: bool | None = None
    said_at: str | None = None
    expires_on: str | None = None
    wait: bool = True
    erasure_token: ErasureToken | None = None


def uses_model(infer: bool | None, *, has_model: bool) -> bool:
    """Return whether a language model extracts what is added; see `AddRequest.infer`.

    Raises:
        InputError: It should, and the client has none.
    """
    if infer and not has_model:
        raise InputError(
            "infer=True needs a language model, and this client has none: build the client with one, or pass "
            "infer=False"
        )
    return has_model if infer is None else infer


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search. Its `repr` leaves out the query and the filters.

    Attributes:
        query: What to search for. Blank only for a recall, which then takes the latest memories.
        filters: Validated conditions on metadata; the user first, once a scope has added its own.
        k: Maximum number of rows.
        threshold: Lowest score, or None for the client's default.
    """

    query: str = field(repr=False)
    filters: Mapping[str, Any] = field(repr=False)
    k: int
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One listing.

    Attributes:
        filters: As in `SearchRequest`.
        limit: Maximum number of rows, the latest; None for all.
    """

    filters: Mapping[str, Any] = field(repr=False)
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """One correction. Its `repr` leaves out the text.

    Attributes:
        memory_id: A UUID in lower case.
        text: The new text; None to keep it.
        metadata: Values to merge into the metadata; None to keep them.
        expires_on: The new last day as YYYY-MM-DD; None for no last day, `...` to keep it.
    """

    memory_id: str
    text: str | None = field(repr=False)
    metadata: Mapping[str, Any] | None = field(repr=False)
    expires_on: str | EllipsisType | None = ...


def add_request(
    messages: MessageLike | Sequence[MessageLike],
    *,
    session_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    infer: bool | None = None,
    at: datetime | date | str | None = None,
    expires_on: date | str | None = None,
    wait: bool = True,
    erasure_token: ErasureToken | None = None,
) -> AddRequest:
    """Validate the arguments of `ScopedMemory.add`.

    Args:
        messages: As `messages.to_text_messages` takes them.
        session_id: The session of the messages; stored in the metadata.
        metadata: What the caller stores with each memory.
        infer: Whether facts are extracted; None for whether the client has a model.
        at: When the messages were said; None for now.
        expires_on: The last day on which the memories are found; None for no last day.
        wait: Whether to wait until the hosted platform has finished.
        erasure_token: See `AddRequest`.

    Raises:
        ScopeError: Metadata or session_id would leave or forge the scope.
        InputError: A value that cannot be used; see `messages.to_text_messages`.
    """
    stored = validate_metadata(metadata)
    if session_id is not None:
        stored[SESSION_KEY] = validate_id(session_id, SESSION_KEY)
    if infer is not None and type(infer) is not bool:
        raise InputError(f"infer must be True, False or None, got {type(infer).__name__}")
    return AddRequest(
        messages=to_text_messages(messages),
        metadata=stored,
        infer=infer,
        said_at=None if at is None else validate_timestamp(at, "at"),
        expires_on=None if expires_on is None else validate_date(expires_on, "expires_on"),
        wait=bool(wait),
        erasure_token=erasure_token,
    )


def search_request(
    query: str,
    *,
    k: int = 5,
    threshold: float | None = None,
    filters: Mapping[str, Any] | None = None,
    session_id: str | None = None,
) -> SearchRequest:
    """Validate the arguments of `ScopedMemory.search`.

    Raises:
        ScopeError: The filters or session_id name anything but metadata.
        InputError: An empty query, k below 1, a threshold outside 0 to 1.
    """
    return SearchRequest(
        query=validate_query(query),
        filters=_filters(filters, session_id),
        k=validate_count(k, "k"),
        threshold=validate_threshold(threshold),
    )


def list_request(
    *,
    filters: Mapping[str, Any] | None = None,
    session_id: str | None = None,
    limit: int | None = None,
) -> ListRequest:
    """Validate the arguments of `ScopedMemory.get_all`.

    Raises:
        ScopeError: As `search_request`.
        InputError: limit is below 1.
    """
    return ListRequest(_filters(filters, session_id), None if limit is None else validate_count(limit, "limit"))


def update_request(
    memory_id: str,
    text: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    expires_on: date | str | EllipsisType | None = ...,
) -> UpdateRequest:
    """Validate the arguments of `ScopedMemory.update`.

    Raises:
        ScopeError: The id is not a UUID, or the metadata would forge the scope.
        InputError: Nothing to change was passed, or a value cannot be stored.
    """
    if text is None and metadata is None and expires_on is ...:
        raise InputError("update needs a new text, metadata or expires_on; got none of them")
    if expires_on is not None and expires_on is not ...:
        expires_on = validate_date(expires_on, "expires_on")
    return UpdateRequest(
        validate_memory_id(memory_id),
        None if text is None else validate_text(text, "text"),
        None if metadata is None else validate_metadata(metadata),
        expires_on,
    )


def _filters(filters: Mapping[str, Any] | None, session_id: str | None) -> dict[str, Any]:
    validated = validate_filters(filters)
    if session_id is not None:
        validated[SESSION_KEY] = validate_id(session_id, SESSION_KEY)
    return validated


EVERYTHING: Final = ListRequest({})
"""All memories of a user that have not expired."""
