"""Faults on purpose: processes that are killed, embeddings that fail; and all that errors and logs say about them."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

from langchain_core.embeddings import Embeddings

from langchain_mem0_scoped import local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.memory import EngineMemory

PATIENCE: Final = 60.0
"""Seconds after which a test stops waiting for a process or a thread: a deadlock, never a slow machine."""

# Children come from a server that has everything imported and does nothing else: they start fast, and no thread of it
# holds a lock then, as one of pytest's may.
PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["__main__", "tests.children"])


class ChildFailed(AssertionError):
    """A child process raised; the text is its traceback."""


class Child:
    """A process that runs one function of tests/children.py, with a pipe and the arguments.

    As a context manager, it has ended when the block ends.
    """

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        self._killed = False
        self._pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_run_child, args=(work, theirs, args))
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None and not self._killed:
            self.finish()
        self.kill()
        self._pipe.close()

    def send(self, value: object) -> None:
        self._pipe.send(value)

    def receive(self) -> Any:
        """Return the next value that the child sends.

        Raises:
            ChildFailed: It raised, or was still silent after a minute.
            EOFError: It has ended.
        """
        if not self._pipe.poll(PATIENCE):
            raise ChildFailed("the child process hangs")
        value = self._pipe.recv()
        if isinstance(value, ChildFailed):
            raise value
        return value

    def receive_all(self) -> list[Any]:
        """Return everything that it sends until it ends."""
        received: list[Any] = []
        while True:
            try:
                received.append(self.receive())
            except (EOFError, ConnectionResetError):
                return received

    def kill(self) -> None:
        """Kill it at once (SIGKILL)."""
        self._killed = True
        self.process.kill()
        self.process.join()

    def finish(self) -> None:
        """Wait for it to end by itself."""
        self.receive_all()
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, f"the child process ended with {self.process.exitcode}"


def _run_child(work: Callable[..., None], pipe: Connection, args: Sequence[Any]) -> None:
    try:
        work(pipe, *args)
    except BaseException:
        pipe.send(ChildFailed(traceback.format_exc()))
    finally:
        pipe.close()


# -- a store


@contextmanager
def store(path: Path | str, **options: Any) -> Iterator[EngineMemory]:
    """The embedded store, closed at the end: an unclosed connection is a warning, and warnings are errors."""
    with closing(local_memory(path, **options)) as client:
        yield client


def assert_sound(path: Path) -> None:
    """SQLite finds nothing wrong with the file, and its tables fit together."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with_ids = connection.execute("SELECT count(*) FROM items WHERE id <> x''").fetchone()
        assert connection.execute("SELECT count(*) FROM ids").fetchone() == with_ids
        without_ids = "SELECT count(*) FROM items WHERE kind IN (0, 1) AND id = x''"
        assert connection.execute(without_ids).fetchone() == (0,)
        lost = "SELECT count(*) FROM ids LEFT JOIN items USING (pid, kind, seq, id) WHERE ref IS NULL"
        assert connection.execute(lost).fetchone() == (0,)
        ownerless = "SELECT count(*) FROM items LEFT JOIN partitions USING (pid) WHERE name_ref IS NULL"
        assert connection.execute(ownerless).fetchone() == (0,)
        textless = "SELECT count(*) FROM items LEFT JOIN texts USING (ref) WHERE body IS NULL"
        assert connection.execute(textless).fetchone() == (0,)
        shared = "SELECT count(*) - count(DISTINCT ref) FROM items"
        assert connection.execute(shared).fetchone() == (0,)


def rows_in(path: Path) -> int:
    """Count the file's rows, of all users and kinds."""
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM items").fetchone()[0]
        return count


def files_beside(path: Path) -> dict[str, bytes]:
    """Return the bytes of the file and of every file beside it, by name."""
    return {file.name: file.read_bytes() for file in sorted(path.parent.iterdir()) if file.is_file()}


def open_files(path: Path) -> int:
    """Count the descriptors that this process has on the file, its log and its index."""
    wanted = {str(path), f"{path}-wal", f"{path}-shm", f"{path}-journal"}
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)") in wanted
        except FileNotFoundError:  # the one listdir itself had open
            continue
    return found


# -- embeddings


class Failing(Exception):
    """What a broken provider raises: its text quotes what it was sent, as those of real ones do."""


class Embedding(Embeddings):
    """The offline embedding, until something is done to a text.

    Args:
        on: Called with every text; may raise, wait, or return what is handed out instead of a vector.
    """

    fingerprint = OfflineEmbeddings.fingerprint

    def __init__(self, on: Callable[[str], Sequence[float] | None]) -> None:
        self._on = on
        self._real = OfflineEmbeddings()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        instead = self._on(text)
        return self._real.embed_query(text) if instead is None else list(instead)


class Bag(Embeddings):
    """An embedding of another name and width: letters counted."""

    def __init__(self, width: int = 64) -> None:
        self.fingerprint = f"bag/{width}"
        self._width = width

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * self._width
        for character in text:
            vector[ord(character) % self._width] += 1.0
        return vector


def raising(error: BaseException) -> NoReturn:
    """Raise, where only an expression may stand."""
    raise error


# -- errors


def chain_of(error: BaseException) -> list[BaseException]:
    """The error and every other that can be reached from it: causes and contexts, suppressed ones too, and groups."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or link in found:
            continue
        found.append(link)
        waiting += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return found


def error_text(error: BaseException) -> str:
    """Everything an error, its chain and a traceback of it say, attributes and notes included."""
    parts = ["".join(traceback.format_exception_only(link)) for link in chain_of(error)]
    for link in chain_of(error):
        parts += [str(link), repr(link), repr(link.args), repr(vars(link)), *getattr(link, "__notes__", ())]
    return "\n".join(parts)


def log_text(records: Sequence[Any]) -> str:
    """Everything log records say: text, arguments, exceptions, extras."""
    parts: list[str] = []
    for record in records:
        parts += [record.getMessage(), repr(_plain(vars(record))), str(record.exc_text)]
        if record.exc_info and isinstance(record.exc_info[1], BaseException):
            parts.append(error_text(record.exc_info[1]))
    return "\n".join(parts)


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in values.items()}
