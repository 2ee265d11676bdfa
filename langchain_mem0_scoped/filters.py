"""Metadata filters: whether a payload matches, with the semantics that mem0 documents. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final


def _contains(value: object, part: object) -> bool:
    if isinstance(value, str):
        return isinstance(part, str) and part in value
    return isinstance(value, (list, tuple)) and part in value


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: object, bound: object) -> bool:
        numbers = isinstance(value, (int, float)) and isinstance(bound, (int, float))
        return (numbers or (isinstance(value, str) and isinstance(bound, str))) and compare(value, bound)

    return holds


def _equal(value: object, wanted: object) -> bool:
    # True == 1 in Python, but not in JSON.
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": _equal,
    "ne": lambda value, wanted: not _equal(value, wanted),
    "in": lambda value, wanted: any(_equal(value, item) for item in wanted),
    "nin": lambda value, wanted: not any(_equal(value, item) for item in wanted),
    "gt": _comparison(lambda value, bound: value > bound),
    "gte": _comparison(lambda value, bound: value >= bound),
    "lt": _comparison(lambda value, bound: value < bound),
    "lte": _comparison(lambda value, bound: value <= bound),
    "contains": lambda value, part: _contains(value, part),
    "icontains": lambda value, part: isinstance(value, str) and _contains(value.casefold(), str(part).casefold()),
}
_TRUE_FOR_MISSING_KEY: Final = frozenset({"ne", "nin"})


def matches_filters(payload: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Check whether a payload matches all filters.

    Args:
        payload: A row's payload.
        filters: `{key: value}`, `{key: {operator: value}}`, `{key: "*"}` for any value but None, and AND, OR, NOT (also
            `$and`, `$or`, `$not`) with a list of filters. A missing key matches only `ne` and `nin`.

    Returns:
        Whether every filter matches.

    Raises:
        ValueError: An operator is unknown.

    Example:
        >>> matches_filters({"topic": "food"}, {"topic": {"in": ["food", "drink"]}})
        True
    """
    return all(_matches(payload, key, condition) for key, condition in filters.items())


def _matches(payload: Mapping[str, Any], key: str, condition: Any) -> bool:
    match key.removeprefix("$").upper():
        case "AND":
            return all(matches_filters(payload, part) for part in condition)
        case "OR":
            return any(matches_filters(payload, part) for part in condition)
        case "NOT":
            return not any(matches_filters(payload, part) for part in condition)
    if condition == "*":
        return payload.get(key) is not None
    if not isinstance(condition, Mapping):
        return key in payload and _equal(payload[key], condition)
    return all(_apply(payload, key, operator, operand) for operator, operand in condition.items())


def _apply(payload: Mapping[str, Any], key: str, operator: str, operand: Any) -> bool:
    if operator not in _OPERATORS:
        raise ValueError(f"unknown filter operator; expected one of {', '.join(_OPERATORS)}")
    return _OPERATORS[operator](payload[key], operand) if key in payload else operator in _TRUE_FOR_MISSING_KEY
