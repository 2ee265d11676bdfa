"""The file of the embedded store: what is opened and what is refused, how its connections are set, its transactions."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, local_memory
from langchain_mem0_scoped.backends import default
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.sqlite import database as room
from langchain_mem0_scoped.sqlite.database import APPLICATION_ID, SCHEMA_VERSION, Database
from tests import children
from tests.faults import Bag, Child, assert_sound, files_beside, rows_in, store


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


class TestPaths:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_str_and_a_path_name_the_same_file(self, path: Path, kind: type) -> None:
        with store(kind(path)) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        with store(path) as client:
            assert ScopedMemory("u_alice", client=client).count() == 1

    @pytest.mark.parametrize(
        "name",
        [
            "with spaces.db",
            "100%.db",
            "a%20b.db",
            "#1?mode=memory&cache=shared.db",
            "file:x.db",
            "猫 'single' \"double\" `back`.db",
            "back\\slash;semi.db",
            "new\nline.db",
            "..db",
            "-wal",
            os.fsdecode(b"not utf-8 \xff.db"),
        ],
    )
    def test_any_name_is_a_name(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "o'clock #% ?"
        folder.mkdir()
        with store(folder / name) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        assert [file.name for file in folder.iterdir()] == [name]
        with store(folder / name) as client:
            assert ScopedMemory("u_alice", client=client).get_all()[0]["memory"] == "I am vegetarian"

    def test_a_relative_path_is_kept_when_the_process_moves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "search_other_sessions").mkdir()
        monkeypatch.chdir(tmp_path)
        with store("m.db") as client:
            monkeypatch.chdir(tmp_path / "search_other_sessions")
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        with store(tmp_path / "m.db") as client:
            assert ScopedMemory("u_alice", client=client).count() == 1

    @pytest.mark.parametrize("given", [":memory:", "", b"m.db", None, 7, ["m.db"]])
    def test_what_names_no_file_is_refused(self, given: Any) -> None:
        with pytest.raises(InputError, match="path must name a file"):
            local_memory(given)

    @pytest.mark.parametrize("given", ["nul\0byte.db", "~no_such_user_here/m.db"])
    def test_what_no_file_can_be_called_is_refused(self, given: str) -> None:
        with pytest.raises((InputError, BackendError)):
            local_memory(given)

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="No such file or directory") as caught:
            local_memory(tmp_path / "missing" / "m.db")
        assert str(tmp_path / "missing" / "m.db") in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="directory"):
            local_memory(tmp_path)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_device_is_no_file(self) -> None:
        with pytest.raises(BackendError):
            local_memory("/dev/full")

    def test_only_its_owner_may_read_the_file(self, path: Path) -> None:
        before = os.umask(0)
        try:
            with store(path) as client:
                ScopedMemory("u_alice", client=client).add("I am vegetarian")
                modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        finally:
            os.umask(before)
        assert modes == {"m.db": 0o600, "m.db-wal": 0o600, "m.db-shm": 0o600}

    def test_the_default_directory_is_made_for_its_owner_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(default.PATH_VARIABLE)
        monkeypatch.setenv("HOME", str(tmp_path))
        before = os.umask(0)
        try:
            ScopedMemory("u_alice").add("I am vegetarian")
        finally:
            os.umask(before)
            default.default_client().close()
        folder = tmp_path / ".langchain_mem0_scoped"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "memory.db").stat().st_mode) == 0o600

    def test_a_default_directory_that_cannot_be_made_is_a_clear_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv(default.PATH_VARIABLE, str(tmp_path / "file" / "memory.db"))
        with pytest.raises(BackendError, match="file"):
            ScopedMemory("u_alice").add("I am vegetarian")


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _foreign(path: Path, *statements: str) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        for statement in statements:
            connection.execute(statement)


def _marked(path: Path, pragma: str, value: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA {pragma}={value}")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("Dear diary,\n" * 40), "is not a database.*file of its own"),
    "a line feed": (lambda path: path.write_bytes(b"\n"), "is not a database.*file of its own"),
    "50 bytes": (lambda path: _cut(path, 50), "is not a database.*file of its own"),
    "50 zeros": (lambda path: path.write_bytes(b"\0" * 50), "is not a database.*file of its own"),
    "random": (lambda path: path.write_bytes(Random(7).randbytes(8192)), "is not a database.*file of its own"),
    "header alone": (lambda path: _cut(path, 100), "damaged.*restore|not a database"),
    "one page": (lambda path: _cut(path, 8192), "damaged.*restore"),
    "cut within a page": (lambda path: _cut(path, 30_000), "damaged.*restore"),
    "last byte gone": (lambda path: _cut(path, path.stat().st_size - 1), "damaged.*restore"),
    "random after the header": (
        lambda path: path.write_bytes(path.read_bytes()[:100] + Random(7).randbytes(path.stat().st_size - 100)),
        "damaged.*restore|not a database",
    ),
    "another program's": (lambda path: _foreign(path), "another program's database.*file of its own"),
    "another program's in WAL mode": (
        lambda path: _foreign(path, "PRAGMA journal_mode=WAL"),
        "another program's database.*file of its own",
    ),
    "another program's with a mark": (
        lambda path: _foreign(path, f"PRAGMA application_id={APPLICATION_ID + 1}"),
        "another program's database.*file of its own",
    ),
    "a newer schema": (lambda path: _marked(path, "user_version", SCHEMA_VERSION + 1), "schema 2.*upgrade"),
    "a much newer schema": (lambda path: _marked(path, "user_version", 2**31 - 1), "schema 2147483647.*upgrade"),
}


class TestFilesThatAreRefused:
    @pytest.mark.parametrize("kind", REFUSED)
    def test_the_error_is_clear_and_the_file_is_as_it_was(self, filled: Path, kind: str) -> None:
        spoil, expected = REFUSED[kind]
        spoil(filled)
        before = files_beside(filled)
        for _ in range(2):
            with pytest.raises(BackendError, match=expected) as caught:
                local_memory(filled)
            assert str(filled) in str(caught.value)
            assert not caught.value.retryable
            assert files_beside(filled) == before

    @pytest.mark.parametrize("kind", REFUSED)
    def test_no_connection_is_left_open(self, filled: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        REFUSED[kind][0](filled)
        connect = sqlite3.connect
        made: list[sqlite3.Connection] = []

        def noted(*args: Any, **options: Any) -> sqlite3.Connection:
            made.append(connect(*args, **options))
            return made[-1]

        monkeypatch.setattr(sqlite3, "connect", noted)
        with pytest.raises(BackendError):
            local_memory(filled)
        for connection in made:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")

    @pytest.mark.parametrize("embeddings", [Bag(), Bag(256)], ids=["other width", "same width"])
    def test_another_embedding(self, filled: Path, embeddings: Bag) -> None:
        before = files_beside(filled)
        with pytest.raises(BackendError, match=r"wordllama/.*bag/.*use the same one, or another path"):
            local_memory(filled, embeddings=embeddings)
        assert files_beside(filled) == before
        with store(filled) as client:
            assert ScopedMemory("u_alice", client=client).count() == 50

    def test_an_embedding_that_changes_its_width_under_one_name(self, path: Path) -> None:
        wide = Bag(256)
        wide.fingerprint = Bag(64).fingerprint
        with store(path, embeddings=Bag(64)) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add("I am vegetarian")
        rows = rows_in(path)
        with store(path, embeddings=wide) as client:
            memory = ScopedMemory("u_alice", client=client)
            for verb in (memory.add, memory.search):
                with pytest.raises(BackendError, match=r"256 dimensions.*64.*another path"):
                    verb("I eat fish")
        assert rows_in(path) == rows

    def test_a_newer_schema_that_still_lies_in_the_log(self, filled: Path) -> None:
        # A newer version of the package is running beside this one: it has upgraded the file, and not yet closed it.
        with closing(sqlite3.connect(filled)) as newer:
            newer.execute("PRAGMA wal_autocheckpoint=0")
            newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
            with pytest.raises(BackendError, match=r"schema 2.*upgrade"):
                local_memory(filled).close()

    def test_damage_that_shows_only_later_is_an_error_too(self, filled: Path) -> None:
        content = bytearray(filled.read_bytes())
        content[8192 * 2 :] = Random(7).randbytes(len(content) - 8192 * 2)
        filled.write_bytes(content)
        with pytest.raises(BackendError, match=r"damaged.*restore it from a backup"), store(filled) as client:
            ScopedMemory("u_alice", client=client).get_all()

    def test_an_empty_file_is_a_new_one(self, path: Path) -> None:
        path.touch()
        with store(path) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        assert_sound(path)


class TestConnections:
    def test_every_connection_is_set_as_it_must_be(self, path: Path) -> None:
        pragmas = {"secure_delete": 1, "synchronous": 2, "temp_store": 2, "journal_mode": "wal", "page_size": 8192}
        with store(path) as client:
            database = client._database
            with database.reading() as one, database.reading() as two, database.writing() as three:
                assert len({id(one), id(two), id(three)}) == 3
                for connection in (one, two, three):
                    told = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
                    assert told == pragmas
            with database.reading() as again:
                assert any(again is one for one in (one, two, three))
                assert again.execute("PRAGMA secure_delete").fetchone() == (1,)

    def test_the_file_says_whose_it_is(self, filled: Path) -> None:
        with closing(sqlite3.connect(filled)) as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)

    def test_a_sqlite_that_cannot_overwrite_is_refused(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_closing_leaves_one_file(self, filled: Path) -> None:
        assert [file.name for file in filled.parent.iterdir()] == ["m.db"]

    @pytest.mark.parametrize(
        "verb", ["add", "search", "get_all", "get", "update", "delete", "history", "delete_all", "count"]
    )
    def test_a_closed_store_says_so(self, path: Path, verb: str) -> None:
        with store(path) as client:
            memory = ScopedMemory("u_alice", client=client)
            record = memory.add("I am vegetarian")[0]
        arguments = {"add": ["x"], "search": ["x"], "update": [record["id"], "x"]}
        by_id = {"get", "delete", "history"}
        args = arguments.get(verb, [record["id"]] if verb in by_id else [])
        with pytest.raises(BackendError, match="is closed; build a new client"):
            getattr(memory, verb)(*args)

    def test_closing_twice_is_closing(self, path: Path) -> None:
        client = local_memory(path)
        client.close()
        client.close()

    def test_closing_waits_for_nobody_and_breaks_nobody(self, filled: Path) -> None:
        client = local_memory(filled)
        with client._database.reading() as connection:
            client.close()
            assert connection.execute("SELECT count(*) FROM ids").fetchone() == (50,)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")

    def test_a_second_client_leaves_the_locks_of_the_first(self, path: Path) -> None:
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
    def test_nothing_is_kept_of_what_was_interrupted(self, filled: Path, error: type[BaseException]) -> None:
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

    def test_a_reader_sees_one_moment(self, filled: Path) -> None:
        database = Database(filled, OfflineEmbeddings.fingerprint)
        with database.reading() as reader:
            assert reader.execute("SELECT count(*) FROM items WHERE kind = 0").fetchone() == (50,)
            with database.writing() as writer:
                writer.execute("DELETE FROM items")
            assert reader.execute("SELECT count(*) FROM items WHERE kind = 0").fetchone() == (50,)
        database.close()

    def test_a_file_another_process_keeps_locked_is_worth_another_try(
        self, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "_BUSY_SECONDS", 0.1)
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

    def test_opening_a_file_that_is_kept_locked(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "_BUSY_SECONDS", 0.1)
        with Child(children.lock, filled, "EXCLUSIVE") as child:
            child.hear()
            with pytest.raises(BackendError, match="another process keeps it locked; try again") as caught:
                local_memory(filled)
            assert caught.value.retryable
            child.say("unlock")
            child.hear()
        with store(filled) as client:
            assert ScopedMemory("u_alice", client=client).count() == 50


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
class TestReadOnly:
    """With nobody's rights: root's are bound by no permission."""

    @pytest.fixture
    def place(self) -> Iterator[Path]:
        # Not below pytest's own directory, which only its owner may enter.
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        inner = folder / "inner"
        inner.mkdir()
        with store(inner / "m.db") as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        yield inner / "m.db"
        inner.chmod(0o755)
        shutil.rmtree(folder)

    @pytest.mark.parametrize(
        ("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555)], ids=["file", "folder", "both"]
    )
    def test_a_clear_error_and_the_file_as_it_was(
        self, place: Path, tmp_path: Path, file_mode: int, folder_mode: int
    ) -> None:
        place.chmod(file_mode)
        place.parent.chmod(folder_mode)
        before = files_beside(place)
        with Child(children.open_read_only, place, tmp_path / "warm.db") as child:
            kind, text = child.hear()
        assert kind == "BackendError"
        assert str(place) in text
        assert "writable" in text
        assert files_beside(place) == before

    def test_a_new_file_where_none_may_be_made(self, place: Path, tmp_path: Path) -> None:
        place.parent.chmod(0o555)
        with Child(children.open_read_only, place.with_name("new.db"), tmp_path / "warm.db") as child:
            kind, text = child.hear()
        assert kind == "BackendError"
        assert "new.db" in text
        assert "Permission denied" in text
        assert [file.name for file in place.parent.iterdir()] == ["m.db"]
