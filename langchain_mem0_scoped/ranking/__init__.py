"""How well each row of one user's partition answers a query: all that speaks for it, put together. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bm25 import Terms, bm25, terms_of
from .context import Context, add_context, build_context
from .dates import periods_in, said_in
from .index import Rows, speaker_of
from .vectors import CovarianceSketch, covariance_sketch, matched_filter, unit_vector
from .weights import WEIGHTS, Weights

DEFAULT_THRESHOLD: Final = 0.1
"""The min_score score that is shown unless another is asked for; mem0's own default, and what scores are scaled to.

benchmarks/RECALL.md has how often a question that was moved to another user then finds nothing, and what it costs.
"""

_NAMED_OFTEN: Final = 0.05
"""A term names a speaker where at least this part of the rows, and two of them, are under it."""
_HALF: Final = 28.0
"""What has to speak for a row of a user with very many for a score of a half: among many the best looks good by chance.

This and the next are such that the default threshold leaves 8 of 10 questions about somebody else's memories without an
answer where a user has hundreds of memories, and 6 of 10 where he has a few, of which every one counts.
"""
_HALF_ROWS: Final = 200
"""A user with so many rows needs half as much."""
_LINEAR_FROM: Final = 0.25
"""Below this, raw_score is squeezed into what is left above 0, so that a row that has anything in common has a score."""
_FEW: Final = 200
"""Up to so many rows it is faster to count and to sort them all."""


class SearchIndex(NamedTuple):
    """What scoring takes from the rows alone, whatever the query is: made once for the same rows.

    Attributes:
        terms: The rows' words.
        covariance_sketch: What meaning is measured against.
        surroundings: Which rows stand around which.
        speakers: The terms by which those who speak are named; empty where that tells none from another.
        weights: What each thing that speaks for a row is worth.
    """

    terms: Terms
    covariance_sketch: CovarianceSketch
    build_context: Context
    speakers: frozenset[int]
    weights: Weights


def build_index(rows: Rows, weights: Weights = WEIGHTS) -> SearchIndex:
    """Lay out rows, at least one, to be searched. It depends on these rows and their order alone, to the last bit."""
    return SearchIndex(
        terms_of(rows),
        covariance_sketch(rows.vectors),
        build_context(rows, weights),
        _speakers(rows),
        weights,
    )


def _speakers(rows: Rows) -> frozenset[int]:
    """Terms that name speakers: by how often they do alone, whatever a text looks like."""
    count = len(rows.lengths)
    enough = max(2, math.ceil(_NAMED_OFTEN * count))
    if count <= _FEW:
        often = {term for term, rows_of in Counter(rows.speakers.tolist()).items() if rows_of >= enough and term}
    else:
        # Of one so frequent, in order, a row stands at a multiple of that: so few of them need to be counted.
        named = np.sort(rows.speakers)
        likely = np.unique(named[enough - 1 :: enough])
        counts = named.searchsorted(likely, "right") - named.searchsorted(likely, "left")
        often = set(likely[(counts >= enough) & (likely != 0)].tolist())
    return frozenset(often) if len(often) > 1 else frozenset()


class Ranking(NamedTuple):
    """What speaks for each row, and how it is shown.

    Attributes:
        raw_score: float64, shape (n,): what speaks for each row; the more, the better it is.
        words: float64, shape (n,): its share of words.
        cosines: float32, shape (n,): each row's plain cosine with the query, -1 to 1.
        alike: How much the query has in common with the best row at all, 0 to 1: the greatest cosine, or the share of
            the query's words that one row covers.
    """

    raw_score: NDArray[np.float64]
    words: NDArray[np.float64]
    cosines: NDArray[np.float32]
    max_similarity: float

    def score(self, row: int) -> float:
        """A row's score, from 0 to below 1; 0 only where it has nothing in common with the query.

        Within one query it grows with the raw_score alone, so that no row is shown before a better one. Nothing is
        measured against the best row, so that it can be held against a threshold: where all rows are far from the
        query, all scores are low.
        """
        found = float(self.raw_score[row])
        if found <= 0.0 and self.cosines[row] <= 0.0 and not self.words[row]:
            return 0.0
        if found < _LINEAR_FROM:
            found = _LINEAR_FROM * math.exp(max(found / _LINEAR_FROM - 1.0, -600.0))
        found *= self.max_similarity
        count = len(self.raw_score)
        return found / (found + _HALF * count / (count + _HALF_ROWS))


def rank(rows: Rows, layout: SearchIndex, query_vector: ArrayLike, query_terms: Sequence[int], query: str) -> Ranking:
    """Weigh what speaks for each row.

    That is how far its meaning lies towards the query's (`matched_filter`) and how much its words say of it (`bm25`), what
    stands around it (`add_context`), whether the query names who speaks in it, and whether it was said when the query says.

    Args:
        rows: n rows, at least one.
        layout: Theirs, by `build_index`.
        query_vector: d numbers of any length; without a direction only the words count.
        query_terms: The query's hashed terms, see `hash_terms`; without any only the meaning counts.
        query: The query's text, read for dates alone.

    Returns:
        The raw_score. It is a function of these rows and the query: neither a filter nor what has expired changes it.
    """
    deviations, cosines = matched_filter(rows.vectors, layout.covariance_sketch, unit_vector(query_vector))
    words, covered = bm25(rows, layout.terms, query_terms)
    raw_score = combine(rows, layout, deviations, words, query_terms, query)
    return Ranking(raw_score, words, cosines, min(max(float(cosines.max()), covered, 0.0), 1.0))


def combine(
    rows: Rows,
    layout: SearchIndex,
    deviations: NDArray[np.float32],
    words: NDArray[np.float64],
    query_terms: Sequence[int],
    query: str,
) -> NDArray[np.float64]:
    """Add up what speaks for each row: how far its meaning lies towards the query, and what its words are worth."""
    weights = layout.weights
    raw_score = add_context(weights.words * words + deviations, layout.build_context, weights)
    if layout.speakers:
        named = layout.speakers.intersection(map(speaker_of, query_terms))
        for speaker in named if len(named) < len(layout.speakers) else ():
            raw_score[rows.speakers == np.uint64(speaker)] += weights.speaker
    if periods := periods_in(query):
        raw_score[said_in(rows.said, periods)] += weights.date
    return raw_score


def top(scores: NDArray[np.floating], k: int) -> list[int]:
    """Find the best rows.

    Args:
        scores: shape (n,), no NaN.
        k: How many rows are wanted.

    Returns:
        Indices of the min(k, n) best rows, the best first; of equal scores the lower index first.
    """
    count = len(scores)
    if k <= 0:
        return []
    if k < count and count > _FEW:
        # Whatever ties with the last place stays in until the stable sort has put the lower index first.
        last = np.partition(scores, count - k)[count - k]
        finalists = np.flatnonzero(scores >= last)
    else:
        finalists = np.arange(count)
    best: list[int] = finalists[np.argsort(-scores[finalists], kind="stable")[:k]].tolist()
    return best
