"""One user's rows laid out for scoring, and what is stored of each row for that. Pure."""

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..scope import SESSION_KEY
from .words import TERM_BITS, hash_terms, pack_terms, tokenize

_VECTOR: Final = np.dtype("<f4")
_WORD: Final = np.dtype("<u8")
_HEAD_WORDS: Final = 3
_HEAD: Final = _HEAD_WORDS * _WORD.itemsize
NO_WORDS: Final = bytes(_HEAD)
"""What `pack_row` would make of a row without words, session, speaker or moment."""
_ASKS: Final = 1
_QUESTION_MARKS: Final = frozenset("?？؟՞፧⸮︖")  # noqa: RUF001
"""Of every script that has one of its own."""


class Rows(NamedTuple):
    """The rows of one user's partition, in the order of his own sequence, laid out for scoring.

    Attributes:
        vectors: float32, shape (n, d): L2-normalised, or zeros where a row has no direction.
        terms: uint64, shape (m,): the packed terms of all rows, one row after another, as `pack_terms` made them.
        owner: intp, shape (m,): the index of the row to which each of `terms` belongs.
        lengths: float64, shape (n,): how many tokens each row's text has.
        heads: uint64, shape (n, 3): session, speaker and moment, as stored; see `pack_row`.
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
        """uint64, shape (n,): the hashed term by which a row's speaker is named, 0 for none; see `pack_row`."""
        return self.heads[:, 1]

    @property
    def said(self) -> NDArray[np.int64]:
        """int64, shape (n,): when a row was said, in seconds since 1970; 0 where that is not known."""
        return self.heads[:, 2].view(np.int64)


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
        Little-endian uint64: the session's hash and whether something is asked, `hash << 8 | 1 or 0`; the hash of the
        term the speaker is named by, which is the first of the name, or, where no name was given, of the text, as in a
        log of a chat; the moment in seconds since 1970; then the terms, see `pack_terms`. And the length of the text in
        tokens.
    """
    text = str(payload.get("data", ""))
    session, name = payload.get(SESSION_KEY), payload.get("actor_id")
    tokens = tokenize(text)
    named = tokenize(name)[:1] if isinstance(name, str) else tokens[:1]
    of_session = int(session_hash(session, key)) if isinstance(session, str) else 0
    asks = not _QUESTION_MARKS.isdisjoint(text)
    words = [of_session << TERM_BITS | asks, *(hash_terms(named, key) or [0]), *pack_terms(tokens, key)]
    words.insert(2, int(seconds_of(payload.get("created_at"))) % (1 << 64))
    return struct.pack(f"<{len(words)}Q", *words), len(tokens)


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
