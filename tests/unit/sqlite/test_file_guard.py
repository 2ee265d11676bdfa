"""Files that are put back, linked or overwritten: refused, with a text that says what to do."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from langchain_mem0_scoped.engine.storage import RowKind
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.sqlite import file_state
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.storages import add, bodies_in, erase, memory, snapshot_of
from tests.support import run_python


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(path, "tests")
    yield storage
    storage.close()


def back_up(path: Path) -> Path:
    copy = path.with_name(f"backup{len(list(path.parent.iterdir()))}.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def copied(path: Path, name: str) -> Path:
    """Copy the file with its log, as a killed process leaves them."""
    copy = path.with_name(name)
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def put_back(storage: SqliteStorage, log: str) -> Path:
    """Copy a backup over the open file, which has more rows by then; return the backup."""
    path = storage.database.path
    add(storage, "u_alice", memory("hers"))
    copy = back_up(path)
    add(storage, "u_bob", memory("his"))
    if log == "empty":
        storage.purge()
    shutil.copyfile(copy, path)
    return copy


CALLS: Final[dict[str, Callable[[SqliteStorage], object]]] = {
    "list": lambda storage: bodies_in(storage, "u_alice"),
    "snapshot": lambda storage: storage.snapshot("u_alice", RowKind.MEMORY, None),
    "write": lambda storage: add(storage, "u_alice", memory("more")),
    "erase": lambda storage: erase(storage, "u_alice"),
}


class TestOverwritten:
    """A backup is copied over the file while a process has it open."""

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("log", ["full", "empty"])
    def test_is_refused_from_then_on(self, storage: SqliteStorage, call: str, log: str) -> None:
        put_back(storage, log)
        for _ in range(2):
            with pytest.raises(BackendError, match=r"overwritten while it was open.*remove memory\.db-wal"):
                CALLS[call](storage)

    @pytest.mark.parametrize("log", ["full", "empty"])
    def test_cached_rows_do_not_answer(self, storage: SqliteStorage, path: Path, log: str) -> None:
        """The catalogue's case: equal counters, other rows."""
        copy = back_up(path)
        add(storage, "u_alice", memory("hers"))
        cached = snapshot_of(storage)
        if log == "empty":
            storage.purge()
        shutil.copyfile(copy, path)
        with pytest.raises(BackendError, match="overwritten"):
            storage.bodies("u_alice", RowKind.MEMORY, cached.version, cached.seqs)

    @pytest.mark.parametrize("log", ["full", "empty"])
    def test_what_was_put_back_is_left_as_it_is(self, path: Path, log: str) -> None:
        """The process that still had the file open does not write its log into it."""
        storage = SqliteStorage(path, "tests")
        copy = put_back(storage, log)
        storage.close()
        assert path.read_bytes() == copy.read_bytes()

    @pytest.mark.parametrize("first", ["is idle", "has no connection"])
    def test_second_client_of_the_process_is_refused(self, path: Path, first: str) -> None:
        """It would write the log that is still there into the restored file."""
        storage = SqliteStorage(path, "tests")
        add(storage, "u_alice", memory("hers"))
        copy = back_up(path)
        add(storage, "u_bob", memory("his"))
        if first == "has no connection":
            keeper = sqlite3.connect(path)
            keeper.execute("SELECT count(*) FROM items").fetchone()
            storage.database.set_pragmas()
        shutil.copyfile(copy, path)
        with pytest.raises(BackendError, match="overwritten"):
            SqliteStorage(path, "tests")
        assert path.read_bytes() == copy.read_bytes()
        storage.close()
        if first == "has no connection":
            keeper.close()

    def test_process_that_ends_leaves_what_was_put_back(self, path: Path) -> None:
        code = f"""
            import shutil, sqlite3
            from pathlib import Path
            from langchain_mem0_scoped.sqlite.storage import SqliteStorage
            from tests.storages import add, memory
            path = Path({str(path)!r})
            storage = SqliteStorage(path, "tests")
            add(storage, "u_alice", memory("hers"))
            copy = sqlite3.connect(path.with_name("copy.db"))
            with storage.database.reading() as connection:
                connection.rollback()
                connection.backup(copy)
            copy.close()
            add(storage, "u_bob", memory("his"))
            shutil.copyfile(path.with_name("copy.db"), path)
        """
        run_python(code)
        assert path.read_bytes() == path.with_name("copy.db").read_bytes()
        with pytest.raises(BackendError, match=r"rm .*memory\.db-wal"):
            SqliteStorage(path, "tests")

    def test_another_process_that_restores_and_writes(self, storage: SqliteStorage, path: Path) -> None:
        """Equal numbers of rows on both sides: a version that counted them would be equal too."""
        copy = back_up(path)
        add(storage, "u_alice", memory("hers", 1))
        cached = snapshot_of(storage)
        storage.purge()
        storage.database.set_pragmas()  # Closes the connections: nothing that they hold answers.
        shutil.copyfile(copy, path)
        other = SqliteStorage(path, "tests")
        add(other, "u_alice", memory("anew", 2))
        assert storage.bodies("u_alice", RowKind.MEMORY, cached.version, cached.seqs) is None
        after = snapshot_of(storage, cached=cached.version)
        assert after.follows is None
        assert storage.bodies("u_alice", RowKind.MEMORY, after.version, after.seqs) == [b"anew"]
        other.close()

    def test_checkpoints_of_others_are_no_reason(self, storage: SqliteStorage, path: Path) -> None:
        other = SqliteStorage(path, "tests")
        for number in range(4):
            add(storage, "u_alice", memory(f"a{number}"))
            add(other, "u_alice", memory(f"b{number}"))
            (other if number % 2 else storage).purge()
            assert len(bodies_in(storage, "u_alice")) == len(bodies_in(other, "u_alice")) == 2 * number + 2
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            connection.execute("VACUUM")
        assert len(bodies_in(storage, "u_alice")) == 8
        add(storage, "u_alice", memory("after"))
        other.close()

    def test_reader_that_holds_up_a_checkpoint_is_no_reason(self, storage: SqliteStorage, path: Path) -> None:
        """The file is then shorter than its header says: its last page is in the log alone."""
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:

            def page_count() -> int:
                return int(connection.execute("PRAGMA page_count").fetchone()[0])

            before, texts = page_count(), []
            while page_count() == before:
                texts.append(b"hers" * 200)
                add(storage, "u_alice", memory(texts[-1].decode()))
            with storage.database.reading() as reader:
                reader.execute("SELECT 1 FROM items").fetchone()
                add(storage, "u_alice", memory("later"))
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                page_size = connection.execute("PRAGMA page_size").fetchone()[0]
                assert path.stat().st_size < page_size * page_count()
                assert bodies_in(storage, "u_alice") == [*texts, b"later"]
                add(storage, "u_alice", memory("last"))


class TestReplaced:
    @pytest.mark.parametrize("call", CALLS)
    def test_file_of_another_inode_is_refused(self, storage: SqliteStorage, path: Path, call: str) -> None:
        add(storage, "u_alice", memory("hers"))
        os.replace(back_up(path), path)
        with pytest.raises(BackendError, match="deleted or replaced"):
            CALLS[call](storage)

    @pytest.mark.parametrize("suffix", ["-wal", "-shm"])
    def test_log_that_was_removed_is_refused_by_writes(self, storage: SqliteStorage, path: Path, suffix: str) -> None:
        add(storage, "u_alice", memory("hers"))
        os.unlink(f"{path}{suffix}")
        with pytest.raises(BackendError, match="was deleted or replaced while the memory file was open"):
            add(storage, "u_alice", memory("more"))
        storage.close()
        again = SqliteStorage(path, "tests")
        add(again, "u_alice", memory("again"))
        again.close()

    def test_connections_may_all_be_closed_meanwhile(self, storage: SqliteStorage) -> None:
        """The log is then another file, rightly so."""
        add(storage, "u_alice", memory("one"))
        storage.database.set_pragmas()
        add(storage, "u_alice", memory("two"))
        assert bodies_in(storage, "u_alice") == [b"one", b"two"]


class TestOpening:
    @pytest.mark.parametrize("is_emptied", [False, True])
    def test_log_of_another_copy_is_refused(self, storage: SqliteStorage, path: Path, is_emptied: bool) -> None:
        """Bob's text would be in Alice's list, and SQLite's own check would find nothing wrong."""
        add(storage, "u_alice", memory("hers"))
        backup = back_up(path)
        if is_emptied:
            storage.purge()
        add(storage, "u_bob", memory("his"))
        restored = copied(path, "restored.db")
        shutil.copyfile(backup, restored)
        log = re.escape(f"{restored}-wal")
        for _ in range(2):
            with pytest.raises(BackendError, match=f"{log} does not belong to .*remove the log: rm {log}"):
                SqliteStorage(restored, "tests")
        # As the text says.
        os.unlink(f"{restored}-wal")
        opened = SqliteStorage(restored, "tests")
        assert bodies_in(opened, "u_alice") == [b"hers"]
        assert bodies_in(opened, "u_bob") == []
        opened.close()

    def test_copy_that_was_made_while_nothing_ran_is_refused_too(self, path: Path) -> None:
        """Its pages fit the log. But played back, the log would undo the restore."""
        storage = SqliteStorage(path, "tests")
        add(storage, "u_alice", memory("hers"))
        storage.close()
        backup = path.read_bytes()
        storage = SqliteStorage(path, "tests")
        add(storage, "u_bob", memory("his"))
        restored = copied(path, "restored.db")
        restored.write_bytes(backup)
        storage.close()
        with pytest.raises(BackendError, match="does not belong"):
            SqliteStorage(restored, "tests")

    def test_log_without_its_file_is_kept(self, storage: SqliteStorage, path: Path) -> None:
        """SQLite would delete it, and what it holds with it."""
        add(storage, "u_alice", memory("hers"))
        copy = copied(path, "copy.db")
        copy.unlink()
        with pytest.raises(BackendError, match="does not belong"):
            SqliteStorage(copy, "tests")
        assert copy.with_name("copy.db-wal").stat().st_size

    def test_log_of_a_killed_process_is_played_back(self, storage: SqliteStorage, path: Path) -> None:
        for number in range(3):
            add(storage, "u_alice", memory(f"a{number}"))
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA wal_checkpoint({['PASSIVE', 'FULL', 'TRUNCATE'][number]})")
            add(storage, "u_alice", memory(f"b{number}"))
            copy = SqliteStorage(copied(path, f"copy{number}.db"), "tests")
            assert len(bodies_in(copy, "u_alice")) == 2 * number + 2
            copy.close()

    def test_copy_whose_first_checkpoint_is_held_up_is_no_foreign_file(
        self, storage: SqliteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Several processes open a restored backup at once, or one is killed while it does."""
        monkeypatch.setattr("langchain_mem0_scoped.sqlite.database._BUSY_SECONDS", 0.05)
        add(storage, "u_alice", memory("hers"))
        backup = back_up(path)
        with closing(sqlite3.connect(backup, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM items").fetchone()
            opened = SqliteStorage(backup, "tests")
            add(opened, "u_alice", memory("more"))
            assert bodies_in(opened, "u_alice") == [b"hers", b"more"]
            killed = SqliteStorage(copied(backup, "killed.db"), "tests")
            assert bodies_in(killed, "u_alice") == [b"hers", b"more"]
            killed.close()
            opened.close()

    def test_copy_elsewhere_is_a_store_of_its_own(self, storage: SqliteStorage, path: Path) -> None:
        add(storage, "u_alice", memory("hers"))
        cached = snapshot_of(storage)
        copy = SqliteStorage(back_up(path), "tests")
        add(storage, "u_alice", memory("here"))
        add(copy, "u_alice", memory("there"))
        erase(copy, "u_bob")
        assert bodies_in(storage, "u_alice") == [b"hers", b"here"]
        assert bodies_in(copy, "u_alice") == [b"hers", b"there"]
        assert snapshot_of(storage).version != snapshot_of(copy).version
        assert storage.bodies("u_alice", RowKind.MEMORY, cached.version, cached.seqs) is None
        copy.close()


class TestTwoPaths:
    def test_hard_link_is_refused_under_both_names(self, path: Path) -> None:
        storage = SqliteStorage(path, "tests")
        storage.close()
        os.link(path, path.with_name("second.db"))
        for name in (path, path.with_name("second.db")):
            with pytest.raises(BackendError, match=r"second name.*cp"):
                SqliteStorage(name, "tests")
        path.with_name("second.db").unlink()
        SqliteStorage(path, "tests").close()

    def test_hard_link_that_is_made_later_is_refused(self, storage: SqliteStorage, path: Path) -> None:
        add(storage, "u_alice", memory("hers"))
        os.link(path, path.with_name("second.db"))
        with pytest.raises(BackendError, match="second name"):
            add(storage, "u_alice", memory("more"))
        path.with_name("second.db").unlink()
        add(storage, "u_alice", memory("more"))

    def test_symbolic_link_leads_to_the_same_store(self, storage: SqliteStorage, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        link = folder / "link.db"
        link.symlink_to(path)
        linked = SqliteStorage(link, "tests")
        for number in range(3):
            add(storage, "u_alice", memory(f"here {number}"))
            add(linked, "u_alice", memory(f"there {number}"))
        assert len(bodies_in(storage, "u_alice")) == len(bodies_in(linked, "u_alice")) == 6
        assert linked.files() == storage.files()
        assert sorted(file.name for file in folder.iterdir()) == ["link.db"]
        # Wherever the link leads later.
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        add(linked, "u_alice", memory("same store"))
        assert len(bodies_in(storage, "u_alice")) == 7
        linked.close()


def test_a_search_costs_one_look_at_the_file(
    storage: SqliteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(storage, "u_alice", memory("hers"))
    snapshot = snapshot_of(storage)
    os.utime(path, (1, 1))
    storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs)
    looks: list[object] = []
    stat = os.stat

    def look(*args: Any, **options: Any) -> os.stat_result:
        looks.append(args)
        return stat(*args, **options)

    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(time, "time_ns", lambda: pytest.fail("the file was compared again"))
    storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs)
    assert len(looks) == 1


def test_commit_while_a_connection_opens_is_no_overwrite(
    storage: SqliteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new connection notes of the file belongs to one commit, though another connection commits meanwhile."""
    add(storage, "u_alice", memory("hers"))
    current_stamp = file_state.current_stamp

    def commit_behind(connection: sqlite3.Connection) -> bytes:
        stamp = current_stamp(connection)
        monkeypatch.undo()
        add(storage, "u_bob", memory("his"))
        return stamp

    with storage.database.reading():  # The idle connection is in use, so that the next one is opened.
        monkeypatch.setattr(file_state, "current_stamp", commit_behind)
        with storage.database.reading():
            pass
    storage.database.truncate()  # The file itself changes, so that every connection is compared with it.
    with storage.database.reading() as one, storage.database.reading() as other:
        assert [len(found.execute("SELECT 1 FROM items").fetchall()) for found in (one, other)] == [2, 2]
