"""The one table that holds what people wrote, kept so that removed text leaves no copy behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

# A body up to this size lies within one page of 8 kB, beside its row header; a longer one has pages of its own, which
# SQLite overwrites and frees when it goes.
_FITS_A_PAGE: Final = 8_000


def put(connection: sqlite3.Connection, body: bytes) -> int:
    """Store a body; return its number.

    It goes to the end of the table, or into the place of one that was dropped and was no smaller, so that SQLite never
    has to move another row to make room: moving leaves copies.
    """
    size = len(body)
    if size <= _FITS_A_PAGE:
        free = connection.execute(
            "SELECT capacity, ref FROM free_texts WHERE capacity BETWEEN ? AND ? ORDER BY capacity LIMIT 1",
            (size, 2 * size + 64),
        ).fetchone()
        if free is not None:
            connection.execute("DELETE FROM free_texts WHERE capacity = ? AND ref = ?", free)
            connection.execute("UPDATE texts SET body = ? WHERE ref = ?", (body, free[1]))
            return int(free[1])
    (ref,) = connection.execute(
        "INSERT INTO texts (capacity, body) VALUES (?, ?) RETURNING ref", (size, body)
    ).fetchone()
    return int(ref)


def drop(connection: sqlite3.Connection, refs: Iterable[int]) -> None:
    """Overwrite bodies. The row stays, empty: deleting it lets SQLite merge pages, which moves the rows beside it."""
    for ref in refs:
        connection.execute("UPDATE texts SET body = NULL WHERE ref = ?", (ref,))
        connection.execute(
            "INSERT INTO free_texts SELECT capacity, ref FROM texts WHERE ref = ? AND capacity <= ?",
            (ref, _FITS_A_PAGE),
        )
