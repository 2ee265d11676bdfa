"""Sessions as rows of a user: a row for each session, and below it the rows of its messages, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from ..transcripts.codec import StoredMessage
from .codec import dump, load
from .storage import NewRow, Partition, ReadTransaction, RowKind, WriteTransaction


def find_session(transaction: ReadTransaction, partition: Partition, session_id: str) -> int | None:
    """Return the sequence number of a session's row, or None where the session has no messages."""
    key = session_key(partition, session_id)
    return transaction.find_ids(partition, RowKind.SESSION, [key]).get(key)


def rows_to_append(
    transaction: ReadTransaction, partition: Partition, session_id: str, messages: Sequence[StoredMessage]
) -> tuple[list[NewRow], list[int]]:
    """Return the rows that append those messages whose id is not in the session yet.

    Args:
        transaction: Reads what is there.
        partition: Whose session. The rows must be the next ones that are inserted into it.
        session_id: Which session.
        messages: In order.

    Returns:
        rows: The messages' rows; before them the session's own row, if the session is new.
        new: The positions, in `messages`, of those that are appended.
    """
    session = find_session(transaction, partition, session_id)
    new = _new_positions(transaction, partition, session, messages)
    rows = []
    if session is None and new:
        session = partition.next_seq
        rows.append(NewRow(RowKind.SESSION, session_key(partition, session_id), dump({"session_id": session_id})))
    for position in new:
        message_id, text, _ = messages[position]
        key = message_key(partition, session, message_id) if message_id and session is not None else b""
        rows.append(NewRow(RowKind.TRANSCRIPT, key, text.encode(), parent=session or 0))
    return rows, new


def new_positions(
    transaction: ReadTransaction, partition: Partition | None, session_id: str, messages: Sequence[StoredMessage]
) -> list[int]:
    """Return the positions of those messages whose id is not in the session yet, nor that of an earlier one."""
    session = None if partition is None else find_session(transaction, partition, session_id)
    return _new_positions(transaction, partition, session, messages)


def existing_ids(
    transaction: ReadTransaction, partition: Partition | None, session_id: str, ids: Collection[str]
) -> set[str]:
    """Return those of these message ids that are in a session already."""
    session = None if partition is None else find_session(transaction, partition, session_id)
    if partition is None or session is None or not ids:
        return set()
    by_key = {message_key(partition, session, one): one for one in ids}
    found = transaction.find_ids(partition, RowKind.TRANSCRIPT, list(by_key))
    return {by_key[key] for key in found}


def read_session(
    transaction: ReadTransaction, partition: Partition | None, session_id: str, last: int | None
) -> list[dict[str, Any]]:
    """Return a session's messages in order, or its last `last` messages."""
    session = None if partition is None else find_session(transaction, partition, session_id)
    if partition is None or session is None:
        return []
    return [load(row.body) for row in transaction.rows(partition, RowKind.TRANSCRIPT, session, last=last)]


def session_ids(transaction: ReadTransaction, partition: Partition | None) -> list[str]:
    """Return the sessions in which a user has messages, in the order of their first message."""
    if partition is None:
        return []
    # A session's row is written with its first message and removed with its last.
    return [str(load(row.body)["session_id"]) for row in transaction.rows(partition, RowKind.SESSION)]


def remove_session(transaction: WriteTransaction, partition: Partition, session_id: str) -> None:
    """Remove a session and its messages."""
    session = find_session(transaction, partition, session_id)
    if session is not None:
        rows = transaction.rows(partition, RowKind.TRANSCRIPT, session)
        transaction.remove(partition, RowKind.TRANSCRIPT, [row.seq for row in rows], session)
        transaction.remove(partition, RowKind.SESSION, [session])


def session_key(partition: Partition, session_id: str) -> bytes:
    """Return the id of a session's row: a hash under the user's own key, so that it reveals nothing."""
    return _keyed_hash(partition, session_id)


def message_key(partition: Partition, session: int, message_id: str) -> bytes:
    """Return the id of a message's row: a hash of its id and its session, under the user's own key."""
    return _keyed_hash(partition, str(session), message_id)


def _new_positions(
    transaction: ReadTransaction, partition: Partition | None, session: int | None, messages: Sequence[StoredMessage]
) -> list[int]:
    first = {message_id: position for position, (message_id, _, _) in reversed(list(enumerate(messages)))}
    distinct = [position for position, (one, _, _) in enumerate(messages) if not one or first[one] == position]
    keys = {}
    if partition is not None and session is not None:
        ids = ((position, messages[position][0]) for position in distinct)
        keys = {position: message_key(partition, session, one) for position, one in ids if one}
    if partition is None or not keys:
        return distinct
    known = transaction.find_ids(partition, RowKind.TRANSCRIPT, list(keys.values()))
    return [position for position in distinct if keys.get(position) not in known]


def _keyed_hash(partition: Partition, *names: str) -> bytes:
    digest = hashlib.blake2b(key=partition.key, digest_size=16)
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()
