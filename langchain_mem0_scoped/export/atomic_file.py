"""The file a user's page is written to: which may be written, and how it is there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import BackendError, InputError

# What SQLite keeps beside a database.
_BESIDE: Final = ("", "-wal", "-shm", "-journal")


def validate_path(path: str | os.PathLike[str]) -> Path:
    """Say what is wrong with a path before anything is read.

    Raises:
        InputError: It names no file that a page may be, or replace.
    """
    name = _name_of(path)
    try:
        file = Path(name).expanduser()
        if file.is_symlink():
            # What would be replaced is the link, and /dev/stdout is one.
            raise InputError("path names a link; name the file itself")
        found = file.stat().st_mode if file.exists() else None
        if found is not None and stat.S_ISDIR(found):
            raise InputError("path names a directory; name the file to write in it, such as 'alice.html'")
        if found is not None and not stat.S_ISREG(found):
            raise InputError("path names something that is no file, such as a pipe or a device")
        if not file.parent.is_dir():
            raise InputError("path names a file in a directory that does not exist")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = type(error).__name__
    else:
        return file
    raise InputError(f"path cannot be used as a file's name ({reason})")


def _name_of(path: object) -> str:
    name: object = None
    if isinstance(path, (str, os.PathLike)):
        with suppress(TypeError):
            name = os.fspath(path)
    if not isinstance(name, str) or not name:
        raise InputError("path must name the HTML file to write, as a str or Path")
    if "\0" in name:
        raise InputError("path holds NUL, which no file's name can")
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise InputError("path holds half a character, which no file's name can")
    if os.path.basename(name) in ("", "."):
        raise InputError("path ends as a directory's does; name the file to write in it, such as 'alice.html'")
    return name


def refuse_databases(file: Path, databases: Iterable[Path]) -> None:
    """Refuse to write over what holds memories or conversations.

    Raises:
        InputError: The file is one of these databases, or what SQLite keeps beside one.
    """
    with suppress(OSError):
        for database in databases:
            held = Path(os.path.realpath(database))
            for other in (held.with_name(held.name + suffix) for suffix in _BESIDE):
                # By what it is as well: a file system may not tell Memory.db from memory.db. Nothing is opened: to
                # close a database that this process uses as a file would drop SQLite's locks.
                if other == Path(os.path.realpath(file)) or (
                    file.exists() and other.exists() and os.path.samefile(file, other)
                ):
                    raise InputError("path names the database that holds memories or conversations")


def write_whole(file: Path, page: str, check: Callable[[], None]) -> None:
    """Write under no name, or another, first, readable by the owner alone: whoever opens the file finds all of it.

    Args:
        file: What is made, or replaced.
        page: What is in it.
        check: Raises where the page may not be there: asked just before it would be, and once more when it is.

    Raises:
        BackendError: The file could not be written; or what `check` raised, and then the page is not there.
    """
    temporary = file.with_name(f".langchain-mem0-scoped-{secrets.token_hex(8)}.html")
    try:
        written = _write_nameless(temporary, page, check) or _write_named(temporary, page, check)
        os.replace(temporary, file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        try:
            check()
        except BaseException:
            _take_back(file, written)
            raise
        return
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    raise BackendError(f"the page could not be written: {reason}; what was there before is as it was")


def _write_nameless(temporary: Path, page: str, check: Callable[[], None]) -> os.stat_result | None:
    """Write what has no name until it is whole, so that nothing is left whatever ends this process.

    Returns:
        The file, or None where the system or the file system knows of no such file.
    """
    flag: int = getattr(os, "O_TMPFILE", 0)
    if not flag:
        return None
    with suppress(OSError):
        handle = os.open(temporary.parent, os.O_WRONLY | flag, 0o600)
        return _write(handle, page, check, lambda: _name(handle, temporary))
    return None


def _name(handle: int, name: Path) -> None:
    # A src_dir_fd, which an absolute path does not use, is what has Python follow the link to the file.
    os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle, follow_symlinks=True)


def _write_named(temporary: Path, page: str, check: Callable[[], None]) -> os.stat_result:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return _write(handle, page, check, lambda: None)


def _write(handle: int, page: str, check: Callable[[], None], then: Callable[[], None]) -> os.stat_result:
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as opened:
        opened.write(page)
        opened.flush()
        os.fsync(handle)
        check()
        then()
        return os.fstat(handle)


def _take_back(file: Path, written: os.stat_result) -> None:
    """Remove a page that is there already, unless another one has replaced it meanwhile."""
    try:
        found = os.lstat(file)
        # By its date as well: a file that is made anew may be given the number of the one before.
        if os.path.samestat(found, written) and found.st_mtime_ns == written.st_mtime_ns:
            os.unlink(file)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return
    raise BackendError(
        f"the page is out of date and could not be removed ({reason}): remove it, for its user may have been erased"
    )
