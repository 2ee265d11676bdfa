"""The database file: creates and checks it, creates its tables, and names its failures."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..database_header import APPLICATION_ID, SQLITE
from ..errors import BackendError
from . import file_state

SCHEMA_VERSION: Final = 3

_PAGE_SIZE: Final = 8192

# Text of users is in `texts` and in no other table (see text_table.py). The tables that are clustered by user hold
# numbers: SQLite leaves copies of a row behind when it splits a page, so nothing that must be erasable may be in one.
_SCHEMA = f"""
{file_state.SCHEMA};
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (ref INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE free_texts (capacity INTEGER, ref INTEGER, PRIMARY KEY (capacity, ref)) WITHOUT ROWID;
CREATE TABLE partitions (
    pid INTEGER PRIMARY KEY, user_hash INTEGER NOT NULL, name_ref INTEGER NOT NULL,
    stamp INTEGER NOT NULL, epoch INTEGER NOT NULL, next_seq INTEGER NOT NULL
);
CREATE INDEX partitions_by_user_hash ON partitions (user_hash);
CREATE TABLE items (
    pid INTEGER, kind INTEGER, parent INTEGER, seq INTEGER,
    id BLOB NOT NULL, ref INTEGER NOT NULL, said_at REAL NOT NULL, length INTEGER NOT NULL,
    vector BLOB NOT NULL, terms BLOB NOT NULL,
    PRIMARY KEY (pid, kind, parent, seq)
) WITHOUT ROWID;
CREATE TABLE ids (
    pid INTEGER, kind INTEGER, id BLOB, seq INTEGER NOT NULL, PRIMARY KEY (pid, kind, id)
) WITHOUT ROWID;
"""


def create_file(path: Path) -> None:
    """Create an empty file, readable by its owner only, unless there is one.

    Raises:
        OSError: It cannot be created, read or written.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, "it and its directory must be writable")


def check_header(path: Path) -> None:
    """Check the first bytes without SQLite, which may change a file when it opens it.

    Raises:
        BackendError: It is no database, another program's, of another schema, or cut off.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return
    if len(header) < 100 or not header.startswith(SQLITE):
        raise BackendError(f"{path} is not a database; the embedded store needs a file of its own")
    if header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise BackendError(f"{path} is another program's database; the embedded store needs a file of its own")
    check_schema_version(path, int.from_bytes(header[60:64], "big"))
    # A log or journal that is waiting to be played back may make up for what the file lacks.
    waiting = any(_size(path, suffix) for suffix in ("-wal", "-journal"))
    pages, page_size = int.from_bytes(header[28:32], "big"), int.from_bytes(header[16:18], "big")
    if not waiting and path.stat().st_size < pages * page_size:
        raise BackendError(f"{path} is damaged; restore it from a backup (its end is missing)")


def check_schema_version(path: Path, version: int) -> None:
    """Compare the schema version of a file with the one this package reads and writes.

    Raises:
        BackendError: They differ.
    """
    if version != SCHEMA_VERSION:
        remedy = "upgrade the package" if version > SCHEMA_VERSION else "use another path"
        raise BackendError(
            f"{path} has schema {version}, this version of the package reads schema {SCHEMA_VERSION}; {remedy}"
        )


def _size(path: Path, suffix: str) -> int | None:
    try:
        return path.with_name(path.name + suffix).stat().st_size
    except FileNotFoundError:
        return None


@contextmanager
def remove_empty_log(path: Path) -> Iterator[None]:
    """Remove the empty log and index that SQLite creates beside a file which it then cannot read."""
    before = {suffix for suffix in ("-wal", "-shm") if _size(path, suffix) is not None}
    try:
        yield
    except sqlite3.DatabaseError as error:
        # Only where no other process can have the file open either.
        unreadable = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        if unreadable and not before and not _size(path, "-wal"):
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise


def create_tables(connection: sqlite3.Connection, fingerprint: str) -> None:
    """Create the tables of a new file, with a random salt and the embedding's fingerprint."""
    # In rollback mode, so that the marks check_header looks for are in the file itself from the first moment.
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
            file_state.create(connection)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def switch_to_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Turn the write-ahead log on. This PRAGMA does not wait for a lock by itself, so it is repeated.

    Args:
        connection: Outside a transaction.
        timeout: Seconds to wait for another process that is opening the same new file.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _LOCKED or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            if mode != "wal":
                raise BackendError(
                    "the embedded store needs SQLite's write-ahead log, which this file system cannot keep"
                )
            return


_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
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


def file_error(error: OSError | sqlite3.Error, path: Path) -> BackendError:
    """Build the error for a failed call: which file, what is wrong, what to do. SQLite's own texts hold no values."""
    if isinstance(error, OSError):
        return BackendError(f"the memory file {path} cannot be opened: {error.strerror or type(error).__name__}")
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    reason = _REASONS.get(primary or 0, f"{type(error).__name__}: {error}")
    return BackendError(f"the memory file {path} failed: {reason}", retryable=primary in _LOCKED)
