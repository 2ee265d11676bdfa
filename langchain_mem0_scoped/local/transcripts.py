"""The transcripts of conversations in the embedded file, each session inside its user's partition."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from . import partitions
from .database import Database
from .partitions import Beginning, Item, Kind, Partition

_ESCAPED = "escaped"
"""The key under which a message stands as escaped JSON: the file is UTF-8, which has no half characters."""


class LocalTranscripts:
    """What `transcripts.TranscriptStore` promises, on the file that holds the memories.

    Args:
        database: The file.
    """

    tells_erasure = True

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[tuple[str | None, dict[str, Any], object]],
        since: Sequence[Any] | None = None,
    ) -> list[int]:
        """Append messages in one transaction; return the positions of those that were not there yet."""
        with self._database.writing() as connection:
            began = None if since is None else Beginning(*since)
            found = partitions.still(connection, user_id, self._database.salt, began)
            partition = found or partitions.create(connection, user_id, self._database.salt)
            partition, session = _session(connection, partition, session_id)
            new: list[int] = []
            items: list[Item] = []
            given: set[bytes] = set()
            for position, (message_id, body, _) in enumerate(messages):
                key = b"" if message_id is None else _digest(partition, str(session), message_id)
                if key and (key in given or partitions.has_id(connection, key)):
                    continue
                given.add(key)
                new.append(position)
                items.append(Item(Kind.TRANSCRIPT, key, _storable(body), session))
            partition = partitions.insert(connection, partition, items)
            partitions.close(connection, partition, searched=False)
        return new

    def begin(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[Beginning | None, list[dict[str, Any]]]:
        """Note where a user stands, and read a session in the same transaction."""
        with self._database.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            return partitions.beginning_at(connection, partition), self._read(connection, partition, session_id, last)

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or the last so many."""
        return self.begin(user_id, session_id, last)[1]

    def _read(
        self, connection: sqlite3.Connection, partition: Partition | None, session_id: str, last: int | None
    ) -> list[dict[str, Any]]:
        session = None if partition is None else _find_session(connection, partition, session_id)
        if partition is None or session is None:
            return []
        rows = partitions.rows_of(connection, partition.pid, Kind.TRANSCRIPT, session, last=last)
        return [json.loads(body[_ESCAPED]) if _ESCAPED in body else body for _, _, body in rows]

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove a session's messages, their bytes included.

        Raises:
            ErasureError: The rows are gone, but a reader keeps the log in use in which their bytes still stand.
        """
        with self._database.writing() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            session = None if partition is None else _find_session(connection, partition, session_id)
            if partition is not None and session is not None:
                rows = partitions.rows_of(connection, partition.pid, Kind.TRANSCRIPT, session)
                partitions.remove(connection, partition, Kind.TRANSCRIPT, session, [row[0] for row in rows])
                partitions.remove(connection, partition, Kind.SESSION, 0, [session])
        self._database.truncate()

    def erase(self, user_id: str) -> int:
        """Nothing is left to do: erasing the partition has taken the transcripts with it."""
        return 0


def _session(connection: sqlite3.Connection, partition: Partition, session_id: str) -> tuple[Partition, int]:
    """The number of a session, made where it is new."""
    session = _find_session(connection, partition, session_id)
    if session is not None:
        return partition, session
    item = Item(Kind.SESSION, _digest(partition, session_id), partitions.dump({"session_id": session_id}))
    return partitions.insert(connection, partition, [item]), partition.next_seq


def _find_session(connection: sqlite3.Connection, partition: Partition, session_id: str) -> int | None:
    row = connection.execute(
        "SELECT seq FROM ids WHERE id = ? AND pid = ? AND kind = ?",
        (_digest(partition, session_id), partition.pid, Kind.SESSION),
    ).fetchone()
    return None if row is None else int(row[0])


def _digest(partition: Partition, *names: str) -> bytes:
    """A session, or a message of a session, as an id that tells nothing: hashed under the user's own key."""
    digest = hashlib.blake2b(key=partition.key, digest_size=16)
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _storable(body: dict[str, Any]) -> bytes:
    try:
        return partitions.dump(body)
    except UnicodeEncodeError:
        return partitions.dump({_ESCAPED: json.dumps(body)})
