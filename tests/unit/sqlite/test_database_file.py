"""The file before anything is read from it: which files are rejected, and that they stay as they were."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory
from langchain_mem0_scoped.database_header import APPLICATION_ID
from langchain_mem0_scoped.sqlite.database_file import SCHEMA_VERSION
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
    "an older schema": (
        lambda path: _marked(path, "user_version", SCHEMA_VERSION - 1),
        f"schema {SCHEMA_VERSION - 1}.*use another path",
    ),
    "a newer schema": (
        lambda path: _marked(path, "user_version", SCHEMA_VERSION + 1),
        f"schema {SCHEMA_VERSION + 1}.*upgrade",
    ),
    "a much newer schema": (lambda path: _marked(path, "user_version", 2**31 - 1), "schema 2147483647.*upgrade"),
}


class TestRejectedFiles:
    @pytest.mark.parametrize("kind", REFUSED)
    def test_error_says_what_is_wrong_and_leaves_the_file_as_it_was(self, filled: Path, kind: str) -> None:
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
    def test_other_embedding_is_rejected(self, filled: Path, embeddings: Bag) -> None:
        before = files_beside(filled)
        with pytest.raises(BackendError, match=r"wordllama/.*bag/.*use the same one, or another path"):
            local_memory(filled, embeddings=embeddings)
        assert files_beside(filled) == before
        with store(filled) as client:
            assert ScopedMemory("u_alice", client=client).count() == 50

    def test_embedding_that_changes_its_dimensions_is_rejected(self, path: Path) -> None:
        wide = Bag(256)
        wide.fingerprint = Bag(64).fingerprint
        with store(path, embeddings=Bag(64)) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add("I am vegetarian")
        rows = rows_in(path)
        with store(path, embeddings=wide) as client:
            memory = ScopedMemory("u_alice", client=client)
            for verb in (memory.add, memory.search):
                with pytest.raises(BackendError, match=r"256 dimensions.*64.*use the embedding"):
                    verb("I eat fish")
        assert rows_in(path) == rows

    def test_newer_schema_in_the_log_is_rejected(self, filled: Path) -> None:
        # A newer version of the package is running beside this one: it has upgraded the file, and not yet closed it.
        with closing(sqlite3.connect(filled)) as newer:
            newer.execute("PRAGMA wal_autocheckpoint=0")
            newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
            with pytest.raises(BackendError, match=rf"schema {SCHEMA_VERSION + 1}.*upgrade"):
                local_memory(filled).close()

    def test_damage_found_later_is_an_error(self, filled: Path) -> None:
        content = bytearray(filled.read_bytes())
        content[8192 * 2 :] = Random(7).randbytes(len(content) - 8192 * 2)
        filled.write_bytes(content)
        with pytest.raises(BackendError, match=r"damaged.*restore it from a backup"), store(filled) as client:
            ScopedMemory("u_alice", client=client).get_all()

    def test_empty_file_is_used_as_a_new_one(self, path: Path) -> None:
        path.touch()
        with store(path) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        assert_sound(path)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
class TestReadOnly:
    """In a process without root's rights, which no permission would stop."""

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
    def test_error_asks_for_write_access_and_leaves_the_file_as_it_was(
        self, place: Path, tmp_path: Path, file_mode: int, folder_mode: int
    ) -> None:
        place.chmod(file_mode)
        place.parent.chmod(folder_mode)
        before = files_beside(place)
        with Child(children.open_read_only, place, tmp_path / "warm.db") as child:
            kind, text = child.receive()
        assert kind == "BackendError"
        assert str(place) in text
        assert "writable" in text
        assert files_beside(place) == before

    def test_new_file_in_a_read_only_directory_is_an_error(self, place: Path, tmp_path: Path) -> None:
        place.parent.chmod(0o555)
        with Child(children.open_read_only, place.with_name("new.db"), tmp_path / "warm.db") as child:
            kind, text = child.receive()
        assert kind == "BackendError"
        assert "new.db" in text
        assert "Permission denied" in text
        assert [file.name for file in place.parent.iterdir()] == ["m.db"]
