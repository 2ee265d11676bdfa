"""What a row takes from the rows around it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.ranking.context import add_context, build_context
from langchain_mem0_scoped.ranking.weights import WEIGHTS
from tests.partitions import partition

_NEIGHBOUR, _ANSWER, _SESSION = WEIGHTS.neighbour, WEIGHTS.answer, WEIGHTS.session
_MORNING, _NOON, _PAST_NOON = "2026-01-01T08:00:00", "2026-01-01T12:00:00", "2026-01-01T12:59:00"


def said(session: str | None = None, text: str = "So.", at: str = _NOON) -> dict[str, Any]:
    return {"data": text, "session_id": session, "created_at": f"{at}+00:00"}


def taken(rows: list[dict[str, Any]], *evidence: float) -> list[float]:
    """What speaks for each row where this speaks for it by itself."""
    found: list[float] = add_context(
        np.array(evidence, np.float64), build_context(partition(rows), WEIGHTS), WEIGHTS
    ).tolist()
    return found


def reference(rows: list[dict[str, Any]], evidence: list[float]) -> list[float]:
    """Row by row."""
    found = []
    for row, own in zip(rows, evidence, strict=True):
        place = next(at for at, other in enumerate(rows) if other is row)
        of_session = [at for at, other in enumerate(rows) if other["session_id"] == row["session_id"]]
        at = of_session.index(place)
        best = max(evidence[other] for other in of_session) if row["session_id"] else own
        total = own + _SESSION * best
        for beside in (-2, -1, 1, 2):
            if 0 <= at + beside < len(of_session):
                total += _NEIGHBOUR * evidence[of_session[at + beside]]
        if at and "?" in rows[of_session[at - 1]]["data"]:
            total += _ANSWER * evidence[of_session[at - 1]]
        found.append(total)
    return found


class TestShared:
    def test_rows_around_a_row_share_in_it_and_others_do_not(self) -> None:
        rows = [said("a"), said("a"), said("a"), said("a"), said("b")]
        far, two, one, own, other = taken(rows, 0, 0, 0, 1, 0)
        assert own > one > 0
        assert one == pytest.approx(two)
        assert two > far == pytest.approx(_SESSION)
        assert other == 0

    def test_an_answer_has_more_of_the_question_than_the_question_of_it(self) -> None:
        asked, answered = taken([said("a", "Where to?"), said("a", "To Lisbon.")], 1, 0)
        assert answered == pytest.approx(_SESSION + _NEIGHBOUR + _ANSWER)
        assert taken([said("a", "Where to."), said("a", "To Lisbon.")], 1, 0)[1] == pytest.approx(_SESSION + _NEIGHBOUR)
        assert asked == pytest.approx(1 + _SESSION)

    def test_what_was_written_between_two_rows_of_a_session_does_not_part_them(self) -> None:
        rows = [said("a"), said("b"), said("b"), said("b"), said("a")]
        assert taken(rows, 1, 0, 0, 0, 0) == pytest.approx([1 + _SESSION, 0, 0, 0, _SESSION + _NEIGHBOUR])

    def test_rows_of_no_session_are_neighbours_within_the_hour_and_share_no_best(self) -> None:
        rows = [said(at=_MORNING), said(at=_NOON), said(at=_PAST_NOON), said("a")]
        assert taken(rows, 0, 1, 0, 0) == pytest.approx([0, 1 + _SESSION, _NEIGHBOUR, 0])
        assert taken(rows[:1], 1) == pytest.approx([1 + _SESSION])
        assert taken([{"data": "So."}] * 2, 1, 0) == pytest.approx([1 + _SESSION, 0]), "nobody knows when"

    @given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans(), st.floats(-3, 3)), min_size=1))
    def test_equals_what_is_reckoned_row_by_row(self, drawn: list[tuple[str | None, bool, float]]) -> None:
        rows = [said(session, "So?" if asks else "So.") for session, asks, _ in drawn]
        evidence = [one for _, _, one in drawn]
        assert taken(rows, *evidence) == pytest.approx(reference(rows, evidence))

    def test_many_rows_are_treated_as_few(self) -> None:
        rows = [said(("a", "b", None)[at % 3], "So?" if at % 5 == 0 else "So.") for at in range(500)]
        evidence = np.random.default_rng(0).standard_normal(500).tolist()
        assert taken(rows, *evidence) == pytest.approx(reference(rows, evidence))
