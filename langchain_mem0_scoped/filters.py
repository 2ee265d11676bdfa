"""Whether a payload meets mem0's metadata filters, on this store as its documentation has them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final


def _text_in(part: object, whole: object) -> bool:
    if isinstance(whole, str):
        return isinstance(part, str) and part in whole
    return isinstance(whole, (list, tuple)) and part in whole


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(value: object, bound: object) -> bool:
        numbers = isinstance(value, (int, float)) and isinstance(bound, (int, float))
        return (numbers or (isinstance(value, str) and isinstance(bound, str))) and compare(value, bound)

    return test


def _equal(value: object, wanted: object) -> bool:
    # In Python True == 1; in JSON they are two values.
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": _equal,
    "ne": lambda value, wanted: not _equal(value, wanted),
    "in": lambda value, wanted: any(_equal(value, one) for one in wanted),
    "nin": lambda value, wanted: not any(_equal(value, one) for one in wanted),
    "gt": _ordered(lambda value, bound: value > bound),
    "gte": _ordered(lambda value, bound: value >= bound),
    "lt": _ordered(lambda value, bound: value < bound),
    "lte": _ordered(lambda value, bound: value <= bound),
    "contains": lambda value, part: _text_in(part, value),
    "icontains": lambda value, part: isinstance(value, str) and _text_in(str(part).casefold(), value.casefold()),
}
_OF_MISSING: Final = frozenset({"ne", "nin"})


def matches_filters(payload: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Tell whether every condition holds.

    Args:
        payload: A row's payload.
        filters: `{key: value}`, `{key: {operator: value}}`, `{key: "*"}` for any value, and AND, OR, NOT (also `$and`,
            `$or`, `$not`) over lists of such. A key the payload lacks meets `ne` and `nin` alone.

    Raises:
        ValueError: An operator is unknown.
    """
    return all(_holds(payload, key, condition) for key, condition in filters.items())


def _holds(payload: Mapping[str, Any], key: str, condition: Any) -> bool:
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
    return all(_tested(payload, key, operator, operand) for operator, operand in condition.items())


def _tested(payload: Mapping[str, Any], key: str, operator: str, operand: Any) -> bool:
    if operator not in _TESTS:
        raise ValueError(f"unknown filter operator; expected one of {', '.join(_TESTS)}")
    return _TESTS[operator](payload[key], operand) if key in payload else operator in _OF_MISSING
