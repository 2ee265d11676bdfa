"""The file of a transcripts database in SQLite: where it is, who may read it, and that it holds no memories."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakKeyDictionary

from ..database_header import APPLICATION_ID
from ..errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Engine


_found: Final[WeakKeyDictionary[Engine, tuple[Path, str | None] | None]] = WeakKeyDictionary()


def file_of(engine: Engine) -> Path | None:
    """Return the file of an SQLite database; None for another database, or one in memory.

    A relative name is relative to the working directory at the first call for an engine.
    """
    found = _name_and_mode(engine)
    return None if found is None else found[0]


def create_privately(engine: Engine) -> None:
    """Create the file of an SQLite database, readable by its owner only, unless there is one.

    SQLite itself creates it with the rights that the umask leaves, and its log and journal with those of the file.
    """
    found = _name_and_mode(engine)
    if found is None or found[1] in ("ro", "rw"):
        return
    # Where it cannot be created, SQLite says so.
    with suppress(OSError):
        os.close(os.open(found[0], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def refuse_files(engine: Engine, files: Iterable[Path]) -> None:
    """Refuse a database that is one of the client's own files.

    Raises:
        InputError: It is.
    """
    file = file_of(engine)
    if file is None:
        return
    for other in files:
        if os.path.realpath(file) == os.path.realpath(other) or (
            file.exists() and other.exists() and os.path.samefile(file, other)
        ):
            raise _memory_file()


def refuse_memory_file(engine: Engine) -> None:
    """Refuse a database that is a file of the embedded store: its erasures would not reach the transcripts.

    Raises:
        InputError: It is.
    """
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        if connection.exec_driver_sql("PRAGMA application_id").scalar() == APPLICATION_ID:
            raise _memory_file()


def _memory_file() -> InputError:
    return InputError(
        "transcripts must have a file of their own, this one holds memories; name another, or leave transcripts= out "
        "for a client that keeps them itself"
    )


def _name_and_mode(engine: Engine) -> tuple[Path, str | None] | None:
    if engine not in _found:
        _found[engine] = _parse_arguments(engine)
    return _found[engine]


def _parse_arguments(engine: Engine) -> tuple[Path, str | None] | None:
    if engine.dialect.name != "sqlite":
        return None
    arguments: Any
    options: Any
    arguments, options = engine.dialect.create_connect_args(engine.url)
    name = arguments[0] if arguments else options.get("database")
    mode: str | None = None
    if isinstance(name, str) and options.get("uri") and name.startswith("file:"):
        parts = urlsplit(name)
        name = unquote(parts.path)
        (mode,) = parse_qs(parts.query).get("mode", [None])[-1:]
    if not isinstance(name, str) or name in ("", ":memory:") or mode == "memory":
        return None
    return Path(name).absolute(), mode
