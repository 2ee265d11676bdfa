"""What the first bytes of a file say: which database it is. Pure, except that it reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

APPLICATION_ID: Final = 0x6D30_7363
"""Bytes 68 to 71 of the embedded store's file ("m0sc"), which tell it from other programs' SQLite databases."""

SQLITE: Final = b"SQLite format 3\0"

_HEADERS: Final[tuple[tuple[int, bytes], ...]] = (
    (0, SQLITE),
    (0, b"\x37\x7f\x06\x82"),  # SQLite's write-ahead log
    (0, b"\x37\x7f\x06\x83"),
    (0, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"),  # SQLite's rollback journal
    (8, b"DUCK"),
    (16, b"\xde\xc0\xef\xbe"),  # LMDB
)

_kept: Final[dict[tuple[int, int], int]] = {}


def is_database(file: Path) -> bool:
    """Return whether a file begins as a database of SQLite, DuckDB or LMDB does, or one of SQLite's logs.

    Raises:
        OSError: It cannot be read.
    """
    found = os.stat(file)
    kept = _kept.get((found.st_dev, found.st_ino))
    if kept is None and not found.st_size:
        return False
    descriptor = os.open(file, os.O_RDONLY) if kept is None else kept
    os.lseek(descriptor, 0, os.SEEK_SET)
    header = os.read(descriptor, 64)
    matches = any(header.startswith(magic, start) for start, magic in _HEADERS)
    if kept is None and matches:
        # Closing any descriptor of a file releases every lock that this process holds on it, and the process may have
        # the database open (https://www.sqlite.org/howtocorrupt.html, section 2.2). So it stays open, once per file.
        _kept[found.st_dev, found.st_ino] = descriptor
    elif kept is None:
        os.close(descriptor)
    return matches
