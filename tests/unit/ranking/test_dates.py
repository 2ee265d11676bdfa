"""Dates: the periods a query names, and the rows that match them."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from langchain_mem0_scoped.ranking.dates import in_periods, parse_periods


def timestamps(*days: str) -> NDArray[np.int64]:
    times = [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days]
    return np.array([(time - datetime(1, 1, 1, tzinfo=UTC)).total_seconds() for time in times], np.int64)


@pytest.mark.parametrize(
    ("text", "periods"),
    [
        ("What did we do in May 2023?", [(2023, 5, None)]),
        ("What did we do on May 8, 2023?", [(2023, 5, 8)]),
        ("What did we do on 8 May 2023?", [(2023, 5, 8)]),
        ("on the 8th of May", [(None, 5, 8)]),
        ("on May 3rd", [(None, 5, 3)]),
        ("in Sept. 2021", [(2021, 9, None)]),
        ("in December", [(None, 12, None)]),
        ("since 1999", [(1999, None, None)]),
        ("2023-05-08", [(2023, 5, 8)]),
        ("2023/5", [(2023, 5, None)]),
        ("2023\u5e745\u67088\u65e5\u306b\u4f55\u3092", [(2023, 5, 8)]),
        ("\u4e94\u6708", []),
        ("5\u6708", [(None, 5, None)]),
        ("between March and June 2020", [(None, 3, None), (2020, 6, None)]),
        ("I may march on", []),
        ("in 2023-13", []),
        ("room 42b, 300 people and 12 eggs", []),
        ("Marching with Maya", []),
        ("", []),
    ],
)
def test_parses_periods(text: str, periods: list[tuple[int | None, int | None, int | None]]) -> None:
    assert parse_periods(text) == periods


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("May 2023", ["2023-04-30", "2023-05-01", "2023-06-01"], ["2023-04-29", "2023-06-02", "2022-05-10"]),
        ("May", ["2022-05-10", "2023-05-31"], ["2023-06-02"]),
        ("2023", ["2022-12-31", "2023-07-01", "2024-01-01"], ["2024-01-02"]),
        # A row may report a day up to two weeks afterwards.
        ("8 May 2023", ["2023-05-07", "2023-05-08", "2023-05-23"], ["2023-05-06", "2023-05-24"]),
        ("25 December", ["2024-01-03", "2023-12-25"], ["2023-12-20"]),
        # The only rows are in the year after or before the day that is meant.
        ("25 December", ["2024-01-03"], []),
        ("January", ["2023-12-31"], []),
        ("31 February 2023", [], ["2023-02-28", "2023-03-03"]),
        ("0001-01-01", ["0001-01-02"], ["2023-01-01"]),
        ("9999-12-31", ["9999-12-31"], ["2023-01-01"]),
    ],
)
def test_finds_rows_in_periods(text: str, inside: list[str], outside: list[str]) -> None:
    found = in_periods(timestamps(*inside, *outside), parse_periods(text))
    assert found.tolist() == [True] * len(inside) + [False] * len(outside)


def test_unknown_timestamp_is_in_no_period() -> None:
    assert in_periods(np.zeros(3, np.int64), parse_periods("0001-01-01")).tolist() == [False] * 3
    assert in_periods(np.array([0, 86_400]), parse_periods("0001-01-01")).tolist() == [False, True]


@given(st.text(st.sampled_from("0123456789-/. May\u5e74\u6708\u65e5thOct,")))
def test_never_raises(text: str) -> None:
    in_periods(timestamps("0001-01-01", "2023-05-08", "9999-12-31"), parse_periods(text))
