"""What mem0's own history.db keeps of a user beside the vector store, and how it is removed there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..scope import parse_user_id

if TYPE_CHECKING:
    import sqlite3

    from mem0.memory.storage import SQLiteManager


def mem0_history_of(db: object) -> Mem0History | None:
    """Return what cleans a client's history, or None where that is not mem0's own."""
    from mem0.memory.storage import SQLiteManager

    return Mem0History(db) if isinstance(db, SQLiteManager) else None


class Mem0History:
    """Cleans the `history` and `messages` tables that mem0's SQLiteManager writes and never cleans itself."""

    def __init__(self, manager: SQLiteManager) -> None:
        self._manager = manager
        with manager._lock:
            # From now on, for mem0's own deletions too.
            manager.connection.execute("PRAGMA secure_delete=ON")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._manager._lock:
            connection: sqlite3.Connection = self._manager.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def forget(self, memory_ids: Sequence[str]) -> int:
        """Remove every history row of these memories; return how many there were."""
        with self._transaction() as connection:
            return sum(
                connection.execute(f"DELETE FROM history WHERE memory_id IN ({_marks(ids)})", ids).rowcount
                for ids in _batches(memory_ids)
            )

    def forget_old_text(self, memory_id: str) -> None:
        """Keep the events and dates of a memory, and of its text only what it says now."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE history SET old_memory = NULL, new_memory = CASE WHEN rowid = "
                "(SELECT max(rowid) FROM history WHERE memory_id = ?1) THEN new_memory END WHERE memory_id = ?1",
                (memory_id,),
            )

    def forget_messages(self, user_id: str) -> int:
        """Remove the messages kept for this user's next extraction prompt, in whatever session; return how many."""
        with self._transaction() as connection:
            scopes = _scopes_of(connection, user_id)
            return sum(
                connection.execute(f"DELETE FROM messages WHERE session_scope IN ({_marks(some)})", some).rowcount
                for some in _batches(scopes)
            )

    def left(self, user_id: str, memory_ids: Sequence[str]) -> dict[str, int]:
        """Count what is still there."""
        with self._transaction() as connection:
            history = sum(
                connection.execute(f"SELECT count(*) FROM history WHERE memory_id IN ({_marks(ids)})", ids).fetchone()[
                    0
                ]
                for ids in _batches(memory_ids)
            )
            return {"history": history, "messages": len(_scopes_of(connection, user_id))}


def _scopes_of(connection: sqlite3.Connection, user_id: str) -> list[str]:
    """The session scopes that name this user, parsed: in `run_id=s%261&user_id=alice` each value is escaped."""
    scopes = (row[0] for row in connection.execute("SELECT DISTINCT session_scope FROM messages"))
    return [scope for scope in scopes if parse_user_id(scope) == user_id]


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    # SQLite may be built to take as few as 999 parameters.
    return (values[start : start + 500] for start in range(0, len(values), 500))


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))
