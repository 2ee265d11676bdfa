"""Scoring: what each feature does to the order, what a score is, and the best rows."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from langchain_mem0_scoped.ranking import DEFAULT_THRESHOLD, Ranking, build_index, top
from langchain_mem0_scoped.ranking.scoring import _SMALL
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
payload_lists = st.lists(payloads, min_size=1, max_size=12)


def vectors_of(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIMS), elements=st.floats(-1, 1, width=32))


def spoken(name: str, text: str, by: str) -> dict[str, Any]:
    """A row whose speaker is named by `actor_id` or at the start of its text."""
    return {"data": text, "actor_id": name} if by == "actor_id" else {"data": f"{name}: {text}"}


def test_score_is_one_half_at_28_among_very_many_rows_and_at_half_of_it_among_200() -> None:
    for count, raw_score in ((200, 14.0), (200 * 999, 28.0 * 0.999)):
        found = Ranking(np.full(count, raw_score), np.ones(count), np.ones(count, np.float32), 1.0)
        assert found.score(0) == pytest.approx(0.5)


def test_names_of_one_row_each_are_no_speakers() -> None:
    assert not build_index(partition(["Anna likes tea", "Rex likes cake", "Mia sleeps"])).speakers
    assert len(build_index(partition(["Anna likes tea", "Rex likes cake"] * 2)).speakers) == 2


class TestRank:
    @given(st.data(), payload_lists, queries)
    def test_same_rows_give_the_same_bits(self, data: st.DataObject, rows: list[dict[str, Any]], query: str) -> None:
        vectors, vector = data.draw(vectors_of(len(rows))), data.draw(vectors_of(1))[0]
        first = ranked(partition(rows, vectors), query, vector)
        second = ranked(partition(rows, vectors), query, vector)
        assert second.raw_score.tobytes() == first.raw_score.tobytes()
        assert first.raw_score.dtype == np.float64

    def test_words_and_vectors_both_count(self) -> None:
        rows = partition(["dog", "cat", "rome"], np.eye(3, DIMS))
        assert np.argmax(ranked(rows, "dog").raw_score) == 0
        assert np.argmax(ranked(rows, "", np.eye(DIMS)[1]).raw_score) == 1
        assert np.argmax(ranked(rows, "violin", np.eye(DIMS)[2]).raw_score) == 2

    def test_answer_is_found_by_its_question(self) -> None:
        texts = ["Do you like hiking?", "Yes, a lot.", "Rome is warm.", "I bought eggs."]
        raw_score = ranked(partition([{"data": text, "session_id": "s"} for text in texts]), "hiking").raw_score
        assert np.argsort(-raw_score, kind="stable").tolist()[:2] == [0, 1]

    @pytest.mark.parametrize("by", ["actor_id", "text"])
    def test_rows_of_a_named_speaker_rank_first(self, by: str) -> None:
        rows = [spoken("Anna", "I love hiking", by), spoken("Rex", "I love hiking", by)] * 3
        rows = [{**row, "session_id": str(index)} for index, row in enumerate(rows)]
        raw_score = ranked(partition(rows), "What does Rex love? hiking?").raw_score
        assert raw_score[1::2].min() > raw_score[::2].max()

    def test_query_that_names_every_speaker_prefers_none(self) -> None:
        rows = [spoken(name, "I love hiking", "actor_id") for name in ("Anna", "Rex", "Mia")] * 3
        # A tenth row, without a speaker, would not get the bonus that all speakers would get.
        rows = [{**row, "session_id": str(index)} for index, row in enumerate([*rows, {"data": "I love hiking"}])]
        raw_score = ranked(partition(rows), "Do Rex, Anna and Mia love hiking?").raw_score
        assert build_index(partition(rows)).speakers
        assert np.ptp(raw_score[:9]) < 1e-9
        assert raw_score[9] == pytest.approx(raw_score[0])

    def test_query_that_names_two_of_three_speakers_prefers_both(self) -> None:
        rows = [spoken(name, "I love hiking", "actor_id") for name in ("Anna", "Rex", "Mia")] * 3
        rows = [{**row, "session_id": str(index)} for index, row in enumerate(rows)]
        raw_score = ranked(partition(rows), "Do Rex and Anna love hiking?").raw_score
        assert min(raw_score[::3].min(), raw_score[1::3].min()) > raw_score[2::3].max()

    # Up to 200 rows, speakers are counted in another way than above.
    @pytest.mark.parametrize("count", [60, 300])
    def test_speakers_are_frequent_first_words(self, count: int) -> None:
        rows = [f"w{index} and so on" for index in range(count)]
        min_rows = count // 20

        def speakers(*names: str) -> int:
            spoken = [f"{name}: hi" for name in names]
            return len(build_index(partition(rows[: count - len(spoken)] + spoken)).speakers)

        assert speakers() == 0
        assert speakers(*["Anna", "Rex"] * min_rows) == 2
        assert speakers(*["Anna", "Rex"] * min_rows, *["Mia"] * (min_rows - 1)) == 2
        assert speakers(*["Anna", "Rex"] * (min_rows - 1)) == 0
        # One speaker cannot be told from another.
        assert speakers(*["Anna"] * min_rows) == 0

    @pytest.mark.parametrize("count", [60, 300])
    def test_rows_without_words_have_no_speaker(self, count: int) -> None:
        rows = [""] * count + ["Anna: hi", "Rex: ho"] * count
        assert len(build_index(partition(rows)).speakers) == 2

    def test_rows_created_in_a_named_period_rank_first(self) -> None:
        days = ["2023-05-08", "2022-03-01", "2021-05-09"]
        rows = [{"data": "We went hiking", "created_at": day, "session_id": day} for day in days]
        assert np.argmax(ranked(partition(rows), "Where did we go hiking in March 2022?").raw_score) == 1
        raw_score = ranked(partition(rows), "Where did we go hiking in May?").raw_score
        assert raw_score[0] == raw_score[2] > raw_score[1]

    def test_terms_under_another_key_match_nothing(self) -> None:
        assert scores(partition(["dog"], key=OTHER_KEY), "dog") == [0]


class TestScore:
    @given(st.data(), payload_lists, queries)
    def test_is_between_0_and_1_and_keeps_the_order(
        self, data: st.DataObject, rows: list[dict[str, Any]], query: str
    ) -> None:
        ranking = ranked(partition(rows, data.draw(vectors_of(len(rows)))), query, data.draw(vectors_of(1))[0])
        ordered = [ranking.score(row) for row in np.argsort(-ranking.raw_score, kind="stable").tolist()]
        positive = [score for score in ordered if score]
        assert all(0 <= score < 1 for score in ordered)
        assert positive == sorted(positive, reverse=True)

    @given(st.data(), payload_lists, texts)
    def test_is_0_only_with_nothing_in_common(
        self, data: st.DataObject, rows: list[dict[str, Any]], query: str
    ) -> None:
        ranking = ranked(partition(rows, data.draw(vectors_of(len(rows)))), query, data.draw(vectors_of(1))[0])
        for row in range(len(rows)):
            if ranking.words[row] > 0 or (ranking.cosines[row] > 1e-3 and ranking.max_similarity > 1e-3):
                assert ranking.score(row) > 0

    @pytest.mark.parametrize("count", [1, 2, 5, 20, 600])
    def test_default_threshold_separates_related_from_unrelated(self, count: int) -> None:
        random = np.random.default_rng(0)
        vectors = random.standard_normal((count, 256))
        vectors[0] = 0.0
        vectors[0, :2] = 0.6, 0.8
        query = np.eye(256)[0]
        rows = partition([{"data": "peanut allergy", "created_at": "2020"}, *["rome"] * (count - 1)], vectors)
        assert max(scores(rows, "violin mountain", -query)) < DEFAULT_THRESHOLD
        assert scores(rows, "which nuts", query)[0] > DEFAULT_THRESHOLD

    def test_one_rare_word_is_above_the_threshold(self) -> None:
        texts = ["the zyzzogeton is a leafhopper", "rome", "paris"]
        rows = partition([{"data": text, "session_id": text} for text in texts])
        assert scores(rows, "zyzzogeton")[0] > DEFAULT_THRESHOLD > scores(rows, "zyzzogeton")[1]

    def test_words_that_all_rows_hold_are_above_the_threshold(self) -> None:
        notes = [f"note {index} part {index % 3}" for index in range(100)]
        rows = partition(notes, list(map(vector_of, notes)))
        assert max(scores(rows, "note part", vector_of("note part"))) > DEFAULT_THRESHOLD

    def test_is_not_relative_to_the_best_row(self) -> None:
        alone = scores(partition(["dog cat", "rome"]), "dog")
        beside_a_better_row = scores(partition(["dog cat", "dog"]), "dog")
        assert beside_a_better_row[0] > 0.5 * alone[0] > 0

    def test_empty_query_matches_nothing(self) -> None:
        assert scores(partition(["dog", ""], np.eye(2, DIMS)), "") == [0, 0]

    def test_extreme_raw_scores_do_not_overflow(self) -> None:
        ranking = Ranking(np.array([-1e9, 0.0, 1e9]), np.ones(3), np.ones(3, np.float32), 1.0)
        lowest, middle, highest = map(ranking.score, range(3))
        assert 0 < lowest < middle < highest <= 1
        assert math.isfinite(highest)


def best(scores: list[float], k: int) -> list[int]:
    """The reference: a full stable sort."""
    return sorted(range(len(scores)), key=lambda row: -scores[row])[: max(k, 0)]


class TestTop:
    @given(
        # Few distinct values, so that rows tie with the last place.
        st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), max_size=60),
        st.integers(-1, 70),
    )
    def test_few_rows_equal_a_full_stable_sort(self, scores: list[float], k: int) -> None:
        assert top(np.array(scores, dtype=np.float64), k) == best(scores, k)

    @pytest.mark.parametrize("count", [_SMALL + 1, 700])
    def test_many_rows_equal_a_full_stable_sort(self, count: int) -> None:
        random = np.random.default_rng(0)
        for distinct in (2, 5, 50, 10_000):
            scores = random.integers(distinct, size=count) / distinct
            for k in (1, 2, 10, count // 2, count - 1, count, count + 1):
                assert top(scores, k) == best(scores.tolist(), k)

    def test_ties_with_the_last_place_are_resolved_by_index(self) -> None:
        scores = [0.5] * 300 + [1.0] + [0.5] * 300
        assert top(np.array(scores), 4) == [300, 0, 1, 2]

    def test_takes_float32(self) -> None:
        assert top(np.array([0.1, 0.3, 0.2, 0.3], dtype=np.float32), 3) == [1, 3, 2]
