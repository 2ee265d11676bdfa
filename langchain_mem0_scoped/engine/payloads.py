"""mem0's payloads and filters: their user, the part that is stored, expiry, and the form of returned rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from .. import records
from ..errors import ScopeError
from ..scope import validate_id

_EXPIRATION_DATE: Final = "expiration_date"
_EXPIRATION_KEY: Final = f'"{_EXPIRATION_DATE}"'.encode()

# The user is stored once, with the partition. mem0 computes the lemmatized text where it needs it.
_NOT_STORED: Final = frozenset({"user_id", "text_lemmatized"})


def stored_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a payload that is stored."""
    return {key: value for key, value in payload.items() if key not in _NOT_STORED}


def with_user(payload: dict[str, Any], user_id: str) -> dict[str, Any]:
    """Put the user into a stored payload, and return it."""
    payload["user_id"] = user_id
    return payload


def may_expire(body: bytes) -> bool:
    """Return whether a body may hold an expiration date. False is certain; the body is not decoded."""
    return _EXPIRATION_KEY in body


def is_expired(payload: Mapping[str, Any], today: date) -> bool:
    """Return whether mem0 hides a memory: its expiration date lies before today.

    Args:
        payload: mem0's payload.
        today: The date in UTC.
    """
    return records.is_expired(payload.get(_EXPIRATION_DATE), today)


_PROMOTED: Final = frozenset({"user_id", "agent_id", "run_id", "actor_id", "role", "attributed_to", _EXPIRATION_DATE})
_NOT_METADATA: Final = frozenset({"data", "hash", "created_at", "updated_at", "id", "text_lemmatized"})


def format_row(memory_id: str, payload: Mapping[str, Any], score: float | None = None) -> dict[str, Any]:
    """Return a memory in the form in which mem0 returns it.

    Args:
        memory_id: Its id.
        payload: mem0's payload, with the user.
        score: How well it matched; None where nothing was searched for.
    """
    row = {
        "id": memory_id,
        "memory": payload.get("data", ""),
        "hash": payload.get("hash"),
        "metadata": None,
        "score": score,
        "created_at": payload.get("created_at"),
        "updated_at": payload.get("updated_at"),
    }
    metadata = {}
    for key, value in payload.items():
        if key in _PROMOTED:
            row[key] = value
        elif key not in _NOT_METADATA:
            metadata[key] = value
    if metadata:
        row["metadata"] = metadata
    return row


def split_filters(filters: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Split filters into the one user and the conditions.

    Raises:
        ScopeError: They do not name exactly one user.
    """
    conditions = dict(filters or {})
    return require_user(conditions.pop("user_id", None)), conditions


def require_user(user_id: object) -> str:
    """Validate the user of a call, and return it.

    Raises:
        ScopeError: It names none, or one that could stand for several; see `scope.validate_id`.
    """
    if user_id is None:
        raise ScopeError("rows are kept apart by user: every call must name exactly one user_id")
    return validate_id(user_id, "user_id")
