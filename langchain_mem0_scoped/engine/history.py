"""mem0's history and kept messages inside the partition of the user they belong to: its SQLiteManager, per user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from ..errors import ScopeError
from ..mem0_compat import parse_user_id
from .codec import id_bytes, id_text, load
from .payloads import require_user
from .storage import RowKind
from .units import UnitOfWorkFactory

ADDED: Final = "ADD"
"""mem0's word for the first event of a memory."""


class EngineHistory:
    """The object mem0.Memory calls `db`. Calls by a memory's id apply to the current user, as in `EngineVectorStore`.

    Args:
        units: The storage's units of work.
    """

    def __init__(self, units: UnitOfWorkFactory) -> None:
        self._units = units

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
        """Append an event, without old text. A memory's own row says that it was added; a deleted one has no events."""
        if is_deleted or event == ADDED:
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
        user_id = self._units.user_of_call("add_history")
        with self._units.unit(user_id) as unit:
            unit.history.append((id_text(id_bytes(memory_id)), row))

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
        """Return the events of a memory of the current user, the oldest first."""
        return self.history_of(self._units.user_of_call("get_history"), memory_id)

    def history_of(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        """Return the events of a user's memory, the oldest first; none where the user has no such memory."""
        try:
            raw = id_bytes(memory_id)
        except ValueError:
            return []
        with self._units.reading() as transaction:
            partition = transaction.find(user_id)
            found = {} if partition is None else transaction.find_ids(partition, RowKind.MEMORY, [raw])
            if partition is None or raw not in found:
                return []
            seq = found[raw]
            (memory,) = transaction.rows(partition, RowKind.MEMORY, seqs=[seq])
            later = transaction.rows(partition, RowKind.HISTORY, seq)
        events = [(0, _add_event(load(memory.body), corrected=bool(later)))]
        events += [(row.seq, load(row.body)) for row in later]
        return [
            {"id": str(uuid5(UUID(bytes=raw), str(seq))), "memory_id": memory_id, **event, "is_deleted": False}
            for seq, event in events
        ]

    def save_messages(self, messages: Sequence[dict[str, Any]], session_scope: str) -> None:
        """Keep messages for the next extraction prompt of the same scope; the commit drops all but the last ten."""
        now = datetime.now(UTC).isoformat()
        with self._units.unit(require_user(parse_user_id(session_scope))) as unit:
            for message in messages:
                kept = {name: message.get(name) for name in ("role", "content", "name")}
                unit.kept_messages.append((session_scope, {**kept, "created_at": now}))

    def get_last_messages(self, session_scope: str, limit: int = 10) -> list[dict[str, Any]]:
        """Return the messages kept for a scope, the oldest first."""
        user_id = require_user(parse_user_id(session_scope))
        with self._units.reading() as transaction:
            partition = transaction.find(user_id)
            rows = [] if partition is None else transaction.rows(partition, RowKind.MESSAGE)
        bodies = (load(row.body) for row in rows)
        names = ("role", "content", "name", "created_at")
        kept = [{name: body.get(name) for name in names} for body in bodies if body["scope"] == session_scope]
        return kept[-limit:]

    def reset(self) -> None:
        """Refuse: it would delete everybody's history.

        Raises:
            ScopeError: Always.
        """
        raise ScopeError("the engine erases one user at a time; to erase everybody, remove the storage itself")

    def close(self) -> None:
        """Do nothing: `EngineMemory.close` closes the storage."""


def _add_event(memory: dict[str, Any], *, corrected: bool) -> dict[str, Any]:
    """Return the ADD event of a memory, from its row."""
    return {
        "old_memory": None,
        "new_memory": None if corrected else memory.get("data"),
        "event": ADDED,
        "created_at": memory.get("created_at"),
        "updated_at": None,
        "actor_id": memory.get("actor_id"),
        "role": memory.get("role"),
    }
