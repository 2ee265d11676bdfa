"""One call of mem0 as one transaction: its writes are collected while models are asked, then committed or dropped."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from ..errors import BackendError, ScopedMemoryError
from . import partitions
from .database import Database
from .partitions import Item, Kind
from .ranking import pack_terms

_MESSAGES_KEPT: Final = 10
"""How many messages of a session scope mem0 keeps for its next prompt (mem0.memory.storage.SQLiteManager)."""


@dataclass(slots=True)
class Pending:
    """A memory or an entity as it will be.

    Attributes:
        payload: mem0's payload, the user left out.
        vector: float32 bytes; None to keep the one there is.
        fresh: Whether the row is new.
        base_links: The memories an entity was linked to when this call first read it.
    """

    payload: dict[str, Any]
    vector: bytes | None
    fresh: bool
    base_links: frozenset[str] = frozenset()


@dataclass(slots=True)
class Unit:
    """What one call of mem0 will change, for one user.

    Attributes:
        user_id: The user; a unit never spans two.
        began: Number of the latest erasure when it began, and `clock` the time.
        items: Memories and entities by id; None for one that is to be removed.
        history: (memory id, row) to append.
        messages: (session scope, message) to append.
        forget_text_of: Memories whose earlier texts are to leave the history.
        forget_messages: Whether the messages kept for the next prompt are to go.
        dimensions: How many the vectors of this call have.
        failure: The first inner failure; mem0 swallows most of them.
    """

    user_id: str
    began: int
    clock: float
    items: dict[Kind, dict[str, Pending | None]] = field(default_factory=lambda: {Kind.MEMORY: {}, Kind.ENTITY: {}})
    removed_links: dict[str, frozenset[str]] = field(default_factory=dict)
    history: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    forget_text_of: set[str] = field(default_factory=set)
    forget_messages: bool = False
    dimensions: int | None = None
    failure: ScopedMemoryError | None = None

    def fail(self, doing: str, error: Exception) -> None:
        """Remember an inner failure, so that the call is given up even where mem0 would go on."""
        if self.failure is not None:
            return
        if isinstance(error, ScopedMemoryError):
            self.failure = error.with_traceback(None)
        else:
            retryable = isinstance(error, (ConnectionError, TimeoutError))
            text = f"{doing} failed: {type(error).__name__}; nothing of this call was stored"
            self.failure = BackendError(text, retryable=retryable)

    def check(self) -> None:
        """Go no further once something inside has failed.

        Raises:
            BackendError: It has.
        """
        if self.failure is not None:
            raise self.failure from None

    @contextmanager
    def watched(self, doing: str) -> Iterator[None]:
        """Give the call up where the block fails, whatever mem0 makes of that."""
        self.check()
        try:
            yield
        except Exception as error:
            self.fail(doing, error)
            raise


class Work:
    """The units of one embedded store: each thread is in one at most."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._thread = threading.local()

    @property
    def current(self) -> Unit | None:
        """The unit this thread is in, if any."""
        unit: Unit | None = getattr(self._thread, "unit", None)
        return unit

    @contextmanager
    def unit(self, user_id: str) -> Iterator[Unit]:
        """Collect what the block writes and commit it when the block ends. Within a unit, join it.

        Raises:
            BackendError: Something inside failed, or the user was erased meanwhile (retryable).
        """
        if (current := self.current) is not None:
            if current.user_id != user_id:
                raise BackendError("one call of the embedded store may write for one user only")
            with current.watched("the store"):
                yield current
            return
        with self.database.reading() as connection:
            unit = Unit(user_id, partitions.last_erasure(connection), time.monotonic())
        self._thread.unit = unit
        try:
            yield unit
        except Exception:
            # Whatever mem0 made of it, this is the cause.
            unit.check()
            raise
        finally:
            self._thread.unit = None
        unit.check()
        if _changes_anything(unit):
            with self.database.writing() as connection:
                _Commit(connection, self.database.salt, unit).run()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of the file; failing to read it fails the current unit."""
        current = self.current
        with nullcontext() if current is None else current.watched("the store"), self.database.reading() as connection:
            yield connection


def _changes_anything(unit: Unit) -> bool:
    return bool(
        any(unit.items.values()) or unit.history or unit.messages or unit.forget_text_of or unit.forget_messages
    )


def _adds_anything(unit: Unit) -> bool:
    pending = (pending for of_kind in unit.items.values() for pending in of_kind.values())
    return bool(unit.messages) or any(pending is not None for pending in pending)


class _Commit:
    """Writes one unit inside a transaction that is already begun."""

    def __init__(self, connection: sqlite3.Connection, salt: bytes, unit: Unit) -> None:
        self._connection = connection
        self._salt = salt
        self._unit = unit
        self._seqs: dict[str, int | None] = {}
        self._merged = False

    def run(self) -> None:
        unit, connection = self._unit, self._connection
        if partitions.erased_since(connection, unit.user_id, self._salt, unit.began, time.monotonic() - unit.clock):
            raise BackendError(
                "this user was erased while the call was under way; nothing of it was stored, call again to store it",
                retryable=True,
            )
        found = partitions.find(connection, unit.user_id, self._salt)
        if found is None and not _adds_anything(unit):
            return
        self._partition = found or partitions.create(connection, unit.user_id, self._salt)
        if unit.dimensions is not None:
            partitions.keep_dimensions(connection, unit.dimensions)
        for memory_id, memory in unit.items[Kind.MEMORY].items():
            self._write_memory(memory_id, memory)
        for entity_id, entity in unit.items[Kind.ENTITY].items():
            self._write_entity(entity_id, entity)
        for memory_id in unit.forget_text_of:
            self._forget_text(memory_id)
        for memory_id, row in unit.history:
            self._add_history(memory_id, row)
        self._write_messages()
        changes = [pending for of_kind in unit.items.values() for pending in of_kind.values()]
        rewritten = any(pending is None or not pending.fresh for pending in changes)
        partitions.close(connection, self._partition, searched=bool(changes), rewritten=rewritten or self._merged)

    def _append(self, item: Item) -> int:
        seq = self._partition.next_seq
        self._partition = partitions.insert(self._connection, self._partition, item)
        return seq

    def _seq_of(self, kind: Kind, item_id: str) -> int | None:
        """Where this user's row lies now; None where it is gone, or is not his."""
        if item_id not in self._seqs:
            owner = partitions.owner_of(self._connection, id_bytes(item_id))
            own = owner is not None and owner[1:3] == (self._partition.pid, kind)
            self._seqs[item_id] = owner[3] if owner is not None and own else None
        return self._seqs[item_id]

    def _write_memory(self, memory_id: str, memory: Pending | None) -> None:
        if memory is not None and memory.fresh:
            self._seqs[memory_id] = self._append(self._memory_item(memory_id, memory))
            return
        seq = self._seq_of(Kind.MEMORY, memory_id)
        if memory is None:
            if seq is not None:
                partitions.remove(self._connection, self._partition, Kind.MEMORY, 0, [seq])
                rows = partitions.rows_of(self._connection, self._partition.pid, Kind.HISTORY, seq)
                partitions.remove(self._connection, self._partition, Kind.HISTORY, seq, [row[0] for row in rows])
        elif seq is None:
            raise BackendError("the memory was deleted while it was being corrected; nothing was stored")
        else:
            partitions.rewrite(
                self._connection,
                self._partition,
                seq,
                self._memory_item(memory_id, memory),
                keep_vector=memory.vector is None,
            )

    def _memory_item(self, memory_id: str, memory: Pending) -> Item:
        terms, length = pack_terms(str(memory.payload.get("data", "")), self._partition.key)
        said = _seconds(memory.payload.get("created_at"))
        return Item(Kind.MEMORY, id_bytes(memory_id), memory.payload, 0, memory.vector or b"", terms, length, said)

    def _write_entity(self, entity_id: str, entity: Pending | None) -> None:
        """Apply what this call did to an entity's links to the entity as it is now: others may have linked it too."""
        if entity is not None and entity.fresh:
            same = self._same_entity(entity)
            if same is None:
                self._append(Item(Kind.ENTITY, id_bytes(entity_id), entity.payload, 0, entity.vector or b""))
                return
            entity_id, self._merged = same, True
        seq = self._seq_of(Kind.ENTITY, entity_id)
        wanted = frozenset() if entity is None else _links(entity.payload)
        base = self._unit.removed_links.get(entity_id, frozenset()) if entity is None else entity.base_links
        if seq is None:
            if entity is not None and entity.vector is not None and wanted - base:
                payload = {**entity.payload, "linked_memory_ids": sorted(wanted - base)}
                self._append(Item(Kind.ENTITY, id_bytes(entity_id), payload, 0, entity.vector))
            return
        body = self._body_at(Kind.ENTITY, seq)
        links = (_links(body) | (wanted - base)) - (base - wanted)
        if links:
            body["linked_memory_ids"] = sorted(links)
            item = Item(Kind.ENTITY, id_bytes(entity_id), body)
            partitions.rewrite(self._connection, self._partition, seq, item, keep_vector=True)
        else:
            partitions.remove(self._connection, self._partition, Kind.ENTITY, 0, [seq])

    def _same_entity(self, entity: Pending) -> str | None:
        """An entity of the same name that another call has added since this one looked."""
        name = _normal(entity.payload)
        rows = partitions.rows_of(self._connection, self._partition.pid, Kind.ENTITY)
        return next((id_text(item_id) for _, item_id, body in rows if _normal(body) == name), None)

    def _body_at(self, kind: Kind, seq: int) -> dict[str, Any]:
        (body,) = self._connection.execute(
            "SELECT body FROM items JOIN texts USING (ref) WHERE pid = ? AND kind = ? AND parent = 0 AND seq = ?",
            (self._partition.pid, kind, seq),
        ).fetchone()
        return partitions.load(body)

    def _add_history(self, memory_id: str, row: dict[str, Any]) -> None:
        seq = self._seq_of(Kind.MEMORY, memory_id)
        if seq is not None and self._unit.items[Kind.MEMORY].get(memory_id, ...) is not None:
            self._append(Item(Kind.HISTORY, uuid4().bytes, row, parent=seq))

    def _forget_text(self, memory_id: str) -> None:
        seq = self._seq_of(Kind.MEMORY, memory_id)
        if seq is None:
            return
        for row_seq, item_id, body in partitions.rows_of(self._connection, self._partition.pid, Kind.HISTORY, seq):
            body |= {"old_memory": None, "new_memory": None}
            partitions.rewrite(self._connection, self._partition, row_seq, Item(Kind.HISTORY, item_id, body, seq))

    def _write_messages(self) -> None:
        kept = (
            [
                (seq, body["scope"])
                for seq, _, body in partitions.rows_of(self._connection, self._partition.pid, Kind.MESSAGE)
            ]
            if self._unit.messages or self._unit.forget_messages
            else []
        )
        if self._unit.forget_messages:
            partitions.remove(self._connection, self._partition, Kind.MESSAGE, 0, [seq for seq, _ in kept])
            kept = []
        for scope, message in self._unit.messages:
            kept.append((self._append(Item(Kind.MESSAGE, uuid4().bytes, {"scope": scope, **message})), scope))
        for scope in {scope for scope, _ in self._unit.messages}:
            old = [seq for seq, of in kept if of == scope][:-_MESSAGES_KEPT]
            partitions.remove(self._connection, self._partition, Kind.MESSAGE, 0, old)


def id_bytes(item_id: str) -> bytes:
    """The 16 bytes of a UUID.

    Raises:
        ValueError: It is none.
    """
    raw = bytes.fromhex(str(item_id).replace("-", ""))
    if len(raw) != 16:
        raise ValueError("an id of the embedded store must be a UUID")
    return raw


def id_text(item_id: bytes) -> str:
    """The usual spelling of a UUID; five times as fast as uuid.UUID."""
    digits = item_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _seconds(moment: object) -> float:
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _links(payload: dict[str, Any]) -> frozenset[str]:
    return frozenset(payload.get("linked_memory_ids") or ())


def _normal(payload: dict[str, Any]) -> str:
    """A name as mem0 compares it (mem0.memory.main.Memory._normalize_entity_text)."""
    return " ".join(str(payload.get("data", "")).lower().split())
