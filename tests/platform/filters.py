"""The platform's filters: which are valid, which rows match, and which users a filter can reach."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from enum import Enum
from typing import Any, Final, Protocol

ENTITIES: Final = ("user_id", "agent_id", "app_id", "run_id")
ANYBODY: Final = None  # returned by `admitted` for a filter without a bound on users

_EQUAL: Final = {"eq", "ne", "in"}
_ORDER: Final = {"gt", "gte", "lt", "lte", "eq", "ne"}
_OPERATORS: Final[dict[str, set[str]]] = {
    **dict.fromkeys(ENTITIES, _EQUAL),
    **dict.fromkeys(("created_at", "updated_at", "timestamp"), _ORDER),
    "categories": {"eq", "ne", "in", "contains"},
    "keywords": {"contains", "icontains"},
    "memory_ids": {"in"},
}
_METADATA: Final = {"eq", "ne", "contains"}
_LOGIC: Final = ("AND", "OR", "NOT")


class Scoping(Enum):
    """What a filter means for ids that it does not mention. mem0 has documented both rules."""

    USER_ALONE = "user-alone"
    """They may have any value: {"user_id": x} matches every row of x."""
    IMPLICIT_NULLS = "implicit-nulls"
    """They must be null: {"user_id": x} leaves out rows with a run id, an app id or an agent id."""


class BadFilter(ValueError):
    """A filter that the platform refuses."""


class Filterable(Protocol):
    """The fields of a row that a filter can name."""

    id: str
    memory: str
    metadata: dict[str, Any] | None
    categories: list[str]
    created_at: datetime
    updated_at: datetime

    def entity(self, name: str) -> str | None: ...


def conditions(filters: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a filter, at any depth, without logical operators."""
    for item in filters if isinstance(filters, list) else [filters]:
        for key, value in item.items() if isinstance(item, dict) else ():
            if key in _LOGIC:
                yield from conditions(value)
            else:
                yield key, value


def named(filters: Any, entity: str = "user_id") -> frozenset[str]:
    """Yield every id that a filter names, also "*" and those it excludes."""
    found: set[str] = set()
    for key, value in conditions(filters):
        if key == entity:
            for each in value.values() if isinstance(value, dict) else [value]:
                found |= {str(one) for one in (each if isinstance(each, list) else [each])}
    return frozenset(found)


def validate(filters: Any) -> None:
    """Raise BadFilter for a filter that the platform answers with 400."""
    _validate(filters)
    if not _includes(filters):
        raise BadFilter("filters must include at least one entity id")


def _includes(filters: dict[str, Any]) -> bool:
    """Return whether a filter names an entity it wants, not only entities it does not want."""
    for key, value in filters.items():
        if key in ("AND", "OR") and any(_includes(item) for item in value):
            return True
        if key in ENTITIES and value not in (None, "") and not (isinstance(value, dict) and set(value) == {"ne"}):
            return True
    return False


def _validate(filters: Any) -> None:
    if not isinstance(filters, dict) or not filters:
        raise BadFilter("a filter must be an object that says something")
    for key, value in filters.items():
        if key in _LOGIC:
            items = [value] if isinstance(value, dict) and key == "NOT" else value
            if not isinstance(items, list) or not items:
                raise BadFilter(f"{key} must hold conditions")
            for item in items:
                _validate(item)
        elif key == "metadata":
            _validate_metadata(value)
        elif key not in _OPERATORS:
            raise BadFilter(f"unknown filter {key}")
        elif isinstance(value, dict):
            _operators(key, value, _OPERATORS[key])
        elif isinstance(value, list) and key != "memory_ids":
            raise BadFilter(f"{key} takes a list with in only")
        elif value is not None and not isinstance(value, str | list):
            raise BadFilter(f"{key} must be a string")


def _validate_metadata(value: Any) -> None:
    if not isinstance(value, dict) or not value:
        raise BadFilter("metadata must be an object that says something")
    for key, wanted in value.items():
        if isinstance(wanted, dict):
            _operators(f"metadata {key}", wanted, _METADATA)


def _operators(name: str, given: dict[str, Any], known: set[str]) -> None:
    if not given or set(given) - known:
        raise BadFilter(f"{name} knows {sorted(known)}, not {sorted(given)}")
    if "in" in given and not isinstance(given["in"], list):
        raise BadFilter(f"{name} in takes a list")


def matches(filters: dict[str, Any], row: Filterable, scoping: Scoping) -> bool:
    if scoping is Scoping.IMPLICIT_NULLS:
        mentioned = {key for key, _ in conditions(filters)}
        if any(row.entity(name) is not None for name in ENTITIES if name not in mentioned):
            return False
    return _holds(filters, row)


def _holds(filters: dict[str, Any], row: Filterable) -> bool:
    for key, value in filters.items():
        if key == "AND":
            held = all(_holds(item, row) for item in value)
        elif key == "OR":
            held = any(_holds(item, row) for item in value)
        elif key == "NOT":
            held = not any(_holds(item, row) for item in (value if isinstance(value, list) else [value]))
        else:
            held = _condition(key, value, row)
        if not held:
            return False
    return True


def _condition(key: str, value: Any, row: Filterable) -> bool:
    if key in ENTITIES:
        return _compare(row.entity(key), value)
    if key == "metadata":
        return all(_compare((row.metadata or {}).get(name), wanted) for name, wanted in value.items())
    if key == "memory_ids":
        return row.id in (value["in"] if isinstance(value, dict) else value)
    if key == "keywords":
        return _compare(row.memory, value if isinstance(value, dict) else {"icontains": value})
    if key == "categories":
        return _categories(row.categories, value if isinstance(value, dict) else {"eq": value})
    stored = row.updated_at if key == "updated_at" else row.created_at
    wanted = value if isinstance(value, dict) else {"eq": value}
    return _compare(stored, {operator: format_timestamp(limit) for operator, limit in wanted.items()})


def _compare(stored: Any, wanted: Any) -> bool:
    if wanted == "*":
        return stored is not None
    if not isinstance(wanted, dict):
        return bool(stored == wanted and type(stored) is type(wanted))
    return all(_operator(stored, operator, value) for operator, value in wanted.items())


def _operator(stored: Any, operator: str, value: Any) -> bool:
    match operator:
        case "eq":
            return _compare(stored, value)
        case "ne":  # nulls included, as documented
            return bool(stored != value)
        case "in":
            return stored in value or ("*" in value and stored is not None)
        case "contains":
            return stored is not None and (value in stored if isinstance(stored, str | list) else False)
        case "icontains":
            return isinstance(stored, str) and value.lower() in stored.lower()
        case "gt":
            return bool(stored > value)
        case "gte":
            return bool(stored >= value)
        case "lt":
            return bool(stored < value)
        case _:
            return bool(stored <= value)


def _categories(stored: list[str], wanted: dict[str, Any]) -> bool:
    for operator, value in wanted.items():
        if operator == "contains":
            held = any(value in category for category in stored)
        elif operator == "in":
            held = bool(set(value) & set(stored))
        else:
            held = (value in stored) == (operator == "eq")
        if not held:
            return False
    return True


def format_timestamp(value: Any) -> datetime:
    """Parse a date, or a date and time, of a filter."""
    try:
        if len(value) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(value), time(), UTC)
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadFilter(f"{value!r} is no date") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def admitted(filters: Any) -> frozenset[str] | None:
    """Return the users whose rows a filter can match at most, or ANYBODY, which includes rows without a user."""
    if not isinstance(filters, dict):
        return ANYBODY
    bounds: list[frozenset[str] | None] = []
    for key, value in filters.items():
        if key == "AND":
            bounds += [admitted(item) for item in value]
        elif key == "OR":
            bounds.append(_union(admitted(item) for item in value))
        elif key == "user_id":
            bounds.append(_bound(value))
    known = [bound for bound in bounds if bound is not ANYBODY]
    return frozenset.intersection(*known) if known else ANYBODY


def _bound(value: Any) -> frozenset[str] | None:
    wanted = (value.get("in") or [value.get("eq")]) if isinstance(value, dict) else [value]
    if any(not isinstance(one, str) or one == "*" for one in wanted):
        return ANYBODY
    return frozenset(wanted)


def _union(bounds: Iterator[frozenset[str] | None]) -> frozenset[str] | None:
    found: frozenset[str] = frozenset()
    for bound in bounds:
        if bound is ANYBODY:
            return ANYBODY
        found |= bound
    return found
