"""One call of mem0 as one transaction: its writes are collected while models are asked, then committed or dropped."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import BackendError, ScopedMemoryError
from ..sqlite import partitions
from ..sqlite.database import Database
from ..sqlite.partitions import RowKind
from .commit import Commit
from .sessions import Message

_TIDY_SECONDS: Final = 60.0


@dataclass(slots=True)
class Pending:
    """A memory or an entity as it will be. Its `repr` leaves out what it says.

    Attributes:
        payload: mem0's payload, the user left out.
        vector: float32 bytes; None to keep the one there is.
        fresh: Whether the row is new.
    """

    payload: dict[str, Any] = field(repr=False)
    vector: bytes | None = field(repr=False)
    fresh: bool


@dataclass(slots=True)
class Said:
    """What was said in a session, to be logged. Its `repr` leaves it out.

    Attributes:
        session_id: Which.
        messages: In order.
        expected: The positions of those that must be the ones not there yet; None for whichever are.
        new: The positions of those that were not there yet; known once it is committed.
    """

    session_id: str
    messages: Sequence[Message] = field(repr=False)
    expected: list[int] | None = None
    new: list[int] = field(default_factory=list)


@dataclass(slots=True)
class UnitOfWork:
    """What one call of mem0 will change, for one user, and what it has gone by. Its `repr` quotes no text.

    Attributes:
        user_id: The user; a unit never spans two.
        began: Where the user stood when the call began.
        items: Memories and entities by id; None for one that is to be removed.
        bodies: Memories by id as the call first read them.
        links: The memories an entity was linked to when the call first read it.
        history: (memory id, row) to append.
        messages: (session scope, message) to append.
        said: What is to be logged.
        corrected: Memories whose earlier texts are to leave the history.
        forget_messages: Whether the messages kept for the next prompt are to go.
        dimensions: How many the vectors of this call have.
        failure: The first inner failure; mem0 swallows most of them.
    """

    user_id: str
    began: partitions.ErasureToken
    items: dict[RowKind, dict[str, Pending | None]] = field(
        default_factory=lambda: {RowKind.MEMORY: {}, RowKind.ENTITY: {}}
    )
    bodies: dict[str, bytes] = field(default_factory=dict, repr=False)
    links: dict[str, frozenset[str]] = field(default_factory=dict)
    history: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    said: Said | None = None
    corrected: set[str] = field(default_factory=set)
    forget_messages: bool = False
    dimensions: int | None = None
    failure: ScopedMemoryError | None = None

    @property
    def changes(self) -> list[Pending | None]:
        """What becomes of memories and entities."""
        return [pending for of_kind in self.items.values() for pending in of_kind.values()]

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
    def record_failure(self, doing: str) -> Iterator[UnitOfWork]:
        """Give the call up where the block fails, whatever mem0 makes of that."""
        self.check()
        try:
            yield self
        except Exception as error:
            self.fail(doing, error)
            raise


class UnitOfWorkFactory:
    """The units of one embedded store: each thread is in one at most."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._thread = threading.local()
        self._tidied = float("-inf")

    @property
    def current(self) -> UnitOfWork | None:
        """The unit this thread is in, if any."""
        unit: UnitOfWork | None = getattr(self._thread, "unit", None)
        return unit

    def beginning(self, user_id: str) -> partitions.ErasureToken:
        """Note where a user stands."""
        with self.database.reading() as connection:
            return partitions.beginning(connection, user_id, self.database.salt)

    @contextmanager
    def since(self, beginning: partitions.ErasureToken | None) -> Iterator[None]:
        """Let this thread's next unit have begun then: it may go by what was read at that time."""
        self._thread.since = beginning
        try:
            yield
        finally:
            self._thread.since = None

    def unit(
        self, user_id: str, began: partitions.ErasureToken | None = None, *, apart: bool = False
    ) -> AbstractContextManager[UnitOfWork]:
        """Collect what the block writes and commit it when the block ends. Within a unit, join it.

        Args:
            user_id: Whose rows.
            began: Where the user stood when what is written was begun; None for now.
            apart: Never join: a model that is asked within a unit may have a turn of its own logged.

        Raises:
            BackendError: Something inside failed, or the user was erased meanwhile (retryable).
            Overtaken: What was to be logged is not what was expected.
        """
        current = self.current
        if current is None or apart:
            return self._unit(user_id, began)
        if current.user_id != user_id:
            raise BackendError("one call of the embedded store may write for one user only")
        return current.record_failure("the store")

    @contextmanager
    def _unit(self, user_id: str, began: partitions.ErasureToken | None) -> Iterator[UnitOfWork]:
        around = self.current
        since = getattr(self._thread, "since", None) if around is None else None
        unit = UnitOfWork(user_id, began or since or self.beginning(user_id))
        self._thread.unit = unit
        try:
            yield unit
        except Exception:
            # Whatever mem0 made of it, this is the cause.
            unit.check()
            raise
        finally:
            self._thread.unit = around
        unit.check()
        if unit.changes or unit.history or unit.messages or unit.said or unit.corrected or unit.forget_messages:
            with self.database.writing() as connection:
                Commit(connection, self.database.salt, unit).run()
                self._tidy(connection)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Now and then, forget who was erased long ago."""
        now = time.monotonic()
        if now - self._tidied > _TIDY_SECONDS:
            partitions.forget_old_erasures(connection)
            self._tidied = now

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of the file; failing to read it fails the current unit."""
        current = self.current
        with (
            nullcontext() if current is None else current.record_failure("the store"),
            self.database.reading() as connection,
        ):
            yield connection
