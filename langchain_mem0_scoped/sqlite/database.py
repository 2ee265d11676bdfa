"""Connections to the file and transactions on them, across threads and forks; emptying the write-ahead log."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from ..errors import BackendError, ErasureError
from ..fork import INIT_LOCK, ForkHooks, register_fork_hooks
from .database_file import (
    check_header,
    check_schema_version,
    create_file,
    create_tables,
    file_error,
    remove_empty_log,
    switch_to_wal,
)

_OLDEST_SQLITE: Final = (3, 35)  # RETURNING
_CACHE_KIB: Final = 8_000  # of each connection; SQLite's own 2 MB hold few users' pages
_BUSY_SECONDS = 30.0
_TRUNCATE_SECONDS = 5.0
_FORK_SECONDS = _BUSY_SECONDS + 5.0  # a writer may wait so long for another process
_MAX_IDLE: Final = 16


class Database:
    """One SQLite file, safe to use from threads, from processes, and after a fork.

    Args:
        path: The file; created, readable by its owner only, where it does not exist.
        fingerprint: Which embedding its vectors come from; recorded in a new file, compared in an old one.

    Raises:
        BackendError: It cannot be opened, is no database, is another program's, has another schema, or was built with
            another embedding. The file is left as it was.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        # The working directory may change later.
        self.path = path.absolute()
        self._pool = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._in_use = 0
        self._paused = False
        self._closed = False
        self._needs_truncation = False
        self._pragmas: tuple[str, ...] = ()
        self._writer = threading.Lock()
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise BackendError(f"the embedded store needs SQLite 3.35, this Python has {sqlite3.sqlite_version}")
        try:
            with INIT_LOCK:
                self._prepare()
                with remove_empty_log(self.path):
                    self._open(fingerprint)
                _open_databases.add(self)
        except (OSError, sqlite3.Error) as error:
            failure = file_error(error, self.path)
        else:
            return
        raise failure

    def _prepare(self) -> None:
        """Create the file, or check its header.

        The header is not read if this process has the file open already: closing any descriptor of a file drops every
        lock the process holds on it (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        create_file(self.path)
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        if all(other._closed or other._identity != self._identity for other in _open_databases):
            check_header(self.path)

    def _open(self, fingerprint: str) -> None:
        connection = self._connect()
        try:
            create_tables(connection, fingerprint)
            switch_to_wal(connection, _BUSY_SECONDS)
            # A newer process that has the file open may have written this to its log alone.
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            check_schema_version(self.path, version)
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            self.salt: bytes = meta["salt"]
            recorded = meta["embedding"].decode()
            if recorded != fingerprint:
                raise BackendError(
                    f"the memory file was built with the embedding {recorded!r}, not {fingerprint!r}; "
                    "their vectors cannot be compared: use the same one, or another path"
                )
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            # Sorters and statement journals in memory: a temporary file would hold text that nothing overwrites.
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            # SQLite's own builds have it off by default.
            if connection.execute("PRAGMA secure_delete=ON").fetchone() != (1,):
                raise BackendError(
                    "this build of SQLite cannot overwrite deleted data (PRAGMA secure_delete has no effect)"
                )
            for pragma in self._pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    # -- connections

    def set_pragmas(self, *pragmas: str) -> None:
        """Have every connection begin with these PRAGMAs as well: for benchmarks and tests, which need no fsync."""
        with self._pool:
            self._pragmas = pragmas
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._borrow()
        try:
            yield connection
        finally:
            self._return(connection)

    def _borrow(self) -> sqlite3.Connection:
        with self._pool:
            while self._paused:
                self._pool.wait()
            if self._closed:
                raise BackendError("the embedded store is closed; build a new client with local_memory(path)")
            self._in_use += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect()
        except BaseException:
            self._return(None)
            raise

    def _return(self, connection: sqlite3.Connection | None) -> None:
        with self._pool:
            self._in_use -= 1
            keep = connection is not None and not self._closed and len(self._idle) < _MAX_IDLE
            # One whose rollback failed is still in its transaction.
            if connection is not None and (keep := keep and not connection.in_transaction):
                self._idle.append(connection)
            self._pool.notify_all()
        if connection is not None and not keep:
            connection.close()

    def _check_same_file(self) -> None:
        """Check the path: a connection goes on writing to a file that was deleted or replaced, where it is lost."""
        try:
            found = os.stat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise BackendError("the memory file was deleted or replaced; build a new client with local_memory(path)")

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they are returned."""
        with self._pool:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- forks. SQLite forbids using a connection after a fork, even closing it: so none is open when it happens.

    def pause(self) -> None:
        """Before a fork: wait until no connection is in use, and close all."""
        self._pool.acquire()
        self._paused = True
        self._pool.wait_for(lambda: self._in_use == 0, timeout=_FORK_SECONDS)
        while self._idle:
            self._idle.pop().close()

    def resume(self) -> None:
        """After a fork, in the parent."""
        self._paused = False
        self._pool.notify_all()
        self._pool.release()

    def resume_in_child(self) -> None:
        """After a fork, in the child."""
        # A connection still in use belongs to a thread that does not exist in the child. It is not used again.
        self._in_use = 0
        self._writer = threading.Lock()
        self.resume()

    # -- transactions

    def query(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """Run one SELECT, which is a transaction by itself, and return its rows.

        Raises:
            BackendError: The file cannot be read.
        """
        # No context manager: every search comes through here, and two of them would add a fifth to its time.
        try:
            connection = self._borrow()
            try:
                return connection.execute(sql, parameters).fetchall()
            finally:
                self._return(connection)
        except sqlite3.Error as error:
            raise file_error(error, self.path) from None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that sees one state of the file.

        Raises:
            BackendError: The file cannot be read.
        """
        try:
            with self._connection() as connection:
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise file_error(error, self.path) from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that is durable when the block ends; nothing of it is kept when the block raises.

        Raises:
            BackendError: The file cannot be written, or stays locked for 30 s.
        """
        try:
            # Writers of one process wait here: SQLite waits by sleeping, and one may wait far longer than others.
            with self._writer, self._connection() as connection:
                self._check_same_file()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise file_error(error, self.path) from None
        if self._needs_truncation:
            # The write is committed, even if this fails.
            with suppress(BackendError):
                self._try_truncate()

    def truncate(self) -> None:
        """Move everything from the write-ahead log into the file and empty the log, which still holds deleted text.

        Raises:
            ErasureError: A reader of this or another process kept the log in use for 5 s. The next write tries again.
        """
        self._needs_truncation = True
        deadline = time.monotonic() + _TRUNCATE_SECONDS
        while not self._try_truncate():
            if time.monotonic() > deadline:
                raise ErasureError(
                    "deleted, but its bytes are still in the write-ahead log: another connection is reading the file; "
                    "the next write after that removes them, and so does delete_all",
                    kinds=("bytes",),
                )

    def _try_truncate(self) -> bool:
        try:
            # Other writers get their turn between attempts.
            with self._writer, self._connection() as connection:
                connection.execute("PRAGMA busy_timeout=100")
                try:
                    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
        except sqlite3.Error as error:
            raise file_error(error, self.path) from None
        self._needs_truncation = bool(busy)
        return not busy


_open_databases: WeakSet[Database] = WeakSet()
_pausing: list[Database] = []


def _before_fork() -> None:
    _pausing[:] = list(_open_databases)  # No file is opened meanwhile, and no second thread forks.
    for database in _pausing:
        database.pause()


def _after_fork_in_parent() -> None:
    while _pausing:
        _pausing.pop().resume()


def _after_fork_in_child() -> None:
    while _pausing:
        _pausing.pop().resume_in_child()


register_fork_hooks(ForkHooks(_before_fork, _after_fork_in_parent, _after_fork_in_child))
