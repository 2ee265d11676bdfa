"""Sessions as rows of a user: a row for each session, and below it the rows of its messages, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ..transcripts.appending import Appended, find_new
from ..transcripts.codec import StoredMessage
from .codec import dump, load
from .storage import NewRow, Partition, ReadTransaction, RowKind, WriteTransaction


def find_session(transaction: ReadTransaction, partition: Partition, session_id: str) -> int | None:
    """Return the sequence number of a session's row, or None where the session has no messages."""
    key = session_key(partition, session_id)
    return transaction.find_ids(partition, RowKind.SESSION, [key]).get(key)


def rows_to_append(
    transaction: ReadTransaction,
    partition: Partition,
    session_id: str,
    messages: Sequence[StoredMessage],
    answers: Sequence[StoredMessage] = (),
) -> tuple[list[NewRow], Appended]:
    """Return the rows that append what is new of a turn; see `transcripts.base.Turn.append`.

    Args:
        transaction: Reads what is there.
        partition: Whose session. The rows must be the next ones that are inserted into it.
        session_id: Which session.
        messages: In order.
        answers: They follow the messages, and are new.

    Returns:
        rows: The messages' rows; before them the session's own row, if the session is new.
        appended: What is new.
    """
    session = find_session(transaction, partition, session_id)
    appended = _find_new(transaction, partition, session, messages, answers)
    rows = []
    if session is None and appended.new:
        session = partition.next_seq
        rows.append(NewRow(RowKind.SESSION, session_key(partition, session_id), dump({"session_id": session_id})))
    turn = [*messages, *answers]
    rows += [NewRow(RowKind.TRANSCRIPT, b"", turn[one].text.encode(), parent=session or 0) for one in appended.new]
    return rows, appended


def find_new_messages(
    transaction: ReadTransaction,
    partition: Partition | None,
    session_id: str,
    messages: Sequence[StoredMessage],
    answers: Sequence[StoredMessage] = (),
) -> Appended:
    """Return what `rows_to_append` would append."""
    session = None if partition is None else find_session(transaction, partition, session_id)
    return _find_new(transaction, partition, session, messages, answers)


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
    encoded = session_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, key=partition.key, digest_size=16).digest()


def _find_new(
    transaction: ReadTransaction,
    partition: Partition | None,
    session: int | None,
    messages: Sequence[StoredMessage],
    answers: Sequence[StoredMessage],
) -> Appended:
    if partition is None or session is None:
        return find_new(lambda _: [], messages, answers)
    kind = RowKind.TRANSCRIPT
    return find_new(
        lambda last: [load(row.body) for row in transaction.rows(partition, kind, session, last=last)],
        messages,
        answers,
    )
