"""Default weights: each feature decides an order, and the order is lost with its weight at 0."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from langchain_mem0_scoped.ranking import WEIGHTS, Weights, build_index, rank
from tests.partitions import DIMS, partition, query_terms


def row(text: str, session: str | None = None, speaker: str | None = None, day: str = "2023-05-08") -> dict[str, Any]:
    return {"data": text, "session_id": session, "actor_id": speaker, "created_at": day}


class Case(NamedTuple):
    """Two rows of which the first ranks higher because of one feature alone."""

    rows: list[dict[str, Any]]
    query: str
    higher: int
    lower: int


CASES = {
    "words": Case([row("train", "a"), row("peanut", "b")], "peanut", higher=1, lower=0),
    # Both are in the session of the match; only the first is next to it.
    "neighbour": Case(
        [row("peanut", "a"), *[row(text, "a") for text in ("one", "two", "three", "four", "five")]],
        "peanut",
        higher=1,
        lower=4,
    ),
    # Both follow a match at the same distance; only the first follows a question.
    "answer": Case(
        [row("peanut?", "a"), row("yes", "a"), row("peanut", "b"), row("no", "b")], "peanut", higher=1, lower=3
    ),
    # Both are no neighbours of the match; only the first is in its session.
    "session": Case(
        [row("peanut", "a"), *[row(text, "a") for text in ("one", "two", "three")], row("four", "b")],
        "peanut",
        higher=3,
        lower=4,
    ),
    "speaker": Case(
        [row("train", str(index), speaker) for index, speaker in enumerate(["Anna", "Rex"] * 3)],
        "what about Rex",
        higher=1,
        lower=0,
    ),
    "date": Case(
        [row("train", "a", day="2023-05-08"), row("train", "b", day="2022-03-01")],
        "in March 2022",
        higher=1,
        lower=0,
    ),
}


def gap(case: Case, weights: Weights) -> float:
    rows = partition(case.rows)
    index = build_index(rows, weights)
    raw_score = rank(rows, index, np.zeros(DIMS), query_terms(case.query), case.query).raw_score
    return float(raw_score[case.higher] - raw_score[case.lower])


@pytest.mark.parametrize("feature", CASES)
def test_default_weight_decides_the_order(feature: str) -> None:
    case = CASES[feature]
    rows = partition(case.rows)
    ranking = rank(rows, build_index(rows), np.zeros(DIMS), query_terms(case.query), case.query)
    assert ranking.raw_score[case.higher] - ranking.raw_score[case.lower] > 0.1


@pytest.mark.parametrize("feature", CASES)
def test_order_is_lost_with_the_weight_at_0(feature: str) -> None:
    """Shows that the feature alone decides the order in its case."""
    assert gap(CASES[feature], WEIGHTS) > 0.1
    assert gap(CASES[feature], WEIGHTS._replace(**{feature: 0.0})) == pytest.approx(0.0)


def test_every_weight_has_a_case() -> None:
    assert set(CASES) == set(Weights._fields)


def test_defaults_are_those_that_were_measured() -> None:
    # benchmarks/RECALL.md reports figures for these values.
    assert Weights(words=0.55, neighbour=0.25, answer=0.45, session=0.6, speaker=1.0, date=3.0) == WEIGHTS
