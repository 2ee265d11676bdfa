"""Atomic file: checks the path of an export and writes the file completely or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..database_header import is_database
from ..errors import BackendError, InputError

# The files that SQLite keeps next to a database.
_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


def validate_path(path: str | os.PathLike[str]) -> Path:
    """Validate the path of an export before any data is read.

    Args:
        path: The file to write. It may exist; then it is replaced.

    Returns:
        The path, with "~" expanded.

    Raises:
        InputError: The path is not a str or Path, or names a link, a directory, a special file or a file in a directory
            that does not exist.
    """
    name = _file_name(path)
    try:
        file = Path(name).expanduser()
        if file.is_symlink():
            # Writing would replace the link, for instance /dev/stdout.
            raise InputError("path must not name a link; pass the path of the file itself")
        found = file.stat().st_mode if file.exists() else None
        if found is not None and stat.S_ISDIR(found):
            raise InputError("path must name a file, got a directory; add a file name such as 'alice.html'")
        if found is not None and not stat.S_ISREG(found):
            raise InputError("path must name a regular file, got a pipe, a device or the like")
        if not file.parent.is_dir():
            raise InputError("path names a file in a directory that does not exist; create the directory first")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = type(error).__name__
    else:
        return file
    raise InputError(f"path cannot be used as a file name ({reason})")


def _file_name(path: object) -> str:
    name: object = None
    if isinstance(path, (str, os.PathLike)):
        with suppress(TypeError):
            name = os.fspath(path)
    if not isinstance(name, str) or not name:
        raise InputError("path must name the HTML file to write, as a str or Path")
    if "\0" in name:
        raise InputError("path must not hold NUL")
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise InputError("path must not hold a lone surrogate")
    if os.path.basename(name) in ("", "."):
        raise InputError("path must end with a file name such as 'alice.html'")
    return name


def refuse_databases(file: Path, databases: Iterable[Path]) -> None:
    """Refuse to overwrite a database.

    Args:
        file: The file to write.
        databases: Databases that hold memories or conversations.

    Raises:
        InputError: The file is one of these databases, or begins as a database does, or is one of the files that SQLite
            keeps next to one.
    """
    with suppress(OSError):
        for database in databases:
            real = Path(os.path.realpath(database))
            for other in (real.with_name(real.name + suffix) for suffix in _SUFFIXES):
                # samefile too, because a file system may ignore case.
                if other == Path(os.path.realpath(file)) or (
                    file.exists() and other.exists() and os.path.samefile(file, other)
                ):
                    raise InputError("path names a database of memories or conversations; choose another file")
    for suffix in _SUFFIXES:
        database = file.with_name(file.name.removesuffix(suffix)) if file.name.endswith(suffix) else file
        if database.name and _is_database(database):
            raise InputError("path names a database, or a file that belongs to one; choose another file")


def _is_database(file: Path) -> bool:
    try:
        return file.is_file() and is_database(file)
    except OSError:
        # It cannot be read, so it may be one.
        return True


def write_atomically(file: Path, text: str, check: Callable[[], None]) -> None:
    """Write a file atomically, readable only by its owner.

    The text is first written to a file without a name or with a temporary one, which then replaces `file`.

    Args:
        file: The file to create or replace.
        text: Its text.
        check: Raises if the file must not exist. Called just before it is put in place, and again afterwards.

    Raises:
        BackendError: The file could not be written. An error of `check` is raised as it is; the file is removed then.
    """
    temporary = file.with_name(f".langchain-mem0-scoped-{secrets.token_hex(8)}.html")
    try:
        written = _write_unnamed(temporary, text, check) or _write_named(temporary, text, check)
        os.replace(temporary, file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        try:
            check()
        except BaseException:
            _remove(file, written)
            raise
        return
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    raise BackendError(f"the file could not be written: {reason}; an existing file is unchanged")


def _write_unnamed(temporary: Path, text: str, check: Callable[[], None]) -> os.stat_result | None:
    """Write a file that has no name until it is complete, so a crash leaves nothing behind.

    Returns:
        The file's status, or None if the operating system or the file system has no unnamed files.
    """
    flag: int = getattr(os, "O_TMPFILE", 0)
    if not flag:
        return None
    with suppress(OSError):
        handle = os.open(temporary.parent, os.O_WRONLY | flag, 0o600)
        return _write(handle, text, check, lambda: _link(handle, temporary))
    return None


def _link(handle: int, name: Path) -> None:
    # Python follows the link in /proc only if it is given a src_dir_fd, which an absolute path does not use.
    os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle, follow_symlinks=True)


def _write_named(temporary: Path, text: str, check: Callable[[], None]) -> os.stat_result:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return _write(handle, text, check, lambda: None)


def _write(handle: int, text: str, check: Callable[[], None], link: Callable[[], None]) -> os.stat_result:
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(handle)
        check()
        link()
        return os.fstat(handle)


def _remove(file: Path, written: os.stat_result) -> None:
    """Remove the written file, unless another one has replaced it meanwhile."""
    try:
        found = os.lstat(file)
        # The modification time too, because a new file may get the inode of a removed one.
        if os.path.samestat(found, written) and found.st_mtime_ns == written.st_mtime_ns:
            os.unlink(file)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return
    raise BackendError(
        f"the file is out of date and could not be removed ({reason}): remove it, its user may have been erased"
    )
