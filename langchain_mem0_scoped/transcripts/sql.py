"""Transcripts in any database SQLAlchemy speaks to, for clients that keep none themselves."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from ..errors import BackendError, InputError, ScopedMemoryError, ScopeError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from .base import StoredMessage

T = TypeVar("T")

TABLE: Final = "langchain_mem0_scoped_transcripts"
_PATIENCE: Final = 10.0
"""Seconds for which writers of one session, who take the same place in it, try again; an answer may be waiting."""

_OVERTAKEN: Final = frozenset({"40001", "40P01"})
"""What a database says (SQLSTATE) to a transaction it gave up in favour of another, and that may simply be repeated."""


def parse_url(where: object) -> URL | Engine:
    """Return what names a database: an Engine as it is, a URL in a form that can be compared.

    Raises:
        InputError: It is neither a URL nor an Engine.
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
    # Without the URL, which may hold a password.
    raise InputError(f"the transcripts URL cannot be read ({reason}); expected such as 'sqlite:///chats.db'")


def engine_for(place: URL | Engine) -> Engine:
    """Return an Engine; nothing is connected yet.

    Raises:
        InputError: The driver is missing or asynchronous, or the database is in memory, one for each thread.
    """
    from sqlalchemy import Engine
    from sqlalchemy.pool import SingletonThreadPool

    engine = place if isinstance(place, Engine) else _new_engine(place)
    if engine.dialect.is_async:
        raise InputError(f"transcripts need a synchronous driver, not {engine.dialect.driver}; async calls use threads")
    if isinstance(engine.pool, SingletonThreadPool):
        raise InputError("an SQLite database in memory would be another one in every thread; name a file")
    return engine


def _new_engine(url: URL) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError

    try:
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        reason = f"its driver is not installed: pip install {error.name}"
    except (ArgumentError, TypeError, ValueError) as error:
        reason = type(error).__name__
    else:
        _engines.add(engine)
        return engine
    raise InputError(f"the transcripts URL cannot be used: {reason}")


_engines: WeakSet[Engine] = WeakSet()


def _leave_to_the_parent() -> None:
    """After a fork a connection is still the parent's: the child opens its own, and does not close that one."""
    for engine in list(_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class SqlTranscripts:
    """What `transcripts.TranscriptStore` promises, in one table.

    Rows are found by hashes of the ids, which no database compares in another way than byte by byte: one whose
    collation folds case would take two users for one. The ids and the message as JSON stand beside them, to be read.

    Args:
        engine: The database. The table is made in it on first use.
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
            Column("message_key", String(64)),
            Column("user_id", String(256), nullable=False),
            Column("session_id", String(256), nullable=False),
            # Not a JSON column: some databases do not give back a number or a NUL in it as it was.
            Column("body", Text().with_variant(LONGTEXT, "mysql", "mariadb"), nullable=False),
            UniqueConstraint("user_key", "session_key", "position"),
            UniqueConstraint("user_key", "session_key", "message_key"),
        )

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        since: Sequence[Any] | None = None,
    ) -> list[int]:
        """Append messages at once, in order; return the positions of those that were new; `since` is not used."""
        from sqlalchemy.exc import IntegrityError, OperationalError

        deadline = time.monotonic() + _PATIENCE
        for attempt in count():
            try:
                return self._run(lambda connection: self._append(connection, user_id, session_id, messages), bare=True)
            except IntegrityError:
                # Somebody else has written this session's next place meanwhile.
                reason = "too many writers in this session"
            except OperationalError as error:
                reason = "the database stays locked" if _is_locked(error) else type(error).__name__
                if getattr(error.orig, "sqlstate", None) not in _OVERTAKEN and not _is_locked(error):
                    break
            if time.monotonic() > deadline:
                break
            time.sleep(0.001 * min(attempt, 10))
        raise BackendError(f"the transcript could not be written: {reason}", retryable=True)

    def append_and(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        since: Sequence[Any] | None,
        then: Callable[[list[int]], Callable[[], object] | None],
    ) -> tuple[list[int], Exception | None]:
        """Append messages, then do what follows."""
        new = self.append(user_id, session_id, messages, since)
        try:
            if (remember := then(new)) is not None:
                remember()
        except Exception as error:
            return new, error
        return new, None

    def known(self, user_id: str, session_id: str, ids: Collection[str]) -> set[str]:
        """Return which of these ids messages of a session have."""
        named = {_key(name): name for name in ids}
        keys = self._run(lambda connection: self._known(connection, _key(user_id), _key(session_id), set(named)))
        return {named[key] for key in keys}

    def _known(self, connection: Connection, user_key: str, session_key: str, keys: set[str]) -> set[str]:
        from sqlalchemy import select

        column = self._table.c
        mine = (column.user_key == user_key, column.session_key == session_key)
        return set(connection.scalars(select(column.message_key).where(*mine, column.message_key.in_(keys))))

    def _append(
        self,
        connection: Connection,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
    ) -> list[int]:
        from sqlalchemy import func, insert, select

        table = self._table
        user_key, session_key = _key(user_id), _key(session_id)
        mine = (table.c.user_key == user_key, table.c.session_key == session_key)
        keys = [None if message.id is None else _key(message.id) for message in messages]
        known = self._known(connection, user_key, session_key, {key for key in keys if key is not None})
        last = connection.scalar(select(func.max(table.c.position)).where(*mine))
        start = -1 if last is None else last
        new: list[int] = []
        rows: list[dict[str, Any]] = []
        for position, (key, message) in enumerate(zip(keys, messages, strict=True)):
            if key is not None and key in known:
                continue
            if key is not None:
                known.add(key)
            new.append(position)
            rows.append(
                {
                    "user_key": user_key,
                    "session_key": session_key,
                    "position": start + len(new),
                    "message_key": key,
                    "user_id": user_id,
                    "session_id": session_id,
                    "body": message.text,
                }
            )
        if rows:
            connection.execute(insert(table), rows)
        return new

    def begin(self, user_id: str, session_id: str, last: int | None = None) -> tuple[None, list[dict[str, Any]]]:
        """As `read`; it cannot tell where a user stands."""
        return None, self.read(user_id, session_id, last)

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or the last so many."""
        from sqlalchemy import select

        table = self._table
        query = (
            select(table.c.user_id, table.c.session_id, table.c.body)
            .where(table.c.user_key == _key(user_id), table.c.session_key == _key(session_id))
            .order_by(table.c.position.desc())
            .limit(last)
        )
        rows = self._run(lambda connection: connection.execute(query).all())
        if any((row.user_id, row.session_id) != (user_id, session_id) for row in rows):
            raise _foreign()
        return [_body(row.body) for row in rows][::-1]

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first ones."""
        from sqlalchemy import func, select

        column = self._table.c
        # By the hash as well: a database that folds case would take two sessions for one.
        told = (column.session_key, column.user_id, column.session_id)
        query = select(*told).where(column.user_key == _key(user_id)).group_by(*told).order_by(func.min(column.id))
        rows = self._run(lambda connection: connection.execute(query).all())
        if any(row.user_id != user_id or row.session_key != _key(row.session_id) for row in rows):
            raise _foreign()
        return [row.session_id for row in rows]

    def files(self) -> list[Path]:
        """Return the file of an SQLite database."""
        name = self._engine.url.database
        return [Path(name)] if name and self._engine.dialect.name == "sqlite" else []

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove one session's messages."""
        from sqlalchemy import delete

        table = self._table
        mine = delete(table).where(table.c.user_key == _key(user_id), table.c.session_key == _key(session_id))
        self._run(lambda connection: connection.execute(mine))

    def erase(self, user_id: str) -> int:
        """Remove all sessions of a user; return how many messages there were."""
        from sqlalchemy import delete

        mine = delete(self._table).where(self._table.c.user_key == _key(user_id))
        return int(self._run(lambda connection: connection.execute(mine).rowcount))

    def _run(self, act: Callable[[Connection], T], *, bare: bool = False) -> T:
        """Act in one transaction; errors other than those the caller asked to see become one clean error."""
        from sqlalchemy.exc import IntegrityError, OperationalError

        try:
            self._make_table()
            with self._engine.begin() as connection:
                return act(connection)
        except ScopedMemoryError:
            raise
        except (IntegrityError, OperationalError) as error:
            if bare:
                raise
            reason = type(error).__name__
        except Exception as error:
            # A driver's own too: its text may hold the URL, or what somebody said.
            reason = type(error).__name__
        raise BackendError(f"the transcripts' database failed: {reason}", retryable=reason == "OperationalError")

    def _make_table(self) -> None:
        if self._ready:
            return
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._table.create(self._engine, checkfirst=True)
        except SQLAlchemyError:
            # Another thread or process may just have made it.
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
    # Nothing stays chained to it: what it came from holds the row.
    raise BackendError("a row of the transcripts is no message; other code wrote it: mend it, or clear the session")


def _foreign() -> ScopeError:
    return ScopeError("the transcripts' database answered with a row outside this user's scope")


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _is_locked(error: Exception) -> bool:
    return "database is locked" in str(getattr(error, "orig", ""))
