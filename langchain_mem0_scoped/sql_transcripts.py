"""Transcripts in any database SQLAlchemy speaks to, for clients that keep none themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .errors import BackendError, InputError, ScopeError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

TABLE: Final = "langchain_mem0_scoped_transcripts"
_TRIES: Final = 50
"""How often writers of one session, who take the same place in it, try again."""


def engine_for(where: str | Engine) -> Engine:
    """Return an Engine for a URL; nothing is connected yet.

    Raises:
        InputError: It is neither a URL nor an Engine, or its driver is missing.
    """
    from sqlalchemy import Engine, create_engine
    from sqlalchemy.exc import ArgumentError

    if isinstance(where, Engine):
        return where
    if not isinstance(where, str):
        raise InputError(f"transcripts must be a SQLAlchemy URL or Engine, got {type(where).__name__}")
    try:
        return create_engine(where)
    except ModuleNotFoundError as error:
        reason = f"its driver is not installed: pip install {error.name}"
    except (ArgumentError, ValueError) as error:
        reason = f"it cannot be read ({type(error).__name__}); expected such as 'sqlite:///chats.db'"
    # Without the URL, which may hold a password.
    raise InputError(f"the transcripts URL cannot be used: {reason}")


class SqlTranscripts:
    """What `transcripts.TranscriptStore` promises, in one table.

    Args:
        engine: The database. The table is made in it on first use.
    """

    def __init__(self, engine: Engine) -> None:
        from sqlalchemy import JSON, BigInteger, Column, Integer, MetaData, String, Table, UniqueConstraint

        self._engine = engine
        self._ready = False
        self._lock = threading.Lock()
        self._table = Table(
            TABLE,
            MetaData(),
            Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
            Column("user_id", String(256), nullable=False),
            Column("session_id", String(256), nullable=False),
            Column("position", BigInteger, nullable=False),
            Column("message_id", String(512)),
            Column("body", JSON, nullable=False),
            UniqueConstraint("user_id", "session_id", "position"),
            UniqueConstraint("user_id", "session_id", "message_id"),
        )

    def append(self, user_id: str, session_id: str, messages: Sequence[tuple[str | None, dict[str, Any]]]) -> list[int]:
        """Append messages at once, in order; return the positions of those that were new."""
        from sqlalchemy.exc import IntegrityError, OperationalError

        for _ in range(_TRIES):
            try:
                return self._run(lambda connection: self._append(connection, user_id, session_id, messages), bare=True)
            except IntegrityError:
                # Somebody else has written this session's next place meanwhile.
                continue
            except OperationalError as error:
                if "database is locked" not in str(error.orig):
                    reason = type(error).__name__
                    break
        else:
            reason = "too many writers in this session"
        raise BackendError(f"the transcript could not be written: {reason}", retryable=True)

    def _append(
        self,
        connection: Connection,
        user_id: str,
        session_id: str,
        messages: Sequence[tuple[str | None, dict[str, Any]]],
    ) -> list[int]:
        from sqlalchemy import func, insert, select

        table = self._table
        mine = (table.c.user_id == user_id, table.c.session_id == session_id)
        given = {message_id for message_id, _ in messages if message_id is not None}
        known = set(connection.scalars(select(table.c.message_id).where(*mine, table.c.message_id.in_(given))))
        last = connection.scalar(select(func.max(table.c.position)).where(*mine))
        start = -1 if last is None else last
        new: list[int] = []
        rows: list[dict[str, Any]] = []
        for position, (message_id, body) in enumerate(messages):
            if message_id is not None and message_id in known:
                continue
            known.add(message_id)
            new.append(position)
            place = start + len(new)
            rows.append(
                {
                    "user_id": user_id,
                    "session_id": session_id,
                    "position": place,
                    "message_id": message_id,
                    "body": body,
                }
            )
        if rows:
            connection.execute(insert(table), rows)
        return new

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or the last so many."""
        from sqlalchemy import select

        table = self._table
        query = (
            select(table.c.user_id, table.c.session_id, table.c.body)
            .where(table.c.user_id == user_id, table.c.session_id == session_id)
            .order_by(table.c.position.desc())
            .limit(last)
        )
        rows = self._run(lambda connection: connection.execute(query).all())
        # A database whose collation folds case or spaces finds other users' rows equal.
        if any((row.user_id, row.session_id) != (user_id, session_id) for row in rows):
            raise ScopeError("the transcripts' database answered with a row outside this user's scope")
        return [row.body for row in rows][::-1]

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove one session's messages."""
        from sqlalchemy import delete

        table = self._table
        mine = delete(table).where(table.c.user_id == user_id, table.c.session_id == session_id)
        self._run(lambda connection: connection.execute(mine))

    def erase(self, user_id: str) -> int:
        """Remove all sessions of a user; return how many messages there were."""
        from sqlalchemy import delete

        mine = delete(self._table).where(self._table.c.user_id == user_id)
        return int(self._run(lambda connection: connection.execute(mine).rowcount))

    def _run(self, act: Callable[[Connection], T], *, bare: bool = False) -> T:
        """Act in one transaction; errors other than those the caller asked to see become one clean error."""
        from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

        try:
            self._make_table()
            with self._engine.begin() as connection:
                return act(connection)
        except (IntegrityError, OperationalError) as error:
            if bare:
                raise
            reason = type(error).__name__
        except SQLAlchemyError as error:
            reason = type(error).__name__
        raise BackendError(f"the transcripts' database failed: {reason}", retryable=reason == "OperationalError")

    def _make_table(self) -> None:
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                self._table.create(self._engine, checkfirst=True)
                self._ready = True
