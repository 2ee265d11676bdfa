"""Mem0History: removes what mem0's own history.db keeps of a user beside the vector store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..mem0_compat import parse_user_id

if TYPE_CHECKING:
    import sqlite3

    from mem0.memory.storage import SQLiteManager

_BATCH: Final = 500
"""Parameters of one statement. SQLite may be compiled to take no more than 999."""


def mem0_history_of(db: object) -> Mem0History | None:
    """Return the cleaner of a client's history.

    Args:
        db: A mem0.Memory's `db`.

    Returns:
        None where the history is not mem0's own SQLite one, and so cannot be cleaned.
    """
    from mem0.memory.storage import SQLiteManager

    return Mem0History(db) if isinstance(db, SQLiteManager) else None


class Mem0History:
    """Cleans the tables `history` and `messages`, which mem0's SQLiteManager fills and never cleans.

    Args:
        manager: mem0's history. Its connection overwrites what it deletes from now on, mem0's own deletions too.
    """

    def __init__(self, manager: SQLiteManager) -> None:
        self._manager = manager
        with manager._lock:
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
        """Remove all history rows of these memories; return how many there were."""
        with self._transaction() as connection:
            return sum(
                connection.execute(f"DELETE FROM history WHERE memory_id IN ({_marks(ids)})", ids).rowcount
                for ids in _batches(memory_ids)
            )

    def forget_old_text(self, memory_id: str) -> None:
        """Keep the events and dates of a memory, and only its present text."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE history SET old_memory = NULL, new_memory = CASE WHEN rowid = "
                "(SELECT max(rowid) FROM history WHERE memory_id = ?1) THEN new_memory END WHERE memory_id = ?1",
                (memory_id,),
            )

    def forget_messages(self, user_id: str) -> int:
        """Remove the messages kept for this user's next extraction prompt, of all sessions; return how many."""
        with self._transaction() as connection:
            scopes = _session_scopes(connection, user_id)
            return sum(
                connection.execute(f"DELETE FROM messages WHERE session_scope IN ({_marks(some)})", some).rowcount
                for some in _batches(scopes)
            )

    def left(self, user_id: str, memory_ids: Sequence[str]) -> dict[str, int]:
        """Count what is still there.

        Args:
            user_id: Whose kept messages.
            memory_ids: Whose history.

        Returns:
            "history": rows of these memories. "messages": session scopes in which messages of this user are kept.
        """
        with self._transaction() as connection:
            counts = (
                connection.execute(f"SELECT count(*) FROM history WHERE memory_id IN ({_marks(ids)})", ids).fetchone()
                for ids in _batches(memory_ids)
            )
            return {"history": sum(count for (count,) in counts), "messages": len(_session_scopes(connection, user_id))}

    def files(self) -> list[Path]:
        """Return the database's file, if it has one."""
        path = self._manager.db_path
        return [] if path == ":memory:" else [Path(path)]


def _session_scopes(connection: sqlite3.Connection, user_id: str) -> list[str]:
    """Return the session scopes that name this user. Each is parsed, for its values are escaped: `run_id=s%261`."""
    scopes = (row[0] for row in connection.execute("SELECT DISTINCT session_scope FROM messages"))
    return [scope for scope in scopes if parse_user_id(scope) == user_id]


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))
