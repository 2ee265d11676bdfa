"""One user's rows laid out for scoring, and what is stored of each row for that. Pure."""

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..scope import SESSION_KEY
from .tokenizer import TERM_BITS, hash_terms, pack_terms, tokenize

_VECTOR: Final = np.dtype("<f4")
_WORD: Final = np.dtype("<u8")
_HEAD_WORDS: Final = 2
_HEAD: Final = _HEAD_WORDS * _WORD.itemsize
NO_WORDS: Final = bytes(_HEAD)
"""What `pack_row` would make of a row without words, session, speaker or moment."""
_ASKS: Final = 1
_MOMENT_BITS: Final = 40
"""For seconds up to the year 9999; of a word, that leaves 24 for who speaks."""
_MOMENT: Final = (1 << _MOMENT_BITS) - 1
_YEAR_1: Final = 62_135_596_800
"""Seconds from the beginning of the year 1 to that of 1970."""
_QUESTION_MARKS: Final = frozenset("?？؟՞፧⸮︖")  # noqa: RUF001
"""Of every script that has one of its own."""


class Rows(NamedTuple):
    """The rows of one user's partition, in the order of his own sequence, laid out for scoring.

    Attributes:
        vectors: float32, shape (n, d): L2-normalised, or zeros where a row has no direction.
        terms: uint64, shape (m,): the packed terms of all rows, one row after another, as `pack_terms` made them.
        owner: intp, shape (m,): the index of the row to which each of `terms` belongs.
        lengths: float64, shape (n,): how many tokens each row's text has.
        heads: uint64, shape (n, 2): session, speaker and moment, as stored; see `pack_row`.
    """

    vectors: NDArray[np.float32]
    terms: NDArray[np.uint64]
    owner: NDArray[np.intp]
    lengths: NDArray[np.float64]
    heads: NDArray[np.uint64]

    @property
    def sessions(self) -> NDArray[np.uint64]:
        """uint64, shape (n,): the hash of the session a row was said in, 0 for none."""
        return self.heads[:, 0] >> np.uint64(TERM_BITS)

    @property
    def asks(self) -> NDArray[np.bool_]:
        """bool, shape (n,): whether a row's text holds a question mark."""
        return (self.heads[:, 0] & np.uint64(_ASKS)).astype(bool)

    @property
    def speakers(self) -> NDArray[np.uint64]:
        """uint64, shape (n,): the term by which a row's speaker is named, as `speaker_of` has it, 0 for none."""
        return self.heads[:, 1] >> np.uint64(_MOMENT_BITS)

    @property
    def said(self) -> NDArray[np.int64]:
        """int64, shape (n,): when a row was said, in seconds since the year 1 began; 0 where that is not known."""
        return (self.heads[:, 1] & np.uint64(_MOMENT)).view(np.int64)


def build_rows(vectors: Sequence[bytes], terms: Sequence[bytes], lengths: Sequence[int], dims: int) -> Rows:
    """Assemble the rows of a partition from what is stored of each.

    Args:
        vectors: Each row's vector: `dims` little-endian float32, see `unit_vector`.
        terms: Each row's head and packed terms, see `pack_row`; empty for one that is not searched by words.
        lengths: Each row's length in tokens.
        dims: How many components a vector has.

    Returns:
        The rows in the order given. The arrays of what is stored are read-only views of joined bytes.

    Raises:
        ValueError: The three sequences differ in length, the vectors have not `dims` components each, or some rows have
            a head and others have none.
    """
    count = len(vectors)
    if not count == len(terms) == len(lengths):
        raise ValueError(f"expected {count} terms and lengths, as many as vectors, got {len(terms)} and {len(lengths)}")
    joined = b"".join(vectors)
    if len(joined) != count * dims * _VECTOR.itemsize:
        raise ValueError(f"expected {count} vectors of {dims} float32, got {len(joined)} bytes")
    heads = b"".join([packed[:_HEAD] for packed in terms])
    if len(heads) not in (0, count * _HEAD):
        raise ValueError("expected a head before the terms of every row, or of none")
    words = np.fromiter(map(len, terms), dtype=np.intp, count=count) // _WORD.itemsize
    return Rows(
        vectors=np.frombuffer(joined, dtype=_VECTOR).reshape(count, dims),
        terms=np.frombuffer(b"".join([packed[_HEAD:] for packed in terms]), dtype=_WORD),
        owner=np.repeat(np.arange(count), words - _HEAD_WORDS if heads else words),
        lengths=np.array(lengths, dtype=np.float64),
        heads=np.frombuffer(heads or bytes(count * _HEAD), dtype=_WORD).reshape(count, _HEAD_WORDS),
    )


def joined(first: Rows, then: Rows) -> Rows:
    """Rows behind others, as if they had been built together."""
    return Rows(
        np.concatenate((first.vectors, then.vectors)),
        np.concatenate((first.terms, then.terms)),
        np.concatenate((first.owner, then.owner + len(first.lengths))),
        np.concatenate((first.lengths, then.lengths)),
        np.concatenate((first.heads, then.heads)),
    )


def pack_row(payload: Mapping[str, Any], key: bytes) -> tuple[bytes, int]:
    """Turn a memory into what is stored beside its text to find it by.

    Nothing of it can be read or compared across users: like words, sessions and names are hashed under the user's key.

    Args:
        payload: mem0's payload: the text, and, where they are known, the session, who spoke (mem0's `actor_id`) and
            when.
        key: The user's key, 16 random bytes.

    Returns:
        Little-endian uint64: the session's hash and whether something is asked, `hash << 8 | 1 or 0`; the term the
        speaker is named by and the moment, `speaker_of(term) << 40 | seconds since the year 1 began`; then the terms,
        see `pack_terms`. The speaker is named by the first term of the name, or, where no name was given, of the text,
        as in a log of a chat. And the length of the text in tokens.
    """
    text = str(payload.get("data", ""))
    session, name = payload.get(SESSION_KEY), payload.get("actor_id")
    tokens = tokenize(text)
    named = tokenize(name)[:1] if isinstance(name, str) else tokens[:1]
    of_session = int(session_hash(session, key)) if isinstance(session, str) else 0
    asks = not _QUESTION_MARKS.isdisjoint(text)
    (speaker,) = map(speaker_of, hash_terms(named, key) or [0])
    moment = _moment_of(payload.get("created_at"))
    words = [of_session << TERM_BITS | asks, speaker << _MOMENT_BITS | moment, *pack_terms(tokens, key)]
    return struct.pack(f"<{len(words)}Q", *words), len(tokens)


def speaker_of(term: int) -> int:
    """A hashed term as it stands in `Rows.speakers`: its highest 24 bits, enough to tell the few who speak apart."""
    return term >> 32


def _moment_of(created_at: object) -> int:
    seconds = seconds_of(created_at)
    # Before the year 1 began, in UTC, it was said somewhere east of there.
    return max(int(seconds) + _YEAR_1, 0) if seconds else 0


def session_hash(session_id: str, key: bytes) -> np.uint64:
    """A session as it stands in `Rows.sessions`."""
    # NUL stands in no term, so no word is ever taken for a session.
    return np.uint64(hash_terms([f"\0{session_id}"], key)[0])


def packed_of(rows: Rows, index: int, start: int, end: int) -> bytes:
    """The head and terms of a row as `pack_row` made them, its terms being those from start to end."""
    packed: bytes = rows.heads[index].tobytes() + rows.terms[start:end].tobytes()
    return packed


def seconds_of(moment: object) -> float:
    """A moment in ISO 8601 as seconds since 1970; 0 for anything else."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
