"""How the rows of one user's partition are scored for a query: cosine and BM25, fused. Pure: no I/O and no mem0."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import Stemmer
from numpy.typing import ArrayLike, NDArray

K1: Final = 0.9
"""BM25's term saturation: at this frequency, in a row of average length, a term has half of its greatest weight.

0.9 and 0.4 are Anserini's defaults, and memories are short passages like those it ranks. LoCoMo agrees: recall at 10 is
two points above that of Lucene's 1.2 and 0.75.
"""
B: Final = 0.4
"""BM25's length normalisation, from 0 (none) to 1 (in full proportion to the row's length)."""
HALF_COVERED: Final = 0.2
"""The share of the attainable BM25 score at which a row's words count half of what they can, see `fused`.

Recall on LoCoMo is flat from 0.1 to 0.4 and falls below.
"""
LEXICAL_WEIGHT: Final = 0.6
"""The share of the words in a fused score; the rest is the share of the meaning.

LoCoMo, where BM25 beats every embedding, would have 0.7; half a point of recall is left there for data that differ.
"""

_VECTOR: Final = np.dtype("<f4")
_TERM: Final = np.dtype("<u8")
_TF_BITS: Final = 8
_MAX_TF: Final = (1 << _TF_BITS) - 1
_HASH_BYTES: Final = 7
_SORTED_AT_ONCE: Final = 200
"""Up to so many rows sorting them all is faster than finding the best first."""
_COMPARED_AT_ONCE: Final = 1 << 15
"""Up to so many comparisons one call of numpy is faster than one for each term of the query; beyond, it is slower."""

# Scripts that write no space between words: Han, kana, Thai, Lao, Myanmar and Khmer, with their vowel signs.
_UNSPACED: Final = (
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece"
    "\u1000-\u103f\u1050-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17d3"
)
# Marks that belong to the word they stand in, though `\w` leaves them out: accents, Hebrew and Arabic points, and the
# vowel signs of the Indic scripts (without danda, their full stop).
_MARKS: Final = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]+|(?:[^\W{_UNSPACED}]|[{_MARKS}])+")
_ASCII_WORD: Final = re.compile(r"\w+")
_UNSPACED_RUN: Final = re.compile(rf"[{_UNSPACED}]+")

# Function words of English, and what is left of its contractions once the apostrophe has split them.
_FUNCTION_WORDS: Final = """
a about above after again against all also am an and any are aren as at be because been before being below between
both but by can cannot could couldn d did didn do does doesn doing down during each few for from further had hadn
has hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m
me more most much my myself no nor not now of off on once only or other our ours ourselves out over own re s same
shall she should shouldn so some such t than that the their theirs them themselves then there these they this those
through to too under until up us ve very was wasn we were weren what when where which while who whom whose why will
with would wouldn you your yours yourself yourselves
"""
_STOP_WORDS: Final = frozenset(_FUNCTION_WORDS.split())


class Rows(NamedTuple):
    """The rows of one user's partition, in the order of his own sequence, laid out for scoring.

    Attributes:
        vectors: float32, shape (n, d): L2-normalised, or zeros where a row has no direction.
        terms: uint64, shape (m,): the packed terms of all rows, one row after another, as `pack_terms` made them.
        owner: intp, shape (m,): the index of the row to which each of `terms` belongs.
        lengths: float64, shape (n,): how many tokens each row's text has.
    """

    vectors: NDArray[np.float32]
    terms: NDArray[np.uint64]
    owner: NDArray[np.intp]
    lengths: NDArray[np.float64]


def build_rows(vectors: Sequence[bytes], terms: Sequence[bytes], lengths: Sequence[int], dims: int) -> Rows:
    """Assemble the rows of a partition from what is stored of each.

    Args:
        vectors: Each row's vector: `dims` little-endian float32, see `unit_vector`.
        terms: Each row's packed terms, see `pack_terms`.
        lengths: Each row's length in tokens.
        dims: How many components a vector has.

    Returns:
        The rows in the order given. The arrays of vectors and terms are read-only views of joined bytes.

    Raises:
        ValueError: The three sequences differ in length, or the vectors have not `dims` components each.
    """
    count = len(vectors)
    if not count == len(terms) == len(lengths):
        raise ValueError(f"expected {count} terms and lengths, as many as vectors, got {len(terms)} and {len(lengths)}")
    joined = b"".join(vectors)
    if len(joined) != count * dims * _VECTOR.itemsize:
        raise ValueError(f"expected {count} vectors of {dims} float32, got {len(joined)} bytes")
    sizes = np.fromiter(map(len, terms), dtype=np.intp, count=count)
    return Rows(
        vectors=np.frombuffer(joined, dtype=_VECTOR).reshape(count, dims),
        terms=np.frombuffer(b"".join(terms), dtype=_TERM),
        owner=np.repeat(np.arange(count), sizes // _TERM.itemsize),
        lengths=np.array(lengths, dtype=np.float64),
    )


_UNIT: Final = 1e-6
"""How far from 1 the length of a unit vector may be that was stored as float32."""


def unit_vector(vector: ArrayLike) -> NDArray[np.float32]:
    """Scale a vector to length 1, the form in which rows are stored and queries are compared.

    Args:
        vector: d finite numbers.

    Returns:
        float32, shape (d,): the direction; zeros for a vector that has none, such as zeros, NaN or infinities.
    """
    given = np.asarray(vector, dtype=np.float64)
    norm = float(np.einsum("i,i->", given, given)) ** 0.5
    if abs(norm - 1.0) < _UNIT:
        return given.astype(np.float32)
    if not 0.0 < norm < np.inf:
        return np.zeros(given.shape, dtype=np.float32)
    unit: NDArray[np.float32] = (given / norm).astype(np.float32)
    return unit


def tokenize(text: str) -> list[str]:
    """Split a text into the terms by which it is found again.

    Case, compatibility forms and English inflection are levelled, English stop words left out. Scripts without spaces
    become overlapping pairs of characters, so such a word is found wherever it stands, but a single character only
    where it stands alone.

    Args:
        text: Any text, in any language.

    Returns:
        The terms in the order of the text, repeated as often as they occur; the stop words themselves where there is
        nothing else, so that only a text without any word has no terms.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _ASCII_WORD.findall(folded) if folded.isascii() else _words(folded)
    kept = [word for word in words if word not in _STOP_WORDS] or words
    # A Stemmer may not be shared by threads; one of its own, without a cache, costs a call 0.3 µs.
    terms: list[str] = Stemmer.Stemmer("english", 0).stemWords(kept)
    return terms


def _words(folded: str) -> list[str]:
    words: list[str] = []
    for run in _WORD.findall(folded):
        if len(run) > 1 and _UNSPACED_RUN.match(run):
            words.extend(map("".join, pairwise(run)))
        else:
            words.append(run)
    return words


def hash_terms(tokens: Iterable[str], key: bytes) -> list[int]:
    """Hide terms behind a user's own key, so that what is stored holds no word and cannot be compared across users.

    Args:
        tokens: Terms as `tokenize` returns them.
        key: The user's key, 16 random bytes.

    Returns:
        For each term, in order, its BLAKE2b hash of 56 bits under that key.
    """
    return [
        int.from_bytes(blake2b(token.encode(), digest_size=_HASH_BYTES, key=key).digest(), "little") for token in tokens
    ]


def pack_terms(text: str, key: bytes) -> tuple[bytes, int]:
    """Turn a text into the terms stored beside it.

    Args:
        text: The row's text.
        key: The user's key, 16 random bytes.

    Returns:
        The distinct terms as little-endian uint64, `hash << 8 | min(frequency, 255)`, ascending; and the length of the
        text in tokens.
    """
    tokens = tokenize(text)
    frequencies = Counter(tokens)
    hashes = hash_terms(frequencies, key)
    packed = sorted(term << _TF_BITS | min(tf, _MAX_TF) for term, tf in zip(hashes, frequencies.values(), strict=True))
    return np.array(packed, dtype=_TERM).tobytes(), len(tokens)


def cosine(rows_vectors: NDArray[np.float32], query_vector: ArrayLike) -> NDArray[np.float32]:
    """Compare each row's meaning with the query's.

    Args:
        rows_vectors: float32, shape (n, d): L2-normalised or zero rows.
        query_vector: d numbers of any length.

    Returns:
        float32, shape (n,): the cosine of each row and the query, clipped to [0, 1]; zeros for a query without a
        direction. A row's value is the same to the last bit at any position and beside any other rows, up to 8,192
        dimensions.
    """
    # A BLAS product gives a row other last bits at another position; einsum adds each row up in one fixed order.
    scores: NDArray[np.float32] = np.einsum("ij,j->i", rows_vectors, unit_vector(query_vector))
    return np.clip(scores, 0.0, 1.0, out=scores)


def bm25(rows: Rows, query_terms: Sequence[int]) -> NDArray[np.float64]:
    """Compare each row's words with the query's, by the statistics of these rows alone.

    The formula is Lucene's BM25: a term that `df` of the n rows hold weighs `idf = ln(1 + (n - df + 0.5) / (df + 0.5))`
    and gives a row that holds it `tf` times `idf * tf / (tf + K1 * (1 - B + B * length / mean length))`.

    Args:
        rows: n rows.
        query_terms: The query's hashed terms, see `hash_terms`; a repeated one counts once.

    Returns:
        float64, shape (n,): the scores, 0 for a row that shares no term, added up in the order of the query's terms.
    """
    return _bm25(rows, query_terms)[0]


def _bm25(rows: Rows, query_terms: Sequence[int]) -> tuple[NDArray[np.float64], float]:
    """`bm25`, and the bound no row's score can reach: the sum of the query's idf, unknown terms included."""
    count = len(rows.lengths)
    hashes: NDArray[np.uint64] = np.right_shift(rows.terms, np.uint64(_TF_BITS))
    wanted: NDArray[np.uint64] = np.fromiter(dict.fromkeys(query_terms), dtype=np.uint64)
    term, entries = _matches(hashes, wanted)
    df = np.bincount(term, minlength=len(wanted))
    idf = np.log1p((count - df + 0.5) / (df + 0.5))
    attainable = float(idf.sum())
    if not len(entries):
        return np.zeros(count), attainable
    owner = rows.owner[entries]
    tf = rows.terms[entries] & _MAX_TF
    # Lengths are whole numbers, so their sum is exact in any order.
    norm = K1 * (1.0 - B + B * count / rows.lengths.sum() * rows.lengths[owner])
    # bincount adds up in the order given.
    weights = idf[term] * tf / (tf + norm)
    return np.bincount(owner, weights, minlength=count).astype(np.float64, copy=False), attainable


def _matches(hashes: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of `wanted` is found where: first the query's first term, then its second, whatever their hashes are."""
    if hashes.size * wanted.size <= _COMPARED_AT_ONCE:
        term, entries = (hashes == wanted[:, None]).nonzero()
        return term, entries
    found = [np.flatnonzero(hashes == one) for one in wanted]
    return np.repeat(np.arange(len(found)), [len(one) for one in found]), np.concatenate(found)


def fused(rows: Rows, query_vector: ArrayLike, query_terms: Sequence[int]) -> NDArray[np.float64]:
    """Score each row by its words and its meaning together.

    The words of a row count by how much of the query they cover: `c / (c + HALF_COVERED)`, where c in [0, 1) is the
    BM25 score divided by the bound of what this query can attain in this partition. It saturates because a row that
    answers a question repeats only a part of it. The result is
    `LEXICAL_WEIGHT * words + (1 - LEXICAL_WEIGHT) * cosine`.

    Nothing is measured against the best row, so a score can be held against a threshold: a row that shares no word with
    the query needs a cosine of 0.25 to reach 0.1, and a lone row that has nothing to do with it stays below.

    Args:
        rows: n rows.
        query_vector: d numbers of any length; without a direction only the words count.
        query_terms: The query's hashed terms, see `hash_terms`; without any only the cosine counts.

    Returns:
        float64, shape (n,): scores in [0, 1].
    """
    scores, attainable = _bm25(rows, query_terms)
    if attainable:
        scores /= scores + HALF_COVERED * attainable
    scores *= LEXICAL_WEIGHT
    scores += (1.0 - LEXICAL_WEIGHT) * cosine(rows.vectors, query_vector)
    return scores


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
    if k < count and count > _SORTED_AT_ONCE:
        # Whatever ties with the last place stays in until the stable sort has put the lower index first.
        last = np.partition(scores, count - k)[count - k]
        finalists = np.flatnonzero(scores >= last)
    else:
        finalists = np.arange(count)
    best: list[int] = finalists[np.argsort(-scores[finalists], kind="stable")[:k]].tolist()
    return best
