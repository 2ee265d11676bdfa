"""Context: the shares a row takes of the scores of its neighbours and its session."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.ranking.context import add_context, build_context
from langchain_mem0_scoped.ranking.weights import WEIGHTS
from tests.partitions import partition

_NEIGHBOUR, _ANSWER, _SESSION = WEIGHTS.neighbour, WEIGHTS.answer, WEIGHTS.session
_MORNING, _NOON = "2026-01-01T08:00:00", "2026-01-01T12:00:00"
_WITHIN_THE_HOUR, _AFTER_THE_HOUR = "2026-01-01T13:00:00", "2026-01-01T13:00:01"


def row(session: str | None = None, text: str = "So.", at: str = _NOON) -> dict[str, Any]:
    return {"data": text, "session_id": session, "created_at": f"{at}+00:00"}


def scores_in_context(rows: list[dict[str, Any]], *own_scores: float) -> list[float]:
    """Returns each row's score in context, given its own score."""
    scores = add_context(np.array(own_scores, np.float64), build_context(partition(rows), WEIGHTS), WEIGHTS)
    return [float(score) for score in scores]


def reference(rows: list[dict[str, Any]], own_scores: list[float]) -> list[float]:
    """Computed row by row."""
    scores = []
    for index, (row, own) in enumerate(zip(rows, own_scores, strict=True)):
        session = [other for other, one in enumerate(rows) if one["session_id"] == row["session_id"]]
        place = session.index(index)
        best = max(own_scores[other] for other in session) if row["session_id"] else own
        total = own + _SESSION * best
        for offset in (-2, -1, 1, 2):
            if 0 <= place + offset < len(session):
                total += _NEIGHBOUR * own_scores[session[place + offset]]
        if place and "?" in rows[session[place - 1]]["data"]:
            total += _ANSWER * own_scores[session[place - 1]]
        scores.append(total)
    return scores


class TestAddContext:
    def test_neighbours_take_a_share_and_other_sessions_take_none(self) -> None:
        rows = [row("a"), row("a"), row("a"), row("a"), row("b")]
        far, two, one, own, other = scores_in_context(rows, 0, 0, 0, 1, 0)
        assert own > one > 0
        assert one == pytest.approx(two)
        assert two > far == pytest.approx(_SESSION)
        assert other == 0

    def test_answer_takes_a_greater_share_of_its_question_than_the_reverse(self) -> None:
        asked, answered = scores_in_context([row("a", "Where to?"), row("a", "To Lisbon.")], 1, 0)
        assert answered == pytest.approx(_SESSION + _NEIGHBOUR + _ANSWER)
        assert scores_in_context([row("a", "Where to."), row("a", "To Lisbon.")], 1, 0)[1] == pytest.approx(
            _SESSION + _NEIGHBOUR
        )
        assert asked == pytest.approx(1 + _SESSION)

    def test_rows_of_a_session_stay_neighbours_across_rows_of_another(self) -> None:
        rows = [row("a"), row("b"), row("b"), row("b"), row("a")]
        assert scores_in_context(rows, 1, 0, 0, 0, 0) == pytest.approx([1 + _SESSION, 0, 0, 0, _SESSION + _NEIGHBOUR])

    def test_rows_without_session_are_neighbours_within_an_hour(self) -> None:
        rows = [row(at=_MORNING), row(at=_NOON), row(at=_WITHIN_THE_HOUR), row("a")]
        assert scores_in_context(rows, 0, 1, 0, 0) == pytest.approx([0, 1 + _SESSION, _NEIGHBOUR, 0])
        too_late = [row(at=_NOON), row(at=_AFTER_THE_HOUR)]
        assert scores_in_context(too_late, 1, 0) == pytest.approx([1 + _SESSION, 0])
        assert scores_in_context(rows[:1], 1) == pytest.approx([1 + _SESSION])
        assert scores_in_context([{"data": "So."}] * 2, 1, 0) == pytest.approx([1 + _SESSION, 0]), (
            "rows without a timestamp"
        )

    @given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans(), st.floats(-3, 3)), min_size=1))
    def test_equals_the_row_by_row_reference(self, drawn: list[tuple[str | None, bool, float]]) -> None:
        rows = [row(session, "So?" if is_question else "So.") for session, is_question, _ in drawn]
        own_scores = [score for _, _, score in drawn]
        assert scores_in_context(rows, *own_scores) == pytest.approx(reference(rows, own_scores))

    def test_500_rows_equal_the_row_by_row_reference(self) -> None:
        rows = [row(("a", "b", None)[at % 3], "So?" if at % 5 == 0 else "So.") for at in range(500)]
        own_scores = np.random.default_rng(0).standard_normal(500).tolist()
        assert scores_in_context(rows, *own_scores) == pytest.approx(reference(rows, own_scores))
