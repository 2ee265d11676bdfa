"""SqliteStorage: the engine's storage in one SQLite file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..engine.storage import ReadTransaction, RowKind, Snapshot, Storage, Version, WriteTransaction
from .body_mark import KEY_BYTES, mixed_file, unsealer, user_of_name
from .database import Database
from .partitions import (
    FIND,
    SqliteReadTransaction,
    SqliteWriteTransaction,
    chunks,
    find,
    placeholders,
    user_hash,
)

_NO_ROW: Final = (-1, b"")

_BODIES: Final = """
SELECT seq, id, texts.body, names.body FROM partitions JOIN texts AS names ON names.ref = name_ref
JOIN items ON items.pid = partitions.pid LEFT JOIN texts ON texts.ref = items.ref
WHERE partitions.pid = ? AND stamp = ? AND kind = ? AND parent = 0 AND seq IN
"""

_SEARCHED: Final = """
SELECT id, seq, vector, terms, length FROM items WHERE pid = ? AND kind = ? AND parent = 0 AND seq >= ? ORDER BY seq
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

    @contextmanager
    def reading(self) -> Iterator[ReadTransaction]:
        with self.database.reading() as connection:
            yield SqliteReadTransaction(connection, self.database.salt)

    @contextmanager
    def writing(self) -> Iterator[WriteTransaction]:
        with self.database.writing() as connection:
            yield SqliteWriteTransaction(connection, self.database.salt)

    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Snapshot | None:
        """See `Storage.snapshot`. A version is (partition, stamp, epoch, number and id of the last row).

        Rows were only added since if nothing was replaced or removed (the epoch is the same), and the last row is still
        there: its id is random, so it is in no other history of the file, such as one that a backup began.
        """
        hashed = user_hash(user_id, self.database.salt)
        with self.database.reading() as connection:
            found = find(user_id, connection.execute(FIND, (hashed,)).fetchall())
            if found is None:
                return None
            place, key = found.partition.place, found.partition.key
            follows = cached if cached is not None and (cached[0], cached[2]) == (place, found.epoch) else None
            last = _NO_ROW if follows is None else follows[3:]
            rows = connection.execute(_SEARCHED, (place, kind, last[0])).fetchall()
            if last != _NO_ROW:
                if rows and (rows[0][1], rows[0][0]) == last:
                    del rows[0]
                else:
                    follows, last = None, _NO_ROW
                    rows = connection.execute(_SEARCHED, (place, kind, last[0])).fetchall()
        if rows:
            last = (rows[-1][1], rows[-1][0])
        columns = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [], [])
        return Snapshot((place, found.stamp, found.epoch, *last), key, follows, *columns)

    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        state = version[:2]
        if not seqs:
            found = find(user_id, self.database.query(FIND, (user_hash(user_id, self.database.salt),)))
            return [] if found is not None and (found.partition.place, found.stamp) == state else None
        bodies: dict[int, bytes] = {}
        # Each statement compares the version, and equal versions mean equal rows: they need no common transaction.
        for some in chunks(seqs):
            rows = self.database.query(f"{_BODIES} ({placeholders(some)})", (*state, kind, *some))
            if not rows or user_of_name(rows[0][3]) != user_id.encode():
                return None
            unseal = unsealer(rows[0][3][:KEY_BYTES], kind)
            for seq, row_id, body, _ in rows:
                bodies[seq] = unseal(seq, row_id, body)
        try:
            return [bodies[seq] for seq in seqs]
        except KeyError:
            raise mixed_file() from None

    def purge(self) -> None:
        self.database.truncate()

    def files(self) -> list[Path]:
        return [self.database.path]

    def close(self) -> None:
        self.database.close()
