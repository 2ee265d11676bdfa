"""The state of a file: its place on page 2, the chain of its stamps, and the tags of erasures."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from langchain_mem0_scoped.sqlite import file_state
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.storages import add, memory


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "memory.db", "tests")
    yield storage
    storage.close()


def stamp_of(storage: SqliteStorage) -> bytes:
    with storage.database.reading() as connection:
        return file_state.current_stamp(connection)


def test_log_is_a_chain_from_the_stamp_in_the_file(storage: SqliteStorage) -> None:
    path = storage.database.path
    log = path.with_name(f"{path.name}-wal")
    storage.purge()
    assert file_state.log_stamps(log) == []
    stamps = [stamp_of(storage)]
    assert file_state.stamp_in_open_file(path) == stamps[0]
    for number in range(5):
        add(storage, "u_alice", memory(f"{number}" * 9_000))
        stamps.append(stamp_of(storage))
    assert file_state.log_stamps(log) == stamps
    assert len(set(stamps)) == 6
    assert file_state.stamp_in_open_file(path) == stamps[0]
    storage.purge()
    assert file_state.stamp_in_open_file(path) == stamps[-1]


def test_failed_or_idle_transactions_leave_the_stamp(storage: SqliteStorage) -> None:
    before = stamp_of(storage)

    def fail() -> None:
        with storage.writing() as transaction:
            transaction.create("u_alice")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with storage.writing() as transaction:
        transaction.find("u_alice")
    assert stamp_of(storage) == before


@pytest.mark.parametrize("statement", ["VACUUM", "CREATE INDEX mine ON items (said_at)", "REINDEX", "ANALYZE"])
def test_row_stays_on_its_page(storage: SqliteStorage, statement: str) -> None:
    """What an administrator may do to a closed file."""
    path = storage.database.path
    for number in range(30):
        add(storage, f"u_{number}", memory("x" * 500))
    storage.close()
    before = file_state.stamp_in_file(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    assert before is not None
    assert file_state.stamp_in_file(path) == before
    again = SqliteStorage(path, "tests")
    add(again, "u_alice", memory("after"))
    again.close()


def test_backup_is_a_copy_until_it_is_opened(storage: SqliteStorage, tmp_path: Path) -> None:
    add(storage, "u_alice", memory("hers"))
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(storage.database.path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    assert file_state.stamp_in_file(copy) is None
    SqliteStorage(copy, "tests").close()
    assert file_state.stamp_in_file(copy) is not None


def test_files_without_a_state_have_no_stamp(tmp_path: Path) -> None:
    for content in (b"", b"x" * 100, bytes(20_000)):
        (tmp_path / "file").write_bytes(content)
        assert file_state.stamp_in_file(tmp_path / "file") is None
        assert file_state.log_stamps(tmp_path / "file") == []
    assert file_state.log_stamps(tmp_path / "none") == []
