"""BM25: the formula, and that a score depends only on the user's own rows, not on the key."""

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
from tests.partitions import OTHER_KEY, partition, query_terms

words = st.sampled_from(["dog", "cat", "rome", "paris", "peanut", "allergy", "violin", "the", "and", "mountain"])
texts = st.lists(words, max_size=12).map(" ".join)
document_lists = st.lists(texts, min_size=1, max_size=12)


def score(rows: Rows, terms: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    return bm25(rows, build_term_index(rows), terms)


def reference(documents: Sequence[str], query: str) -> tuple[list[float], float]:
    """Returns scores and coverage, computed row by row and term by term on words instead of hashes."""
    tokenized = [tokenize(document) for document in documents]
    mean = sum(map(len, tokenized)) / len(tokenized)
    idf = {}
    for term in tokenize(query):
        df = sum(term in other for other in tokenized)
        idf[term] = math.log(1 + (len(tokenized) + PRIOR_ROWS - df + 0.5) / (df + 0.5))
    scores = []
    for tokens in tokenized:
        frequencies = {term: tf for term in idf if (tf := tokens.count(term))}
        norm = K1 * (1 - B + B * len(tokens) / mean) if mean else 0
        scores.append(sum(idf[term] * tf / (tf + norm) for term, tf in frequencies.items()))
    return scores, max(scores) / (sum(idf.values()) or 1)


class TestBm25:
    @given(document_lists, texts)
    def test_equals_the_formula(self, documents: list[str], query: str) -> None:
        scores, coverage = score(partition(documents), query_terms(query))
        expected = reference(documents, query)
        assert scores.tolist() == pytest.approx(expected[0], rel=1e-12)
        assert coverage == pytest.approx(expected[1], rel=1e-12)
        assert 0 <= coverage < 1

    @given(document_lists, texts)
    def test_both_ways_to_find_terms_give_the_same_bits(self, documents: list[str], query: str) -> None:
        rows = partition(documents)
        scores, _ = score(rows, query_terms(query))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bm25_module, "_MAX_COMPARISONS", 0)
            assert score(rows, query_terms(query))[0].tobytes() == scores.tobytes()

    @given(document_lists, texts)
    def test_key_changes_no_bit(self, documents: list[str], query: str) -> None:
        scores, _ = score(partition(documents), query_terms(query))
        other, _ = score(partition(documents, key=OTHER_KEY), query_terms(query, OTHER_KEY))
        assert other.tobytes() == scores.tobytes()

    @given(st.data(), document_lists, texts)
    def test_row_order_changes_no_bit(self, data: st.DataObject, documents: list[str], query: str) -> None:
        order = data.draw(st.permutations(range(len(documents))))
        scores, _ = score(partition(documents), query_terms(query))
        moved, _ = score(partition([documents[at] for at in order]), query_terms(query))
        assert moved.tobytes() == scores[order].tobytes()

    def test_repeated_query_term_counts_once(self) -> None:
        rows = partition(["dog cat", "violin"])
        assert score(rows, query_terms("dog dog"))[0].tolist() == score(rows, query_terms("dog"))[0].tolist()

    def test_terms_under_another_key_match_nothing(self) -> None:
        scores, coverage = score(partition(["dog"]), query_terms("dog", OTHER_KEY))
        assert (scores.tolist(), coverage) == ([0], 0)

    @pytest.mark.parametrize("word", ["dog", "s1", "Ann", "\0s1"])
    def test_session_and_speaker_name_are_not_terms(self, word: str) -> None:
        rows = partition([{"data": "cat", "session_id": "s1", "actor_id": "Ann"}, "dog"])
        assert score(rows, query_terms(word))[0][0] == 0

    def test_query_of_stop_words_only_is_found(self) -> None:
        scores, _ = score(partition(["Who are you?", "You are the dog"]), query_terms("who are you"))
        assert scores.nonzero()[0].tolist() == [0]

    def test_constants_are_those_that_were_measured(self) -> None:
        # benchmarks/RECALL.md reports figures for these values.
        assert (K1, B) == (0.9, 0.4)
