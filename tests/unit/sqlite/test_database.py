"""Connections and transactions on the file: pragmas, locks, forks, and an empty write-ahead log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.sqlite import database as database_module
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.database_file import APPLICATION_ID, SCHEMA_VERSION
from tests import children
from tests.faults import Child, assert_sound, database_of, files_beside, store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder / "m.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A store with something in it, closed."""
    with store(path) as client:
        ScopedMemory("u_alice", client=client).add([f"I like number {n}" for n in range(50)])
    return path


class TestConnections:
    def test_every_connection_has_its_pragmas(self, path: Path) -> None:
        pragmas = {"secure_delete": 1, "synchronous": 2, "temp_store": 2, "journal_mode": "wal", "page_size": 8192}
        with store(path) as client:
            database = database_of(client)
            with database.reading() as one, database.reading() as two, database.writing() as three:
                assert len({id(one), id(two), id(three)}) == 3
                for connection in (one, two, three):
                    told = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
                    assert told == pragmas
            with database.reading() as again:
                assert any(again is one for one in (one, two, three))
                assert again.execute("PRAGMA secure_delete").fetchone() == (1,)

    def test_file_has_application_id_and_schema_version(self, filled: Path) -> None:
        with closing(sqlite3.connect(filled)) as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)

    def test_sqlite_that_cannot_overwrite_is_rejected(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = files_beside(filled)
        connect = sqlite3.connect

        class Deaf(sqlite3.Connection):
            """A build with SQLITE_SECURE_DELETE compiled away answers so."""

            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return super().execute("SELECT 0" if sql.startswith("PRAGMA secure_delete") else sql, *args)

        monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Deaf))
        with pytest.raises(BackendError, match="cannot overwrite deleted data"):
            local_memory(filled)
        monkeypatch.undo()
        assert files_beside(filled) == before

    def test_close_leaves_one_file(self, filled: Path) -> None:
        assert [file.name for file in filled.parent.iterdir()] == ["m.db"]

    @pytest.mark.parametrize(
        "verb", ["add", "search", "get_all", "get", "update", "delete", "history", "delete_all", "count"]
    )
    def test_call_after_close_is_an_error(self, path: Path, verb: str) -> None:
        with store(path) as client:
            memory = ScopedMemory("u_alice", client=client)
            record = memory.add("I am vegetarian")[0]
        arguments = {"add": ["x"], "search": ["x"], "update": [record["id"], "x"]}
        by_id = {"get", "delete", "history"}
        args = arguments.get(verb, [record["id"]] if verb in by_id else [])
        with pytest.raises(BackendError, match="is closed; build a new client"):
            getattr(memory, verb)(*args)

    def test_close_may_be_called_twice(self, path: Path) -> None:
        client = local_memory(path)
        client.close()
        client.close()

    def test_close_lets_a_reader_finish(self, filled: Path) -> None:
        client = local_memory(filled)
        with database_of(client).reading() as connection:
            client.close()
            assert connection.execute("SELECT count(*) FROM ids").fetchone() == (50,)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")

    def test_second_client_keeps_the_locks_of_the_first(self, path: Path) -> None:
        # POSIX drops every lock a process has on a file when the process closes any descriptor of it. Had the first
        # client lost its own, the next process to close the file would think itself alone and remove the log under it.
        with store(path) as first:
            memory = ScopedMemory("u_alice", client=first)
            memory.add("one")
            local_memory(path).close()
            with Child(children.add_once, path, "u_alice", "two") as child:
                child.hear()
            memory.add("three")
            assert sorted(record["memory"] for record in memory.get_all()) == ["one", "three", "two"]
            with Child(children.read_all, path, "u_alice") as child:
                assert child.hear() == ["one", "three", "two"]
        with Child(children.read_all, path, "u_alice") as child:
            assert child.hear() == ["one", "three", "two"]
        assert_sound(path)


class TestTransactions:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GeneratorExit, sqlite3.IntegrityError])
    def test_interrupted_transaction_leaves_nothing(self, filled: Path, error: type[BaseException]) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)

        def interrupted() -> None:
            with database.writing() as connection:
                connection.execute("DELETE FROM items")
                raise error

        with pytest.raises((error, BackendError)):
            interrupted()
        with database.reading() as connection:
            assert connection.execute("SELECT count(*) FROM ids").fetchone() == (50,)
            assert connection.execute("SELECT count(*) FROM items WHERE kind = 0").fetchone() == (50,)
        with database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('later', 1)")
        with database.reading() as connection:
            assert connection.execute("SELECT count(*) FROM meta WHERE key = 'later'").fetchone() == (1,)
        database.close()
        assert_sound(filled)

    def test_reader_sees_one_state(self, filled: Path) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        with database.reading() as reader:
            assert reader.execute("SELECT count(*) FROM items WHERE kind = 0").fetchone() == (50,)
            with database.writing() as writer:
                writer.execute("DELETE FROM items")
            assert reader.execute("SELECT count(*) FROM items WHERE kind = 0").fetchone() == (50,)
        database.close()

    def test_file_locked_by_another_process_is_a_retryable_error(
        self, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.1)
        with store(filled) as client, Child(children.lock, filled, "IMMEDIATE") as child:
            memory = ScopedMemory("u_alice", client=client)
            child.hear()
            for write in (lambda: memory.add("locked out"), memory.delete_all):
                with pytest.raises(BackendError, match="another process keeps it locked; try again") as caught:
                    write()
                assert caught.value.retryable
            assert memory.count() == 50  # who reads does not wait for who writes
            child.say("unlock")
            child.hear()
            memory.add("let in")
            assert memory.count() == 51

    def test_opening_a_locked_file_is_a_retryable_error(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.1)
        with Child(children.lock, filled, "EXCLUSIVE") as child:
            child.hear()
            with pytest.raises(BackendError, match="another process keeps it locked; try again") as caught:
                local_memory(filled)
            assert caught.value.retryable
            child.say("unlock")
            child.hear()
        with store(filled) as client:
            assert ScopedMemory("u_alice", client=client).count() == 50
