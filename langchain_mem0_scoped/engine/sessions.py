"""One session's rows inside a user's partition: where they lie, how messages are appended to it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from ..sqlite import partitions
from ..sqlite.partitions import NewRow, Partition, RowKind


class ConcurrentWrite(Exception):
    """Another writer has meanwhile logged or removed messages that this one went by."""


Message = tuple[str | None, str, object]
"""A message's id, if it has one, its body as JSON, and the message itself, of which nothing is stored."""


def items_for(
    connection: sqlite3.Connection, partition: Partition, session_id: str, messages: Sequence[Message]
) -> tuple[Partition, list[NewRow], list[int]]:
    """What is to be inserted to append the messages whose id is not there yet, and the positions of these.

    A session that is new is made; the partition is returned as it is then.
    """
    partition, session = _found_or_made(connection, partition, session_id)
    keys = [_key(partition, session, message_id) for message_id, _, _ in messages]
    new = _new(connection, keys)
    items = [NewRow(RowKind.TRANSCRIPT, keys[position], messages[position][1].encode(), session) for position in new]
    return partition, items, new


def known(
    connection: sqlite3.Connection, partition: Partition | None, session_id: str, ids: Collection[str]
) -> set[str]:
    """Return which of these ids messages of a session have."""
    session = None if partition is None else find(connection, partition, session_id)
    if partition is None or session is None:
        return set()
    return {one for one in ids if partitions.has_id(connection, _key(partition, session, one))}


def new_in(
    connection: sqlite3.Connection, partition: Partition | None, session_id: str, messages: Sequence[Message]
) -> list[int]:
    """The positions of messages whose id is not there yet."""
    session = None if partition is None else find(connection, partition, session_id)
    if partition is None or session is None:
        return _first([message_id for message_id, _, _ in messages])
    return _new(connection, [_key(partition, session, message_id) for message_id, _, _ in messages])


def _new(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[int]:
    return [
        position for position in _first(keys) if not keys[position] or not partitions.has_id(connection, keys[position])
    ]


def _first(ids: Sequence[str | bytes | None]) -> list[int]:
    """The positions of those that have no id, or one that none before them has."""
    before = {one: position for position, one in reversed(list(enumerate(ids)))}
    return [position for position, one in enumerate(ids) if not one or before[one] == position]


def read(
    connection: sqlite3.Connection, partition: Partition | None, session_id: str, last: int | None
) -> list[dict[str, Any]]:
    """Return a session's messages in order, or the last so many."""
    session = None if partition is None else find(connection, partition, session_id)
    if partition is None or session is None:
        return []
    rows = partitions.rows_of(connection, partition.pid, RowKind.TRANSCRIPT, session, last=last)
    return [body for _, _, body in rows]


def _found_or_made(connection: sqlite3.Connection, partition: Partition, session_id: str) -> tuple[Partition, int]:
    """The number of a session, made where it is new."""
    session = find(connection, partition, session_id)
    if session is not None:
        return partition, session
    item = NewRow(RowKind.SESSION, _digest(partition, session_id), partitions.dump({"session_id": session_id}))
    return partitions.insert(connection, partition, [item]), partition.next_seq


def find(connection: sqlite3.Connection, partition: Partition, session_id: str) -> int | None:
    """The number of a session, or None where it has no messages."""
    row = connection.execute(
        "SELECT seq FROM ids WHERE id = ? AND pid = ? AND kind = ?",
        (_digest(partition, session_id), partition.pid, RowKind.SESSION),
    ).fetchone()
    return None if row is None else int(row[0])


def _key(partition: Partition, session: int, message_id: str | None) -> bytes:
    return b"" if message_id is None else _digest(partition, str(session), message_id)


def _digest(partition: Partition, *names: str) -> bytes:
    """A session, or a message of a session, as an id that tells nothing: hashed under the user's own key."""
    digest = hashlib.blake2b(key=partition.key, digest_size=16)
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()
