"""SqlTranscripts: transcripts in any database that SQLAlchemy supports, for clients that keep none themselves."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from ..errors import BackendError, InputError, ScopedMemoryError, ScopeError
from ..fork import ForkHooks, register_fork_hooks
from .appending import Appended, find_new
from .sqlite_file import create_privately, file_of, refuse_memory_file

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.exc import OperationalError

    from ..requests import ErasureToken
    from .codec import StoredMessage

T = TypeVar("T")

TABLE: Final = "langchain_mem0_scoped_transcripts"

_RETRY_SECONDS: Final = 10.0
"""How long `append` tries again where other writers of the session win; an answer to the user may be waiting for it."""

_TRANSACTION_ABORTED: Final = frozenset({"40001", "40P01"})
"""SQLSTATE of a transaction that the database gave up in favour of another: serialization failure, deadlock."""

_engines: Final[WeakSet[Engine]] = WeakSet()
"""Engines that were created here. An Engine of the caller is the caller's to handle around a fork."""


def parse_url(where: object) -> URL | Engine:
    """Return an Engine as it is, and a URL parsed, so that two names of a database can be compared.

    Args:
        where: A SQLAlchemy URL, as a str or an object, or an Engine.

    Raises:
        InputError: It is neither, or the URL cannot be parsed.
    """
    from sqlalchemy import URL, Engine, make_url
    from sqlalchemy.exc import ArgumentError

    if isinstance(where, (Engine, URL)):
        return where
    if not isinstance(where, str):
        raise InputError(f"transcripts must be a SQLAlchemy URL or Engine, got {type(where).__name__}")
    try:
        return make_url(where)
    except (ArgumentError, ValueError) as error:
        reason = type(error).__name__
    # The URL is not quoted: it may hold a password.
    raise InputError(f"the transcripts URL cannot be parsed ({reason}); expected one such as 'sqlite:///chats.db'")


def engine_for(database: URL | Engine) -> Engine:
    """Return an Engine for a database, whose log and errors show no parameters. It does not connect yet.

    An Engine of the caller is not changed: what is returned shares its connections.

    Args:
        database: As `parse_url` returns it.

    Raises:
        InputError: The driver is missing or asynchronous, or every thread would get an in-memory database of its own.
    """
    from sqlalchemy import Engine
    from sqlalchemy.pool import SingletonThreadPool

    engine = database if isinstance(database, Engine) else _new_engine(database)
    if engine.dialect.is_async:
        raise InputError(f"transcripts need a synchronous driver, not {engine.dialect.driver}; async calls use threads")
    if isinstance(engine.pool, SingletonThreadPool):
        raise InputError("every thread would get its own SQLite database in memory; name a file")
    if isinstance(database, Engine):
        engine = engine.execution_options()
    file_of(engine)  # Named relative to the working directory of now, as its connections are.
    engine.hide_parameters = True
    engine.logger = _NoRows(engine.logger)  # type: ignore[assignment,arg-type]
    return engine


class _NoRows(logging.LoggerAdapter[logging.Logger]):
    """SQLAlchemy's logger, without the rows that are read: it logs them at the level DEBUG."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and self.logger.isEnabledFor(level)


def _new_engine(url: URL) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError

    try:
        engine = create_engine(url, hide_parameters=True)
    except ModuleNotFoundError as error:
        reason = f"its driver is not installed: pip install {error.name}"
    except (ArgumentError, TypeError, ValueError) as error:
        reason = type(error).__name__
    else:
        _engines.add(engine)
        return engine
    raise InputError(f"the transcripts URL cannot be used: {reason}")


def _drop_connections() -> None:
    """Drop inherited connections without closing them: they are the parent's. The child opens its own."""
    for engine in list(_engines):
        engine.dispose(close=False)


def _do_nothing() -> None:
    pass


register_fork_hooks(ForkHooks(before=_do_nothing, after_in_parent=_do_nothing, after_in_child=_drop_connections))


class SqlTranscripts:
    """A `TranscriptStore` in one table of a SQL database.

    Rows are looked up by hashes of the ids. Every database compares these byte by byte, while a collation that ignores
    case would mix up two users. The ids themselves and the message as JSON are stored beside the hashes, for people to
    read.

    Args:
        engine: The database. The table is created on first use.
    """

    detects_erasure = False

    def __init__(self, engine: Engine) -> None:
        from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, UniqueConstraint
        from sqlalchemy.dialects.mysql import LONGTEXT

        self._engine = engine
        self._ready = False
        self._table = Table(
            TABLE,
            MetaData(),
            Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
            Column("user_key", String(64), nullable=False),
            Column("session_key", String(64), nullable=False),
            Column("position", BigInteger, nullable=False),
            Column("user_id", String(256), nullable=False),
            Column("session_id", String(256), nullable=False),
            # Not a JSON column: some databases do not give back a number or a NUL in it as it was.
            Column("body", Text().with_variant(LONGTEXT, "mysql", "mariadb"), nullable=False),
            UniqueConstraint("user_key", "session_key", "position"),
        )

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        token: ErasureToken | None = None,
        *,
        answers: Sequence[StoredMessage] = (),
    ) -> Appended:
        """Append a turn in one transaction; see `transcripts.base.TranscriptStore`. The token is not used."""
        from sqlalchemy.exc import IntegrityError, OperationalError

        deadline = time.monotonic() + _RETRY_SECONDS
        for attempt in count():
            try:
                return self._run(
                    lambda connection: self._append(connection, user_id, session_id, messages, answers), bare=True
                )
            except IntegrityError:
                # Another writer has taken the session's next position.
                reason = "too many writers in this session"
            except OperationalError as error:
                reason = "the database stays locked" if _is_locked(error) else type(error).__name__
                if not (_is_locked(error) or _is_aborted(error)):
                    break
            if time.monotonic() > deadline:
                break
            time.sleep(0.001 * min(attempt, 10))
        raise BackendError(f"the transcript could not be written: {reason}", retryable=True)

    def _append(
        self,
        connection: Connection,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        answers: Sequence[StoredMessage],
    ) -> Appended:
        from sqlalchemy import func, insert, select

        table = self._table
        user_key, session_key = _hash(user_id), _hash(session_id)
        in_session = (table.c.user_key == user_key, table.c.session_key == session_key)
        # The position is read first: what is appended meanwhile takes it, and this transaction is run again.
        last = connection.scalar(select(func.max(table.c.position)).where(*in_session))
        start = 0 if last is None else last + 1
        appended = find_new(
            lambda number: self._read(connection, user_id, session_id, number) if start else [], messages, answers
        )
        turn = [*messages, *answers]
        rows = [
            {
                "user_key": user_key,
                "session_key": session_key,
                "position": start + offset,
                "user_id": user_id,
                "session_id": session_id,
                "body": turn[position].text,
            }
            for offset, position in enumerate(appended.new)
        ]
        if rows:
            connection.execute(insert(table), rows)
        return appended

    def read_with_token(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[None, list[dict[str, Any]]]:
        """As `read`; there is no token, for this store does not detect erasure."""
        return None, self.read(user_id, session_id, last)

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or its last `last` messages."""
        return self._run(lambda connection: self._read(connection, user_id, session_id, last))

    def _read(self, connection: Connection, user_id: str, session_id: str, last: int | None) -> list[dict[str, Any]]:
        from sqlalchemy import select

        table = self._table
        query = (
            select(table.c.user_id, table.c.session_id, table.c.body)
            .where(table.c.user_key == _hash(user_id), table.c.session_key == _hash(session_id))
            .order_by(table.c.position.desc())
            .limit(last)
        )
        rows = connection.execute(query).all()
        if any((row.user_id, row.session_id) != (user_id, session_id) for row in rows):
            raise _foreign()
        return [_body(row.body) for row in rows][::-1]

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first message."""
        from sqlalchemy import func, select

        column = self._table.c
        # Grouped by the hash as well: a collation that ignores case would mix up two sessions.
        columns = (column.session_key, column.user_id, column.session_id)
        query = (
            select(*columns).where(column.user_key == _hash(user_id)).group_by(*columns).order_by(func.min(column.id))
        )
        rows = self._run(lambda connection: connection.execute(query).all())
        if any(row.user_id != user_id or row.session_key != _hash(row.session_id) for row in rows):
            raise _foreign()
        return [row.session_id for row in rows]

    def files(self) -> list[Path]:
        """Return the file of an SQLite database; of another database none."""
        file = file_of(self._engine)
        return [] if file is None else [file]

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove one session's messages."""
        from sqlalchemy import delete

        column = self._table.c
        statement = delete(self._table).where(
            column.user_key == _hash(user_id), column.session_key == _hash(session_id)
        )
        self._run(lambda connection: connection.execute(statement))

    def erase(self, user_id: str) -> int:
        """Remove all sessions of a user; return how many messages there were."""
        from sqlalchemy import delete

        statement = delete(self._table).where(self._table.c.user_key == _hash(user_id))
        return int(self._run(lambda connection: connection.execute(statement).rowcount))

    def _run(self, work: Callable[[Connection], T], *, bare: bool = False) -> T:
        """Run in one transaction. Every failure becomes a BackendError.

        Args:
            work: What to run.
            bare: Raise IntegrityError and OperationalError as they are.
        """
        from sqlalchemy.exc import IntegrityError, OperationalError

        try:
            self._create_table()
            with self._engine.begin() as connection:
                return work(connection)
        except ScopedMemoryError:
            raise
        except (IntegrityError, OperationalError) as error:
            if bare:
                raise
            reason = type(error).__name__
        except Exception as error:
            # Its text is not quoted: a driver's may hold the URL or a message.
            reason = type(error).__name__
        raise BackendError(f"the transcripts database failed: {reason}", retryable=reason == "OperationalError")

    def _create_table(self) -> None:
        if self._ready:
            return
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        create_privately(self._engine)
        refuse_memory_file(self._engine)
        try:
            self._table.create(self._engine, checkfirst=True)
        except SQLAlchemyError:
            # Another thread or process may have created it meanwhile.
            if not inspect(self._engine).has_table(TABLE):
                raise
        self._ready = True


def _body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        return body
    # Raised outside the except block: the cause holds the row.
    raise BackendError(
        "a row of the transcripts table is not a message, so other code wrote it; repair it, or clear the session"
    )


def _foreign() -> ScopeError:
    return ScopeError("the transcripts database returned a row outside this user's scope")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _is_locked(error: OperationalError) -> bool:
    """Return whether another connection holds SQLite's lock."""
    return "database is locked" in str(error.orig)


def _is_aborted(error: OperationalError) -> bool:
    """Return whether PostgreSQL gave up this transaction in favour of another, so that it can be repeated."""
    return getattr(error.orig, "sqlstate", None) in _TRANSACTION_ABORTED
