"""The file of transcripts in SQLite: who may read it, what it may not be, and that logs show nothing of it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped import InputError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.transcripts.sql import SqlTranscripts, engine_for, parse_url
from langchain_mem0_scoped.transcripts.sqlite_file import file_of
from tests.chat import OpenStore, close_transcripts, turn
from tests.faults import log_text
from tests.support import new_user
from tests.worlds import WordEmbeddings


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    close_transcripts(client)
    client.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


URLS = {
    "a path": "sqlite:///{folder}/chats.db",
    "a URI": "sqlite:///file:{folder}/chats.db?uri=true",
    "a URI with options": "sqlite:///file:{folder}/chats.db?mode=rwc&uri=true",
}


class TestMode:
    @pytest.mark.usefixtures("usual_umask")
    @pytest.mark.parametrize("url", URLS)
    @pytest.mark.parametrize("pragma", ["DELETE", "WAL"])
    def test_files_are_for_their_owner_only(self, tmp_path: Path, url: str, pragma: str) -> None:
        engine = engine_for(parse_url(URLS[url].format(folder=tmp_path)))
        store = SqlTranscripts(engine)
        OpenStore(store).append("u", "s", turn("one"))
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA journal_mode={pragma}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("UPDATE langchain_mem0_scoped_transcripts SET body = '{}'")
            modes = {path.name: mode_of(path) for path in tmp_path.iterdir()}
            connection.rollback()
        engine.dispose()
        assert store.files() == [tmp_path / "chats.db"]
        assert len(modes) > 1
        assert set(modes.values()) == {0o600}, modes

    @pytest.mark.usefixtures("usual_umask")
    def test_an_engine_of_the_caller_too(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'chats.db'}")
        OpenStore(SqlTranscripts(engine_for(engine))).append("u", "s", turn("one"))
        engine.dispose()
        assert mode_of(tmp_path / "chats.db") == 0o600

    def test_a_file_that_is_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "chats.db").touch(0o640)
        engine = engine_for(parse_url(f"sqlite:///{tmp_path / 'chats.db'}"))
        OpenStore(SqlTranscripts(engine)).append("u", "s", turn("one"))
        engine.dispose()
        assert mode_of(tmp_path / "chats.db") == 0o640

    def test_databases_without_a_file_have_none(self) -> None:
        shared = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        named = create_engine("sqlite:///file:chats?mode=memory&cache=shared&uri=true", poolclass=StaticPool)
        for engine in (shared, named):
            assert file_of(engine) is None
            engine.dispose()


class TestMemoryFile:
    @pytest.mark.parametrize("url", ["sqlite:///{file}", "sqlite:///file:{file}?uri=true"])
    @pytest.mark.parametrize("how", ["itself", "symbolic link"])
    def test_transcripts_in_the_memory_file_are_refused(
        self, client: EngineMemory, tmp_path: Path, url: str, how: str
    ) -> None:
        file = tmp_path / "m.db"
        if how == "symbolic link":
            (tmp_path / "link.db").symlink_to(file)
            file = tmp_path / "link.db"
        memory = ScopedMemory("u_alice", client=client, transcripts=url.format(file=file))
        for _ in range(2):
            with pytest.raises(InputError, match="file of their own"):
                memory.chat_history("s").add_messages([HumanMessage("tea")])

    def test_another_clients_memory_file_is_refused(self, client: EngineMemory, tmp_path: Path) -> None:
        local_memory(tmp_path / "other.db", embeddings=WordEmbeddings()).close()
        memory = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path / 'other.db'}")
        with pytest.raises(InputError, match="file of their own"):
            memory.chat_history("s").add_messages([HumanMessage("tea")])


class TestLogs:
    @pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
    @pytest.mark.parametrize("echo", [False, True])
    @pytest.mark.parametrize("owner", ["ours", "the caller"])
    def test_sqlalchemys_log_shows_neither_parameters_nor_rows(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, owner: str, echo: bool, level: int
    ) -> None:
        caplog.set_level(level, "sqlalchemy.engine")
        url = f"sqlite:///{tmp_path / 'chats.db'}"
        theirs = create_engine(url, echo=echo)
        engine = engine_for(theirs if owner == "the caller" else parse_url(url))
        store, user_id = OpenStore(SqlTranscripts(engine)), new_user("zyzzogeton")
        store.append(user_id, "a secret session", turn("quagga"))
        assert store.texts(user_id, "a secret session") == ["quagga 0", "quagga 1"]
        store.store.clear(user_id, "a secret session")
        engine.dispose()
        assert not theirs.hide_parameters, "the caller's engine stays as it is"
        said = log_text(caplog.records)
        assert "INSERT INTO" in said, "nothing was logged, so nothing is tested"
        assert not [word for word in ("zyzzogeton", "quagga", "a secret session") if word in said]


class TestEveryPlace:
    def test_clear_and_erasure_reach_both_stores(self, client: EngineMemory, tmp_path: Path) -> None:
        """Another process may have logged into the client's own store, before this one was bound to a database."""
        user_id, url = new_user(), f"sqlite:///{tmp_path / 'chats.db'}"
        own = OpenStore(client.transcripts)
        memory = ScopedMemory(user_id, client=client, transcripts=url)
        history: Any = memory.chat_history("s1", recall=0, remember=False)
        for act in (history.clear, memory.delete_all):
            own.append(user_id, "s1", turn("own"))
            history.add_messages([HumanMessage("bound")])
            act()
            assert own.texts(user_id, "s1") == []
            assert ScopedMemory(user_id, client=client, transcripts=url).chat_history("s1", recall=0).messages == []
        own.append(user_id, "s1", turn("own"))
        history.add_messages([HumanMessage("bound")])
        assert memory.delete_all().transcripts == 3
