"""Scope: rules for ids, filters and metadata, the filter of a query, and the ownership check of rows. Pure, no I/O."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from .errors import ScopeError

MAX_ID_LENGTH: Final = 256
"""The maximum length of a user_id or session_id, in characters."""

SESSION_KEY: Final = "session_id"
"""The metadata key that holds the session of a memory. mem0's run_id is not used."""

FILTER_OPERATORS: Final = frozenset({"eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains"})
"""The operators of metadata filters: those that mem0 documents for every store."""

_MAX_DEPTH: Final = 64
"""The maximum nesting of metadata. Code that reads it back recursively may be deep in its stack already."""

_RANGE_OPERATORS: Final = frozenset({"gt", "gte", "lt", "lte"})

# Whitespace, control characters, lone surrogates and invisible characters: Unicode's Default_Ignorable_Code_Point
# (https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt), which includes zero-width and bidi
# characters, and the interlinear annotation characters. Two ids that differ only by one of these would look the same
# and name two users.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_METADATA_KEY = re.compile(r"\w[\w .:/@-]{0,127}")
# Narrower than for metadata: some stores read a dot in a filter key as a path, others refuse special characters.
_FILTER_KEY = re.compile(r"\w[\w-]{0,127}")

_SCOPE_NAMES = frozenset({"user_id", "agent_id", "app_id", "run_id", "actor_id"})
_PAYLOAD_NAMES = frozenset(
    {"data", "hash", "role", "created_at", "updated_at", "expiration_date", "text_lemmatized", "attributed_to"}
)
_LOGIC_NAMES = frozenset({"and", "or", "not"})
_RESERVED_NAMES = _SCOPE_NAMES | _PAYLOAD_NAMES | _LOGIC_NAMES | {SESSION_KEY, "id", "memory_id"}


def validate_id(value: object, name: str) -> str:
    """Validate an id without changing it. Ids are never trimmed or converted: two spellings are two users.

    Args:
        value: The id.
        name: The argument's name for error messages: "user_id" or "session_id".

    Returns:
        The same string.

    Raises:
        ScopeError: The id is not exactly a `str`, does not have 1 to 256 characters, is not in NFC, holds whitespace,
            control, zero-width or bidi characters or a lone surrogate, or is "*", "." or "..".

    Example:
        >>> validate_id("alice@example.com", "user_id")
        'alice@example.com'
    """
    if type(value) is not str:
        raise ScopeError(f"{name} must be a str, got {type(value).__name__}; convert it before the call")
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise ScopeError(f"{name} must have 1 to {MAX_ID_LENGTH} characters, got {len(value)}")
    if value in ("*", ".", ".."):
        raise ScopeError(f"{name} must not be '*', '.' or '..', got {value!r}")
    if found := _INVISIBLE.search(value):
        raise ScopeError(
            f"{name} must not hold whitespace, control, zero-width or bidi characters or lone surrogates; "
            f"found U+{ord(found.group()):04X} at position {found.start()}"
        )
    if not value.isascii() and not unicodedata.is_normalized("NFC", value):
        raise ScopeError(
            f"{name} must be in Unicode normal form C; apply unicodedata.normalize('NFC', …) where ids are created"
        )
    return value


def validate_memory_id(value: object) -> str:
    """Validate the id of a memory.

    Args:
        value: The id: a UUID written as 8-4-4-4-12 hexadecimal digits.

    Returns:
        The id in lower case.

    Raises:
        ScopeError: The id is not a `str` or not such a UUID.
    """
    if type(value) is str and len(value) == 36:
        try:
            spelled = str(UUID(value))
        except ValueError:
            spelled = ""
        if spelled == value.lower():
            return spelled
    raise ScopeError("memory_id must be a str with a UUID, such as record['id']")


def validate_metadata(metadata: object) -> dict[str, Any]:
    """Validate and copy the metadata of a memory.

    Args:
        metadata: A mapping from str to JSON values, or None.

    Returns:
        A deep copy.

    Raises:
        ScopeError: The metadata is not a dict of JSON values, or a key is reserved: an id, the session, or a name that
            mem0 uses in its payload.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ScopeError(f"metadata must be a dict, got {type(metadata).__name__}")
    # Copied first and checked afterwards: a custom mapping may return other items to the check than to the copy.
    given = dict(metadata)
    for key in given:
        _validate_key(key, _METADATA_KEY, "metadata keys must be str of 1 to 128 letters, digits, '_' or ' .:/@-'")
    return {key: _copy_json(value, _MAX_DEPTH) for key, value in given.items()}


def validate_filters(filters: object) -> dict[str, Any]:
    """Validate and copy metadata filters.

    Args:
        filters: `{key: value}` or `{key: {operator: value}}`, all of which must match; or None.

    Returns:
        A copy.

    Raises:
        ScopeError: A key is an id, a payload name or a logical operator, or a value or an operator is not allowed.
    """
    if filters is None:
        return {}
    if not isinstance(filters, Mapping):
        raise ScopeError(f"filters must be a dict of metadata keys, got {type(filters).__name__}")
    hint = "filter keys must be str of 1 to 128 letters, digits, '_' or '-'"
    return {
        _validate_key(key, _FILTER_KEY, hint): _validate_condition(condition)
        for key, condition in dict(filters).items()
    }


def _copy_json(value: object, depth: int) -> Any:
    """Return a deep copy of a JSON value, or raises."""
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        # A subclass may override __str__; the characters themselves count.
        text = str.__str__(value)
        if "\x00" not in text and not _has_surrogate(text):
            return text
    # Python refuses to convert integers of more than 4,300 digits to text.
    if type(value) is int and abs(value) < 10**300:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if depth and isinstance(value, (list, tuple)):
        return [_copy_json(item, depth - 1) for item in list(value)]
    if depth and isinstance(value, Mapping):
        copy = dict(value)
        if all(type(key) is str for key in copy):
            return {_copy_json(key, 0): _copy_json(item, depth - 1) for key, item in copy.items()}
    raise ScopeError(
        "metadata must hold only JSON values, without NUL or lone surrogates, nested at most "
        f"{_MAX_DEPTH} deep: str, int, finite float, bool, None, lists, and dicts with str keys"
    )


def _validate_key(key: object, shape: re.Pattern[str], expected: str) -> str:
    if type(key) is not str:
        raise ScopeError(f"{expected}, got {type(key).__name__}")
    # A store may ignore case or width, or read a dot as a path, so no such reading of a key may be a reserved name.
    folded = unicodedata.normalize("NFKC", key).casefold().strip()
    if folded in _RESERVED_NAMES or not _SCOPE_NAMES.isdisjoint(re.split(r"\s*\.\s*", folded)):
        hint = " (use the session_id argument)" if folded == SESSION_KEY else ""
        raise ScopeError(f"the key {folded!r} is reserved: the scope is fixed at construction{hint}")
    if not shape.fullmatch(key):
        raise ScopeError(f"{expected}, and start with a letter, a digit or '_'")
    return key


def _validate_condition(condition: object) -> Any:
    if not isinstance(condition, Mapping):
        return _validate_scalar(condition)
    condition = dict(condition)
    if not condition or not all(type(operator) is str and operator in FILTER_OPERATORS for operator in condition):
        raise ScopeError(
            f"a metadata filter takes a plain value or these operators: {', '.join(sorted(FILTER_OPERATORS))}"
        )
    if len(condition) > 1 and not condition.keys() <= _RANGE_OPERATORS:
        raise ScopeError("a filter takes one operator per key, or the bounds of a range; some stores ignore others")
    return {operator: _validate_operand(operator, operand) for operator, operand in condition.items()}


def _validate_operand(operator: str, operand: object) -> Any:
    if operator not in ("in", "nin"):
        return _validate_scalar(operand)
    if not isinstance(operand, (list, tuple)) or not operand:
        raise ScopeError(f"the filter operator {operator!r} takes a list of one or more plain values")
    return [_validate_scalar(item) for item in operand]


def _validate_scalar(value: object) -> str | int | float | bool:
    if type(value) is str and value != "*" and "\x00" not in value and not _has_surrogate(value):
        return value
    if type(value) in (int, bool) or (type(value) is float and math.isfinite(value)):
        return value  # type: ignore[return-value]
    raise ScopeError("a filter value must be a str (not '*'), a finite number or a bool; for several use {'in': [...]}")


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of one user. It cannot be changed.

    Attributes:
        user_id: The user's id.

    Raises:
        ScopeError: The id is invalid; see `validate_id`.
    """

    user_id: str

    def __post_init__(self) -> None:
        validate_id(self.user_id, "user_id")

    def query_filter(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Build the filter of a query: first this user, then the caller's conditions on metadata.

        Args:
            filters: The validated filters of a request, which name no user; see `requests`.

        Returns:
            The filter, with "user_id" as its first key.

        Raises:
            ScopeError: The filters name a user.
        """
        if "user_id" in filters:
            raise ScopeError("filters must name metadata only: the scope adds its user_id")
        return {"user_id": self.user_id, **filters}

    def owns(self, row: Mapping[str, Any] | None) -> bool:
        """Return whether a row belongs to this user."""
        return row is not None and row.get("user_id") == self.user_id

    def require_own(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check that all rows belong to this user.

        Args:
            rows: Rows that a client returned.

        Returns:
            The same rows.

        Raises:
            ScopeError: A row belongs to someone else. It is not dropped silently, because the store ignored the filter.
        """
        if not all(self.owns(row) for row in rows):
            raise ScopeError("the client returned a row outside this user's scope; no rows are returned")
        return rows
