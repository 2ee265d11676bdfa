"""Scoring inside one partition: its terms, both of its scores, their fusion and the order that comes of it."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from langchain_mem0_scoped.local.ranking import (
    K1,
    LEXICAL_WEIGHT,
    B,
    Rows,
    bm25,
    build_rows,
    cosine,
    fused,
    hash_terms,
    pack_terms,
    tokenize,
    top,
    unit_vector,
)

KEY = bytes(range(16))
OTHER_KEY = bytes(range(1, 17))
DIMS = 8

# Few words and short texts, so that terms are shared, repeated and missing in every combination.
words = st.sampled_from(["dog", "cat", "rome", "paris", "peanut", "allergy", "violin", "the", "and", "mountain"])
texts = st.lists(words, max_size=12).map(" ".join)
unicode_texts = st.text(st.characters(exclude_categories=["Cs"]))
components = st.floats(-1, 1, width=32)


def vectors_of(count: int, dims: int = DIMS) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, dims), elements=components)


def partition(documents: Sequence[str], vectors: NDArray[np.float32] | None = None, key: bytes = KEY) -> Rows:
    """The rows as a store would read them back."""
    packed = [pack_terms(document, key) for document in documents]
    if vectors is None:
        vectors = np.zeros((len(documents), DIMS), dtype=np.float32)
    return build_rows(
        [unit_vector(vector).tobytes() for vector in vectors],
        [terms for terms, _ in packed],
        [length for _, length in packed],
        vectors.shape[1],
    )


def asked(query: str, key: bytes = KEY) -> list[int]:
    return hash_terms(tokenize(query), key)


class TestTokenize:
    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("Eating eats EAT", ["eat", "eat", "eat"]),
            ("the dog and a cat", ["dog", "cat"]),
            ("She doesn't know, I'm sure!", ["know", "sure"]),
            ("\uff32\uff4f\uff4d\uff45 ﬁnal", ["rome", "final"]),  # full-width letters and a ligature
            ("STRASSE straße", ["strass", "strass"]),
            ("room 42b, user_id", ["room", "42b", "user_id"]),
            ("cafe\u0301 café", ["café", "café"]),
            ("猫が好き", ["猫が", "が好", "好き"]),
            ("猫", ["猫"]),
            ("ﾈｺ ネコ", ["ネコ", "ネコ"]),  # half-width kana
            ("iPhoneを買う", ["iphon", "を買", "買う"]),
            ("\u0e01\u0e34\u0e19", ["\u0e01\u0e34", "\u0e34\u0e19"]),  # Thai: a vowel sign is part of its word
            ("\u0e81\u0eb4\u0e99", ["\u0e81\u0eb4", "\u0eb4\u0e99"]),  # Lao
            ("\u1780\u17b7\u1793", ["\u1780\u17b7", "\u17b7\u1793"]),  # Khmer
            ("\u1000\u102d\u1014", ["\u1000\u102d", "\u102d\u1014"]),  # Myanmar
            ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
            ("안녕 세계", ["안녕", "세계"]),
            ("", []),
            ("?! … 😀", []),
        ],
    )
    def test_levels_what_differs_only_in_form(self, text: str, terms: list[str]) -> None:
        assert tokenize(text) == terms

    def test_stop_words_alone_are_kept(self) -> None:
        assert tokenize("Who are you?") == ["who", "are", "you"]
        rows = partition(["Who are you?", "You are the dog"])
        assert bm25(rows, asked("who are you")).nonzero()[0].tolist() == [0]

    @given(unicode_texts)
    def test_never_raises_and_only_a_text_without_words_has_no_terms(self, text: str) -> None:
        terms = tokenize(text)
        assert all(terms)
        if any(character.isalnum() for character in text):
            assert terms

    @given(st.text())
    def test_lone_surrogates_are_no_words(self, text: str) -> None:
        pack_terms(text, KEY)


class TestTerms:
    def test_hashes_have_56_bits_and_depend_on_the_key(self) -> None:
        hashes = hash_terms(["dog", "cat", "dog"], KEY)
        assert hashes[0] == hashes[2] != hashes[1]
        assert all(0 <= value < 1 << 56 for value in hashes)
        assert max(hash_terms(map(str, range(1000)), KEY)) >= 1 << 55
        assert not set(hashes) & set(hash_terms(["dog", "cat"], OTHER_KEY))

    @given(texts)
    def test_packed_terms_hold_each_term_once_with_its_frequency(self, text: str) -> None:
        packed, length = pack_terms(text, KEY)
        tokens = tokenize(text)
        values = [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]
        assert length == len(tokens)
        assert values == sorted(values)
        expected = {hash_terms([token], KEY)[0]: count for token, count in Counter(tokens).items()}
        assert {value >> 8: value & 255 for value in values} == expected
        assert len(values) == len(expected)

    def test_a_frequency_stops_at_255(self) -> None:
        packed, length = pack_terms("dog " * 300, KEY)
        assert (len(packed), packed[0], length) == (8, 255, 300)

    def test_no_word_is_stored(self) -> None:
        assert b"peanut" not in pack_terms("peanut peanut", KEY)[0]


class TestBuildRows:
    def test_assembles_what_was_stored(self) -> None:
        vectors = np.arange(3 * DIMS, dtype=np.float32).reshape(3, DIMS)
        rows = partition(["dog cat", "", "dog"], vectors)
        assert rows.vectors.dtype == np.float32
        assert rows.terms.dtype == np.uint64
        assert rows.owner.dtype == np.intp
        assert rows.lengths.dtype == np.float64
        assert rows.owner.tolist() == [0, 0, 2]
        assert rows.lengths.tolist() == [2, 0, 1]
        assert rows.terms[2] in rows.terms[:2]
        np.testing.assert_array_equal(rows.vectors, np.stack([unit_vector(vector) for vector in vectors]))

    def test_a_partition_may_be_empty(self) -> None:
        rows = build_rows([], [], [], DIMS)
        assert rows.vectors.shape == (0, DIMS)
        scores = fused(rows, [1.0] * DIMS, asked("dog"))
        assert scores.shape == (0,)
        assert top(scores, 5) == []

    @pytest.mark.parametrize(
        ("vectors", "terms", "lengths"),
        [
            ([bytes(4 * DIMS)], [], [0]),
            ([bytes(4 * DIMS)], [b""], [0, 0]),
            ([bytes(4 * DIMS - 4)], [b""], [0]),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(
        self, vectors: list[bytes], terms: list[bytes], lengths: list[int]
    ) -> None:
        with pytest.raises(ValueError, match="expected"):
            build_rows(vectors, terms, lengths, DIMS)


class TestCosine:
    def test_is_the_cosine(self) -> None:
        rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
        assert cosine(rows, [5, 0]).tolist() == pytest.approx([1, 0.6, 0, 0, 0])

    @pytest.mark.parametrize("query", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1e300, 1e300]])
    def test_a_query_without_a_direction_is_like_nothing(self, query: list[float]) -> None:
        assert cosine(np.eye(2, dtype=np.float32), query).tolist() == [0, 0]

    @given(st.data(), st.integers(1, 40), st.sampled_from([1, 3, 8, 256]))
    def test_a_row_scores_the_same_to_the_bit_wherever_it_stands(
        self, data: st.DataObject, count: int, dims: int
    ) -> None:
        random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        rows = np.stack([unit_vector(row) for row in random.standard_normal((count, dims))])
        query = random.standard_normal(dims)
        order = np.array(data.draw(st.permutations(range(count))))
        together = cosine(rows, query)
        assert cosine(np.ascontiguousarray(rows[order]), query).tobytes() == together[order].tobytes()
        at = data.draw(st.integers(0, count - 1))
        assert cosine(rows[at : at + 1], query).tobytes() == together[at : at + 1].tobytes()

    @given(st.data(), st.integers(0, 12))
    def test_stays_within_0_and_1(self, data: st.DataObject, count: int) -> None:
        rows = partition([""] * count, data.draw(vectors_of(count))).vectors
        scores = cosine(rows, data.draw(vectors_of(1))[0])
        assert ((scores >= 0) & (scores <= 1)).all()


def reference_bm25(documents: Sequence[str], query: str) -> list[float]:
    """Lucene's formula, row by row and term by term, on words instead of hashes."""
    tokenized = [tokenize(document) for document in documents]
    mean = sum(map(len, tokenized)) / max(len(tokenized), 1)
    scores = []
    for tokens in tokenized:
        score = 0.0
        for term in dict.fromkeys(tokenize(query)):
            df = sum(term in other for other in tokenized)
            if tf := tokens.count(term):
                idf = math.log(1 + (len(tokenized) - df + 0.5) / (df + 0.5))
                score += idf * tf / (tf + K1 * (1 - B + B * len(tokens) / mean))
        scores.append(score)
    return scores


class TestBm25:
    @given(st.lists(texts, max_size=12), texts)
    def test_equals_the_formula(self, documents: list[str], query: str) -> None:
        scores = bm25(partition(documents), asked(query))
        assert scores.dtype == np.float64
        assert scores.tolist() == pytest.approx(reference_bm25(documents, query), rel=1e-12)

    @given(st.lists(texts, max_size=12), texts)
    def test_the_key_changes_no_bit(self, documents: list[str], query: str) -> None:
        scores = bm25(partition(documents), asked(query))
        other = bm25(partition(documents, key=OTHER_KEY), asked(query, OTHER_KEY))
        assert other.tobytes() == scores.tobytes()

    @given(st.data(), st.lists(texts, min_size=1, max_size=12), texts)
    def test_the_order_of_the_rows_changes_no_bit(self, data: st.DataObject, documents: list[str], query: str) -> None:
        order = data.draw(st.permutations(range(len(documents))))
        scores = bm25(partition(documents), asked(query))
        moved = bm25(partition([documents[at] for at in order]), asked(query))
        assert moved.tobytes() == scores[np.array(order)].tobytes()

    def test_a_repeated_term_counts_once(self) -> None:
        rows = partition(["dog cat", "violin"])
        assert bm25(rows, asked("dog dog")).tolist() == bm25(rows, asked("dog")).tolist()

    def test_another_users_key_matches_nothing(self) -> None:
        assert bm25(partition(["dog"]), asked("dog", OTHER_KEY)).tolist() == [0]


class TestFused:
    @given(st.data(), st.lists(texts, max_size=12), texts)
    def test_stays_within_0_and_1(self, data: st.DataObject, documents: list[str], query: str) -> None:
        rows = partition(documents, data.draw(vectors_of(len(documents))))
        scores = fused(rows, data.draw(vectors_of(1))[0], asked(query))
        assert scores.dtype == np.float64
        assert ((scores >= 0) & (scores <= 1)).all()

    @given(st.data(), st.lists(texts, max_size=12), texts)
    def test_sharing_a_word_never_hurts_and_sharing_none_leaves_the_cosine(
        self, data: st.DataObject, documents: list[str], query: str
    ) -> None:
        rows = partition(documents, data.draw(vectors_of(len(documents))))
        vector = data.draw(vectors_of(1))[0]
        scores = fused(rows, vector, asked(query))
        meaning = (1 - LEXICAL_WEIGHT) * cosine(rows.vectors, vector)
        shared = bm25(rows, asked(query)) > 0
        assert (scores[shared] > meaning[shared]).all()
        np.testing.assert_array_equal(scores[~shared], meaning[~shared])

    @pytest.mark.parametrize("count", [1, 20])
    def test_the_default_threshold_parts_related_from_unrelated(self, count: int) -> None:
        vectors = np.zeros((count, DIMS), dtype=np.float32)
        vectors[0, :2] = 0.2, math.sqrt(1 - 0.2**2)
        query = np.eye(DIMS)[0]
        documents = ["peanut allergy", *["rome"] * (count - 1)]
        rows = partition(documents, vectors)
        # mem0 drops what scores below 0.1.
        assert fused(rows, query, asked("violin mountain"))[0] < 0.1
        assert fused(rows, query, asked("violin allergy"))[0] > 0.1
        vectors[0, :2] = 0.6, 0.8
        assert fused(partition(documents, vectors), query, asked("violin mountain"))[0] > 0.1

    def test_covering_more_of_the_query_scores_higher(self) -> None:
        rows = partition(["dog violin", "dog rome", "cat paris"])
        scores = fused(rows, np.zeros(DIMS), asked("which dog plays the violin"))
        assert scores[0] > scores[1] > scores[2] == 0

    def test_a_better_row_beside_it_does_not_take_the_score_away(self) -> None:
        # Min-max scores would fall to 0 here, for the row beside it is the shorter one.
        alone = fused(partition(["dog cat", "rome"]), np.zeros(DIMS), asked("dog"))
        beside = fused(partition(["dog cat", "dog"]), np.zeros(DIMS), asked("dog"))
        assert beside[0] > 0.5 * alone[0] > 0

    def test_a_query_of_nothing_matches_nothing(self) -> None:
        rows = partition(["dog", ""], np.eye(2, DIMS, dtype=np.float32))
        assert fused(rows, np.zeros(DIMS), []).tolist() == [0, 0]


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


class TestUnitVector:
    @given(arrays(np.float32, DIMS, elements=st.floats(-1e6, 1e6, width=32)))
    def test_has_length_1_or_0(self, vector: NDArray[np.float32]) -> None:
        unit = unit_vector(vector)
        assert unit.dtype == np.float32
        assert float(np.linalg.norm(unit)) == pytest.approx(1.0 if vector.any() else 0.0)
