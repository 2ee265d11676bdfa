"""Any value as JSON: kept, or described under a key that marks it. The values themselves are in test_codec.py."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.json_values import MAX_REPR, fields_of, to_json_text, to_json_value
from tests.support import label
from tests.ways import Tea

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_json_is_kept(value: Any) -> None:
    assert repr(to_json_value(value)) == repr(value)
    assert json.loads(to_json_text(value)) == value


def test_a_repr_is_cut() -> None:
    described = to_json_value(Decimal("1" * 5_000))
    assert len(described["repr"]) == MAX_REPR + 1
    assert described["repr"].endswith("…")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2026, 1, 1), '"2026-01-01"'),
        (datetime(2026, 1, 1, tzinfo=UTC), '"2026-01-01T00:00:00Z"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.50"), '"1.50"'),
        ({1}, "[1]"),
        (math.inf, '"Infinity"'),
        (Tea(drink="Black", cups=2), '{"drink":"Black","cups":2}'),
        ({"猫": "\ud800"}, '{"猫": "\ud800"}'),
    ],
    ids=label,
)
def test_text_is_to_be_read(value: Any, text: str) -> None:
    assert to_json_text(value) == text


def test_text_describes_what_has_no_form() -> None:
    assert json.loads(to_json_text([object()]))[0]["type"] == "object"
    loop: list[Any] = []
    loop.append(loop)
    assert json.loads(to_json_text(loop))[0]["repr"] == "[[...]]"


def test_fields() -> None:
    assert fields_of(Tea(drink="Black", cups=2)) == {"drink": "Black", "cups": 2}
    assert fields_of({"drink": "Black"}) is None
    assert fields_of(Tea) is None
