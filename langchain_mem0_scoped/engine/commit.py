"""Writing one unit of work, against the rows as they are now: other calls may have changed them meanwhile."""

from __future__ import annotations

from typing import Any, Final

from ..errors import BackendError, MemoryNotFoundError
from ..ranking import pack_row, unix_seconds
from ..transcripts.base import ConcurrentWrite
from .codec import dump, id_bytes, id_text, links_of, load
from .duplicates import drop_known_facts
from .sessions import rows_to_append
from .storage import NewRow, Partition, RowKind, StoredRow, WriteTransaction
from .unit_of_work import PendingRow, UnitOfWork

_KEPT_MESSAGES: Final = 10
"""How many messages of a session scope mem0 keeps for its next prompt (mem0.memory.storage.SQLiteManager)."""

EntityName = tuple[str, Any, Any]


def commit(transaction: WriteTransaction, unit: UnitOfWork) -> None:
    """Write a unit of work.

    Args:
        transaction: Where it is written.
        unit: What is written.

    Raises:
        BackendError: Since the call began, the user was erased, or another call corrected the same memory (retryable).
            Or the vectors cannot be compared with those that are stored.
        MemoryNotFoundError: A memory that is to be corrected was removed since the call began.
        ConcurrentWrite: The messages that are new are not those that were expected.
    """
    partition = transaction.find_unless_erased(unit.user_id, unit.token)
    if partition is None and unit.adds_rows:
        partition = transaction.create(unit.user_id)
    if partition is not None:
        _Commit(transaction, partition, unit).run()


class _Commit:
    """One unit of work while it is written."""

    def __init__(self, transaction: WriteTransaction, partition: Partition, unit: UnitOfWork) -> None:
        self._transaction = transaction
        self._partition = partition
        self._unit = unit
        self._added: list[NewRow] = []
        self._memories: dict[str, int] = {}
        self._entities: dict[str, StoredRow] | None = None
        self._entity_names: dict[EntityName, str] | None = None
        self._rewritten = False

    def run(self) -> None:
        unit = self._unit
        self._append_messages()
        if unit.dimensions is not None:
            self._transaction.require_dimensions(unit.dimensions)
        drop_known_facts(self._transaction, self._partition, unit)
        self._memories = self._find_memories()
        self._unlink(self._write_memories())
        for entity_id, entity in unit.changes[RowKind.ENTITY].items():
            self._write_entity(entity_id, entity)
        for memory_id in unit.corrected:
            self._forget_earlier_texts(memory_id)
        for memory_id, row in unit.history:
            self._add_history(memory_id, row)
        self._write_kept_messages()
        if self._added:
            self._partition = self._transaction.insert(self._partition, self._added)
        if unit.removes_text:
            self._transaction.owe_purge()
        searched = unit.changes_searched_rows
        self._transaction.bump_version(self._partition, searched=searched, rewritten=self._rewritten)

    def _add(self, row: NewRow) -> int:
        """Queue a row to be inserted after all others; return its sequence number."""
        self._added.append(row)
        return self._partition.next_seq + len(self._added) - 1

    def _append_messages(self) -> None:
        append = self._unit.append
        if append is None:
            return
        rows, append.appended = rows_to_append(
            self._transaction, self._partition, append.session_id, append.messages, append.answers
        )
        if append.expected not in (None, append.appended):
            raise ConcurrentWrite
        self._added += rows

    # -- memories

    def _find_memories(self) -> dict[str, int]:
        """Return the sequence numbers of the stored memories that this unit refers to; missing ones are left out."""
        unit, changed = self._unit, self._unit.changes[RowKind.MEMORY]
        ids = {one for one, row in changed.items() if row is None or not row.is_new}
        ids |= unit.corrected | {one for one, _ in unit.history}
        raw = [id_bytes(one) for one in ids]
        found = self._transaction.find_ids(self._partition, RowKind.MEMORY, raw) if raw else {}
        return {id_text(one): seq for one, seq in found.items()}

    def _write_memories(self) -> set[str]:
        """Write the memories; return those that were removed or have new text, to be unlinked from entities."""
        changed = self._unit.changes[RowKind.MEMORY]
        kept = {one: row for one, row in changed.items() if row is not None and not row.is_new}
        bodies = self._bodies(list(kept))
        unlinked = set()
        for memory_id, row in changed.items():
            if row is None:
                self._remove_memory(memory_id)
                unlinked.add(memory_id)
            elif row.is_new:
                self._memories[memory_id] = self._add(self._memory_row(memory_id, row))
            elif self._rewrite_memory(memory_id, row, bodies.get(memory_id)):
                unlinked.add(memory_id)
        return unlinked

    def _bodies(self, memory_ids: list[str]) -> dict[str, bytes]:
        seqs = sorted(self._memories[one] for one in memory_ids if one in self._memories)
        rows = self._transaction.rows(self._partition, RowKind.MEMORY, seqs=seqs) if seqs else []
        return {id_text(row.id): row.body for row in rows}

    def _remove_memory(self, memory_id: str) -> None:
        seq = self._memories.pop(memory_id, None)
        if seq is None:
            return
        self._rewritten = True
        history = self._transaction.rows(self._partition, RowKind.HISTORY, seq)
        self._transaction.remove(self._partition, RowKind.HISTORY, [row.seq for row in history], seq)
        self._transaction.remove(self._partition, RowKind.MEMORY, [seq])
        self._unit.removed.add(memory_id)

    def _rewrite_memory(self, memory_id: str, memory: PendingRow, body: bytes | None) -> bool:
        """Replace a memory; return whether its text changes."""
        if body is None:
            raise MemoryNotFoundError("the memory was removed while it was being corrected; nothing was stored")
        read = self._unit.rows[RowKind.MEMORY].get(memory_id)
        if read is None or body != read.body:
            raise BackendError(
                "the memory was corrected by another call meanwhile; nothing of this one was stored, call again",
                retryable=True,
            )
        self._rewritten = True
        row, seq = self._memory_row(memory_id, memory), self._memories[memory_id]
        self._transaction.rewrite(self._partition, seq, row, keep_vector=memory.vector is None)
        return bool(load(body).get("data") != memory.payload.get("data"))

    def _memory_row(self, memory_id: str, memory: PendingRow) -> NewRow:
        terms, length = pack_row(memory.payload, self._partition.key)
        said_at = unix_seconds(memory.payload.get("created_at"))
        vector = memory.vector or b""
        return NewRow(RowKind.MEMORY, id_bytes(memory_id), dump(memory.payload), 0, vector, terms, length, said_at)

    # -- entities

    def _stored_entities(self) -> dict[str, StoredRow]:
        """Return the stored entities: other calls may have added or linked some since this call read them."""
        if self._entities is None:
            rows: list[StoredRow] = []
            if self._transaction.has_rows(self._partition, RowKind.ENTITY):
                rows = self._transaction.rows(self._partition, RowKind.ENTITY)
            self._entities = {id_text(row.id): row for row in rows}
        return self._entities

    def _stored_names(self) -> dict[EntityName, str]:
        if self._entity_names is None:
            self._entity_names = {_entity_name(load(row.body)): one for one, row in self._stored_entities().items()}
        return self._entity_names

    def _write_entity(self, entity_id: str, entity: PendingRow | None) -> None:
        """Apply this call's changes of an entity's links to the stored entity."""
        if entity is not None and entity.is_new:
            same = self._stored_names().get(_entity_name(entity.payload))
            if same is None:
                self._add(NewRow(RowKind.ENTITY, id_bytes(entity_id), dump(entity.payload), 0, entity.vector or b""))
                return
            entity_id = same
        wanted = frozenset() if entity is None else links_of(entity.payload)
        read = self._unit.rows[RowKind.ENTITY].get(entity_id)
        before = frozenset() if read is None else links_of(load(read.body))
        if entity_id in self._stored_entities():
            self._relink(entity_id, added=wanted - before, removed=before - wanted)
        elif entity is not None and entity.vector is not None and wanted - before:
            # Another call has removed it with its last link.
            payload = {**entity.payload, "linked_memory_ids": sorted(wanted - before)}
            self._add(NewRow(RowKind.ENTITY, id_bytes(entity_id), dump(payload), 0, entity.vector))

    def _relink(self, entity_id: str, *, added: frozenset[str], removed: frozenset[str]) -> None:
        stored = self._stored_entities()
        row = stored[entity_id]
        body = load(row.body)
        links = (links_of(body) | added) - removed
        if links and links == links_of(body):
            return
        self._rewritten = True
        if links:
            body["linked_memory_ids"] = sorted(links)
            stored[entity_id] = row._replace(body=dump(body))
            new = NewRow(RowKind.ENTITY, row.id, stored[entity_id].body)
            self._transaction.rewrite(self._partition, row.seq, new, keep_vector=True)
        else:
            del stored[entity_id]
            self._transaction.remove(self._partition, RowKind.ENTITY, [row.seq])

    def _unlink(self, memory_ids: set[str]) -> None:
        """Unlink these memories from the entities that mem0 did not update."""
        if not memory_ids:
            return
        for entity_id, row in list(self._stored_entities().items()):
            changed = entity_id in self._unit.changes[RowKind.ENTITY]
            if not changed and (gone := links_of(load(row.body)) & memory_ids):
                self._relink(entity_id, added=frozenset(), removed=gone)

    # -- history and mem0's kept messages

    def _add_history(self, memory_id: str, row: dict[str, Any]) -> None:
        seq = self._memories.get(memory_id)
        if seq is not None:
            self._add(NewRow(RowKind.HISTORY, b"", dump(row), parent=seq))

    def _forget_earlier_texts(self, memory_id: str) -> None:
        seq = self._memories.get(memory_id)
        if seq is None:
            return
        for row in self._transaction.rows(self._partition, RowKind.HISTORY, seq):
            body = dump(load(row.body) | {"old_memory": None, "new_memory": None})
            self._transaction.rewrite(self._partition, row.seq, NewRow(RowKind.HISTORY, row.id, body, seq))

    def _write_kept_messages(self) -> None:
        unit, transaction = self._unit, self._transaction
        if not unit.kept_messages and not unit.removes_text:
            return
        stored = transaction.rows(self._partition, RowKind.MESSAGE)
        if unit.removes_text:
            transaction.remove(self._partition, RowKind.MESSAGE, [row.seq for row in stored])
            stored = []
        for scope in dict.fromkeys(scope for scope, _ in unit.kept_messages):
            messages = [{"scope": scope, **message} for of, message in unit.kept_messages if of == scope]
            seqs = [row.seq for row in stored if load(row.body)["scope"] == scope]
            excess = max(len(seqs) + len(messages) - _KEPT_MESSAGES, 0)
            transaction.remove(self._partition, RowKind.MESSAGE, seqs[:excess])
            for message in messages[max(excess - len(seqs), 0) :]:
                self._add(NewRow(RowKind.MESSAGE, b"", dump(message)))


def _entity_name(entity: dict[str, Any]) -> EntityName:
    """Return a name as mem0 compares it (Memory._normalize_entity_text), with the run and the agent it belongs to."""
    text = " ".join(str(entity.get("data", "")).lower().split())
    return text, entity.get("run_id"), entity.get("agent_id")
