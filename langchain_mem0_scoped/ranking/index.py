"""One user's rows as arrays, and the packed form in which each row is stored. Pure."""

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..scope import SESSION_KEY
from .tokenizer import TERM_BITS, hash_terms, pack_terms, tokenize

_VECTOR_DTYPE: Final = np.dtype("<f4")
_WORD_DTYPE: Final = np.dtype("<u8")
_HEADER_WORDS: Final = 2
_HEADER_BYTES: Final = _HEADER_WORDS * _WORD_DTYPE.itemsize
EMPTY_PACKED_ROW: Final = bytes(_HEADER_BYTES)
"""What `pack_row` returns for a row without terms, session, speaker or timestamp."""
_QUESTION_BIT: Final = 1
_TIMESTAMP_BITS: Final = 40
"""Enough for seconds up to the year 9999. The other 24 bits of the word hold the speaker."""
_TIMESTAMP_MASK: Final = (1 << _TIMESTAMP_BITS) - 1
_YEAR_1_TO_1970: Final = 62_135_596_800
"""Seconds from the start of year 1 to the start of 1970."""
_QUESTION_MARKS: Final = frozenset("?？؟՞፧⸮︖")  # noqa: RUF001
"""The question marks of every script that has its own."""


class Rows(NamedTuple):
    """The rows of one user, in the order they were written.

    Attributes:
        vectors: float32, shape (n, d): L2-normalised, or zeros for a row without a direction.
        terms: uint64, shape (m,): the packed terms of all rows, one row after another, from `pack_terms`.
        row_of_term: intp, shape (m,): the index of the row that holds each of `terms`.
        lengths: float64, shape (n,): the number of tokens of each row's text.
        headers: uint64, shape (n, 2): session, question mark, speaker and timestamp; see `pack_row`.
    """

    vectors: NDArray[np.float32]
    terms: NDArray[np.uint64]
    row_of_term: NDArray[np.intp]
    lengths: NDArray[np.float64]
    headers: NDArray[np.uint64]

    @property
    def sessions(self) -> NDArray[np.uint64]:
        """uint64, shape (n,): the hash of each row's session; 0 for none."""
        return self.headers[:, 0] >> np.uint64(TERM_BITS)

    @property
    def is_question(self) -> NDArray[np.bool_]:
        """bool, shape (n,): whether each row's text holds a question mark."""
        return (self.headers[:, 0] & np.uint64(_QUESTION_BIT)).astype(bool)

    @property
    def speakers(self) -> NDArray[np.uint64]:
        """uint64, shape (n,): the `speaker_hash` of each row's speaker; 0 for none."""
        return self.headers[:, 1] >> np.uint64(_TIMESTAMP_BITS)

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """int64, shape (n,): when each row was created, in seconds since the start of year 1; 0 if unknown."""
        return (self.headers[:, 1] & np.uint64(_TIMESTAMP_MASK)).view(np.int64)


def build_rows(vectors: Sequence[bytes], terms: Sequence[bytes], lengths: Sequence[int], dims: int) -> Rows:
    """Build rows from their stored form.

    Args:
        vectors: Each row's vector: `dims` little-endian float32, see `unit_vector`.
        terms: Each row's header and packed terms, see `pack_row`; all empty for rows that are not searched by words.
        lengths: Each row's length in tokens.
        dims: The number of components of a vector.

    Returns:
        The rows in the order given. Vectors, terms and headers are read-only views of joined bytes.

    Raises:
        ValueError: The three sequences differ in length, a vector does not have `dims` components, or some rows have a
            header and others have none.
    """
    count = len(vectors)
    if not count == len(terms) == len(lengths):
        raise ValueError(f"expected {count} terms and lengths, as many as vectors, got {len(terms)} and {len(lengths)}")
    joined = b"".join(vectors)
    if len(joined) != count * dims * _VECTOR_DTYPE.itemsize:
        raise ValueError(f"expected {count} vectors of {dims} float32, got {len(joined)} bytes")
    headers = b"".join([packed[:_HEADER_BYTES] for packed in terms])
    if len(headers) not in (0, count * _HEADER_BYTES):
        raise ValueError("expected a header before the terms of every row, or of none")
    words = np.fromiter(map(len, terms), dtype=np.intp, count=count) // _WORD_DTYPE.itemsize
    return Rows(
        vectors=np.frombuffer(joined, dtype=_VECTOR_DTYPE).reshape(count, dims),
        terms=np.frombuffer(b"".join([packed[_HEADER_BYTES:] for packed in terms]), dtype=_WORD_DTYPE),
        row_of_term=np.repeat(np.arange(count), words - _HEADER_WORDS if headers else words),
        lengths=np.array(lengths, dtype=np.float64),
        headers=np.frombuffer(headers or bytes(count * _HEADER_BYTES), dtype=_WORD_DTYPE).reshape(count, _HEADER_WORDS),
    )


def concat_rows(first: Rows, second: Rows) -> Rows:
    """Concatenate rows. The result equals rows that were built together."""
    return Rows(
        np.concatenate((first.vectors, second.vectors)),
        np.concatenate((first.terms, second.terms)),
        np.concatenate((first.row_of_term, second.row_of_term + len(first.lengths))),
        np.concatenate((first.lengths, second.lengths)),
        np.concatenate((first.headers, second.headers)),
    )


def pack_row(payload: Mapping[str, Any], key: bytes) -> tuple[bytes, int]:
    """Pack what a search needs to know about a memory besides its vector.

    Words, session and speaker are hashed under the user's key, so the packed row holds no readable text and cannot be
    compared across users.

    Args:
        payload: mem0's payload: the text, and optionally the session, the speaker (`actor_id`) and `created_at`.
        key: The user's key, 16 random bytes.

    Returns:
        packed: Little-endian uint64. Two words of header: `session_hash << 8 | has_question_mark` and
            `speaker_hash << 40 | seconds since the start of year 1`. Then the terms, see `pack_terms`. The speaker's
            term is the first term of the name; without a name it is the first term of the text, as in a chat log.
        length: The length of the text in tokens.
    """
    text = str(payload.get("data", ""))
    session_id, name = payload.get(SESSION_KEY), payload.get("actor_id")
    tokens = tokenize(text)
    speaker_tokens = tokenize(name)[:1] if isinstance(name, str) else tokens[:1]
    session = int(session_hash(session_id, key)) if isinstance(session_id, str) else 0
    is_question = not _QUESTION_MARKS.isdisjoint(text)
    (speaker,) = map(speaker_hash, hash_terms(speaker_tokens, key) or [0])
    timestamp = _timestamp(payload.get("created_at"))
    words = [session << TERM_BITS | is_question, speaker << _TIMESTAMP_BITS | timestamp, *pack_terms(tokens, key)]
    return struct.pack(f"<{len(words)}Q", *words), len(tokens)


def packed_row(rows: Rows, row: int, start: int, end: int) -> bytes:
    """Return the packed form of a row as `pack_row` made it.

    Args:
        rows: The rows.
        row: The row's index.
        start: The index of the row's first term in `rows.terms`.
        end: The index behind its last term.
    """
    packed: bytes = rows.headers[row].tobytes() + rows.terms[start:end].tobytes()
    return packed


def speaker_hash(term: int) -> int:
    """Return a hashed term as `Rows.speakers` has it: its highest 24 bits, enough to tell a user's speakers apart."""
    return term >> 32


def session_hash(session_id: str, key: bytes) -> np.uint64:
    """Return the hash of a session as `Rows.sessions` has it."""
    # No term holds NUL, so no term has the hash of a session.
    return np.uint64(hash_terms([f"\0{session_id}"], key)[0])


def _timestamp(created_at: object) -> int:
    seconds = unix_seconds(created_at)
    # With a time zone east of UTC, the first hours of year 1 lie before its start in UTC.
    return max(int(seconds) + _YEAR_1_TO_1970, 0) if seconds else 0


def unix_seconds(timestamp: object) -> float:
    """Return an ISO 8601 timestamp in seconds since 1970; 0 for anything else."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
