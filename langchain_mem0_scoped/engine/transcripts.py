"""The transcripts of conversations in the embedded file, each session inside its user's partition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ..sqlite import partitions
from ..sqlite.partitions import ErasureToken, RowKind
from . import sessions
from .unit_of_work import Said, UnitOfWork, UnitOfWorkFactory


class EngineTranscripts:
    """What `transcripts.TranscriptStore` promises, on the file that holds the memories.

    Args:
        work: The file's units of work.
        at_once: Whether a turn is remembered in the transaction that logs it: what a model is to extract from it must
            not keep it from being logged.
    """

    detects_erasure = True

    def __init__(self, work: UnitOfWorkFactory, *, at_once: bool) -> None:
        self._work = work
        self._database = work.database
        self._at_once = at_once

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[sessions.Message],
        since: Sequence[Any] | None = None,
    ) -> list[int]:
        """Append messages in one transaction; return the positions of those that were not there yet."""
        said = Said(session_id, messages)
        with self._unit(user_id, since) as unit:
            unit.said = said
        return said.new

    def append_and(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[sessions.Message],
        since: Sequence[Any] | None,
        then: Callable[[list[int]], Callable[[], object] | None],
    ) -> tuple[list[int], Exception | None]:
        """As `append`, with what `then` adds; return what kept that from being stored as well."""
        new = None if self._at_once else self.append(user_id, session_id, messages, since)
        try:
            if new is None:
                return self._append_with(user_id, session_id, messages, since, then), None
            if (remember := then(new)) is not None:
                remember()
        except Exception as error:
            failure = error
        else:
            return new, None
        # What was said is kept whatever becomes of what is known.
        return self.append(user_id, session_id, messages, since) if new is None else new, failure

    def _append_with(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[sessions.Message],
        since: Sequence[Any] | None,
        then: Callable[[list[int]], Callable[[], object] | None],
    ) -> list[int]:
        while True:
            new = self._new(user_id, session_id, messages)
            # Asked outside the unit: what is to be remembered may be decided by a chain that remembers, too.
            remember = then(new)
            with suppress(sessions.ConcurrentWrite):
                with self._unit(user_id, since) as unit:
                    unit.said = Said(session_id, messages, expected=new)
                    if remember is not None:
                        remember()
                return new

    def _unit(self, user_id: str, since: Sequence[Any] | None) -> AbstractContextManager[UnitOfWork]:
        return self._work.unit(user_id, None if since is None else ErasureToken(*since), apart=True)

    def _new(self, user_id: str, session_id: str, messages: Sequence[sessions.Message]) -> list[int]:
        """The positions of those that are not there yet; another writer may be about to log them too."""
        if all(message_id is None for message_id, _, _ in messages):
            return list(range(len(messages)))
        with self._database.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            return sessions.new_in(connection, partition, session_id, messages)

    def known(self, user_id: str, session_id: str, ids: Collection[str]) -> set[str]:
        """Return which of these ids messages of a session have."""
        with self._database.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            return sessions.known(connection, partition, session_id, ids)

    def begin(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[ErasureToken, list[dict[str, Any]]]:
        """Note where a user stands, and read a session in the same transaction."""
        with self._database.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            return partitions.beginning_at(connection, partition), sessions.read(
                connection, partition, session_id, last
            )

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or the last so many."""
        return self.begin(user_id, session_id, last)[1]

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first ones."""
        with self._database.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            if partition is None:
                return []
            rows = partitions.parents(connection, partition.pid, RowKind.SESSION, RowKind.TRANSCRIPT)
            return [str(body["session_id"]) for body in rows]

    def files(self) -> list[Path]:
        """Return the file that holds the memories as well."""
        return [self._database.path]

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove a session's messages, their bytes included.

        Raises:
            ErasureError: The rows are gone, but a reader keeps the log in use in which their bytes still stand.
        """
        with self._database.writing() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            session = None if partition is None else sessions.find(connection, partition, session_id)
            if partition is not None and session is not None:
                rows = partitions.rows_of(connection, partition.pid, RowKind.TRANSCRIPT, session)
                partitions.remove(connection, partition, RowKind.TRANSCRIPT, session, [row[0] for row in rows])
                partitions.remove(connection, partition, RowKind.SESSION, 0, [session])
        self._database.truncate()

    def erase(self, user_id: str) -> int:
        """Nothing is left to do: erasing the partition has taken the transcripts with it."""
        return 0
