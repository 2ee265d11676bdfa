"""UnitOfWork: what one call has read and will change, collected while models run. Does no I/O itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ..errors import ScopedMemoryError
from ..provider_errors import describe
from ..requests import ErasureToken
from ..transcripts.appending import Appended
from ..transcripts.codec import StoredMessage
from .cache import SearchRows
from .codec import id_bytes, id_text
from .storage import ReadTransaction, RowKind, StoredRow


@dataclass(slots=True)
class PendingRow:
    """A memory or an entity as it will be. Its `repr` leaves out what it says.

    Attributes:
        payload: mem0's payload, without the user.
        vector: float32 bytes; None to keep the one there is.
        is_new: Whether the row is added, rather than replaced.
    """

    payload: dict[str, Any] = field(repr=False)
    vector: bytes | None = field(repr=False)
    is_new: bool


@dataclass(slots=True)
class SessionAppend:
    """A turn to be appended to a session. Its `repr` leaves out what is said.

    Attributes:
        session_id: Which session.
        messages: In order.
        answers: They follow the messages, and are new.
        expected: What must be new; None for whatever is new.
        appended: What was new; known after the commit.
    """

    session_id: str
    messages: Sequence[StoredMessage] = field(repr=False)
    answers: Sequence[StoredMessage] = field(default=(), repr=False)
    expected: Appended | None = None
    appended: Appended = field(default_factory=lambda: Appended([], []))


def _by_kind() -> dict[RowKind, dict[str, Any]]:
    return {RowKind.MEMORY: {}, RowKind.ENTITY: {}}


@dataclass(slots=True)
class UnitOfWork:
    """What one call of mem0 has read and will change, for one user. Its `repr` quotes no text.

    Attributes:
        user_id: Whose rows; a unit never spans two users.
        token: Made when the call began; an erasure since stops the commit.
        rows: Memories and entities by id, as the call first read them; None for an id without a row.
        all_entities: Whether `rows` holds every entity of the user.
        entity_rows: These entities laid out for search; made by the first search.
        changes: Memories and entities by id, as they will be; None for one that is to be removed.
        history: (memory id, row) to append.
        kept_messages: (session scope, message) to append.
        append: What is to be appended to a session.
        corrected: Memories whose earlier texts leave the history.
        removes_text: Whether text is corrected or removed: then mem0's kept messages go as well.
        dimensions: How many the vectors of this call have.
        failure: The first failure of a step; mem0 ignores most of them.
        removed: The memories that the commit removed; known after it.
        must_last_until: Within an extraction, the day on which a memory must still be found to take part in it.
        facts: New memories that are stored only if the user has no memory with their text.
        known: Facts whose text was stored already; known after the commit. By each, the memory whose last day it has
            extended, or None.
    """

    user_id: str
    token: ErasureToken
    rows: dict[RowKind, dict[str, StoredRow | None]] = field(default_factory=_by_kind, repr=False)
    all_entities: bool = False
    entity_rows: SearchRows | None = field(default=None, repr=False)
    changes: dict[RowKind, dict[str, PendingRow | None]] = field(default_factory=_by_kind)
    history: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    kept_messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    append: SessionAppend | None = None
    corrected: set[str] = field(default_factory=set)
    removes_text: bool = False
    dimensions: int | None = None
    failure: ScopedMemoryError | None = None
    removed: set[str] = field(default_factory=set)
    must_last_until: date | None = None
    facts: list[str] = field(default_factory=list)
    known: dict[str, str | None] = field(default_factory=dict)

    @property
    def changes_searched_rows(self) -> bool:
        """Whether any memory or entity changes."""
        return any(self.changes.values())

    @property
    def adds_rows(self) -> bool:
        """Whether there is anything to store for a user without rows."""
        changed = (row for rows in self.changes.values() for row in rows.values())
        return bool(self.kept_messages or self.append is not None or any(changed))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        others = self.history or self.kept_messages or self.append is not None or self.corrected or self.removes_text
        return not (others or self.changes_searched_rows)

    def as_stored(self, result: dict[str, Any]) -> dict[str, Any] | None:
        """Return a result of mem0's add as it was stored; None for a fact that was known. For after the commit."""
        if result["id"] not in self.known:
            return result
        extended = self.known[result["id"]]
        return None if extended is None else {**result, "id": extended, "event": "UPDATE"}

    def read_memories(self, transaction: ReadTransaction, memory_ids: Sequence[str]) -> None:
        """Read memories that were not read yet."""
        known = self.rows[RowKind.MEMORY]
        raw = {id_bytes(one): one for one in memory_ids if one not in known}
        known.update(dict.fromkeys(raw.values()))
        partition = transaction.find(self.user_id)
        found = {} if partition is None or not raw else transaction.find_ids(partition, RowKind.MEMORY, list(raw))
        if partition is not None and found:
            for row in transaction.rows(partition, RowKind.MEMORY, seqs=sorted(found.values())):
                known[raw[row.id]] = row

    def read_entities(self, transaction: ReadTransaction) -> None:
        """Read all entities of the user."""
        partition = transaction.find(self.user_id)
        if partition is not None and transaction.has_rows(partition, RowKind.ENTITY):
            for row in transaction.rows(partition, RowKind.ENTITY):
                self.rows[RowKind.ENTITY].setdefault(id_text(row.id), row)
        self.all_entities = True

    @property
    def entities(self) -> list[StoredRow]:
        """The user's entities that were read, in the order they were written."""
        return sorted((row for row in self.rows[RowKind.ENTITY].values() if row is not None), key=lambda row: row.seq)

    def fail(self, operation: str, error: Exception) -> None:
        """Record the first failure, so that the call fails even if mem0 ignores the error."""
        if self.failure is not None:
            return
        if isinstance(error, ScopedMemoryError):
            self.failure = error.with_traceback(None)
        else:
            failure = describe(error)
            self.failure = failure.to_error(f"{operation} failed: {failure.summary}; nothing of this call was stored")

    def check(self) -> None:
        """Raise the recorded failure, if there is one.

        Raises:
            BackendError: A step of this call failed.
        """
        if self.failure is not None:
            raise self.failure from None

    @contextmanager
    def record_failure(self, operation: str) -> Iterator[UnitOfWork]:
        """Fail the unit if the block fails, even if mem0 ignores the error."""
        self.check()
        try:
            yield self
        except Exception as error:
            self.fail(operation, error)
            raise
