"""Rows of one user as a storage returns them, for tests of the ranking."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from langchain_mem0_scoped.ranking import Ranking, build_index, rank
from langchain_mem0_scoped.ranking.index import Rows, build_rows, pack_row
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, tokenize
from langchain_mem0_scoped.ranking.vectors import unit_vector

KEY = bytes(range(16))
OTHER_KEY = bytes(range(1, 17))
DIMS = 8


def partition(documents: Sequence[str | dict[str, Any]], vectors: ArrayLike | None = None, key: bytes = KEY) -> Rows:
    """Build rows from texts or payloads; without vectors, all vectors are zero."""
    payloads = [{"data": one} if isinstance(one, str) else one for one in documents]
    packed = [pack_row(payload, key) for payload in payloads]
    given = np.zeros((len(packed), DIMS)) if vectors is None else np.asarray(vectors)
    return build_rows(
        [unit_vector(vector).tobytes() for vector in given],
        [terms for terms, _ in packed],
        [length for _, length in packed],
        given.shape[1],
    )


def query_terms(query: str, key: bytes = KEY) -> list[int]:
    """Return a query's hashed terms."""
    return hash_terms(tokenize(query), key)


def ranked(rows: Rows, query: str, vector: ArrayLike | None = None) -> Ranking:
    """Rank rows for a query; without a vector, by words alone."""
    given = np.zeros(rows.vectors.shape[1]) if vector is None else vector
    return rank(rows, build_index(rows), given, query_terms(query), query)


def scores(rows: Rows, query: str, vector: ArrayLike | None = None) -> list[float]:
    """Return the score of each row."""
    found = ranked(rows, query, vector)
    return [found.score(row) for row in range(len(rows.lengths))]
