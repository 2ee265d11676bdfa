"""Connections and transactions on the file: pragmas, locks, forks, and an empty write-ahead log."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, ErasureError, ScopedMemory, local_memory
from langchain_mem0_scoped.database_header import APPLICATION_ID
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.sqlite import database as database_module
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.database_file import SCHEMA_VERSION, file_error, switch_to_wal
from langchain_mem0_scoped.sqlite.file_guard import GuardedConnection
from tests import children
from tests.faults import Child, assert_sound, files_beside, store
from tests.support import database_of, run_python
from tests.worlds import left_in, synced


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
    def test_every_connection_has_its_pragmas(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced(monkeypatch)
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

        class Deaf(GuardedConnection):
            """A build with SQLITE_SECURE_DELETE compiled away answers so."""

            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return super().execute("SELECT 0" if sql.startswith("PRAGMA secure_delete") else sql, *args)

        monkeypatch.setattr(database_module, "GuardedConnection", Deaf)
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

    def test_file_of_a_closed_client_is_not_touched_while_it_is_read(
        self, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its connection would lose its locks; see the next test."""
        checked: list[Path] = []
        monkeypatch.setattr(database_module, "check_header", checked.append)
        first = Database(filled, OfflineEmbeddings.fingerprint)
        with first.reading():
            first.close()
            Database(filled, OfflineEmbeddings.fingerprint).close()
            assert len(checked) == 1
        Database(filled, OfflineEmbeddings.fingerprint).close()
        assert len(checked) == 2

    def test_second_client_keeps_the_locks_of_the_first(self, path: Path) -> None:
        # POSIX drops every lock a process has on a file when the process closes any descriptor of it. Had the first
        # client lost its own, the next process to close the file would think itself alone and remove the log under it.
        with store(path) as first:
            memory = ScopedMemory("u_alice", client=first)
            memory.add("one")
            local_memory(path).close()
            with Child(children.add_once, path, "u_alice", "two") as child:
                child.receive()
            memory.add("three")
            assert sorted(record["memory"] for record in memory.get_all()) == ["one", "three", "two"]
            with Child(children.read_all, path, "u_alice") as child:
                assert child.receive() == ["one", "three", "two"]
        with Child(children.read_all, path, "u_alice") as child:
            assert child.receive() == ["one", "three", "two"]
        assert_sound(path)


class Failing(GuardedConnection):
    """A connection on which chosen statements fail.

    Attributes:
        failing: Their first words.
    """

    failing: frozenset[str] = frozenset()

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql.startswith(tuple(self.failing)):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *args)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    """Every connection that is opened from now on is of this class."""
    monkeypatch.setattr(database_module, "GuardedConnection", Failing)
    monkeypatch.setattr(Failing, "failing", frozenset())
    return Failing


class TestPool:
    def test_connection_in_a_transaction_is_closed(self, filled: Path, failing: type[Failing]) -> None:
        # Its next user would otherwise read an old state, or write into a transaction that is never committed.
        database = Database(filled, OfflineEmbeddings.fingerprint)

        def read() -> None:
            with database.reading():
                failing.failing = frozenset({"ROLLBACK"})

        with pytest.raises(BackendError):
            read()
        failing.failing = frozenset()
        assert database._idle == []
        for _ in range(2):
            with database.reading() as connection:
                assert connection.execute("SELECT count(*) FROM ids").fetchone() == (50,)
        with database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('later', 1)")
        assert database.query("SELECT count(*) FROM meta WHERE key = 'later'", ()) == [(1,)]
        database.close()

    def test_connections_are_used_again(self, filled: Path) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        with database.reading() as first:
            pass
        with database.writing() as second:
            pass
        assert second is first
        assert database.query("SELECT 1", ()) == [(1,)]
        assert database._idle == [first]
        assert database._in_use == 0
        database.close()

    def test_commits_that_fail_again_and_again_change_nothing(self, filled: Path, failing: type[Failing]) -> None:
        """As on a disk that is full. The file is not taken for another one because of them."""
        database = Database(filled, OfflineEmbeddings.fingerprint)
        os.utime(filled, (1, 1))
        assert database.query("SELECT count(*) FROM ids", ()) == [(50,)]

        def write() -> None:
            with database.writing() as connection:
                connection.execute("INSERT INTO meta VALUES ('more', 1)")

        failing.failing = frozenset({"COMMIT"})
        for _ in range(4):
            with pytest.raises(BackendError):
                write()
        failing.failing = frozenset()
        os.utime(filled, (2, 2))
        assert database.query("SELECT count(*) FROM meta WHERE key = 'more'", ()) == [(0,)]
        write()
        database.close()

    @pytest.mark.parametrize("failure", ["connect", "query"])
    def test_failure_returns_the_connection(self, filled: Path, failing: type[Failing], failure: str) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        failing.failing = frozenset({"PRAGMA temp_store"} if failure == "connect" else {"SELECT"})
        with pytest.raises(BackendError, match=str(filled)):
            database.query("SELECT 1", ())
        failing.failing = frozenset()
        assert database._in_use == 0
        assert database.query("SELECT 1", ()) == [(1,)]
        database.close()

    def test_only_so_many_idle_connections_are_kept(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database_module, "_MAX_IDLE", 2)
        database = Database(filled, OfflineEmbeddings.fingerprint)
        with database.reading(), database.reading(), database.reading():
            pass
        assert len(database._idle) == 2
        database.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestForks:
    def test_child_forgets_connections_that_were_in_use(self, filled: Path) -> None:
        """A fork waits a while for them. One in the child must not wait for threads that do not exist there."""
        code = f"""
            import os, signal, threading, time, warnings
            from pathlib import Path
            from langchain_mem0_scoped.embeddings import OfflineEmbeddings
            from langchain_mem0_scoped.sqlite import database as database_module

            warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, of any fork beside threads
            database = database_module.Database(Path({str(filled)!r}), OfflineEmbeddings.fingerprint)
            reading, done = threading.Event(), threading.Event()

            def read():
                with database.reading():
                    reading.set()
                    done.wait()

            thread = threading.Thread(target=read)
            thread.start()
            reading.wait()
            database_module._FORK_SECONDS = 0.1
            if not (pid := os.fork()):
                assert database._in_use == 0
                database_module._FORK_SECONDS = 100.0
                signal.alarm(30)
                if not (pid := os.fork()):
                    os._exit(database.query("SELECT count(*) FROM ids", []) != [(50,)])
                os._exit(os.waitpid(pid, 0)[1] != 0)
            status = os.waitpid(pid, 0)[1]
            done.set()
            thread.join()
            database.close()
            assert status == 0, "the child waited, or failed"
            """
        assert run_python(code) == ""


class TestSameFile:
    @pytest.mark.parametrize("change", ["deleted", "renamed", "replaced by a copy", "replaced by another"])
    def test_write_to_a_file_that_is_gone_is_an_error(self, filled: Path, change: str) -> None:
        """The connections go on serving it: a write would be acknowledged, and lost."""
        with store(filled.with_name("other.db")):
            pass
        with store(filled) as client:
            memory = ScopedMemory("u_alice", client=client)
            assert memory.count() == 50
            elsewhere = filled.with_name("elsewhere.db")
            if change == "deleted":
                filled.unlink()
            else:
                filled.rename(elsewhere)
            if change == "replaced by a copy":
                shutil.copy(elsewhere, filled)
            elif change == "replaced by another":
                shutil.copy(filled.with_name("other.db"), filled)
            for write in (lambda: memory.add("I moved to Oslo"), memory.delete_all):
                with pytest.raises(BackendError, match=r"deleted or replaced; build a new client") as caught:
                    write()
                assert not caught.value.retryable
            if change == "renamed":
                elsewhere.rename(filled)
                memory.add("I moved to Oslo")
                assert memory.count() == 51


class TestTruncation:
    @pytest.fixture
    def database(self, filled: Path) -> Iterator[Database]:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        with database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('marker', 'zyzzogeton')")
        yield database
        database.close()

    @staticmethod
    def remove(database: Database) -> None:
        with database.writing() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'marker'")

    def test_truncation_leaves_no_deleted_bytes(self, database: Database) -> None:
        self.remove(database)
        assert left_in(database.path, "zyzzogeton") == ["zyzzogeton"], "nothing is tested here"
        database.truncate()
        assert left_in(database.path, "zyzzogeton") == []
        assert database.path.with_name("m.db-wal").stat().st_size == 0

    def test_next_write_repeats_a_failed_truncation(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database_module, "_TRUNCATE_SECONDS", 0.2)
        with database.reading() as reader:
            reader.execute("SELECT count(*) FROM meta").fetchone()
            self.remove(database)
            with pytest.raises(ErasureError, match="write-ahead log") as caught:
                database.truncate()
            assert caught.value.kinds == ("bytes",)
            with database.writing() as connection:  # It is acknowledged, although the log is still in use.
                connection.execute("INSERT INTO meta VALUES ('first', 1)")
            assert left_in(database.path, "zyzzogeton") == ["zyzzogeton"]
        # Looked at while the file is open: closing the last connection empties the log as well.
        assert left_in(database.path, "zyzzogeton") == ["zyzzogeton"]
        with database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('second', 1)")
        assert left_in(database.path, "zyzzogeton") == []
        assert database.query("SELECT count(*) FROM meta WHERE key IN ('first', 'second')", ()) == [(2,)]

    def test_truncation_waits_for_a_reader_to_finish(self, database: Database) -> None:
        reading, removed = threading.Event(), threading.Event()

        def read() -> None:
            with database.reading() as reader:
                reader.execute("SELECT count(*) FROM meta").fetchone()
                reading.set()
                removed.wait()
                time.sleep(0.3)

        thread = threading.Thread(target=read)
        thread.start()
        reading.wait()
        self.remove(database)
        removed.set()
        database.truncate()
        thread.join()
        assert left_in(database.path, "zyzzogeton") == []

    def test_truncation_that_fails_does_not_fail_the_write(self, filled: Path, failing: type[Failing]) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        failing.failing = frozenset({"PRAGMA wal_checkpoint"})
        with pytest.raises(BackendError):
            database.truncate()
        with database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('later', 1)")
        failing.failing = frozenset()
        assert database.query("SELECT count(*) FROM meta WHERE key = 'later'", ()) == [(1,)]
        database.close()


class TestLocked:
    @pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED])
    def test_switching_to_the_log_waits_for_a_lock(self, code: int) -> None:
        """Two processes that create one file meet here: SQLite's own waiting does not cover this PRAGMA."""
        connection = _Locked(code, times=3)
        switch_to_wal(connection, timeout=30.0)  # type: ignore[arg-type]
        assert connection.asked == 4

    @pytest.mark.parametrize(
        ("code", "timeout"), [(sqlite3.SQLITE_BUSY, 0.0), (sqlite3.SQLITE_IOERR, 30.0)], ids=["too long", "not a lock"]
    )
    def test_switching_to_the_log_fails(self, code: int, timeout: float) -> None:
        connection = _Locked(code, times=1)
        with pytest.raises(sqlite3.OperationalError):
            switch_to_wal(connection, timeout)  # type: ignore[arg-type]
        assert connection.asked == 1

    @pytest.mark.parametrize(
        ("code", "retryable"),
        [
            (sqlite3.SQLITE_BUSY, True),
            (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
            (sqlite3.SQLITE_LOCKED, True),
            (sqlite3.SQLITE_FULL, False),
            (sqlite3.SQLITE_CORRUPT, False),
        ],
    )
    def test_lock_is_worth_another_try(self, code: int, retryable: bool) -> None:
        assert file_error(_error(code), Path("m.db")).retryable is retryable


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    return error


class _Locked:
    """What `switch_to_wal` needs of a connection: it raises a few times first."""

    def __init__(self, code: int, times: int) -> None:
        self._error, self._times = _error(code), times
        self.asked = 0

    def execute(self, sql: str) -> _Locked:
        self.asked += 1
        if self.asked <= self._times:
            raise self._error
        return self

    def fetchone(self) -> tuple[str]:
        return ("wal",)


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
            child.receive()
            for write in (lambda: memory.add("locked out"), memory.delete_all):
                with pytest.raises(BackendError, match="another process keeps it locked; try again") as caught:
                    write()
                assert caught.value.retryable
            assert memory.count() == 50  # who reads does not wait for who writes
            child.send("unlock")
            child.receive()
            memory.add("let in")
            assert memory.count() == 51

    def test_opening_a_locked_file_is_a_retryable_error(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.1)
        with Child(children.lock, filled, "EXCLUSIVE") as child:
            child.receive()
            with pytest.raises(BackendError, match="another process keeps it locked; try again") as caught:
                local_memory(filled)
            assert caught.value.retryable
            child.send("unlock")
            child.receive()
        with store(filled) as client:
            assert ScopedMemory("u_alice", client=client).count() == 50
