"""A pytest plugin that puts our history under the names that other projects' chat history tests import.

Every substitute is a `ScopedChatMessageHistory` on a real client with the constructor of the other project. Their
sessions are sessions of one user here, without recall.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import langchain_core.chat_history
import mem0
import pytest
from excluded import EXCLUDED  # type: ignore[import-not-found]  # beside this file, which is no package here

from langchain_mem0_scoped import ScopedChatMessageHistory, local_memory
from langchain_mem0_scoped.transcripts.sql import TABLE

if TYPE_CHECKING:
    import psycopg

PROJECT = os.environ["UPSTREAM_PROJECT"]

_folder = tempfile.TemporaryDirectory(prefix="upstream-clients-", ignore_cleanup_errors=True)
_clients: dict[str, mem0.Memory] = {}
_numbers = itertools.count()


def client_for(where: str) -> mem0.Memory:
    """Return one client for each database, as an application has."""
    if where not in _clients:
        _clients[where] = local_memory(Path(_folder.name) / f"{len(_clients)}.db")
    return _clients[where]


class InMemoryChatMessageHistory(ScopedChatMessageHistory):
    """langchain-core's: each object is one conversation."""

    def __init__(self, messages: Any = ()) -> None:
        super().__init__(f"user{next(_numbers)}", client=client_for("core"))
        if messages:
            self.add_messages(messages)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScopedChatMessageHistory) and self.messages == other.messages

    __hash__ = None  # type: ignore[assignment]


class SQLChatMessageHistory(ScopedChatMessageHistory):
    """langchain-community's: a session in a table. Ours uses the same driver for async."""

    def __init__(
        self, session_id: str, connection: str, table_name: str = "", async_mode: bool = False, engine_args: Any = None
    ) -> None:
        url = connection.replace("sqlite+aiosqlite:", "sqlite:")
        super().__init__("user", session_id, client=client_for(url), transcripts=url, recall=0)


class FileChatMessageHistory(ScopedChatMessageHistory):
    """langchain-community's: one conversation in a file."""

    def __init__(self, file_path: str) -> None:
        self.file_path = file_path
        if file_path not in _clients:
            _clients[file_path] = local_memory(file_path)
        super().__init__("user", client=_clients[file_path])


class TiDBChatMessageHistory(ScopedChatMessageHistory):
    """langchain-community's: a session in a database with MySQL's protocol. Ours takes any SQLAlchemy URL."""

    def __init__(self, session_id: str, connection_string: str) -> None:
        where = connection_string
        super().__init__("user", session_id, client=client_for(where), transcripts=where, recall=0)


class PostgresChatMessageHistory(ScopedChatMessageHistory):
    """langchain-postgres's: a session in a table, over the caller's connection. Ours creates the table on first use."""

    def __init__(
        self,
        table_name: str,
        session_id: str,
        *,
        sync_connection: psycopg.Connection | None = None,
        async_connection: psycopg.AsyncConnection | None = None,
    ) -> None:
        connection = sync_connection or async_connection
        assert connection is not None
        info = connection.info
        url = f"postgresql+psycopg://{info.user}@/{info.dbname}?host={info.host}&port={info.port}"
        super().__init__("user", session_id, client=client_for(url), transcripts=url, recall=0)

    @staticmethod
    def drop_table(connection: psycopg.Connection, table_name: str) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.commit()

    @staticmethod
    async def adrop_table(connection: psycopg.AsyncConnection, table_name: str) -> None:
        # Our table from the first test can stay.
        await connection.execute("SELECT 1")
        await connection.commit()

    @staticmethod
    def create_tables(connection: psycopg.Connection, table_name: str) -> None:
        """Nothing to do."""

    @staticmethod
    async def acreate_tables(connection: psycopg.AsyncConnection, table_name: str) -> None:
        """Nothing to do."""


def pytest_configure(config: pytest.Config) -> None:
    """Register ours under their names before a test file is imported. Their packages need not be installed."""
    config.addinivalue_line("markers", "requires: packages that theirs needs")
    langchain_core.chat_history.InMemoryChatMessageHistory = InMemoryChatMessageHistory  # type: ignore[misc, assignment]
    community = module(
        "langchain_community.chat_message_histories",
        SQLChatMessageHistory=SQLChatMessageHistory,
        FileChatMessageHistory=FileChatMessageHistory,
        TiDBChatMessageHistory=TiDBChatMessageHistory,
    )
    community.sql = module(f"{community.__name__}.sql", DefaultMessageConverter=object)  # type: ignore[attr-defined]
    module("langchain_community", chat_message_histories=community)
    postgres = module(
        "langchain_postgres.chat_message_histories", PostgresChatMessageHistory=PostgresChatMessageHistory
    )
    module("langchain_postgres", chat_message_histories=postgres)


def module(name: str, **names: object) -> ModuleType:
    """Register a module of a package that is not installed."""
    made = sys.modules[name] = ModuleType(name)
    made.__path__ = []
    vars(made).update(names)
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect excluded cases to fail; an excluded case that no longer exists is an error."""
    listed = dict(EXCLUDED[PROJECT])
    for item in items:
        reason = listed.pop(item.name, None)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if listed:
        raise pytest.UsageError(f"excluded.py lists cases that {PROJECT} no longer has: {', '.join(listed)}")


def pytest_unconfigure() -> None:
    """Close the clients and remove their files."""
    for client in _clients.values():
        client.close()
    _folder.cleanup()
