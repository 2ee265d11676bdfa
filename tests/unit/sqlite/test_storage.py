"""SqliteStorage: how few statements a search takes, and that each names its user.

What every storage promises is tested in tests/conformance/test_storage*.py.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from langchain_mem0_scoped.engine.storage import RowKind
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.storages import add, erase, memory, snapshot_of


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "memory.db", "tests")
    yield storage
    storage.close()


@contextmanager
def statements(storage: SqliteStorage) -> Iterator[list[str]]:
    """Collect what SQLite runs meanwhile, on the one connection that is idle."""
    run: list[str] = []
    # A file that was changed just now is compared again each time.
    os.utime(storage.database.path, (1, 1))
    with storage.database.reading() as connection:
        pass
    connection.set_trace_callback(run.append)
    yield run
    connection.set_trace_callback(None)


class TestStatements:
    def test_search_of_a_cached_user_takes_one(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", *(memory(str(number)) for number in range(70)))
        snapshot = snapshot_of(storage)
        with statements(storage) as run:
            storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs[:60])
            assert len(run) == 1
            # A search that no row matches only compares the version.
            storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, [])
            assert len(run) == 2
        assert all(statement.lstrip().startswith("SELECT") for statement in run)

    def test_snapshot_of_changed_rows_is_one_transaction(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a"))
        snapshot = snapshot_of(storage)
        add(storage, "u_alice", memory("b"))
        with statements(storage) as run:
            snapshot_of(storage, cached=snapshot.version)
        assert [statement.split()[0] for statement in run] == ["BEGIN", "SELECT", "SELECT", "ROLLBACK"]

    def test_partition_is_looked_for_once_in_a_transaction(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a"))
        with statements(storage) as run, storage.reading() as transaction:
            assert transaction.find("u_alice") == transaction.find("u_alice")
            transaction.token("u_alice")
            assert transaction.find("u_bob") is None
            assert transaction.find("u_bob") is None
        assert [statement.split()[0] for statement in run] == ["BEGIN", "SELECT", "SELECT", "ROLLBACK"]

    def test_partition_is_looked_for_again_once_it_changed(self, storage: SqliteStorage) -> None:
        with storage.writing() as transaction:
            assert transaction.find("u_alice") is None
            created = transaction.create("u_alice")
            assert transaction.find("u_alice") == created
            added = transaction.insert(created, [memory("a")])
            transaction.bump_version(added, searched=True, rewritten=False)
            assert transaction.find("u_alice") == added
            transaction.erase("u_alice")
            assert transaction.find("u_alice") is None

    def test_rows_are_found_by_their_primary_keys(self, storage: SqliteStorage) -> None:
        """Neither read may grow with other users' rows."""
        add(storage, "u_alice", memory("a"))
        snapshot = snapshot_of(storage)
        with statements(storage) as run:
            snapshot_of(storage)
            storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs)
        for statement in run:
            if statement.lstrip().startswith("SELECT"):
                plan = [row[3] for row in storage.database.query(f"EXPLAIN QUERY PLAN {statement}", ())]
                assert plan
                assert all(step.startswith("SEARCH") for step in plan), plan

    def test_no_statement_lists_more_than_any_build_of_sqlite_takes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect = Database._connect

        def limited(database: Database) -> sqlite3.Connection:
            connection = connect(database)
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
            return connection

        monkeypatch.setattr(Database, "_connect", limited)
        many = SqliteStorage(tmp_path / "many.db", "tests")
        rows = [memory(str(number)) for number in range(2_100)]
        alice = add(many, "u_alice", *rows)
        snapshot = snapshot_of(many)
        assert len(many.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs) or []) == 2_100
        with many.writing() as transaction:
            seqs = transaction.find_ids(alice, RowKind.MEMORY, [row.id for row in rows])
            assert len(transaction.rows(alice, RowKind.MEMORY, seqs=list(seqs.values()))) == 2_100
            transaction.remove(alice, RowKind.MEMORY, list(seqs.values()))
            assert not transaction.has_rows(alice, RowKind.MEMORY)
        many.close()


class TestSnapshot:
    def test_version_of_another_history_of_the_file_is_not_followed(self, tmp_path: Path) -> None:
        """Two copies of one file have the same rows up to a point, and then other rows under the same numbers."""
        paths = [tmp_path / "one.db", tmp_path / "other.db"]
        one = SqliteStorage(paths[0], "tests")
        add(one, "u_alice", memory("both"))
        one.close()
        paths[1].write_bytes(paths[0].read_bytes())
        one, other = (SqliteStorage(path, "tests") for path in paths)
        add(one, "u_alice", memory("here"))
        add(other, "u_alice", memory("there"))
        found = other.snapshot("u_alice", RowKind.MEMORY, snapshot_of(one).version)
        assert found is not None
        assert found.follows is None
        assert len(found.ids) == 2
        one.close()
        other.close()

    def test_user_erased_before_the_transaction_has_no_snapshot(
        self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(storage, "u_alice", memory("a"))
        version = snapshot_of(storage).version
        add(storage, "u_alice", memory("b"))
        reading = Database.reading

        def erase_first(database: Database) -> object:
            monkeypatch.undo()
            erase(storage, "u_alice")
            return reading(database)

        monkeypatch.setattr(Database, "reading", erase_first)
        assert storage.snapshot("u_alice", RowKind.MEMORY, version) is None

    def test_version_that_is_newer_than_what_is_read_is_not_followed(self, storage: SqliteStorage) -> None:
        """Another thread's transaction may have begun later, and filled the cache earlier."""
        add(storage, "u_alice", memory("a"), memory("b"))
        place, stamp, epoch, seq, row_id = snapshot_of(storage).version
        snapshot = snapshot_of(storage, cached=(place, stamp + 1, epoch, seq + 1, row_id[::-1]))
        assert snapshot.follows is None
        assert len(snapshot.ids) == 2


class TestOpening:
    def test_file_of_another_fingerprint_is_refused(self, storage: SqliteStorage) -> None:
        with pytest.raises(BackendError, match="built with the embedding 'tests', not 'others'"):
            SqliteStorage(storage.database.path, "others")

    def test_files_are_the_file(self, storage: SqliteStorage, tmp_path: Path) -> None:
        assert storage.files() == [tmp_path / "memory.db"]

    def test_error_of_a_damaged_table_is_a_backend_error(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a"))
        version = snapshot_of(storage).version
        with storage.database.writing() as connection:
            connection.execute("ALTER TABLE items RENAME TO lost")
        for call in (
            lambda: storage.snapshot("u_alice", RowKind.MEMORY, None),
            lambda: storage.bodies("u_alice", RowKind.MEMORY, version, [0]),
            lambda: add(storage, "u_alice", memory("b")),
        ):
            with pytest.raises(BackendError, match=r"memory\.db failed") as caught:
                call()
            assert not isinstance(caught.value.__cause__, sqlite3.Error)
