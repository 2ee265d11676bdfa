"""BM25 over one user's rows: the formula, and that nobody else's rows or key are in it."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import langchain_mem0_scoped.ranking.bm25 as bm25_module
from langchain_mem0_scoped.ranking.bm25 import K1, B, bm25, build_term_index
from langchain_mem0_scoped.ranking.index import Rows
from langchain_mem0_scoped.ranking.tokenizer import tokenize
from langchain_mem0_scoped.ranking.vectors import PRIOR_ROWS
from tests.partitions import OTHER_KEY, asked, partition

words = st.sampled_from(["dog", "cat", "rome", "paris", "peanut", "allergy", "violin", "the", "and", "mountain"])
texts = st.lists(words, max_size=12).map(" ".join)
several = st.lists(texts, min_size=1, max_size=12)


def weighed(rows: Rows, terms: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    return bm25(rows, build_term_index(rows), terms)


def reference(documents: Sequence[str], query: str) -> tuple[list[float], float]:
    """Row by row and term by term, on words instead of hashes; and the most that could be had."""
    tokenized = [tokenize(document) for document in documents]
    mean = sum(map(len, tokenized)) / len(tokenized)
    idf = {}
    for term in tokenize(query):
        df = sum(term in other for other in tokenized)
        idf[term] = math.log(1 + (len(tokenized) + PRIOR_ROWS - df + 0.5) / (df + 0.5))
    scores = []
    for tokens in tokenized:
        found = {term: tf for term in idf if (tf := tokens.count(term))}
        norm = K1 * (1 - B + B * len(tokens) / mean) if mean else 0
        scores.append(sum(idf[term] * tf / (tf + norm) for term, tf in found.items()))
    return scores, max(scores) / (sum(idf.values()) or 1)


class TestBm25:
    @given(several, texts)
    def test_equals_the_formula(self, documents: list[str], query: str) -> None:
        scores, covered = weighed(partition(documents), asked(query))
        expected = reference(documents, query)
        assert scores.tolist() == pytest.approx(expected[0], rel=1e-12)
        assert covered == pytest.approx(expected[1], rel=1e-12)
        assert 0 <= covered < 1

    @given(several, texts)
    def test_many_comparisons_give_the_same_bits(self, documents: list[str], query: str) -> None:
        rows = partition(documents)
        scores, _ = weighed(rows, asked(query))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bm25_module, "_MAX_COMPARISONS", 0)
            assert weighed(rows, asked(query))[0].tobytes() == scores.tobytes()

    @given(several, texts)
    def test_the_key_changes_no_bit(self, documents: list[str], query: str) -> None:
        scores, _ = weighed(partition(documents), asked(query))
        other, _ = weighed(partition(documents, key=OTHER_KEY), asked(query, OTHER_KEY))
        assert other.tobytes() == scores.tobytes()

    @given(st.data(), several, texts)
    def test_the_order_of_the_rows_changes_no_bit(self, data: st.DataObject, documents: list[str], query: str) -> None:
        order = data.draw(st.permutations(range(len(documents))))
        scores, _ = weighed(partition(documents), asked(query))
        moved, _ = weighed(partition([documents[at] for at in order]), asked(query))
        assert moved.tobytes() == scores[order].tobytes()

    def test_a_repeated_term_counts_once(self) -> None:
        rows = partition(["dog cat", "violin"])
        assert weighed(rows, asked("dog dog"))[0].tolist() == weighed(rows, asked("dog"))[0].tolist()

    def test_another_users_key_matches_nothing(self) -> None:
        scores, covered = weighed(partition(["dog"]), asked("dog", OTHER_KEY))
        assert (scores.tolist(), covered) == ([0], 0)

    @pytest.mark.parametrize("word", ["dog", "s1", "Ann", "\0s1"])
    def test_neither_session_nor_name_is_a_word(self, word: str) -> None:
        rows = partition([{"data": "cat", "session_id": "s1", "actor_id": "Ann"}, "dog"])
        assert weighed(rows, asked(word))[0][0] == 0

    def test_stop_words_alone_are_found(self) -> None:
        scores, _ = weighed(partition(["Who are you?", "You are the dog"]), asked("who are you"))
        assert scores.nonzero()[0].tolist() == [0]
