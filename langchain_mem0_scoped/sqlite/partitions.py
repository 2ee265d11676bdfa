"""One user's rows inside a transaction: the SQL that finds, reads, writes and erases a partition."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..engine.storage import NewRow, Partition, ReadTransaction, RowKind, StoredRow, WriteTransaction
from ..errors import BackendError, ErasureError
from ..requests import ErasureToken
from . import text_table as texts

AT_ONCE: Final = 500
"""How many values one statement lists: fewer than the question marks that every build of SQLite takes."""

_KEY_BYTES: Final = 16
_ERASURES_KEPT: Final = 3600.0
"""Seconds for which an erasure is listed, for calls of users without a partition that began before it."""

_TABLES: Final = ("ids", "items", "partitions")
"""The tables that hold rows of a partition, by its number."""

_ROWS: Final = (
    "SELECT seq, id, body, vector FROM items JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = ?"
)


def user_hash(user_id: str, salt: bytes) -> int:
    """Return a 64-bit number under which a user is found; an index must not hold the id itself."""
    digest = hashlib.blake2b(user_id.encode(), key=salt, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def is_name_of(user_id: str, name: bytes) -> bool:
    """Compare a user id with what `texts` holds for a partition: its key, the user's id, padding."""
    return texts.unpad(name)[_KEY_BYTES:] == user_id.encode()


def find(user_id: str, rows: Sequence[Sequence[Any]]) -> Partition | None:
    """Return a user's partition from the rows of `FIND`."""
    for pid, searched_seq, rewrites, next_seq, name in rows:
        # Two users may have the same hash: the whole id decides.
        if is_name_of(user_id, name):
            return Partition(pid, (pid, searched_seq, rewrites), next_seq, name[:_KEY_BYTES])
    return None


FIND: Final = (
    "SELECT pid, searched_seq, rewrites, next_seq, body FROM partitions JOIN texts ON ref = name_ref "
    "WHERE user_hash = ?"
)
"""Reads the partitions of a user hash; see `find`."""


def marks(values: Sequence[Any]) -> str:
    """Return as many question marks as there are values."""
    return ",".join("?" * len(values))


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the values in parts that one statement can list."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


class SqliteReadTransaction(ReadTransaction):
    """A transaction for reading.

    Args:
        connection: Inside a transaction.
        salt: The file's, for `user_hash`.
    """

    def __init__(self, connection: sqlite3.Connection, salt: bytes) -> None:
        self._connection = connection
        self._salt = salt
        # A transaction sees one state of the file, so a partition is looked for once.
        self._found: dict[str, Partition | None] = {}

    def find(self, user_id: str) -> Partition | None:
        if user_id not in self._found:
            rows = self._connection.execute(FIND, (user_hash(user_id, self._salt),)).fetchall()
            self._found[user_id] = find(user_id, rows)
        return self._found[user_id]

    def token(self, user_id: str) -> ErasureToken:
        """Return (the partition's number, 0), or (None, the number of the latest erasure of anybody)."""
        partition = self.find(user_id)
        if partition is not None:
            return (partition.place, 0)
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'erasures'").fetchone()
        return (None, 0 if row is None else row[0])

    def is_erased_since(self, user_id: str, token: ErasureToken) -> bool:
        """Compare partition numbers, which are never used again; or look into the list of the last hour's erasures.

        The list is for users who had no partition: a call of theirs has read nothing that an erasure removed.
        """
        pid, eid = token
        if pid is not None:
            partition = self.find(user_id)
            return partition is None or partition.place != pid
        listed = self._connection.execute(
            "SELECT 1 FROM erasures WHERE eid > ? AND user_hash = ?", (eid, user_hash(user_id, self._salt))
        )
        return listed.fetchone() is not None

    def find_ids(self, partition: Partition, kind: RowKind, ids: Sequence[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for some in chunks(ids):
            found.update(
                self._connection.execute(
                    f"SELECT id, seq FROM ids WHERE pid = ? AND kind = ? AND id IN ({marks(some)})",
                    (partition.place, kind, *some),
                )
            )
        return found

    def rows(
        self,
        partition: Partition,
        kind: RowKind,
        parent: int = 0,
        *,
        seqs: Sequence[int] | None = None,
        last: int | None = None,
    ) -> list[StoredRow]:
        place = (partition.place, kind, parent)
        if seqs is None:
            limit = -1 if last is None else last
            found = self._connection.execute(f"{_ROWS} ORDER BY seq DESC LIMIT ?", (*place, limit)).fetchall()
            return [_to_row(*row) for row in reversed(found)]
        wanted = sorted(set(seqs))
        rows = [
            _to_row(*row)
            for some in chunks(wanted)
            for row in self._connection.execute(f"{_ROWS} AND seq IN ({marks(some)}) ORDER BY seq", (*place, *some))
        ]
        return rows if last is None else rows[max(len(rows) - last, 0) :]

    def latest(self, partition: Partition, kind: RowKind) -> Iterator[StoredRow]:
        rows = self._connection.execute(
            "SELECT seq, id, body, x'' FROM items JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = 0 "
            "ORDER BY said_at DESC, seq DESC",
            (partition.place, kind),
        )
        for row in rows:
            yield _to_row(*row)

    def has_rows(self, partition: Partition, kind: RowKind) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM items WHERE pid = ? AND kind = ? LIMIT 1", (partition.place, kind)
        )
        return found.fetchone() is not None

    def count(self, partition: Partition, kind: RowKind) -> int:
        (count,) = self._connection.execute(
            "SELECT count(*) FROM items WHERE pid = ? AND kind = ?", (partition.place, kind)
        ).fetchone()
        return int(count)


class SqliteWriteTransaction(SqliteReadTransaction, WriteTransaction):
    """A transaction for reading and writing."""

    def create(self, user_id: str) -> Partition:
        if self.find(user_id) is not None:
            raise BackendError("this user has a partition; find it")
        self._found.clear()
        key = secrets.token_bytes(_KEY_BYTES)
        name_ref = texts.put(self._connection, key + user_id.encode())
        (pid,) = self._connection.execute(
            "INSERT INTO partitions (user_hash, name_ref, searched_seq, rewrites, next_seq) VALUES (?, ?, 0, 0, 0) "
            "RETURNING pid",
            (user_hash(user_id, self._salt), name_ref),
        ).fetchone()
        return Partition(pid, (pid, 0, 0), 0, key)

    def require_dimensions(self, dimensions: int) -> None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'dimensions'").fetchone()
        if row is None:
            self._connection.execute("INSERT INTO meta VALUES ('dimensions', ?)", (dimensions,))
        elif row[0] != dimensions:
            raise BackendError(
                f"the embedding returned {dimensions} dimensions, the stored vectors have {row[0]}; "
                "use the embedding they were made with, or another path"
            )

    def insert(self, partition: Partition, rows: Sequence[NewRow]) -> Partition:
        if not rows:
            return partition
        refs = texts.put_all(self._connection, [row.body for row in rows])
        pid, start = partition.place, partition.next_seq
        try:
            self._connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (pid, row.kind, row.parent, seq, row.id, ref, row.said_at, row.length, row.vector, row.terms)
                    for seq, (row, ref) in enumerate(zip(rows, refs, strict=True), start)
                ],
            )
            with_ids = [(pid, row.kind, row.id, seq) for seq, row in enumerate(rows, start) if row.id]
            self._connection.executemany("INSERT INTO ids VALUES (?, ?, ?, ?)", with_ids)
        except sqlite3.IntegrityError:
            raise BackendError("this user has a row of the same kind and id; nothing was stored") from None
        return partition._replace(next_seq=start + len(rows))

    def rewrite(self, partition: Partition, seq: int, row: NewRow, *, keep_vector: bool = False) -> None:
        place = (partition.place, row.kind, row.parent, seq)
        where = "pid = ? AND kind = ? AND parent = ? AND seq = ?"
        old = self._connection.execute(f"SELECT ref FROM items WHERE {where}", place).fetchone()
        if old is None:
            raise BackendError("the row that was to be replaced is gone; nothing was stored")
        ref = texts.put(self._connection, row.body)
        changed: dict[str, Any] = {"ref": ref, "length": row.length, "terms": row.terms}
        if not keep_vector:
            changed["vector"] = row.vector
        columns = ", ".join(f"{column} = ?" for column in changed)
        self._connection.execute(f"UPDATE items SET {columns} WHERE {where}", (*changed.values(), *place))
        texts.drop(self._connection, old)

    def remove(self, partition: Partition, kind: RowKind, seqs: Sequence[int], parent: int = 0) -> None:
        for some in chunks(seqs):
            place = (partition.place, kind, parent, *some)
            where = f"pid = ? AND kind = ? AND parent = ? AND seq IN ({marks(some)})"
            gone = self._connection.execute(f"SELECT ref, id FROM items WHERE {where}", place).fetchall()
            self._connection.execute(f"DELETE FROM items WHERE {where}", place)
            self._connection.executemany(
                "DELETE FROM ids WHERE pid = ? AND kind = ? AND id = ?",
                [(partition.place, kind, item_id) for _, item_id in gone if item_id],
            )
            texts.drop(self._connection, [ref for ref, _ in gone])

    def bump_version(self, partition: Partition, *, searched: bool, rewritten: bool) -> None:
        self._found.clear()
        self._connection.execute(
            "UPDATE partitions SET searched_seq = iif(?, ?, searched_seq), rewrites = rewrites + ?, next_seq = ? "
            "WHERE pid = ?",
            (searched, partition.next_seq, rewritten, partition.next_seq, partition.place),
        )

    def erase(self, user_id: str) -> dict[RowKind, int]:
        self.forget_old_erasures()
        self._connection.execute(
            "INSERT INTO erasures (user_hash, at) VALUES (?, ?)", (user_hash(user_id, self._salt), time.time())
        )
        partition = self.find(user_id)
        self._found.clear()
        counts = dict.fromkeys(RowKind, 0)
        if partition is None:
            return counts
        place = (partition.place,)
        for kind, count in self._connection.execute(
            "SELECT kind, count(*) FROM items WHERE pid = ? GROUP BY kind", place
        ):
            counts[RowKind(kind)] = count
        refs = self._connection.execute(
            "SELECT ref FROM items WHERE pid = ? UNION ALL SELECT name_ref FROM partitions WHERE pid = ?", place * 2
        ).fetchall()
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table} WHERE pid = ?", place)
        texts.drop(self._connection, [ref for (ref,) in refs])
        # Checked before it is committed: afterwards a new row of the same user would be no failure.
        if any(self._connection.execute(f"SELECT 1 FROM {table} WHERE pid = ?", place).fetchone() for table in _TABLES):
            raise ErasureError(
                "erasure is not finished; nothing was removed, call delete_all again", kinds=("memories",)
            )
        return counts

    def forget_old_erasures(self) -> None:
        """Remove erasures from the list that are older than an hour, at most 100 of them."""
        self._connection.execute(
            "DELETE FROM erasures WHERE eid IN (SELECT eid FROM erasures ORDER BY eid LIMIT 100) AND at < ?",
            (time.time() - _ERASURES_KEPT,),
        )


def _to_row(seq: int, item_id: bytes, body: bytes, vector: bytes) -> StoredRow:
    return StoredRow(seq, item_id, texts.unpad(body), vector)
