"""The one table that holds text: removed text leaves no copy behind.

SQLite copies a row when it makes room for another: when a page splits, when two merge, when a row grows.
`secure_delete` (https://sqlite.org/pragma.html#pragma_secure_delete) overwrites deleted rows in place, but not
such copies. So no row of this table ever moves: rows are appended and never deleted, and a body is overwritten only
by one of the same length, which SQLite does in place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

PADDING: Final = b"\0"

_APPENDED_AT_ONCE: Final = 500
"""How many rows one statement inserts: fewer than the question marks that every build of SQLite takes."""


def put(connection: sqlite3.Connection, body: bytes) -> int:
    """Store a body; return its number. See `put_all`."""
    return put_all(connection, [body])[0]


def put_all(connection: sqlite3.Connection, bodies: Sequence[bytes]) -> list[int]:
    """Store bodies; return their numbers.

    A body takes the row of a dropped one that is long enough, or a new row of a round length. It is padded with NUL.

    Args:
        connection: Inside a write transaction.
        bodies: Any bytes that do not end in NUL.
    """
    if connection.execute("SELECT 1 FROM free_texts LIMIT 1").fetchone() is None:
        return _append(connection, bodies)
    return [_put_into_free(connection, body) or _append(connection, [body])[0] for body in bodies]


def _put_into_free(connection: sqlite3.Connection, body: bytes) -> int | None:
    size = len(body)
    free = connection.execute(
        "SELECT capacity, ref FROM free_texts WHERE capacity BETWEEN ? AND ? ORDER BY capacity, ref LIMIT 1",
        (size, 2 * size + 64),
    ).fetchone()
    if free is None:
        return None
    capacity, ref = free
    connection.execute("DELETE FROM free_texts WHERE capacity = ? AND ref = ?", free)
    connection.execute("UPDATE texts SET body = ? WHERE ref = ?", (body.ljust(capacity, PADDING), ref))
    return int(ref)


def _append(connection: sqlite3.Connection, bodies: Sequence[bytes]) -> list[int]:
    refs: list[int] = []
    for start in range(0, len(bodies), _APPENDED_AT_ONCE):
        some = bodies[start : start + _APPENDED_AT_ONCE]
        last = connection.execute(
            f"INSERT INTO texts (body) VALUES {','.join(['(?)'] * len(some))}",
            [body.ljust(_round_length(len(body)), PADDING) for body in some],
        ).lastrowid
        # Rows are never deleted, and one writer writes at a time: they are numbered one after the other.
        refs += range(int(last or 0) - len(some) + 1, int(last or 0) + 1)
    return refs


def drop(connection: sqlite3.Connection, refs: Iterable[int]) -> None:
    """Overwrite bodies with zeros of the same length; later bodies take their rows."""
    for ref in refs:
        connection.execute("INSERT INTO free_texts SELECT length(body), ref FROM texts WHERE ref = ?", (ref,))
        connection.execute("UPDATE texts SET body = zeroblob(length(body)) WHERE ref = ?", (ref,))


def unpad(body: bytes) -> bytes:
    """Return a body as it was stored."""
    return body.rstrip(PADDING)


def _round_length(size: int) -> int:
    """Round up to a multiple of 32, or of an eighth of a power of two: rows of few lengths are easily used again."""
    step = max(32, 1 << max(size.bit_length() - 4, 0))
    return -(-size // step) * step
