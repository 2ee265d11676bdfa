"""Connections to the file and transactions on them, across threads and forks; emptying the write-ahead log."""

from __future__ import annotations

import atexit
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
from . import file_state
from .database_file import (
    check_header,
    check_schema_version,
    create_file,
    create_tables,
    file_error,
    remove_empty_log,
    switch_to_wal,
)
from .file_guard import (
    FileGuard,
    FileUnusable,
    GuardedConnection,
    identity,
    refuse_foreign_log,
    refuse_hard_links,
)

_OLDEST_SQLITE: Final = (3, 35)  # Nothing older is tested.
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
        BackendError: It cannot be opened, is no database, is another program's, has another schema, was built with
            another embedding, has a second name, or lies beside the log of another copy. The file is left as it was.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        # The working directory may change later. And a symbolic link may be changed to another file.
        self.path = Path(os.path.realpath(path))
        self._pool = threading.Condition()
        self._idle: list[GuardedConnection] = []
        self._in_use = 0
        self._paused = False
        self._closed = False
        self._needs_truncation = False
        self._done_truncation = file_state.NOTHING
        self._failure: str | None = None
        self._keeper: sqlite3.Connection | None = None
        self._pragmas: tuple[str, ...] = ()
        self._guard: FileGuard
        self._writer = threading.Lock()
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise BackendError(f"the embedded store needs SQLite 3.35, this Python has {sqlite3.sqlite_version}")
        try:
            with INIT_LOCK:
                self._prepare()
                with remove_empty_log(self.path):
                    self._open(fingerprint)
                _open_databases.add(self)
            if self._needs_truncation:
                with suppress(BackendError):
                    self._try_truncate()
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
        refuse_hard_links(self.path, self.path.stat().st_nlink)
        found = identity(self.path)
        if all(not other._has_open or other._guard.file_identity != found for other in _open_databases):
            check_header(self.path)
            refuse_foreign_log(self.path)

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
            # A process that removed text was killed before it emptied the log.
            if file_state.owed_truncation(connection) != file_state.NOTHING:
                self._needs_truncation = True
            # Some file systems give a file its inode when it is first opened for writing: so not before.
            self._guard = FileGuard(self.path)
            self._guard.begin(connection)
            self._guard.check_at_opening(connection)
            _begin_chain(connection)
        except FileUnusable as error:
            keeper = self._open_keeper()
            failure = str(error)
        else:
            return
        finally:
            connection.close()
        if keeper is not None:
            keeper.close()
        raise BackendError(failure)

    def _connect(self) -> GuardedConnection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=GuardedConnection,
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

    @property
    def _has_open(self) -> bool:
        """Whether connections may be open: also after `close`, as long as some are in use."""
        return not self._closed or self._in_use > 0

    def set_pragmas(self, *pragmas: str) -> None:
        """Have every connection begin with these PRAGMAs as well: for benchmarks and tests, which need no fsync."""
        with self._pool:
            self._pragmas = pragmas
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[GuardedConnection]:
        connection = self._borrow()
        try:
            yield connection
        finally:
            self._return(connection)

    def _borrow(self) -> GuardedConnection:
        with self._pool:
            while self._paused:
                self._pool.wait()
            if self._closed:
                raise BackendError("the embedded store is closed; build a new client with local_memory(path)")
            if self._failure is not None:
                raise BackendError(self._failure)
            if not self._in_use and not self._idle:
                self._guard.forget_log()
            self._in_use += 1
            if self._idle:
                return self._idle.pop()
        connection: GuardedConnection | None = None
        try:
            connection = self._connect()
            self._guard.begin(connection)
        except BaseException:
            if connection is not None:
                connection.close()
            self._return(None)
            raise
        return connection

    def _return(self, connection: GuardedConnection | None) -> None:
        with self._pool:
            self._in_use -= 1
            keep = connection is not None and not self._closed and self._failure is None and len(self._idle) < _MAX_IDLE
            # One whose rollback failed is still in its transaction.
            if connection is not None and (keep := keep and not connection.in_transaction):
                self._idle.append(connection)
            self._pool.notify_all()
        if connection is not None and not keep:
            connection.close()

    def _check_file(self, connection: GuardedConnection, *, writes: bool = False) -> None:
        """Return if the file is still the one that was opened.

        Raises:
            BackendError: It was deleted, replaced, overwritten or linked: nothing more is read or written.
        """
        try:
            self._guard.check(connection)
            if writes:
                self._guard.check_log()
        except FileUnusable as error:
            failure = str(error)
        else:
            return
        self._abandon(failure)
        raise BackendError(failure)

    def _abandon(self, failure: str) -> None:
        """Use no connection any more, and leave the file and its log as they are."""
        with self._pool:
            self._failure = failure
            idle, self._idle = self._idle, []
            self._keeper = self._keeper or self._open_keeper()
        for connection in idle:
            connection.close()

    def _open_keeper(self) -> sqlite3.Connection | None:
        """Open a connection that keeps the others, when they are closed, from writing the log into the file.

        The last one does that, unless it may only read.
        """
        keeper = None
        try:
            keeper = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
            keeper.execute("SELECT 1 FROM state").fetchone()
        except (OSError, sqlite3.Error):
            if keeper is not None:
                keeper.close()
            return None
        return keeper

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they are returned."""
        with self._pool:
            self._closed = True
            idle, self._idle = self._idle, []
        if idle:
            # The last one to be closed writes the log into the file; not if that is another one now.
            with suppress(BackendError, sqlite3.Error):
                self._check_file(idle[0])
        with self._pool:
            keeper, self._keeper = self._keeper, None
        for connection in idle:
            connection.close()
        if keeper is not None:
            keeper.close()

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
                self._check_file(connection)
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
                self._check_file(connection)
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
                connection.execute("BEGIN IMMEDIATE")
                try:
                    self._check_file(connection, writes=True)
                    owed = self._read_owed(connection)
                    changes = connection.total_changes
                    yield connection
                    if connection.total_changes != changes:
                        self._finish(connection, owed)
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

    def _read_owed(self, connection: sqlite3.Connection) -> bytes:
        """Return which truncation earlier transactions owe; have it made up for if this process has not."""
        owed = file_state.owed_truncation(connection)
        if owed not in (file_state.NOTHING, self._done_truncation):
            self._needs_truncation = True
        return owed

    def _finish(self, connection: GuardedConnection, owed: bytes) -> None:
        """Mark a transaction before it is committed, and record that what was owed before is done."""
        if owed != file_state.NOTHING and owed == self._done_truncation == file_state.owed_truncation(connection):
            file_state.forget_truncation(connection)
        connection.stamps = (file_state.current_stamp(connection), file_state.advance(connection))

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
                self._check_file(connection)
                owed = file_state.owed_truncation(connection)
                connection.execute("PRAGMA busy_timeout=100")
                try:
                    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
        except sqlite3.Error as error:
            raise file_error(error, self.path) from None
        self._needs_truncation = bool(busy)
        if not busy:
            self._done_truncation = owed
        return not busy


def _begin_chain(connection: sqlite3.Connection) -> None:
    """Let no earlier copy of the file pass for it; unless another process has it open, which has done so."""
    is_copy = file_state.is_copy(connection)
    if not is_copy:
        connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("BEGIN IMMEDIATE")
        file_state.begin_chain(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        # A disk that is full need not keep anybody from reading.
        if is_copy:
            raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


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


def _close_all() -> None:
    for database in list(_open_databases):
        database.close()


atexit.register(_close_all)
register_fork_hooks(ForkHooks(_before_fork, _after_fork_in_parent, _after_fork_in_child))
