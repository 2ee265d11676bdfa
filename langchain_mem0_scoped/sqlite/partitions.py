"""Where one user's rows lie in the file, and how they are read and written inside a transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ..errors import BackendError, ErasureError
from . import text_table as texts

_KEY_BYTES = 16
_ERASURES_KEPT: Final = 3600.0
"""Seconds for which an erasure is listed, so that a call that began before it can tell."""


class RowKind(IntEnum):
    """What a row is; part of its place in the file, so the numbers are fixed."""

    MEMORY = 0
    ENTITY = 1
    HISTORY = 2
    MESSAGE = 3
    SESSION = 4
    TRANSCRIPT = 5


COUNTED: Final = {
    "memories": RowKind.MEMORY,
    "history": RowKind.HISTORY,
    "messages": RowKind.MESSAGE,
    "entities": RowKind.ENTITY,
    "transcripts": RowKind.TRANSCRIPT,
}
"""The kinds in the words of ErasureReceipt."""


class Partition(NamedTuple):
    """One user's place in the file.

    Attributes:
        pid: Its number, never used again after an erasure.
        version: Grows with every change of a row that is searched, so that a cache can tell.
        rewrites: Grows only where such a row is replaced or removed, so that it can tell that others were merely added.
        next_seq: The sequence number of the next row: per user, so that nobody's order depends on anybody else.
        key: 16 random bytes under which this user's words are hashed.
        name: Where the user's id and key lie in `texts`.
    """

    pid: int
    version: int
    rewrites: int
    next_seq: int
    key: bytes
    name: int


def user_hash(user_id: str, salt: bytes) -> int:
    """A 64-bit number under which a user is found; an index must not hold the id itself."""
    digest = hashlib.blake2b(user_id.encode(), key=salt, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def find(connection: sqlite3.Connection, user_id: str, salt: bytes) -> Partition | None:
    """Return a user's partition, or None where this user has no rows."""
    wanted = user_id.encode()
    for pid, version, rewrites, next_seq, name, body in connection.execute(
        "SELECT pid, version, rewrites, next_seq, name, body FROM partitions JOIN texts ON ref = name WHERE tag = ?",
        (user_hash(user_id, salt),),
    ):
        if texts.unpadded(body)[_KEY_BYTES:] == wanted:
            return Partition(pid, version, rewrites, next_seq, body[:_KEY_BYTES], name)
    return None


def create(connection: sqlite3.Connection, user_id: str, salt: bytes) -> Partition:
    """Make room for a user's first row."""
    key = secrets.token_bytes(_KEY_BYTES)
    name = texts.put(connection, key + user_id.encode())
    (pid,) = connection.execute(
        "INSERT INTO partitions (tag, name, version, rewrites, next_seq) VALUES (?, ?, 0, 0, 0) RETURNING pid",
        (user_hash(user_id, salt), name),
    ).fetchone()
    return Partition(pid, 0, 0, 0, key, name)


def keep_dimensions(connection: sqlite3.Connection, given: int) -> None:
    """Record with the first vector how many dimensions the embedding has; refuse another number afterwards.

    Raises:
        BackendError: It has another.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'dimensions'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('dimensions', ?)", (given,))
    elif row[0] != given:
        raise other_dimensions(given, row[0])


def other_dimensions(given: int, stored: int) -> BackendError:
    """The error for a vector that cannot be compared with those of the file."""
    return BackendError(
        f"the embedding returned {given} dimensions, the memory file holds vectors of {stored}; "
        "use the embedding it was built with, or another path"
    )


def close(connection: sqlite3.Connection, partition: Partition, *, searched: bool, rewritten: bool = False) -> None:
    """Record how far the sequence has come, and whether rows that are searched were added, or even rewritten."""
    connection.execute(
        "UPDATE partitions SET version = version + ?, rewrites = rewrites + ?, next_seq = ? WHERE pid = ?",
        (searched, rewritten, partition.next_seq, partition.pid),
    )


def has_id(connection: sqlite3.Connection, item_id: bytes) -> bool:
    """Tell whether any row has this id."""
    return connection.execute("SELECT 1 FROM ids WHERE id = ?", (item_id,)).fetchone() is not None


def owner_of(connection: sqlite3.Connection, item_id: bytes) -> tuple[str, int, RowKind, int] | None:
    """Return (user_id, pid, kind, seq) of a row by its id."""
    row = connection.execute(
        "SELECT body, pid, kind, seq FROM ids JOIN partitions USING (pid) JOIN texts ON ref = name WHERE id = ?",
        (item_id,),
    ).fetchone()
    return None if row is None else (texts.unpadded(row[0])[_KEY_BYTES:].decode(), row[1], RowKind(row[2]), row[3])


class NewRow(NamedTuple):
    """A row of a partition as it is written. Its `repr` leaves out what it says.

    Attributes:
        kind: What it is.
        id: 16 bytes, unique in the file; empty for a row that is never asked for by an id.
        body: What people wrote, and all else that is not searched by: JSON; see `dump`.
        parent: The sequence number of the memory a history row belongs to, or of a transcript's session; else 0.
        vector: float32 bytes, empty where it is not searched by meaning.
        terms: Hashed words, and what else it is found by; empty where it is not searched by word.
        length: Its length in words.
        said: When it was said, in seconds since 1970: the order in which memories are listed.
    """

    kind: RowKind
    id: bytes
    body: bytes
    parent: int = 0
    vector: bytes = b""
    terms: bytes = b""
    length: int = 0
    said: float = 0.0

    def __repr__(self) -> str:
        return f"Item(kind={self.kind!r}, id={self.id!r}, parent={self.parent!r})"


def insert(connection: sqlite3.Connection, partition: Partition, items: Sequence[NewRow]) -> Partition:
    """Append rows in order; return the partition with its sequence moved on."""
    if not items:
        return partition
    refs = texts.put_all(connection, [item.body for item in items])
    pid, start = partition.pid, partition.next_seq
    connection.executemany(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (pid, item.kind, item.parent, seq, item.id, ref, item.said, item.length, item.vector, item.terms)
            for seq, (item, ref) in enumerate(zip(items, refs, strict=True), start)
        ],
    )
    found_by_id = [(item.id, pid, item.kind, seq) for seq, item in enumerate(items, start) if item.id]
    connection.executemany("INSERT INTO ids VALUES (?, ?, ?, ?)", found_by_id)
    return partition._replace(next_seq=start + len(items))


def body_at(connection: sqlite3.Connection, pid: int, kind: RowKind, seq: int) -> bytes:
    """The body of a row without parent, as it is stored."""
    (body,) = connection.execute(
        "SELECT body FROM items JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = 0 AND seq = ?",
        (pid, kind, seq),
    ).fetchone()
    return texts.unpadded(body)


def rewrite(
    connection: sqlite3.Connection, partition: Partition, seq: int, item: NewRow, *, keep_vector: bool = False
) -> None:
    """Replace a row in its place: its sequence number stays, its old text goes."""
    place = (partition.pid, item.kind, item.parent, seq)
    where = "pid = ? AND kind = ? AND parent = ? AND seq = ?"
    (old,) = connection.execute(f"SELECT ref FROM items WHERE {where}", place).fetchone()
    ref = texts.put(connection, item.body)
    if keep_vector:
        changed = (ref, item.length, item.terms)
        connection.execute(f"UPDATE items SET ref = ?, length = ?, terms = ? WHERE {where}", (*changed, *place))
    else:
        connection.execute(
            f"UPDATE items SET ref = ?, length = ?, vector = ?, terms = ? WHERE {where}",
            (ref, item.length, item.vector, item.terms, *place),
        )
    texts.drop(connection, [old])


def remove(
    connection: sqlite3.Connection, partition: Partition, kind: RowKind, parent: int, seqs: Sequence[int]
) -> None:
    """Remove rows and their text."""
    for seq in seqs:
        place = (partition.pid, kind, parent, seq)
        ref, item_id = connection.execute(
            "SELECT ref, id FROM items WHERE pid = ? AND kind = ? AND parent = ? AND seq = ?", place
        ).fetchone()
        connection.execute("DELETE FROM items WHERE pid = ? AND kind = ? AND parent = ? AND seq = ?", place)
        if item_id:
            connection.execute("DELETE FROM ids WHERE id = ?", (item_id,))
        texts.drop(connection, [ref])


_ROWS = "SELECT seq, id, body FROM items JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = ?"


def rows_of(
    connection: sqlite3.Connection, pid: int, kind: RowKind, parent: int = 0, *, last: int | None = None
) -> list[tuple[int, bytes, dict[str, Any]]]:
    """Return (seq, id, body) of a partition's rows of one kind in the order they were written, or the last so many."""
    limit = -1 if last is None else last
    rows = connection.execute(f"{_ROWS} ORDER BY seq DESC LIMIT ?", (pid, kind, parent, limit)).fetchall()
    return [(seq, item_id, load(body)) for seq, item_id, body in reversed(rows)]


def latest_rows(connection: sqlite3.Connection, pid: int, kind: RowKind) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield (id, body) of a partition's rows of one kind, what was said last first."""
    for _, item_id, body in connection.execute(f"{_ROWS} ORDER BY said DESC, seq DESC", (pid, kind, 0)):
        yield item_id, load(body)


_PARENTS: Final = """
SELECT body, (SELECT min(seq) FROM items WHERE pid = above.pid AND kind = :below AND parent = above.seq) AS first
FROM items AS above JOIN texts USING (ref)
WHERE pid = :pid AND kind = :kind AND parent = 0 AND first IS NOT NULL ORDER BY first
"""


def parents(connection: sqlite3.Connection, pid: int, kind: RowKind, below: RowKind) -> list[dict[str, Any]]:
    """Return the bodies of a partition's rows of one kind below which rows of another lie, by the first of these."""
    rows = connection.execute(_PARENTS, {"pid": pid, "kind": kind, "below": below}).fetchall()
    return [load(body) for body, _ in rows]


def has_rows(connection: sqlite3.Connection, pid: int, kind: RowKind) -> bool:
    """Tell whether a partition has any row of a kind."""
    found = connection.execute("SELECT 1 FROM items WHERE pid = ? AND kind = ? LIMIT 1", (pid, kind))
    return found.fetchone() is not None


def erase(connection: sqlite3.Connection, user_id: str, salt: bytes, partition: Partition | None) -> dict[str, int]:
    """Remove a whole partition, remember for a while that it was erased, and count its rows by kind."""
    forget_old_erasures(connection)
    connection.execute("INSERT INTO erasures (tag, at) VALUES (?, ?)", (user_hash(user_id, salt), time.time()))
    if partition is None:
        return dict.fromkeys(COUNTED, 0)
    pid = partition.pid
    by_kind = dict(connection.execute("SELECT kind, count(*) FROM items WHERE pid = ? GROUP BY kind", (pid,)))
    refs = [ref for (ref,) in connection.execute("SELECT ref FROM items WHERE pid = ?", (pid,))]
    connection.execute("DELETE FROM ids WHERE id IN (SELECT id FROM items WHERE pid = ?)", (pid,))
    connection.execute("DELETE FROM items WHERE pid = ?", (pid,))
    connection.execute("DELETE FROM partitions WHERE pid = ?", (pid,))
    texts.drop(connection, [*refs, partition.name])
    # Looked at again before anything is committed: afterwards a new row of the same user would be no failure.
    if find(connection, user_id, salt) or connection.execute("SELECT 1 FROM items WHERE pid = ?", (pid,)).fetchone():
        raise ErasureError("erasure is not finished; nothing was removed, call delete_all again", kinds=("memories",))
    # That a memory was added is told by its own row alone.
    by_kind[RowKind.HISTORY] = by_kind.get(RowKind.HISTORY, 0) + by_kind.get(RowKind.MEMORY, 0)
    return {name: by_kind.get(kind, 0) for name, kind in COUNTED.items()}


def forget_old_erasures(connection: sqlite3.Connection) -> None:
    """Shorten the list of erasures from its end."""
    connection.execute(
        "DELETE FROM erasures WHERE eid IN (SELECT eid FROM erasures ORDER BY eid LIMIT 100) AND at < ?",
        (time.time() - _ERASURES_KEPT,),
    )


class ErasureToken(NamedTuple):
    """Where a user stood when a call began.

    Attributes:
        pid: The user's partition; None where there was none.
        erasures: The number of the latest erasure of anybody, for a user who has no partition to go by; else 0.
    """

    pid: int | None
    erasures: int


def beginning(connection: sqlite3.Connection, user_id: str, salt: bytes) -> ErasureToken:
    """Note where a user stands."""
    return beginning_at(connection, find(connection, user_id, salt))


def beginning_at(connection: sqlite3.Connection, partition: Partition | None) -> ErasureToken:
    """Note where the user of a partition stands, or one who has none."""
    if partition is not None:
        return ErasureToken(partition.pid, 0)
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'erasures'").fetchone()
    return ErasureToken(None, 0 if row is None else row[0])


def find_unless_erased(
    connection: sqlite3.Connection, user_id: str, salt: bytes, began: ErasureToken | None
) -> Partition | None:
    """As `find`, for a call that began then.

    A partition's number tells an erasure for good. The list of erasures is for users who had none, whose call has gone
    by nothing that was erased; it is kept for an hour.

    Raises:
        BackendError: The user was erased since; retryable, though what is repeated should be read anew.
    """
    now = find(connection, user_id, salt)
    if began is None or not _erased(connection, user_hash(user_id, salt), began, now):
        return now
    raise BackendError(
        "this user was erased while the call was under way; nothing of it was stored, call again to store it",
        retryable=True,
    )


def _erased(connection: sqlite3.Connection, tag: int, began: ErasureToken, now: Partition | None) -> bool:
    if began.pid is not None:
        return now is None or now.pid != began.pid
    listed = connection.execute("SELECT 1 FROM erasures WHERE eid > ? AND tag = ?", (began.erasures, tag))
    return listed.fetchone() is not None


def dump(body: dict[str, Any]) -> bytes:
    """Encode what people wrote, as readable UTF-8, so that a scan of the file would find what was left behind."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def load(body: bytes) -> dict[str, Any]:
    """Decode it."""
    # Decoded first: given bytes, json spends as long again on guessing their encoding.
    decoded: dict[str, Any] = json.loads(texts.unpadded(body).decode())
    return decoded


def id_bytes(item_id: str) -> bytes:
    """The 16 bytes of a UUID.

    Raises:
        ValueError: It is none.
    """
    raw = bytes.fromhex(str(item_id).replace("-", ""))
    if len(raw) != 16:
        raise ValueError("an id of the embedded store must be a UUID")
    return raw


def id_text(item_id: bytes) -> str:
    """The usual spelling of a UUID; five times as fast as uuid.UUID."""
    digits = item_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def links_of(entity: Mapping[str, Any]) -> frozenset[str]:
    """The memories an entity's payload is linked to."""
    return frozenset(entity.get("linked_memory_ids") or ())
