"""mem0's history and kept messages inside the partition of the user they belong to: its SQLiteManager, per user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from ..scope import parse_user_id
from ..sqlite import partitions
from ..sqlite.partitions import RowKind, id_bytes
from .unit_of_work import UnitOfWorkFactory
from .vector_store import EngineVectorStore, one_user

ADDED: Final = "ADD"
"""mem0's word for the first event of a memory."""


class EngineHistory:
    """The object mem0.Memory calls `db`.

    Args:
        work: The units of the file.
        memories: Where the owner of a memory is looked up.
    """

    def __init__(self, work: UnitOfWorkFactory, memories: EngineVectorStore) -> None:
        self._work = work
        self._memories = memories

    def add_history(
        self,
        memory_id: str,
        old_memory: str | None,
        new_memory: str | None,
        event: str,
        *,
        created_at: str | None = None,
        updated_at: str | None = None,
        is_deleted: int = 0,
        actor_id: str | None = None,
        role: str | None = None,
    ) -> None:
        """Append an event, without old text. A memory itself tells that it was added, and a deleted one has none."""
        owner = self._memories.owner_of(memory_id)
        if owner is None or is_deleted or event == ADDED:
            return
        row = {
            "old_memory": None,
            "new_memory": new_memory,
            "event": event,
            "created_at": created_at,
            "updated_at": updated_at,
            "actor_id": actor_id,
            "role": role,
        }
        with self._work.unit(owner) as unit:
            unit.history.append((memory_id, row))

    def batch_add_history(self, records: Sequence[dict[str, Any]]) -> None:
        """Append several events."""
        for record in records:
            self.add_history(
                record["memory_id"],
                record.get("old_memory"),
                record.get("new_memory"),
                record["event"],
                created_at=record.get("created_at"),
                updated_at=record.get("updated_at"),
                is_deleted=record.get("is_deleted", 0),
                actor_id=record.get("actor_id"),
                role=record.get("role"),
            )

    def get_history(self, memory_id: str) -> list[dict[str, Any]]:
        """Return a memory's events, the oldest first."""
        try:
            raw = id_bytes(memory_id)
        except ValueError:
            return []
        with self._work.reading() as connection:
            owner = partitions.owner_of(connection, raw)
            if owner is None or owner[2] is not RowKind.MEMORY:
                return []
            _, pid, kind, seq = owner
            memory = partitions.load(partitions.body_at(connection, pid, kind, seq))
            later = partitions.rows_of(connection, pid, RowKind.HISTORY, seq)
        told = [(0, _added(memory, corrected=bool(later))), *((row_seq, body) for row_seq, _, body in later)]
        return [
            {"id": str(uuid5(UUID(bytes=raw), str(place))), "memory_id": memory_id, **row, "is_deleted": False}
            for place, row in told
        ]

    def save_messages(self, messages: Sequence[dict[str, Any]], session_scope: str) -> None:
        """Keep messages for the next extraction prompt of the same scope; the commit drops all but the last ten."""
        now = datetime.now(UTC).isoformat()
        with self._work.unit(one_user(parse_user_id(session_scope))) as unit:
            for message in messages:
                kept = {name: message.get(name) for name in ("role", "content", "name")}
                unit.messages.append((session_scope, {**kept, "created_at": now}))

    def get_last_messages(self, session_scope: str, limit: int = 10) -> list[dict[str, Any]]:
        """Return the messages kept for a scope, the oldest first."""
        database = self._work.database
        with self._work.reading() as connection:
            partition = partitions.find(connection, one_user(parse_user_id(session_scope)), database.salt)
            if partition is None:
                return []
            kept = [
                {name: body.get(name) for name in ("role", "content", "name", "created_at")}
                for _, _, body in partitions.rows_of(connection, partition.pid, RowKind.MESSAGE)
                if body["scope"] == session_scope
            ]
        return kept[-limit:]

    def reset(self) -> None:
        """Refused, as the vector store's: it would delete everybody's history."""
        self._memories.reset()

    def close(self) -> None:
        """Nothing of its own to close."""


def _added(memory: dict[str, Any], *, corrected: bool) -> dict[str, Any]:
    """What was written when a memory was added: nothing, for its own row tells it."""
    return {
        "old_memory": None,
        "new_memory": None if corrected else memory.get("data"),
        "event": ADDED,
        "created_at": memory.get("created_at"),
        "updated_at": None,
        "actor_id": memory.get("actor_id"),
        "role": memory.get("role"),
    }
