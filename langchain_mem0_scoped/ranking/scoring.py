"""Scoring: combines the vector score, BM25, context, speaker and date of each row. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bm25 import TermIndex, bm25, build_term_index
from .context import Context, add_context, build_context
from .dates import in_periods, parse_periods
from .index import Rows, speaker_hash
from .vectors import CovarianceSketch, covariance_sketch, matched_filter, unit_vector
from .weights import WEIGHTS, Weights

DEFAULT_THRESHOLD: Final = 0.1
"""The lowest score that a search returns by default. It is mem0's default too; scores are scaled to fit it.

benchmarks/RECALL.md has how often a question about another user's memories then finds nothing, and what recall it
costs.
"""

_SPEAKER_SHARE: Final = 0.05
"""A term counts as a speaker if it is the speaker term of at least this share of the rows, and of at least two."""
_HALF_SCORE: Final = 28.0
"""The raw score that is shown as 0.5 for a user with very many rows. Among many rows, a high best score is more likely
by chance.

This constant and the next are set so that the default threshold leaves 8 of 10 questions about another user's memories
without a result if the user has hundreds of memories, and 6 of 10 if the user has a few. With a few memories, each
lost result costs more.
"""
_HALF_SCORE_ROWS: Final = 200
"""The number of rows at which the raw score for 0.5 is half of `_HALF_SCORE`."""
_LINEAR_FROM: Final = 0.25
"""Raw scores below this are squeezed into the range above 0: any row with something in common scores above 0."""
_SMALL: Final = 200
"""Up to this number of rows, counting and sorting all of them is faster than the selective way."""


class SearchIndex(NamedTuple):
    """What scoring derives from the rows alone, for any query. Build it once per set of rows.

    Attributes:
        terms: The rows' terms, for `bm25`.
        covariance_sketch: The statistics of the rows' vectors, for `matched_filter`.
        context: Which rows are neighbours and which share a session, for `add_context`.
        speakers: Hashed terms that name speakers; empty with fewer than two speakers.
        weights: The weight of each feature.
    """

    terms: TermIndex
    covariance_sketch: CovarianceSketch
    context: Context
    speakers: frozenset[int]
    weights: Weights


def build_index(rows: Rows, weights: Weights = WEIGHTS) -> SearchIndex:
    """Build the search index of a user's rows.

    Args:
        rows: At least one row.
        weights: The weight of each feature.

    Returns:
        The index. It depends only on these rows and their order, to the last bit.
    """
    return SearchIndex(
        build_term_index(rows),
        covariance_sketch(rows.vectors),
        build_context(rows, weights),
        _frequent_speakers(rows),
        weights,
    )


def _frequent_speakers(rows: Rows) -> frozenset[int]:
    """Return the speaker terms that occur often. Their frequency is the only sign that they name speakers."""
    count = len(rows.lengths)
    min_rows = max(2, math.ceil(_SPEAKER_SHARE * count))
    if count <= _SMALL:
        counted = Counter(rows.speakers.tolist())
        frequent = {speaker for speaker, frequency in counted.items() if frequency >= min_rows and speaker}
    else:
        # In sorted order, a value with min_rows occurrences covers a multiple of min_rows: only those are counted.
        ordered = np.sort(rows.speakers)
        candidates = np.unique(ordered[min_rows - 1 :: min_rows])
        counts = ordered.searchsorted(candidates, "right") - ordered.searchsorted(candidates, "left")
        frequent = set(candidates[(counts >= min_rows) & (candidates != 0)].tolist())
    return frozenset(frequent) if len(frequent) > 1 else frozenset()


class Ranking(NamedTuple):
    """The scores of all rows for one query.

    Attributes:
        raw_score: float64, shape (n,): the order of the rows; higher is better, without bounds.
        words: float64, shape (n,): BM25 in nats.
        cosines: float32, shape (n,): the cosine of each row and the query, -1 to 1.
        max_similarity: The similarity of the most similar row, 0 to 1: the greatest cosine, or the greatest share of
            the query's term weights that one row covers, whichever is larger.
    """

    raw_score: NDArray[np.float64]
    words: NDArray[np.float64]
    cosines: NDArray[np.float32]
    max_similarity: float

    def score(self, row: int) -> float:
        """Scale a row's raw score to a score that can be compared with a threshold.

        Within one query the score grows with the raw score, so the order stays the same. It is not relative to the best
        row: if all rows are far from the query, all scores are low.

        Args:
            row: The row's index.

        Returns:
            The score, 0 to 1. It is 0 only if the row has nothing in common with the query.
        """
        value = float(self.raw_score[row])
        if value <= 0.0 and self.cosines[row] <= 0.0 and not self.words[row]:
            return 0.0
        if value < _LINEAR_FROM:
            value = _LINEAR_FROM * math.exp(max(value / _LINEAR_FROM - 1.0, -600.0))
        value *= self.max_similarity
        count = len(self.raw_score)
        return value / (value + _HALF_SCORE * count / (count + _HALF_SCORE_ROWS))


def rank(rows: Rows, index: SearchIndex, query_vector: ArrayLike, query_terms: Sequence[int], query: str) -> Ranking:
    """Score every row for a query.

    Combines the vector score (`matched_filter`), the word score (`bm25`), the scores of surrounding rows
    (`add_context`), whether the query names the row's speaker, and whether the row was created in a period that the
    query names.

    Args:
        rows: n rows, at least one.
        index: The rows' index, from `build_index`.
        query_vector: shape (d,), any length. A zero or non-finite vector leaves the words alone to decide.
        query_terms: The query's hashed terms, from `hash_terms`. Without terms, the vectors alone decide.
        query: The query's text; only dates are read from it.

    Returns:
        The scores. They depend only on these rows and the query, not on filters or expiry.
    """
    deviations, cosines = matched_filter(rows.vectors, index.covariance_sketch, unit_vector(query_vector))
    words, coverage = bm25(rows, index.terms, query_terms)
    raw_score = combine(rows, index, deviations, words, query_terms, query)
    return Ranking(raw_score, words, cosines, min(max(float(cosines.max()), coverage, 0.0), 1.0))


def combine(
    rows: Rows,
    index: SearchIndex,
    deviations: NDArray[np.float32],
    words: NDArray[np.float64],
    query_terms: Sequence[int],
    query: str,
) -> NDArray[np.float64]:
    """Combine the features of each row by the index's weights.

    Args:
        rows: n rows, at least one.
        index: The rows' index, from `build_index`.
        deviations: float32, shape (n,): the vector scores, from `matched_filter`.
        words: float64, shape (n,): the word scores, from `bm25`.
        query_terms: The query's hashed terms.
        query: The query's text; only dates are read from it.

    Returns:
        float64, shape (n,): the raw scores.
    """
    weights = index.weights
    raw_score = add_context(weights.words * words + deviations, index.context, weights)
    if index.speakers:
        named = index.speakers.intersection(map(speaker_hash, query_terms))
        # A query that names every speaker prefers none of them.
        for speaker in named if len(named) < len(index.speakers) else ():
            raw_score[rows.speakers == np.uint64(speaker)] += weights.speaker
    if periods := parse_periods(query):
        raw_score[in_periods(rows.timestamps, periods)] += weights.date
    return raw_score


def top(scores: NDArray[np.floating], k: int) -> list[int]:
    """Find the rows with the highest scores.

    Args:
        scores: shape (n,), no NaN.
        k: The number of rows wanted.

    Returns:
        Indices of the min(k, n) best rows, best first. Of equal scores, the lower index comes first.
    """
    count = len(scores)
    if k <= 0:
        return []
    if k < count and count > _SMALL:
        # Ties with the last place are kept until the stable sort has put the lower index first.
        last = np.partition(scores, count - k)[count - k]
        candidates = np.flatnonzero(scores >= last)
    else:
        candidates = np.arange(count)
    best: list[int] = candidates[np.argsort(-scores[candidates], kind="stable")[:k]].tolist()
    return best
