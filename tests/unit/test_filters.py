"""Metadata filters: every operator, missing keys and logic."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.filters import matches_filters

ROW: dict[str, Any] = {
    "topic": "Food", "n": 3, "price": 2.5, "paid": True, "tags": ["a", "b"], "day": "2023-05-08", "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "met"),
    [
        ({}, True),
        ({"topic": "Food"}, True),
        ({"topic": "food"}, False),
        ({"topic": "Foo"}, False),
        ({"topic": "Food", "n": 3}, True),
        ({"topic": "Food", "n": 4}, False),
        ({"n": 3.0}, True),
        ({"n": "3"}, False),
        ({"absent": "Food"}, False),
        ({"topic": {"eq": "Food"}}, True),
        ({"topic": {"ne": "Food"}}, False),
        ({"topic": {"ne": "Drink"}}, True),
        ({"topic": {"in": ["Food", "Drink"]}}, True),
        ({"topic": {"in": ["Drink"]}}, False),
        ({"topic": {"nin": ["Drink"]}}, True),
        ({"topic": {"nin": ["Food"]}}, False),
        ({"n": {"gt": 2}}, True),
        ({"n": {"gt": 3}}, False),
        ({"n": {"gte": 3}}, True),
        ({"n": {"lt": 3}}, False),
        ({"n": {"lt": 3.5}}, True),
        ({"n": {"lte": 3}}, True),
        ({"n": {"gt": 1, "lt": 3}}, False),
        ({"n": {"gt": 1, "lt": 4}}, True),
        ({"day": {"gte": "2023-05-08", "lt": "2023-06-01"}}, True),
        ({"day": {"gt": 5}}, False),
        ({"n": {"gt": "2"}}, False),
        ({"nothing": {"lt": 5}}, False),
        ({"topic": {"contains": "oo"}}, True),
        ({"topic": {"contains": "OO"}}, False),
        ({"topic": {"icontains": "OO"}}, True),
        ({"tags": {"contains": "a"}}, True),
        ({"tags": {"contains": "c"}}, False),
        ({"n": {"contains": "3"}}, False),
        ({"n": {"icontains": "3"}}, False),
    ],
)
def test_operator(filters: dict[str, Any], met: bool) -> None:
    assert matches_filters(ROW, filters) is met


@pytest.mark.parametrize("operator", ["eq", "in", "gt", "gte", "lt", "lte", "contains", "icontains"])
def test_missing_key_does_not_match(operator: str) -> None:
    assert not matches_filters(ROW, {"absent": {operator: ["x"] if operator == "in" else "x"}})


@pytest.mark.parametrize("condition", [{"ne": "x"}, {"nin": ["x"]}])
def test_missing_key_matches_ne_and_nin(condition: dict[str, Any]) -> None:
    assert matches_filters(ROW, {"absent": condition})


def test_true_is_not_one() -> None:
    assert matches_filters(ROW, {"paid": True})
    assert not matches_filters(ROW, {"paid": 1})
    assert not matches_filters({"paid": 1}, {"paid": {"in": [True]}})
    assert matches_filters({"paid": 1}, {"paid": {"ne": True}})


def test_star_matches_any_value_but_none() -> None:
    assert matches_filters(ROW, {"topic": "*"})
    assert not matches_filters(ROW, {"nothing": "*"})
    assert not matches_filters(ROW, {"absent": "*"})


@pytest.mark.parametrize("prefix", ["", "$"])
def test_and_or_not_can_be_nested(prefix: str) -> None:
    food, three, four = {"topic": "Food"}, {"n": 3}, {"n": 4}
    assert matches_filters(ROW, {f"{prefix}AND": [food, three]})
    assert not matches_filters(ROW, {f"{prefix}and": [food, four]})
    assert matches_filters(ROW, {f"{prefix}or": [four, food]})
    assert not matches_filters(ROW, {f"{prefix}OR": [four, {"n": 5}]})
    assert matches_filters(ROW, {f"{prefix}NOT": [four, {"n": 5}]})
    assert not matches_filters(ROW, {f"{prefix}not": [four, food]})
    assert matches_filters(ROW, {"paid": True, "OR": [{"NOT": [food]}, {"AND": [three, food]}]})


def test_unknown_operator_raises() -> None:
    with pytest.raises(ValueError, match="unknown filter operator"):
        matches_filters(ROW, {"topic": {"like": "F%"}})


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


@given(value=_VALUES, bound=_VALUES)
def test_opposite_operators_never_both_match(value: Any, bound: Any) -> None:
    row = {"key": value}
    for one, other in [("eq", "ne"), ("gt", "lte"), ("lt", "gte")]:
        first, second = matches_filters(row, {"key": {one: bound}}), matches_filters(row, {"key": {other: bound}})
        assert not (first and second)
        assert one != "eq" or first or second
    assert matches_filters(row, {"key": {"in": [bound]}}) == matches_filters(row, {"key": {"eq": bound}})
