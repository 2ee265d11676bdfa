"""BM25 over one user's rows, by the statistics of these rows alone. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .index import Rows
from .tokenizer import TERM_BITS
from .vectors import PRIOR_ROWS

K1: Final = 0.9
"""BM25's term saturation: at this frequency, in a row of average length, a term has half of its greatest weight.

0.9 and 0.4 are Anserini's defaults (https://github.com/castorini/anserini, `SearchArgs.java`), and memories are short
passages like those it ranks. LoCoMo agrees: recall at 10 is two points above that of Lucene's 1.2 and 0.75.
"""
B: Final = 0.4
"""BM25's length normalisation, from 0 (none) to 1 (in full proportion to the row's length)."""
_COMPARED_AT_ONCE: Final = 1 << 15
"""Up to so many comparisons one call of numpy is faster than one for each term of the query; beyond, it is slower."""
_TF: Final = np.uint64((1 << TERM_BITS) - 1)


class Terms(NamedTuple):
    """What BM25 takes from the rows alone.

    Attributes:
        hashes: uint64, shape (m,): the rows' terms without their frequencies.
        mean_length: How many tokens a row has.
    """

    hashes: NDArray[np.uint64]
    mean_length: float


def terms_of(rows: Rows) -> Terms:
    """Prepare rows, at least one, for `bm25`."""
    # Lengths are whole numbers, so their sum is exact in any order.
    return Terms(rows.terms >> np.uint64(TERM_BITS), float(rows.lengths.sum()) / len(rows.lengths))


def bm25(rows: Rows, terms: Terms, query_terms: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    """Compare each row's words with the query's.

    The formula is Lucene's BM25 with `PRIOR_ROWS` rows more that hold none of the words: a term that `df` of the n rows
    hold weighs `idf = ln(1 + (n + PRIOR_ROWS - df + 0.5) / (df + 0.5))` and gives a row that holds it `tf` times
    `idf * tf / (tf + K1 * (1 - B + B * length / mean length))`. It is raw_score in nats, and is not normalised.

    BM25 is Robertson and others' (Okapi at TREC-3, 1994). Kamphuis and others compare its forms, Lucene's among them:
    https://doi.org/10.1007/978-3-030-45442-5_4.

    Args:
        rows: n rows, at least one.
        terms: Theirs, by `terms_of`.
        query_terms: The query's hashed terms, see `hash_terms`; a repeated one counts once.

    Returns:
        float64, shape (n,): the scores, 0 for a row that shares no term, added up in the order of the query's terms.
        And what part of the score that the query could attain the best row has, from 0 to below 1.
    """
    count = len(rows.lengths)
    wanted: NDArray[np.uint64] = np.fromiter(dict.fromkeys(query_terms), dtype=np.uint64)
    term, entries = _matches(terms.hashes, wanted)
    if not len(entries):
        return np.zeros(count), 0.0
    df = np.bincount(term, minlength=len(wanted))
    idf = np.log1p((count + PRIOR_ROWS + 0.5 - df) / (df + 0.5))
    owner = rows.owner[entries]
    tf = rows.terms[entries] & _TF
    norm = K1 * (1.0 - B) + K1 * B / terms.mean_length * rows.lengths[owner]
    # bincount adds up in the order given.
    scores = np.bincount(owner, idf[term] * tf / (tf + norm), minlength=count).astype(np.float64, copy=False)
    return scores, float(scores.max()) / float(idf.sum())


def _matches(hashes: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of `wanted` is found where: first the query's first term, then its second, whatever their hashes are."""
    if hashes.size * wanted.size <= _COMPARED_AT_ONCE:
        term, entries = (hashes == wanted[:, None]).nonzero()
        return term, entries
    found = [np.flatnonzero(hashes == one) for one in wanted]
    return np.repeat(np.arange(len(found)), [len(one) for one in found]), np.concatenate(found)
