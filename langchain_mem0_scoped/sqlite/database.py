"""The file itself: opening and checking it, connections across threads and forks, transactions, its last bytes."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from ..errors import BackendError, ErasureError
from ..fork import INIT_LOCK, ForkHooks, register_fork_hooks

APPLICATION_ID: Final = 0x6D30_7363
"""Bytes 68 to 71 of the file ("m0sc"), by which ours is told from other programs' databases."""

SCHEMA_VERSION: Final = 1

_OLDEST_SQLITE = (3, 35)  # RETURNING
_PAGE_SIZE = 8192
_CACHE_KIB = 8_000  # of each connection; SQLite's own 2 MB hold few users' pages
_BUSY_SECONDS = 30.0
_TRUNCATE_SECONDS = 5.0
_FORK_SECONDS = _BUSY_SECONDS + 5.0  # a writer may wait so long for another process
_MAX_IDLE = 16

# What people wrote lies in `texts` and nowhere else (see texts.py). The tables that are clustered by user hold numbers:
# SQLite leaves copies of a row behind when it splits a page, so nothing that must be erasable may lie in one.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (ref INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE free_texts (capacity INTEGER, ref INTEGER, PRIMARY KEY (capacity, ref)) WITHOUT ROWID;
CREATE TABLE partitions (
    pid INTEGER PRIMARY KEY AUTOINCREMENT, tag INTEGER NOT NULL, name INTEGER NOT NULL,
    version INTEGER NOT NULL, rewrites INTEGER NOT NULL, next_seq INTEGER NOT NULL
);
CREATE INDEX partitions_by_tag ON partitions (tag);
CREATE TABLE items (
    pid INTEGER, kind INTEGER, parent INTEGER, seq INTEGER,
    id BLOB NOT NULL, ref INTEGER NOT NULL, said REAL NOT NULL, length INTEGER NOT NULL,
    vector BLOB NOT NULL, terms BLOB NOT NULL,
    PRIMARY KEY (pid, kind, parent, seq)
) WITHOUT ROWID;
CREATE TABLE ids (id BLOB PRIMARY KEY, pid INTEGER NOT NULL, kind INTEGER NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE erasures (eid INTEGER PRIMARY KEY AUTOINCREMENT, tag INTEGER NOT NULL, at REAL NOT NULL);
"""


class Database:
    """One SQLite file, safe to use from threads, from processes, and after a fork.

    Args:
        path: The file; created, readable by its owner only, where it does not exist.
        fingerprint: Which embedding its vectors come from; recorded in a new file, compared in an old one.

    Raises:
        BackendError: It cannot be opened, is no database, is another program's, has a newer schema, or was built with
            another embedding. The file is left as it was.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        # For good, whatever becomes of the working directory.
        self.path = path.absolute()
        self._pool = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._paused = False
        self._closed = False
        self._owes_truncation = False
        self._writer = threading.Lock()
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise BackendError(f"the embedded store needs SQLite 3.35, this Python has {sqlite3.sqlite_version}")
        try:
            with INIT_LOCK:
                self._prepare()
                with _without_litter(self.path):
                    self._open(fingerprint)
                _open_databases.add(self)
        except (OSError, sqlite3.Error) as error:
            failure = _failure(error, self.path)
        else:
            return
        raise failure

    def _prepare(self) -> None:
        """Create the file, or look at its first bytes without SQLite, which may change a file by opening it.

        Not where this process has the file open already: closing any descriptor of a file drops every lock the process
        holds on it (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, "it and its directory must be writable")
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        if all(other._closed or other._identity != self._identity for other in _open_databases):
            _check_header(self.path)

    def _open(self, fingerprint: str) -> None:
        connection = self._connect()
        try:
            _create_if_empty(connection, fingerprint)
            _switch_to_wal(connection)
            # A newer process that has the file open may have written this to its log alone.
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise _newer_schema(self.path, version)
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
            # Upstream's SQLite builds have it off by default.
            if connection.execute("PRAGMA secure_delete=ON").fetchone() != (1,):
                raise BackendError(
                    "this build of SQLite cannot overwrite deleted data (PRAGMA secure_delete has no effect)"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    # -- connections

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._borrow()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _borrow(self) -> sqlite3.Connection:
        with self._pool:
            while self._paused:
                self._pool.wait()
            if self._closed:
                raise BackendError("the embedded store is closed; build a new client with local_memory(path)")
            self._lent += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect()
        except BaseException:
            self._give_back(None)
            raise

    def _check_same_file(self) -> None:
        """A connection goes on serving a file that was deleted or replaced; what it then acknowledges is lost."""
        try:
            found = os.stat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise BackendError("the memory file was deleted or replaced; build a new client with local_memory(path)")

    def _give_back(self, connection: sqlite3.Connection | None) -> None:
        with self._pool:
            self._lent -= 1
            keep = connection is not None and not self._closed and len(self._idle) < _MAX_IDLE
            # One whose rollback failed is still in its transaction.
            if connection is not None and (keep := keep and not connection.in_transaction):
                self._idle.append(connection)
            self._pool.notify_all()
        if connection is not None and not keep:
            connection.close()

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they come back."""
        with self._pool:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- forks. SQLite forbids carrying a connection over a fork, even to close it: so there is none when it happens.

    def _pause(self) -> None:
        self._pool.acquire()
        self._paused = True
        self._pool.wait_for(lambda: self._lent == 0, timeout=_FORK_SECONDS)
        while self._idle:
            self._idle.pop().close()

    def _resume(self) -> None:
        self._paused = False
        self._pool.notify_all()
        self._pool.release()

    def _resume_in_child(self) -> None:
        # A connection still lent out belongs to a thread that does not exist here, and is never touched again.
        self._lent = 0
        self._writer = threading.Lock()
        self._resume()

    # -- transactions

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of the file.

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
            raise _failure(error, self.path) from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when the block ends; nothing of it is kept when it raises.

        Raises:
            BackendError: The file cannot be written, or stays locked for 30 s.
        """
        try:
            # Writers of one process queue here, in order; SQLite's own waiting is by sleep and luck.
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
            raise _failure(error, self.path) from None
        if self._owes_truncation:
            # The write is done and acknowledged whatever comes of this.
            with suppress(BackendError):
                self._truncated()

    def truncate(self) -> None:
        """Move everything from the write-ahead log into the file and empty the log, where deleted text still stands.

        Raises:
            ErasureError: A reader of this or another process kept the log in use for 5 s. The next write tries again.
        """
        self._owes_truncation = True
        deadline = time.monotonic() + _TRUNCATE_SECONDS
        while not self._truncated():
            if time.monotonic() > deadline:
                raise ErasureError(
                    "deleted, but its bytes stand in the write-ahead log while another connection reads the file; "
                    "they go with the next write after that, or with delete_all",
                    kinds=("bytes",),
                )

    def _truncated(self) -> bool:
        try:
            # The writers' turn is given up between attempts.
            with self._writer, self._connection() as connection:
                connection.execute("PRAGMA busy_timeout=100")
                try:
                    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
        except sqlite3.Error as error:
            raise _failure(error, self.path) from None
        self._owes_truncation = bool(busy)
        return not busy


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return
    if len(header) < 100 or not header.startswith(b"SQLite format 3\x00"):
        raise BackendError(f"{path} is not a database; the embedded store needs a file of its own")
    if header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise BackendError(f"{path} is another program's database; the embedded store needs a file of its own")
    if (version := int.from_bytes(header[60:64], "big")) > SCHEMA_VERSION:
        raise _newer_schema(path, version)
    # A log or journal that is waiting to be played back may make up for what the file lacks.
    waiting = any(_size(path, suffix) for suffix in ("-wal", "-journal"))
    pages, page_size = int.from_bytes(header[28:32], "big"), int.from_bytes(header[16:18], "big")
    if not waiting and path.stat().st_size < pages * page_size:
        raise BackendError(f"{path} is damaged; restore it from a backup (its end is missing)")


def _newer_schema(path: Path, version: int) -> BackendError:
    return BackendError(
        f"{path} has schema {version}, this version of the package knows {SCHEMA_VERSION}; upgrade the package"
    )


def _size(path: Path, suffix: str) -> int | None:
    try:
        return path.with_name(path.name + suffix).stat().st_size
    except FileNotFoundError:
        return None


@contextmanager
def _without_litter(path: Path) -> Iterator[None]:
    """Take away the empty log and index that SQLite makes beside a file it then cannot read."""
    before = {suffix for suffix in ("-wal", "-shm") if _size(path, suffix) is not None}
    try:
        yield
    except sqlite3.DatabaseError as error:
        # Only for what no other process can have open either.
        unreadable = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        if unreadable and not before and not _size(path, "-wal"):
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise


def _create_if_empty(connection: sqlite3.Connection, fingerprint: str) -> None:
    # In rollback mode, so that the marks _check_header looks for are in the file itself from the first moment.
    connection.execute(f"PRAGMA page_size={_PAGE_SIZE}")
    if connection.execute("PRAGMA application_id").fetchone()[0]:
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if not connection.execute("PRAGMA application_id").fetchone()[0]:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            meta = [("salt", secrets.token_bytes(16)), ("embedding", fingerprint.encode())]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Another process is opening the new file: this PRAGMA does not wait by itself.
            if (
                error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                or time.monotonic() > deadline
            ):
                raise
            time.sleep(0.02)
        else:
            if mode != "wal":
                raise BackendError(
                    "the embedded store needs SQLite's write-ahead log, which this file system cannot keep"
                )
            return


_REASONS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this call was stored",
    sqlite3.SQLITE_READONLY: "it is read-only; make it and its directory writable",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; make it and its directory writable",
    sqlite3.SQLITE_IOERR: "the disk failed or is full; nothing of this call was stored",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; try again",
    sqlite3.SQLITE_LOCKED: "another connection keeps it locked; try again",
}


def _failure(error: OSError | sqlite3.Error, path: Path) -> BackendError:
    """Say what is the matter with the file: SQLite's own texts hold no values, but the place and the remedy help."""
    if isinstance(error, OSError):
        return BackendError(f"the memory file {path} cannot be opened: {error.strerror or type(error).__name__}")
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    reason = _REASONS.get(primary or 0, f"{type(error).__name__}: {error}")
    return BackendError(
        f"the memory file {path} failed: {reason}", retryable=primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    )


_open_databases: WeakSet[Database] = WeakSet()
_pausing: list[Database] = []


def _before_fork() -> None:
    _pausing[:] = list(_open_databases)  # No file is opened meanwhile, and no second thread forks.
    for database in _pausing:
        database._pause()


def _after_fork_in_parent() -> None:
    while _pausing:
        _pausing.pop()._resume()


def _after_fork_in_child() -> None:
    while _pausing:
        _pausing.pop()._resume_in_child()


register_fork_hooks(ForkHooks(_before_fork, _after_fork_in_parent, _after_fork_in_child))
