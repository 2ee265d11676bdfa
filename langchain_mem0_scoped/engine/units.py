"""UnitOfWorkFactory: one call of mem0 as one transaction, whose writes are committed as a whole or dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from ..errors import BackendError, ScopeError
from ..requests import ErasureToken
from .commit import commit
from .storage import ReadTransaction, RowKind, Storage, StoredRow
from .unit_of_work import UnitOfWork


class _Context(NamedTuple):
    """The user of this thread's calls by id, and its unit of work."""

    user_id: str
    unit: UnitOfWork | None


class UnitOfWorkFactory:
    """The units of work of one storage. A thread works in one unit at most.

    Args:
        storage: Where they are committed.
        after_commit: Called with each unit that was committed, before its call returns.
    """

    def __init__(self, storage: Storage, after_commit: Callable[[UnitOfWork], None] = lambda _: None) -> None:
        self.storage = storage
        self._after_commit = after_commit
        self._thread = threading.local()

    # -- what this thread works on

    @property
    def _context(self) -> _Context | None:
        context: _Context | None = getattr(self._thread, "context", None)
        return context

    @property
    def current(self) -> UnitOfWork | None:
        """The unit this thread works in, if any."""
        context = self._context
        return None if context is None else context.unit

    def current_of(self, user_id: str) -> UnitOfWork | None:
        """Return the unit this thread works in, if it is this user's."""
        unit = self.current
        return unit if unit is not None and unit.user_id == user_id else None

    def user_of_call(self, call: str) -> str:
        """Return the current user, to whom a call by id applies.

        Args:
            call: The call's name, for the error.

        Raises:
            ScopeError: No user was named.
        """
        context = self._context
        if context is None:
            raise ScopeError(f"name the user: {call}(memory_id, user_id=…), or call it within for_user(user_id)")
        return context.user_id

    @contextmanager
    def for_user(self, user_id: str) -> Iterator[None]:
        """Set the user of this thread's calls by id for the block."""
        with self._within(_Context(user_id, self.current_of(user_id))):
            yield

    @contextmanager
    def _within(self, context: _Context) -> Iterator[None]:
        outer = self._context
        self._thread.context = context
        try:
            yield
        finally:
            self._thread.context = outer

    # -- units

    def start(
        self, user_id: str, token: ErasureToken | None = None, *, memory_ids: Sequence[str] | None = None
    ) -> UnitOfWork:
        """Start a unit, with at most one read.

        Args:
            user_id: Whose unit.
            token: Made when the call began; None for a call that begins now.
            memory_ids: Read these memories and the user's entities at once, for a call that corrects or removes.
        """
        if token is not None and memory_ids is None:
            return UnitOfWork(user_id, token)
        with self.storage.reading() as transaction:
            unit = UnitOfWork(user_id, transaction.token(user_id) if token is None else token)
            if memory_ids is not None:
                unit.read_memories(transaction, memory_ids)
                if any(unit.rows[RowKind.MEMORY].values()):
                    unit.read_entities(transaction)
        return unit

    @contextmanager
    def inside(self, unit: UnitOfWork) -> Iterator[UnitOfWork]:
        """Make a unit this thread's current one for the block.

        Raises:
            BackendError: A step inside failed, even if mem0 ignored the error.
        """
        with self._within(_Context(unit.user_id, unit)):
            try:
                yield unit
            except Exception:
                # The recorded failure is the cause of what mem0 raised.
                unit.check()
                raise
        unit.check()

    def commit(self, unit: UnitOfWork) -> None:
        """Store what a unit has collected, as a whole, in one transaction.

        Raises:
            BackendError: The user was erased meanwhile (retryable), or the storage failed.
            ConcurrentWrite: The messages that are new are not those that were expected.
        """
        if unit.is_empty:
            return
        with self.storage.writing() as transaction:
            commit(transaction, unit)
        self._after_commit(unit)

    def unit(
        self,
        user_id: str,
        token: ErasureToken | None = None,
        *,
        memory_ids: Sequence[str] | None = None,
        independent: bool = False,
    ) -> AbstractContextManager[UnitOfWork]:
        """Collect what the block writes and commit it when the block ends. Within a unit of the user, join that.

        Args:
            user_id: Whose rows.
            token: As in `start`.
            memory_ids: As in `start`.
            independent: Never join: a model that runs inside a unit may store another turn.

        Raises:
            BackendError: A step inside failed, or the user was erased meanwhile (retryable), or the thread works in
                a unit of another user.
            ConcurrentWrite: See `commit`.
        """
        current = self.current
        if current is None or independent:
            return self._unit(user_id, token, memory_ids)
        if current.user_id != user_id:
            raise BackendError("one call of the engine may write for one user only")
        return current.record_failure("the storage")

    @contextmanager
    def _unit(self, user_id: str, token: ErasureToken | None, memory_ids: Sequence[str] | None) -> Iterator[UnitOfWork]:
        unit = self.start(user_id, token, memory_ids=memory_ids)
        with self.inside(unit):
            yield unit
        self.commit(unit)

    # -- reading

    def recording_failure(self) -> AbstractContextManager[object]:
        """Fail the current unit, if any, if the block fails."""
        current = self.current
        return nullcontext() if current is None else current.record_failure("the storage")

    @contextmanager
    def reading(self) -> Iterator[ReadTransaction]:
        """Open a transaction for reading; if it fails, the current unit fails."""
        with self.recording_failure(), self.storage.reading() as transaction:
            yield transaction

    def read_memory(self, unit: UnitOfWork, memory_id: str) -> StoredRow | None:
        """Return a memory as the unit first read it; read it now if it has not."""
        if memory_id not in unit.rows[RowKind.MEMORY]:
            with self.reading() as transaction:
                unit.read_memories(transaction, [memory_id])
        return unit.rows[RowKind.MEMORY][memory_id]

    def read_entities(self, unit: UnitOfWork) -> None:
        """Read the entities of a unit's user, unless the unit has read them."""
        if not unit.all_entities:
            with self.reading() as transaction:
                unit.read_entities(transaction)
