"""The wall itself: what may be a user id, which filters and metadata stay inside it, whose a row is. Pure, no I/O."""

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
"""Longest user_id or session_id, in characters."""

SESSION_KEY: Final = "session_id"
"""The metadata key under which a session is stored: ours, never mem0's run_id."""

FILTER_OPERATORS: Final = frozenset({"eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains"})
"""What a filter may ask of a metadata value; the set mem0 documents for every store."""

_DEEPEST: Final = 64
"""How deep metadata may be nested: what reads it back may already stand deep in its stack."""

_BOUNDS: Final = frozenset({"gt", "gte", "lt", "lte"})

# Whitespace, controls, lone surrogates, and what has no shape of its own on a screen: Unicode's
# Default_Ignorable_Code_Point (https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt), which holds
# the zero-width and the bidi characters, and the interlinear annotation marks. Two ids that differ by one of these
# alone would look alike and be two users.
_UNSEEN = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_METADATA_KEY = re.compile(r"\w[\w .:/@-]{0,127}")
# Narrower: in a filter some stores read a dot as a path, and others refuse what is no plain name.
_FILTER_KEY = re.compile(r"\w[\w-]{0,127}")

_SCOPE_NAMES = frozenset({"user_id", "agent_id", "app_id", "run_id", "actor_id"})
_PAYLOAD_NAMES = frozenset(
    {"data", "hash", "role", "created_at", "updated_at", "expiration_date", "text_lemmatized", "attributed_to"}
)
_LOGIC_NAMES = frozenset({"and", "or", "not"})
_RESERVED_NAMES = _SCOPE_NAMES | _PAYLOAD_NAMES | _LOGIC_NAMES | {SESSION_KEY, "id", "memory_id"}


def validate_id(value: object, name: str) -> str:
    """Take an id whole, or refuse it: no trimming, no coercion, for two spellings are two users.

    Args:
        value: The id as it came.
        name: What to call it in an error: "user_id" or "session_id".

    Returns:
        The same string.

    Raises:
        ScopeError: It is not exactly a `str`, not of 1 to 256 characters, not in NFC, holds whitespace, control,
            zero-width or bidi characters or a lone surrogate, or is "*", "." or "..".

    Example:
        >>> checked_id("alice@example.com", "user_id")
        'alice@example.com'
    """
    if type(value) is not str:
        raise ScopeError(f"{name} must be a str, got {type(value).__name__}; convert it yourself, in one place")
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise ScopeError(f"{name} must have 1 to {MAX_ID_LENGTH} characters, got {len(value)}")
    if value in ("*", ".", ".."):
        raise ScopeError(f"{name} must name one user or session; '*', '.' and '..' mean something else to a store")
    if unseen := _UNSEEN.search(value):
        raise ScopeError(
            f"{name} must hold no whitespace, control, zero-width or bidi character and no lone surrogate; "
            f"found U+{ord(unseen.group()):04X} at position {unseen.start()}"
        )
    if not value.isascii() and not unicodedata.is_normalized("NFC", value):
        raise ScopeError(
            f"{name} must be in Unicode normal form C; apply unicodedata.normalize('NFC', …) where ids are made"
        )
    return value


def validate_memory_id(value: object) -> str:
    """Let nothing but a UUID in its usual spelling become part of a request.

    Raises:
        ScopeError: It is not a `str` that spells a UUID as 8-4-4-4-12 hexadecimal digits.
    """
    if type(value) is str and len(value) == 36:
        try:
            spelled = str(UUID(value))
        except ValueError:
            spelled = ""
        if spelled == value.lower():
            return spelled
    raise ScopeError("memory_id must be a str that spells a UUID, as in record['id']")


def validate_metadata(metadata: object) -> dict[str, Any]:
    """Copy metadata that a caller wants stored with a memory.

    Returns:
        A deep copy holding JSON values only.

    Raises:
        ScopeError: It is not a dict of JSON values, or a key is reserved: an id, a session, or a name mem0 keeps its
            own payload under, which would forge or hide the row.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ScopeError(f"metadata must be a dict, got {type(metadata).__name__}")
    # Copied first and checked afterwards: a mapping may tell one thing to a check and another to a copy.
    given = dict(metadata)
    for key in given:
        _validate_key(key, _METADATA_KEY, "metadata keys must be str of 1 to 128 letters, digits, '_' or ' .:/@-'")
    return {key: _plain(value, _DEEPEST) for key, value in given.items()}


def validate_filters(filters: object) -> dict[str, Any]:
    """Copy filters that narrow a search to some metadata.

    Args:
        filters: None, or `{key: value}` or `{key: {operator: value}}`, all of which must hold.

    Returns:
        A copy, one level deep.

    Raises:
        ScopeError: A key is an id, a payload name or a logical operator, or a value or operator is not known.
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


def _plain(value: object, depth: int) -> Any:
    """Copy a JSON value."""
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        # The characters themselves, whatever a subclass makes of them.
        text = str.__str__(value)
        if "\x00" not in text and not _has_surrogate(text):
            return text
    # Python itself refuses to write out one of over 4,300 digits.
    if type(value) is int and abs(value) < 10**300:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if depth and isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in list(value)]
    if depth and isinstance(value, Mapping):
        copy = dict(value)
        if all(type(key) is str for key in copy):
            return {_plain(key, 0): _plain(item, depth - 1) for key, item in copy.items()}
    raise ScopeError(
        "metadata must hold JSON values only, none with NUL or half a surrogate pair, at most "
        f"{_DEEPEST} deep: str, int, finite float, bool, None, lists, and dicts with str keys"
    )


def _validate_key(key: object, shape: re.Pattern[str], expected: str) -> str:
    if type(key) is not str:
        raise ScopeError(f"{expected}, got {type(key).__name__}")
    # A store may fold case or width, or read a dot as a path, so every such reading of the key must be harmless.
    folded = unicodedata.normalize("NFKC", key).casefold().strip()
    if folded in _RESERVED_NAMES or not _SCOPE_NAMES.isdisjoint(re.split(r"\s*\.\s*", folded)):
        hint = " (use the session_id argument)" if folded == SESSION_KEY else ""
        raise ScopeError(f"the name {folded!r} is reserved: the scope is fixed at construction{hint}")
    if not shape.fullmatch(key):
        raise ScopeError(f"{expected}, and start with a letter, a digit or '_'")
    return key


def _validate_condition(condition: object) -> Any:
    if not isinstance(condition, Mapping):
        return _validate_scalar(condition)
    condition = dict(condition)
    if not condition or not all(type(operator) is str and operator in FILTER_OPERATORS for operator in condition):
        raise ScopeError(
            f"a filter on metadata takes a plain value or these operators: {', '.join(sorted(FILTER_OPERATORS))}"
        )
    if len(condition) > 1 and not condition.keys() <= _BOUNDS:
        raise ScopeError("a filter takes one operator for a key, or the bounds of a range; some stores drop others")
    return {operator: _validate_operand(operator, operand) for operator, operand in condition.items()}


def _validate_operand(operator: str, operand: object) -> Any:
    if operator not in ("in", "nin"):
        return _validate_scalar(operand)
    if not isinstance(operand, (list, tuple)) or not operand:
        raise ScopeError(f"the filter operator {operator!r} takes a list of one plain value or more")
    return [_validate_scalar(item) for item in operand]


def _validate_scalar(value: object) -> str | int | float | bool:
    if type(value) is str and value != "*" and "\x00" not in value and not _has_surrogate(value):
        return value
    if type(value) in (int, bool) or (type(value) is float and math.isfinite(value)):
        return value  # type: ignore[return-value]
    raise ScopeError("a filter value must be a str (not '*'), a finite number or a bool; several go into {'in': [...]}")


def parse_user_id(session_scope: str | None) -> str | None:
    """Read the user out of mem0's session scope: in `run_id=s%261&user_id=alice` each value is escaped.

    The format is that of mem0.memory.main._build_session_scope.
    """
    for part in (session_scope or "").split("&"):
        name, _, value = part.partition("=")
        if name == "user_id":
            return value.replace("%3D", "=").replace("%26", "&").replace("%25", "%")
    return None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class Scope:
    """One user, fixed for good.

    Attributes:
        user_id: The user, taken whole.

    Raises:
        ScopeError: The id is refused; see `validate_id`.
    """

    user_id: str

    def __post_init__(self) -> None:
        validate_id(self.user_id, "user_id")

    def query_filter(self, filters: object = None, session_id: object = None) -> dict[str, Any]:
        """Build the filter of one query: this user first, from nothing, then what the caller narrows it to.

        Raises:
            ScopeError: The filters or the session name anything but metadata.
        """
        narrowed = validate_filters(filters)
        if session_id is not None:
            narrowed[SESSION_KEY] = validate_id(session_id, SESSION_KEY)
        return {"user_id": self.user_id, **narrowed}

    def pin(self, validated: Mapping[str, Any]) -> dict[str, Any]:
        """Add this user, first, to filters that were validated and name no user.

        Raises:
            ScopeError: They name a user.
        """
        if "user_id" in validated:
            raise ScopeError("filters name metadata only; the user_id is the scope's own")
        return {"user_id": self.user_id, **validated}

    def owns(self, row: Mapping[str, Any] | None) -> bool:
        """Tell whether a row a client returned is this user's."""
        return row is not None and row.get("user_id") == self.user_id

    def require_own(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Pass on rows that are all this user's.

        Raises:
            ScopeError: One is not. It is never dropped in silence: the store does not keep its filters.
        """
        if not all(self.owns(row) for row in rows):
            raise ScopeError("the client answered with a row outside this user's scope; nothing was returned")
        return rows
