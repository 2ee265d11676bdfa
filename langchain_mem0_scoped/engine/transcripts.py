"""The transcripts that a storage keeps beside memories: each session inside its user's partition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..backends.base import Rows
from ..backends.clean_errors import call_mem0
from ..requests import AddRequest, ErasureToken
from ..transcripts.appending import Appended, assumed_new
from ..transcripts.base import ConcurrentWrite, Turn
from ..transcripts.codec import StoredMessage
from . import sessions
from .storage import Storage
from .unit_of_work import SessionAppend, UnitOfWork
from .units import UnitOfWorkFactory

Remember = Callable[[str, AddRequest], Rows]
"""Stores memories of a user, in the thread's current unit of work."""


class EngineTranscripts:
    """A `transcripts.base.TranscriptStore` in the storage that holds the memories.

    Args:
        units: The storage's units of work.
        remember: Stores memories of a user.
        purge: Called after text was removed.
        has_model: Whether a language model extracts the memories. If so, a turn's messages are stored before it runs,
            so that its failure cannot lose them.
    """

    detects_erasure = True

    def __init__(
        self, units: UnitOfWorkFactory, remember: Remember, purge: Callable[[], None], *, has_model: bool
    ) -> None:
        self._units = units
        self._remember = remember
        self._purge = purge
        self._has_model = has_model

    @property
    def _storage(self) -> Storage:
        return self._units.storage

    # -- writing

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        token: ErasureToken | None = None,
        *,
        answers: Sequence[StoredMessage] = (),
    ) -> Appended:
        """Append a turn in one transaction; see `transcripts.base.TranscriptStore`."""
        append = SessionAppend(session_id, messages, answers)
        if messages or answers:
            with self._units.unit(user_id, token, independent=True) as unit:
                unit.append = append
        return append.appended

    @contextmanager
    def turn(self, user_id: str, session_id: str, token: ErasureToken | None) -> Iterator[Turn]:
        """Store a turn's messages, and what is remembered of them, in one transaction when the block ends.

        If a language model extracts the memories, the messages are stored at once, and the memories in a second
        transaction. No transaction is open while the block runs. A turn never joins the thread's current unit of work.

        Args:
            user_id: Whose turn.
            session_id: Which session.
            token: Made when the turn began; None for one that begins now.

        Yields:
            The turn. If the block raises, only its messages are stored, and the error propagates.

        Raises:
            ConcurrentWrite: Another writer has stored some of these messages meanwhile; nothing was stored.
            BackendError: The storage failed, or the user was erased since the token was made.
        """
        if token is None:
            with self._storage.reading() as transaction:
                token = transaction.token(user_id)
        if self._has_model:
            yield _AppendFirstTurn(self, self._units, self._remember, user_id, session_id, token)
            return
        turn = _SingleCommitTurn(self._units, self._remember, user_id, session_id, token)
        try:
            yield turn
        except BaseException:
            turn.commit_messages()
            raise
        turn.commit()

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove a session's messages.

        Raises:
            ErasureError: The rows are gone, but not yet their bytes.
        """
        with self._storage.writing() as transaction:
            partition = transaction.find(user_id)
            if partition is not None:
                sessions.remove_session(transaction, partition, session_id)
                transaction.owe_purge()
        self._purge()

    def erase(self, user_id: str) -> int:
        """Return 0: erasing the partition has removed its transcripts."""
        return 0

    # -- reading

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or its last `last` messages."""
        with self._storage.reading() as transaction:
            return sessions.read_session(transaction, transaction.find(user_id), session_id, last)

    def read_with_token(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[ErasureToken, list[dict[str, Any]]]:
        """As `read`, and return a token that was made in the same transaction."""
        with self._storage.reading() as transaction:
            messages = sessions.read_session(transaction, transaction.find(user_id), session_id, last)
            return transaction.token(user_id), messages

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first message."""
        with self._storage.reading() as transaction:
            return sessions.session_ids(transaction, transaction.find(user_id))

    def files(self) -> list[Path]:
        """Return the files of this machine that hold transcripts: the memories' own."""
        return self._storage.files()


class _AppendFirstTurn(Turn):
    """Appends at once, so that a failing language model cannot lose the messages; then remembers."""

    def __init__(
        self,
        transcripts: EngineTranscripts,
        units: UnitOfWorkFactory,
        remember: Remember,
        user_id: str,
        session_id: str,
        token: ErasureToken,
    ) -> None:
        self._transcripts = transcripts
        self._units = units
        self._remember = remember
        self._user_id = user_id
        self._session_id = session_id
        self._token = token

    def append(
        self,
        messages: Sequence[StoredMessage],
        answers: Sequence[StoredMessage] = (),
        *,
        read_first: bool = False,
    ) -> Appended:
        appended = self._transcripts.append(self._user_id, self._session_id, messages, self._token, answers=answers)
        self.appended = True
        return appended

    def remember(self, request: AddRequest) -> object:
        return call_mem0("add", self._remember_at_once, request)

    def _remember_at_once(self, request: AddRequest) -> Rows:
        with self._units.unit(self._user_id, self._token, independent=True):
            return self._remember(self._user_id, request)


class _SingleCommitTurn(Turn):
    """Collects what is appended and remembered in one unit of work.

    The thread works in this unit only during `remember`: the block of a turn may run another chain, whose writes are
    not part of this turn.
    """

    def __init__(
        self,
        units: UnitOfWorkFactory,
        remember: Remember,
        user_id: str,
        session_id: str,
        token: ErasureToken,
    ) -> None:
        self._units = units
        self._remember = remember
        self._user_id = user_id
        self._session_id = session_id
        self._token = token
        self._append: SessionAppend | None = None
        self._has_appended = False
        self._unit: UnitOfWork | None = None

    def append(
        self,
        messages: Sequence[StoredMessage],
        answers: Sequence[StoredMessage] = (),
        *,
        read_first: bool = False,
    ) -> Appended:
        appended = None if read_first else assumed_new(messages, answers)
        if appended is None:
            with self._units.storage.reading() as transaction:
                partition = transaction.find_unless_erased(self._user_id, self._token)
                appended = sessions.find_new_messages(transaction, partition, self._session_id, messages, answers)
        if appended.new:
            self._append = SessionAppend(self._session_id, messages, answers, expected=appended)
        self.appended = self._has_appended = True
        return appended

    def remember(self, request: AddRequest) -> object:
        return call_mem0("add", self._collect, request)

    def _collect(self, request: AddRequest) -> Rows:
        unit = self._units.start(self._user_id, self._token)
        with self._units.inside(unit):
            rows = self._remember(self._user_id, request)
        # Kept only if nothing failed: memories are stored completely or not at all.
        self._unit = unit
        return rows

    def commit(self) -> None:
        """Store everything; only the messages if the memories cannot be stored.

        Raises:
            ConcurrentWrite: The messages that are new are not those that `append` returned.
            BackendError: The user was erased meanwhile, or the storage failed.
        """
        unit = self._unit or self._units.start(self._user_id, self._token)
        unit.append = self._append
        try:
            self._commit(unit)
        except ConcurrentWrite:
            raise
        except Exception:
            if self._unit is not None:
                self.commit_messages()
            raise

    def commit_messages(self) -> None:
        """Store only the appended messages, those that are still new."""
        if self._append is not None:
            unit = self._units.start(self._user_id, self._token)
            unit.append = SessionAppend(self._session_id, self._append.messages, self._append.answers)
            self._commit(unit)

    def _commit(self, unit: UnitOfWork) -> None:
        self.appended = False
        self._units.commit(unit)
        self.appended = self._has_appended
