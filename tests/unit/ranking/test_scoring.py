"""All that speaks for a row, put together: what each part does, what a score is, and the order that comes of it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from langchain_mem0_scoped import ranking
from langchain_mem0_scoped.ranking import DEFAULT_THRESHOLD, build_index, top
from tests.partitions import DIMS, OTHER_KEY, partition, ranked, scores
from tests.worlds import vector_of

words = st.sampled_from(["dog", "cat", "rome", "paris", "peanut", "allergy", "violin", "the", "and", "mountain"])
texts = st.lists(words, max_size=12).map(" ".join)
payloads = st.builds(
    lambda text, session, name, day: {"data": text, "session_id": session, "actor_id": name, "created_at": day},
    texts,
    st.sampled_from([None, "s1", "s2"]),
    st.sampled_from([None, "Ann", "Rex"]),
    st.sampled_from([None, "2023-05-08", "2020-01-01"]),
)
queries = texts | st.sampled_from(["What did Ann say in May 2023?", "Rex and Ann", "2020", ""])
several = st.lists(payloads, min_size=1, max_size=12)


def vectors_of(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIMS), elements=st.floats(-1, 1, width=32))


class TestRank:
    @given(st.data(), several, queries)
    def test_rows_alone_decide_to_the_last_bit(
        self, data: st.DataObject, rows: list[dict[str, Any]], query: str
    ) -> None:
        vectors, vector = data.draw(vectors_of(len(rows))), data.draw(vectors_of(1))[0]
        found = ranked(partition(rows, vectors), query, vector)
        again = ranked(partition(rows, vectors), query, vector)
        assert again.raw_score.tobytes() == found.raw_score.tobytes()
        assert found.raw_score.dtype == np.float64

    def test_words_and_meaning_both_count(self) -> None:
        rows = partition(["dog", "cat", "rome"], np.eye(3, DIMS))
        assert np.argmax(ranked(rows, "dog").raw_score) == 0
        assert np.argmax(ranked(rows, "", np.eye(DIMS)[1]).raw_score) == 1
        assert np.argmax(ranked(rows, "violin", np.eye(DIMS)[2]).raw_score) == 2

    def test_an_answer_is_found_by_its_question(self) -> None:
        said = ["Do you like hiking?", "Yes, a lot.", "Rome is warm.", "I bought eggs."]
        found = ranked(partition([{"data": text, "session_id": "s"} for text in said]), "hiking").raw_score
        assert np.argsort(-found, kind="stable").tolist()[:2] == [0, 1]

    @pytest.mark.parametrize("named", ["actor_id", "text"])
    def test_who_is_named_speaks(self, named: str) -> None:
        def said(name: str, text: str) -> dict[str, Any]:
            return {"data": text, "actor_id": name} if named == "actor_id" else {"data": f"{name}: {text}"}

        rows = [said("Anna", "I love hiking"), said("Rex", "I love hiking")] * 3
        rows = [{**row, "session_id": str(at)} for at, row in enumerate(rows)]
        found = ranked(partition(rows), "What does Rex love? hiking?").raw_score
        assert found[1::2].min() > found[::2].max()
        # Who names everybody names nobody.
        found = ranked(partition(rows), "Do Rex and Anna love hiking?").raw_score
        assert np.ptp(found) < 1e-9

    @pytest.mark.parametrize("count", [60, 300])
    def test_a_word_that_seldom_begins_a_row_names_nobody(self, count: int) -> None:
        rows = [f"w{at} and so on" for at in range(count)]
        assert build_index(partition(rows)).speakers == frozenset()
        for often in (rows[: count * 9 // 10] + ["Anna: hi", "Rex: ho"] * (count // 20),):
            assert len(build_index(partition(often)).speakers) == 2

    def test_when_it_was_said_counts(self) -> None:
        days = ["2023-05-08", "2022-03-01", "2021-05-09"]
        rows = [{"data": "We went hiking", "created_at": day, "session_id": day} for day in days]
        assert np.argmax(ranked(partition(rows), "Where did we go hiking in March 2022?").raw_score) == 1
        found = ranked(partition(rows), "Where did we go hiking in May?").raw_score
        assert found[0] == found[2] > found[1]

    def test_another_users_key_matches_no_word(self) -> None:
        assert scores(partition(["dog"], key=OTHER_KEY), "dog") == [0]


class TestScore:
    @given(st.data(), several, queries)
    def test_stays_within_0_and_1_and_falls_with_the_evidence(
        self, data: st.DataObject, rows: list[dict[str, Any]], query: str
    ) -> None:
        laid = partition(rows, data.draw(vectors_of(len(rows))))
        found = ranked(laid, query, data.draw(vectors_of(1))[0])
        shown = [found.score(row) for row in np.argsort(-found.raw_score, kind="stable").tolist()]
        positive = [one for one in shown if one]
        assert all(0 <= one < 1 for one in shown)
        assert positive == sorted(positive, reverse=True)

    @given(st.data(), several, texts)
    def test_is_0_only_for_what_has_nothing_in_common(
        self, data: st.DataObject, rows: list[dict[str, Any]], query: str
    ) -> None:
        laid = partition(rows, data.draw(vectors_of(len(rows))))
        found = ranked(laid, query, data.draw(vectors_of(1))[0])
        for row in range(len(rows)):
            common = found.words[row] > 0 or (found.cosines[row] > 1e-3 and found.max_similarity > 1e-3)
            if common:
                assert found.score(row) > 0

    @pytest.mark.parametrize("count", [1, 2, 5, 20, 600])
    def test_the_default_threshold_parts_related_from_unrelated(self, count: int) -> None:
        random = np.random.default_rng(0)
        vectors = random.standard_normal((count, 256))
        vectors[0] = 0.0
        vectors[0, :2] = 0.6, 0.8
        query = np.eye(256)[0]
        rows = partition([{"data": "peanut allergy", "created_at": "2020"}, *["rome"] * (count - 1)], vectors)
        assert max(scores(rows, "violin mountain", -query)) < DEFAULT_THRESHOLD
        assert scores(rows, "which nuts", query)[0] > DEFAULT_THRESHOLD

    def test_a_word_alone_is_enough(self) -> None:
        texts_of = ["the zyzzogeton is a leafhopper", "rome", "paris"]
        rows = partition([{"data": text, "session_id": text} for text in texts_of])
        assert scores(rows, "zyzzogeton")[0] > DEFAULT_THRESHOLD > scores(rows, "zyzzogeton")[1]

    def test_what_all_rows_say_is_found_all_the_same(self) -> None:
        notes = [f"note {at} part {at % 3}" for at in range(100)]
        rows = partition(notes, list(map(vector_of, notes)))
        assert max(scores(rows, "note part", vector_of("note part"))) > DEFAULT_THRESHOLD

    def test_a_better_row_beside_it_does_not_take_the_score_away(self) -> None:
        alone = scores(partition(["dog cat", "rome"]), "dog")
        beside = scores(partition(["dog cat", "dog"]), "dog")
        assert beside[0] > 0.5 * alone[0] > 0

    def test_a_query_of_nothing_matches_nothing(self) -> None:
        assert scores(partition(["dog", ""], np.eye(2, DIMS)), "") == [0, 0]

    def test_evidence_against_a_row_never_overflows(self) -> None:
        found = ranking.Ranking(np.array([-1e9, 0.0, 1e9]), np.ones(3), np.ones(3, np.float32), 1.0)
        min_score, middle, best = map(found.score, range(3))
        assert 0 < min_score < middle < best <= 1
        assert math.isfinite(best)


class TestTop:
    @given(
        # Few distinct values, so that ties fall on the cut.
        st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), max_size=60),
        st.integers(-1, 70),
    )
    def test_equals_a_full_stable_sort(self, scores: list[float], k: int) -> None:
        expected = sorted(range(len(scores)), key=lambda at: -scores[at])[: max(k, 0)]
        assert top(np.array(scores, dtype=np.float64), k) == expected

    def test_takes_single_precision_too(self) -> None:
        assert top(np.array([0.1, 0.3, 0.2, 0.3], dtype=np.float32), 3) == [1, 3, 2]
