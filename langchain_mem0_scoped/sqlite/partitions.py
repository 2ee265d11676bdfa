"""One user's rows inside a transaction: the SQL that finds, reads, writes and erases a partition."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ..engine.storage import NewRow, Partition, ReadTransaction, RowKind, StoredRow, WriteTransaction
from ..errors import BackendError, ErasureError
from ..requests import ErasureToken
from . import file_state
from . import text_table as texts
from .body_mark import KEY_BYTES, Unseal, seal, seal_name, unseal_name, unsealer

AT_ONCE: Final = 500
"""How many values one statement lists: fewer than the question marks that every build of SQLite takes."""

_TABLES: Final = ("ids", "items", "partitions")
"""The tables that hold rows of a partition, by its number."""

# LEFT JOIN: a row whose text is gone must be noticed.
_ROWS: Final = (
    "SELECT seq, id, body, vector FROM items LEFT JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = ?"
)


def user_hash(user_id: str, salt: bytes) -> int:
    """Return a 64-bit number under which a user is found; an index must not hold the id itself."""
    digest = hashlib.blake2b(user_id.encode(), key=salt, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class Found(NamedTuple):
    """A partition as it is found.

    Attributes:
        partition: What the engine sees of it.
        stamp: A random number, new with each change of rows that are searched.
        epoch: A random number, new where such rows were replaced or removed.
    """

    partition: Partition
    stamp: int
    epoch: int


def find(user_id: str, rows: Sequence[Sequence[Any]]) -> Found | None:
    """Return a user's partition from the rows of `FIND`.

    Raises:
        BackendError: A row and its text do not belong together.
    """
    for pid, stamp, epoch, next_seq, name in rows:
        key, owner = unseal_name(pid, name)
        # Two users may have the same hash: the whole id decides.
        if owner == user_id.encode():
            return Found(Partition(pid, next_seq, key), stamp, epoch)
    return None


FIND: Final = (
    "SELECT pid, stamp, epoch, next_seq, body FROM partitions LEFT JOIN texts ON ref = name_ref WHERE user_hash = ?"
)
"""Reads the partitions of a user hash; see `find`."""


def placeholders(values: Sequence[Any]) -> str:
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
            found = find(user_id, rows)
            self._found[user_id] = None if found is None else found.partition
        return self._found[user_id]

    def token(self, user_id: str) -> ErasureToken:
        """Return (a hash of the partition's key), or (how many erasures there were, the secret of the next one)."""
        partition = self.find(user_id)
        if partition is not None:
            return (_partition_token(partition),)
        count, secret = file_state.read_erasures(self._connection)
        return (count, secret.hex())

    def is_erased_since(self, user_id: str, token: ErasureToken) -> bool:
        """Compare partition keys; or look into the list of erasures, for a user who had no partition."""
        if len(token) == 1:
            partition = self.find(user_id)
            return partition is None or _partition_token(partition) != token[0]
        count, secret = token
        began = file_state.Erasures(count, bytes.fromhex(secret))
        return file_state.read_erasures(self._connection).is_listed_since(self._connection, user_id, began)

    def find_ids(self, partition: Partition, kind: RowKind, ids: Sequence[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for some in chunks(ids):
            found.update(
                self._connection.execute(
                    f"SELECT id, seq FROM ids WHERE pid = ? AND kind = ? AND id IN ({placeholders(some)})",
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
        place, unseal = (partition.place, kind, parent), unsealer(partition.key, kind, parent)
        if seqs is None:
            limit = -1 if last is None else last
            found = self._connection.execute(f"{_ROWS} ORDER BY seq DESC LIMIT ?", (*place, limit)).fetchall()
            return [_to_row(unseal, *row) for row in reversed(found)]
        wanted = sorted(set(seqs))
        rows = [
            _to_row(unseal, *row)
            for some in chunks(wanted)
            for row in self._connection.execute(
                f"{_ROWS} AND seq IN ({placeholders(some)}) ORDER BY seq", (*place, *some)
            )
        ]
        return rows if last is None else rows[max(len(rows) - last, 0) :]

    def latest(self, partition: Partition, kind: RowKind) -> Iterator[StoredRow]:
        rows = self._connection.execute(
            "SELECT seq, id, body, x'' FROM items LEFT JOIN texts USING (ref) "
            "WHERE pid = ? AND kind = ? AND parent = 0 ORDER BY said_at DESC, seq DESC",
            (partition.place, kind),
        )
        unseal = unsealer(partition.key, kind)
        for row in rows:
            yield _to_row(unseal, *row)

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
        key, pid = secrets.token_bytes(KEY_BYTES), _random_number()
        name_ref = texts.put(self._connection, seal_name(key, pid, user_id))
        self._connection.execute(
            "INSERT INTO partitions (pid, user_hash, name_ref, stamp, epoch, next_seq) VALUES (?, ?, ?, ?, ?, 0)",
            (pid, user_hash(user_id, self._salt), name_ref, _random_number(), _random_number()),
        )
        return Partition(pid, 0, key)

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
        pid, start, key = partition.place, partition.next_seq, partition.key
        sealed = [seal(key, row.kind, row.parent, seq, row.id, row.body) for seq, row in enumerate(rows, start)]
        refs = texts.put_all(self._connection, sealed)
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
        old = self._connection.execute(f"SELECT ref, id FROM items WHERE {where}", place).fetchone()
        if old is None:
            raise BackendError("the row that was to be replaced is gone; nothing was stored")
        old_ref, row_id = old
        ref = texts.put(self._connection, seal(partition.key, row.kind, row.parent, seq, row_id, row.body))
        changed: dict[str, Any] = {"ref": ref, "length": row.length, "terms": row.terms}
        if not keep_vector:
            changed["vector"] = row.vector
        columns = ", ".join(f"{column} = ?" for column in changed)
        self._connection.execute(f"UPDATE items SET {columns} WHERE {where}", (*changed.values(), *place))
        texts.drop(self._connection, [old_ref])

    def remove(self, partition: Partition, kind: RowKind, seqs: Sequence[int], parent: int = 0) -> None:
        for some in chunks(seqs):
            place = (partition.place, kind, parent, *some)
            where = f"pid = ? AND kind = ? AND parent = ? AND seq IN ({placeholders(some)})"
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
            "UPDATE partitions SET stamp = iif(?, ?, stamp), epoch = iif(?, ?, epoch), next_seq = ? WHERE pid = ?",
            (
                searched or rewritten,
                _random_number(),
                rewritten,
                _random_number(),
                partition.next_seq,
                partition.place,
            ),
        )

    def owe_purge(self) -> None:
        file_state.owe_truncation(self._connection)

    def erase(self, user_id: str) -> dict[RowKind, int]:
        self.owe_purge()
        file_state.list_erasure(self._connection, user_id)
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


def _to_row(unseal: Unseal, seq: int, row_id: bytes, body: bytes | None, vector: bytes) -> StoredRow:
    return StoredRow(seq, row_id, unseal(seq, row_id, body), vector)


def _partition_token(partition: Partition) -> str:
    """Return a name of a partition that is never used again, and says nothing of the key."""
    return hashlib.blake2b(b"erasure token", key=partition.key, digest_size=16).hexdigest()


def _random_number() -> int:
    """Return a positive number that is never drawn twice, in this file or in a copy of it."""
    return secrets.randbits(63)
