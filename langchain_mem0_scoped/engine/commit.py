"""Writing one unit in a transaction, against the rows as they are now: other calls may have changed them meanwhile."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from ..errors import BackendError
from ..ranking import pack_row, unix_seconds
from ..sqlite import partitions
from ..sqlite.partitions import NewRow, RowKind, dump, id_bytes, id_text, links_of
from . import sessions

if TYPE_CHECKING:
    from .unit_of_work import Pending, UnitOfWork

_MESSAGES_KEPT: Final = 10
"""How many messages of a session scope mem0 keeps for its next prompt (mem0.memory.storage.SQLiteManager)."""

Name = tuple[str, Any, Any]


class Commit:
    """One unit being written.

    Args:
        connection: Inside a write transaction.
        salt: The file's.
        unit: What to write.
    """

    def __init__(self, connection: sqlite3.Connection, salt: bytes, unit: UnitOfWork) -> None:
        self._connection = connection
        self._salt = salt
        self._unit = unit
        self._seqs: dict[str, int | None] = {}
        self._names: dict[Name, str] | None = None
        self._rewritten = False
        self._appended: list[NewRow] = []

    def run(self) -> None:
        """Write everything.

        Raises:
            BackendError: The user was erased, or a row that is to be changed was, since the call began (retryable); or
                the vectors cannot be compared with those of the file.
            Overtaken: Other messages are new than those that were expected.
        """
        unit, connection = self._unit, self._connection
        found = partitions.find_unless_erased(connection, unit.user_id, self._salt, unit.began)
        if found is None and not unit.messages and not unit.said and not any(unit.changes):
            return
        self._partition = found or partitions.create(connection, unit.user_id, self._salt)
        if unit.said is not None:
            said = unit.said
            self._partition, self._appended, said.new = sessions.items_for(
                connection, self._partition, said.session_id, said.messages
            )
            if said.expected not in (None, said.new):
                raise sessions.ConcurrentWrite
        if unit.dimensions is not None:
            partitions.keep_dimensions(connection, unit.dimensions)
        unlinked = {
            memory_id for memory_id, memory in unit.items[RowKind.MEMORY].items() if self._write(memory_id, memory)
        }
        for entity_id, entity in unit.items[RowKind.ENTITY].items():
            self._write_entity(entity_id, entity)
        self._unlink(unlinked)
        for memory_id in unit.corrected:
            self._forget_text(memory_id)
        for memory_id, row in unit.history:
            self._add_history(memory_id, row)
        self._write_messages()
        self._flush()
        partitions.close(connection, self._partition, searched=bool(unit.changes), rewritten=self._rewritten)

    def _append(self, item: NewRow) -> int:
        """Add a row behind all others; return its sequence number. It is written with the next `_flush`."""
        self._appended.append(item)
        return self._partition.next_seq + len(self._appended) - 1

    def _flush(self) -> None:
        self._partition = partitions.insert(self._connection, self._partition, self._appended)
        self._appended = []

    def _seq_of(self, kind: RowKind, item_id: str) -> int | None:
        """Where this user's row lies now; None where it is gone, or is not his."""
        if item_id not in self._seqs:
            owner = partitions.owner_of(self._connection, id_bytes(item_id))
            own = owner is not None and owner[1:3] == (self._partition.pid, kind)
            self._seqs[item_id] = owner[3] if owner is not None and own else None
        return self._seqs[item_id]

    # -- memories

    def _write(self, memory_id: str, memory: Pending | None) -> bool:
        """Write a memory; tell whether entities of its old text are to let go of it."""
        if memory is not None and memory.fresh:
            self._seqs[memory_id] = self._append(self._memory_item(memory_id, memory))
            return False
        self._rewritten = True
        seq = self._seq_of(RowKind.MEMORY, memory_id)
        if memory is None:
            if seq is not None:
                partitions.remove(self._connection, self._partition, RowKind.MEMORY, 0, [seq])
                rows = partitions.rows_of(self._connection, self._partition.pid, RowKind.HISTORY, seq)
                partitions.remove(self._connection, self._partition, RowKind.HISTORY, seq, [row[0] for row in rows])
            return True
        if seq is None:
            raise BackendError("the memory was deleted while it was being corrected; nothing was stored")
        body = partitions.body_at(self._connection, self._partition.pid, RowKind.MEMORY, seq)
        if body != self._unit.bodies.get(memory_id):
            raise BackendError(
                "the memory was corrected by another call meanwhile; nothing of this one was stored, call again",
                retryable=True,
            )
        partitions.rewrite(
            self._connection,
            self._partition,
            seq,
            self._memory_item(memory_id, memory),
            keep_vector=memory.vector is None,
        )
        return bool(partitions.load(body).get("data") != memory.payload.get("data"))

    def _memory_item(self, memory_id: str, memory: Pending) -> NewRow:
        terms, length = pack_row(memory.payload, self._partition.key)
        said = unix_seconds(memory.payload.get("created_at"))
        return NewRow(
            RowKind.MEMORY, id_bytes(memory_id), dump(memory.payload), 0, memory.vector or b"", terms, length, said
        )

    # -- entities

    def _write_entity(self, entity_id: str, entity: Pending | None) -> None:
        """Apply what this call did to an entity's links to the entity as it is now: others may have linked it too."""
        if entity is not None and entity.fresh:
            same = self._entities_by_name().get(_name(entity.payload))
            if same is None:
                self._append(NewRow(RowKind.ENTITY, id_bytes(entity_id), dump(entity.payload), 0, entity.vector or b""))
                return
            entity_id = same
        self._rewritten = True
        wanted = frozenset() if entity is None else links_of(entity.payload)
        base = self._unit.links.get(entity_id, frozenset())
        seq = self._seq_of(RowKind.ENTITY, entity_id)
        if seq is not None:
            self._relink(entity_id, seq, added=wanted - base, removed=base - wanted)
        elif entity is not None and entity.vector is not None and wanted - base:
            payload = {**entity.payload, "linked_memory_ids": sorted(wanted - base)}
            self._append(NewRow(RowKind.ENTITY, id_bytes(entity_id), dump(payload), 0, entity.vector))

    def _relink(self, entity_id: str, seq: int, *, added: frozenset[str], removed: frozenset[str]) -> None:
        body = partitions.load(partitions.body_at(self._connection, self._partition.pid, RowKind.ENTITY, seq))
        links = (links_of(body) | added) - removed
        if links:
            body["linked_memory_ids"] = sorted(links)
            item = NewRow(RowKind.ENTITY, id_bytes(entity_id), dump(body))
            partitions.rewrite(self._connection, self._partition, seq, item, keep_vector=True)
        else:
            partitions.remove(self._connection, self._partition, RowKind.ENTITY, 0, [seq])

    def _entities_by_name(self) -> dict[Name, str]:
        """The entities there are: another call may have added one of the same name since this one looked."""
        if self._names is None:
            rows = partitions.rows_of(self._connection, self._partition.pid, RowKind.ENTITY)
            self._names = {_name(body): id_text(item_id) for _, item_id, body in rows}
        return self._names

    def _unlink(self, memory_ids: set[str]) -> None:
        """Take memories that are gone, or say something else now, out of the entities mem0 did not look at."""
        if not memory_ids or not partitions.has_rows(self._connection, self._partition.pid, RowKind.ENTITY):
            return
        for seq, item_id, body in partitions.rows_of(self._connection, self._partition.pid, RowKind.ENTITY):
            entity_id = id_text(item_id)
            if entity_id not in self._unit.items[RowKind.ENTITY] and (gone := links_of(body) & memory_ids):
                self._rewritten = True
                self._relink(entity_id, seq, added=frozenset(), removed=gone)

    # -- history and messages

    def _add_history(self, memory_id: str, row: dict[str, Any]) -> None:
        seq = self._seq_of(RowKind.MEMORY, memory_id)
        if seq is not None and self._unit.items[RowKind.MEMORY].get(memory_id, ...) is not None:
            self._append(NewRow(RowKind.HISTORY, b"", dump(row), parent=seq))

    def _forget_text(self, memory_id: str) -> None:
        seq = self._seq_of(RowKind.MEMORY, memory_id)
        if seq is None:
            return
        for row_seq, item_id, body in partitions.rows_of(self._connection, self._partition.pid, RowKind.HISTORY, seq):
            body |= {"old_memory": None, "new_memory": None}
            partitions.rewrite(
                self._connection, self._partition, row_seq, NewRow(RowKind.HISTORY, item_id, dump(body), seq)
            )

    def _write_messages(self) -> None:
        if not self._unit.messages and not self._unit.forget_messages:
            return
        rows = partitions.rows_of(self._connection, self._partition.pid, RowKind.MESSAGE)
        kept = [(seq, body["scope"]) for seq, _, body in rows]
        if self._unit.forget_messages:
            partitions.remove(self._connection, self._partition, RowKind.MESSAGE, 0, [seq for seq, _ in kept])
            kept = []
        for scope, message in self._unit.messages:
            kept.append((self._append(NewRow(RowKind.MESSAGE, b"", dump({"scope": scope, **message}))), scope))
        self._flush()
        for scope in {scope for scope, _ in self._unit.messages}:
            old = [seq for seq, of in kept if of == scope][:-_MESSAGES_KEPT]
            partitions.remove(self._connection, self._partition, RowKind.MESSAGE, 0, old)


def _name(entity: dict[str, Any]) -> Name:
    """A name as mem0 compares it (Memory._normalize_entity_text), in the run and of the agent it was said to."""
    said = " ".join(str(entity.get("data", "")).lower().split())
    return said, entity.get("run_id"), entity.get("agent_id")
