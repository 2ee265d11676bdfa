"""What several test files share: two real clients, sync and async alike, a spy on what reaches mem0, some texts."""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import mem0

from langchain_mem0_scoped import MemoryRecord, ScopedMemory, local_memory
from langchain_mem0_scoped.backends import backend_for
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.interpreters import Interpreters

if TYPE_CHECKING:
    from langchain_mem0_scoped.backends import Client
    from langchain_mem0_scoped.scoped_client import ScopedClient

CLIENTS: Final = ("embedded", "qdrant")
MODES: Final = ("sync", "async")

VERBS: Final = ("add", "search", "get_all", "get", "update", "delete", "history", "delete_all", "count")
"""Every verb of ScopedMemory; each has an async twin whose name begins with an a."""

TEXTS: Final = (
    "I am vegetarian and I never eat meat or fish",
    "I prefer a window seat on long flights",
    "My daughter Frieda plays the cello in an orchestra",
    "I am allergic to peanuts and to penicillin",
    "The spare key lies under the blue flowerpot",
    "Ich wohne in Köln, gleich neben dem Dom",
    "猫が二匹います 🐈🐈",
)
"""Memories about different things, each with words of its own."""

NOBODYS_ID: Final = "00000000-0000-4000-8000-000000000000"
"""A memory id that no row has."""

ROOT: Final = Path(__file__).parents[1]
"""The folder of the repository."""

_numbers = count()


def new_user(name: str = "user") -> str:
    """A user nobody has heard of: so that tests can share one client."""
    return f"u{next(_numbers)}_{uuid4().hex[:8]}_{name}"


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[mem0.Memory]:
    """One of the two clients, closed for good afterwards: an unclosed file is a warning, and warnings are errors.

    Mem0's own does not wait for the disk either.
    """
    if kind == "embedded":
        client = local_memory(folder / "m.db")
        try:
            yield client
        finally:
            client.close()
    else:
        client = plain_memory(folder)
        _unsynced(client.db.connection)
        _unsynced(client.vector_store.client._client.collections["memories"].storage.storage)
        try:
            yield client
        finally:
            close_plain(client)


def database_of(client: EngineMemory) -> Database:
    """Return the SQLite database of a client that `local_memory` returned."""
    assert isinstance(client.storage, SqliteStorage)
    return client.storage.database


def _unsynced(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def close_plain(client: mem0.Memory) -> None:
    """Close mem0 as it comes: its own close leaves the vector store open."""
    client.close()
    client.vector_store.client.close()


def stored_row(client: Client, user_id: str, memory_id: str) -> Any:
    """A memory as the client itself returns it; the embedded store asks whose it is, others ask nobody."""
    if isinstance(client, EngineMemory):
        return client.get(memory_id, user_id=user_id)
    return client.get(memory_id)


class Call:
    """Calls a method, a verb of ScopedMemory for example, or its async twin in an event loop of its own."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, memory: ScopedMemory | ScopedClient, verb: str, *args: Any, **kwargs: Any) -> Any:
        if self.mode == "sync":
            return getattr(memory, verb)(*args, **kwargs)

        async def run() -> Any:
            return await getattr(memory, f"a{verb}")(*args, **kwargs)

        return asyncio.run(run())


class Spy:
    """Records the name of every call to a client, its parts or the platform behind it, and makes the call."""

    _CLIENT = ("add", "search", "get_all", "get", "update", "delete", "delete_all", "history", "reset", "erase")
    _STORE = ("insert", "search", "keyword_search", "list", "get", "update", "delete", "reset", "delete_col")
    _MODEL = ("embed", "embed_batch")
    _HISTORY = ("add_history", "batch_add_history", "get_history", "save_messages", "get_last_messages", "reset")
    _BACKEND = (
        "add",
        "search",
        "search_other_sessions",
        "list",
        "get",
        "update",
        "delete",
        "history",
        "erase",
        "count",
    )
    _STORAGE = ("reading", "writing", "snapshot", "bodies", "purge")

    def __init__(self, client: Client) -> None:
        self.calls: list[str] = []
        if isinstance(client, mem0.MemoryClient):
            # Threads go over its own connections; the event loops have others.
            port: Any = backend_for(client)
            self._watched: list[tuple[str, Any, tuple[str, ...]]]
            self._watched = [("", client.client, ("request",)), ("", port._transport, ("asend",))]
            return
        self._watched = [
            ("", client, self._CLIENT),
            ("vector_store.", client.vector_store, self._STORE),
            ("embedding_model.", client.embedding_model, self._MODEL),
            ("db.", client.db, self._HISTORY),
        ]
        if isinstance(client, EngineMemory):
            # A scope calls its backend and not mem0's methods. Every read and write of it ends in its storage.
            self._watched += [
                ("backend.", client.backend, self._BACKEND),
                ("storage.", client.storage, self._STORAGE),
            ]

    def __enter__(self) -> Spy:
        for prefix, target, names in self._watched:
            for name in names:
                if hasattr(target, name):
                    setattr(target, name, self._recorded(prefix + name, getattr(target, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for _prefix, target, names in self._watched:
            for name in names:
                target.__dict__.pop(name, None)

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return method(*args, **kwargs)

        return call


def label(value: object) -> str:
    """The id of a test case: short, and the same in every process, or pytest-xdist gives up."""
    text = ascii(sorted(map(ascii, value)) if isinstance(value, (set, frozenset)) else value)
    return type(value).__name__ if " at 0x" in text else text[:50]


def records_of(*texts: str) -> list[MemoryRecord]:
    """Return memories with these texts, as a search returns them."""
    return [
        MemoryRecord(
            id="i", memory=text, user_id="u", session_id=None, role=None, score=None, metadata={}, created_at=None,
            updated_at=None, expires_on=None, extracted=False,
        )
        for text in texts
    ]  # fmt: skip


def texts_of(records: Any) -> list[str]:
    """The texts of records, in their order."""
    return [record["memory"] for record in records]


@cache
def _interpreters() -> Interpreters:
    interpreters = Interpreters()
    atexit.register(interpreters.close)
    return interpreters


def run_python(code: str, **environment: str | None) -> str:
    """Run code in an interpreter that has loaded neither this package nor mem0; return both its outputs.

    A variable given as None is taken away. It is forked from one that has imported what takes long
    (tests/interpreters.py).
    """
    if not hasattr(os, "fork"):
        return run_fresh_python(code, **environment)
    return _output(_interpreters().run(textwrap.dedent(code), _environment(environment)))


def run_fresh_python(code: str, **environment: str | None) -> str:
    """As `run_python`, in an interpreter that starts anew: for code that looks at what is imported."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(code)]
    env = _environment(environment)
    return _output(subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env, cwd=ROOT))


def _environment(changes: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in (os.environ | changes).items() if value is not None}


def _output(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
