"""BM25 over one user's rows, with the statistics of these rows alone. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .index import Rows
from .tokenizer import TERM_BITS
from .vectors import PRIOR_ROWS

K1: Final = 0.9
"""Term saturation: in a row of average length, a term with this frequency has half of its greatest weight.

0.9 and 0.4 are Anserini's defaults (https://github.com/castorini/anserini, `SearchArgs.java`), which ranks passages as
short as memories. On LoCoMo, recall at 10 is two points above that of Lucene's 1.2 and 0.75.
"""
B: Final = 0.4
"""Length normalisation, from 0 (none) to 1 (in full proportion to the row's length)."""
_MAX_COMPARISONS: Final = 1 << 15
"""Up to this number of comparisons, one call of numpy is faster than one call for each term of the query."""
_FREQUENCY_MASK: Final = np.uint64((1 << TERM_BITS) - 1)


class TermIndex(NamedTuple):
    """What BM25 derives from the rows alone.

    Attributes:
        hashes: uint64, shape (m,): the rows' terms without their frequencies.
        mean_length: The mean number of tokens of a row.
    """

    hashes: NDArray[np.uint64]
    mean_length: float


def build_term_index(rows: Rows) -> TermIndex:
    """Build the term index of rows, at least one, for `bm25`."""
    # Lengths are whole numbers, so their sum is exact in any order.
    return TermIndex(rows.terms >> np.uint64(TERM_BITS), float(rows.lengths.sum()) / len(rows.lengths))


def bm25(rows: Rows, terms: TermIndex, query_terms: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    """Score each row's words against the query's.

    The formula is Lucene's BM25 with `PRIOR_ROWS` additional rows that hold none of the terms. A term that `df` of the
    n rows hold has `idf = ln(1 + (n + PRIOR_ROWS - df + 0.5) / (df + 0.5))`. It adds
    `idf * tf / (tf + K1 * (1 - B + B * length / mean_length))` to a row that holds it `tf` times. The score is in nats
    and is not normalised.

    BM25 is by Robertson and others (Okapi at TREC-3, 1994). Kamphuis and others compare its variants, Lucene's among
    them: https://doi.org/10.1007/978-3-030-45442-5_4.

    Args:
        rows: n rows, at least one.
        terms: The rows' terms, from `build_term_index`.
        query_terms: The query's hashed terms, from `hash_terms`; a repeated one counts once.

    Returns:
        scores: float64, shape (n,): 0 for a row that shares no term; summed in the order of the query's terms.
        coverage: The best row's share of the score that the query could attain, from 0 to below 1.
    """
    count = len(rows.lengths)
    wanted: NDArray[np.uint64] = np.fromiter(dict.fromkeys(query_terms), dtype=np.uint64)
    term, entries = _find_terms(terms.hashes, wanted)
    if not len(entries):
        return np.zeros(count), 0.0
    df = np.bincount(term, minlength=len(wanted))
    idf = np.log1p((count + PRIOR_ROWS + 0.5 - df) / (df + 0.5))
    row = rows.row_of_term[entries]
    tf = rows.terms[entries] & _FREQUENCY_MASK
    norm = K1 * (1.0 - B) + K1 * B / terms.mean_length * rows.lengths[row]
    # bincount sums in the order given.
    scores = np.bincount(row, idf[term] * tf / (tf + norm), minlength=count).astype(np.float64, copy=False)
    return scores, float(scores.max()) / float(idf.sum())


def _find_terms(hashes: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find each of `wanted` in `hashes`.

    Returns:
        For each match, the index into `wanted` and the index into `hashes`. Matches of the query's first term come
        first, then those of its second, whatever their hashes.
    """
    if hashes.size * wanted.size <= _MAX_COMPARISONS:
        term, entries = (hashes == wanted[:, None]).nonzero()
        return term, entries
    matches = [np.flatnonzero(hashes == one) for one in wanted]
    return np.repeat(np.arange(len(matches)), [len(one) for one in matches]), np.concatenate(matches)
