"""FileGuard: notices a file that was replaced, overwritten or linked while connections are open to it.

SQLite takes for granted that nobody else changes a file. A connection goes on answering from the pages it holds, and
commits to a log that no longer fits. So each transaction looks at the file's inode, links and time of change. All is
well while these stay. They change with every checkpoint as well: then the file's own stamp (see file_state.py) must be
the one that the connection sees, or one that its log leads on from.
"""

from __future__ import annotations

import os
import sqlite3
import time
from itertools import count
from pathlib import Path
from typing import Final

from ..errors import BackendError
from . import file_state

_ATTEMPTS: Final = 4
_PAUSE: Final = 0.02
_PATIENCE: Final = 0.5
_SETTLED_NS: Final = 20_000_000
"""A file that changed so long ago will show a later change: the clock of a file system moves in steps."""

Look = tuple[int, int, int, int]


class FileUnusable(BackendError):
    """The file or its log is another one now. What connections hold of them must not be used any more."""


class GuardedConnection(sqlite3.Connection):
    """A connection, with what it knew of the file when it was last compared.

    Attributes:
        compared: What the file looked like.
        stamps: The last commit it saw; after one of its own, which may have failed, the one before as well.
        data_version: Changes when SQLite drops the pages that this connection holds.
    """

    compared: Look | None = None
    stamps: tuple[bytes, ...] = ()
    data_version: int = 0


class FileGuard:
    """Compares the file at a path with what connections see.

    Args:
        path: The file, without symbolic links.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self._logs = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
        self._identity = identity(path)
        self._log_inodes: tuple[int, ...] | None = None

    @property
    def file_identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        return self._identity

    def begin(self, connection: GuardedConnection) -> None:
        """Note what a new connection sees, outside a transaction."""
        # In one transaction: another connection may commit meanwhile.
        connection.execute("BEGIN")
        try:
            connection.stamps = (file_state.current_stamp(connection),)
            connection.data_version = _data_version(connection)
        finally:
            connection.execute("ROLLBACK")
        if self._log_inodes is None:
            self._log_inodes = self._find_logs()

    def forget_log(self) -> None:
        """Expect another log and index, where no connection is open any more: then SQLite may make new ones."""
        self._log_inodes = None

    def check(self, connection: GuardedConnection) -> None:
        """Return if a connection may read.

        Raises:
            FileUnusable: The file was overwritten, or its log was deleted or replaced.
            BackendError: The file was deleted or replaced, or has a second name.
            sqlite3.Error: It cannot be read.
        """
        try:
            found = os.stat(self._name)
        except OSError:
            raise _replaced() from None
        seen = (found.st_ino, found.st_mtime_ns, found.st_nlink, found.st_dev)
        if seen != connection.compared:
            self._compare(connection, seen)

    def check_at_opening(self, connection: GuardedConnection) -> None:
        """As `check`, for the first connection: without a log it sees the file as it is, also where it is a copy."""
        if file_state.log_stamps(self._logs[0]):
            try:
                self.check(connection)
            except FileUnusable:
                # Another process may have made a copy a file of its own meanwhile.
                self.check(connection)

    def check_log(self) -> None:
        """Return if connections write to the log that lies beside the file.

        Raises:
            FileUnusable: The log or its index was deleted or replaced.
        """
        if self._find_logs() != self._log_inodes:
            log, index = self._logs
            raise FileUnusable(
                f"{log} or {index.name} was deleted or replaced while the memory file was open; nothing more is read "
                "or stored, and what was in the log is lost. Stop every process that has the file open, then start "
                'again; to put back a backup see the README, "Backup and restore"'
            )

    def _find_logs(self) -> tuple[int, ...]:
        try:
            return tuple(os.stat(log).st_ino for log in self._logs)
        except OSError:
            return ()

    def _compare(self, connection: GuardedConnection, seen: Look) -> None:
        inode, changed_ns, links, device = seen
        if (device, inode) != self._identity:
            raise _replaced()
        refuse_hard_links(self._path, links)
        # While this connection reads, a checkpoint goes no further than what it sees, and the log stays.
        begun = not connection.in_transaction
        if begun:
            connection.execute("BEGIN")
        try:
            version, stamp = _data_version(connection), file_state.current_stamp(connection)
            # The page changed, and nobody committed anything.
            is_stale = version == connection.data_version and stamp not in connection.stamps
            if is_stale or not self._is_in_line(stamp):
                self.check_log()
                raise self._overwritten()
        finally:
            if begun:
                connection.execute("ROLLBACK")
        connection.stamps, connection.data_version = (stamp,), version
        if abs(time.time_ns() - changed_ns) > _SETTLED_NS:
            connection.compared = seen

    def _is_in_line(self, stamp: bytes) -> bool:
        """Return whether the file holds the commit that a connection sees, or one that the log leads on from."""
        deadline = time.monotonic() + _PATIENCE
        for attempt in count(1):
            try:
                in_file = file_state.stamp_in_open_file(self._path)
                if in_file == stamp:
                    return True
                chain = file_state.log_stamps(self._logs[0])
                if in_file in chain and stamp in chain:
                    return True
                if in_file is not None and attempt == _ATTEMPTS:
                    return False
            except sqlite3.DatabaseError:
                if time.monotonic() > deadline:
                    raise
            # A checkpoint of another process may be within a page, or between two.
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return False

    def _overwritten(self) -> FileUnusable:
        return FileUnusable(
            f"the memory file {self._path} was overwritten while it was open, perhaps with a backup; nothing is read "
            f"or stored. Stop every process that has it open, remove {self._logs[0].name} and {self._logs[1].name}, "
            'put the backup in its place once more and start again (README, "Backup and restore")'
        )


def _replaced() -> BackendError:
    return BackendError("the memory file was deleted or replaced; build a new client with local_memory(path)")


def identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def refuse_hard_links(path: Path, links: int) -> None:
    """Refuse a file with a second name: SQLite keeps a log beside each name, and what is in one is missed by the other.

    Raises:
        BackendError: There is another name.
    """
    if links > 1:
        raise BackendError(
            f"{path} has a second name (a hard link), and what is stored under one of them would be lost to the other; "
            f"keep one name (find them with: find / -xdev -samefile {path}), or make a copy with cp"
        )


def refuse_foreign_log(path: Path) -> None:
    """Refuse a file beside which the log of another copy was left: SQLite would mix the two.

    The file must not be open in this process.

    Raises:
        BackendError: The log does not belong to the file.
    """
    log = path.with_name(f"{path.name}-wal")
    for attempt in range(_ATTEMPTS):
        # Another process may be writing to both meanwhile.
        if attempt:
            time.sleep(_PAUSE)
        if not (log.exists() and log.stat().st_size):
            return
        chain = file_state.log_stamps(log)
        is_empty = not path.stat().st_size
        if not is_empty and (not chain or file_state.stamp_in_file(path) in chain):
            return
    raise BackendError(
        f"{log} does not belong to {path}: it was left by another copy of the file, and both together would mix up "
        f"memories. If you have restored a backup, remove the log: rm {log} {path}-shm. If not, put back the file that "
        'the log belongs to (README, "Backup and restore")'
    )


def _data_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version
