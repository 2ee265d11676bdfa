"""SqliteStorage: the engine's storage in one SQLite file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..engine.storage import ReadTransaction, RowKind, Snapshot, Storage, Version, WriteTransaction
from . import text_table as texts
from .database import Database
from .partitions import (
    FIND,
    SqliteReadTransaction,
    SqliteWriteTransaction,
    chunks,
    find,
    is_name_of,
    marks,
    user_hash,
)

_TIDY_SECONDS: Final = 60.0
"""How often a write also shortens the list of erasures."""

_BODIES: Final = """
SELECT seq, texts.body, names.body FROM partitions JOIN texts AS names ON names.ref = name_ref
JOIN items ON items.pid = partitions.pid JOIN texts ON texts.ref = items.ref
WHERE partitions.pid = ? AND searched_seq = ? AND rewrites = ? AND kind = ? AND parent = 0 AND seq IN
"""


class SqliteStorage(Storage):
    """One SQLite file.

    Args:
        path: The file; created, readable by its owner only, where it does not exist.
        fingerprint: Which embedding its vectors come from; recorded in a new file, compared in an old one.

    Attributes:
        database: The file's connections.

    Raises:
        BackendError: The file cannot be used; see `Database`.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.database = Database(path, fingerprint)
        self._tidied = float("-inf")

    @contextmanager
    def reading(self) -> Iterator[ReadTransaction]:
        with self.database.reading() as connection:
            yield SqliteReadTransaction(connection, self.database.salt)

    @contextmanager
    def writing(self) -> Iterator[WriteTransaction]:
        with self.database.writing() as connection:
            transaction = SqliteWriteTransaction(connection, self.database.salt)
            yield transaction
            if time.monotonic() - self._tidied > _TIDY_SECONDS:
                transaction.forget_old_erasures()
                self._tidied = time.monotonic()

    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Snapshot | None:
        hashed = user_hash(user_id, self.database.salt)
        with self.database.reading() as connection:
            partition = find(user_id, connection.execute(FIND, (hashed,)).fetchall())
            if partition is None:
                return None
            version = partition.version
            # What the caller holds may be newer than what this transaction sees.
            added = cached is not None and cached[::2] == version[::2] and cached[1] <= version[1]
            start = cached[1] if cached is not None and added else 0
            rows = connection.execute(
                "SELECT id, seq, vector, terms, length FROM items "
                "WHERE pid = ? AND kind = ? AND parent = 0 AND seq >= ? ORDER BY seq",
                (partition.place, kind, start),
            ).fetchall()
        columns = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [], [])
        return Snapshot(version, partition.key, cached if added else None, *columns)

    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        if not seqs:
            partition = find(user_id, self.database.query(FIND, (user_hash(user_id, self.database.salt),)))
            return [] if partition is not None and partition.version == version else None
        found: dict[int, bytes] = {}
        # Each statement compares the version, and equal versions mean equal rows: they need no common transaction.
        for some in chunks(seqs):
            rows = self.database.query(f"{_BODIES} ({marks(some)})", (*version, kind, *some))
            if not rows or not is_name_of(user_id, rows[0][2]):
                return None
            for seq, body, _ in rows:
                found[seq] = texts.unpad(body)
        return [found[seq] for seq in seqs]

    def purge(self) -> None:
        self.database.truncate()

    def files(self) -> list[Path]:
        return [self.database.path]

    def close(self) -> None:
        self.database.close()
