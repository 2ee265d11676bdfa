"""Atomic file: which paths are accepted, and that a file is written completely or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mem0
import pytest

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory
from langchain_mem0_scoped.export.atomic_file import refuse_databases, validate_path, write_atomically
from tests.chat import close_transcripts
from tests.support import Spy, label, new_user, opened, run_python

PAGE = "<!DOCTYPE html>é\n"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[mem0.Memory]:
    with opened("embedded", tmp_path) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pages"
    made.mkdir()
    return made


def no_check() -> None:
    """A check that never raises."""


class Named(os.PathLike[Any]):
    """A path-like object with any name."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        return self.name


class TestValidatePath:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("a\0b.html", "NUL"),
            ("a\ud800.html", "a lone surrogate"),
            ("alice.html/", "must end with a file name"),
            ("alice.html/.", "must end with a file name"),
            (Named(b"alice.html"), "as a str or Path"),
            (Named(3), "as a str or Path"),
            ("a" * 300, "cannot be used"),
        ],
        ids=label,
    )
    def test_rejects_invalid_file_names(self, local: mem0.Memory, folder: Path, name: Any, reason: str) -> None:
        path = name if isinstance(name, Named) else f"{folder}/{name}"
        with Spy(local) as spy, pytest.raises(InputError, match=f"^path.*{reason}"):
            ScopedMemory(new_user(), client=local).export_html(path)
        assert spy.calls == []
        assert os.listdir(folder) == []

    def test_accepts_path_like_objects(self, folder: Path) -> None:
        assert validate_path(Named(f"{folder}/alice.html")) == folder / "alice.html"

    def test_rejects_special_files_and_directories(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        for path in (folder / "pipe", "/dev/null"):
            with pytest.raises(InputError, match="a regular file"):
                validate_path(path)
        with pytest.raises(InputError, match="directory"):
            validate_path(folder)

    def test_rejects_links(self, local: mem0.Memory, folder: Path) -> None:
        (folder / "diary.txt").write_text("Dear diary")
        for name, target in (("link", "diary.txt"), ("to_nothing", "nothing")):
            (folder / name).symlink_to(folder / target)
            with pytest.raises(InputError, match="must not name a link"):
                ScopedMemory(new_user(), client=local).export_html(folder / name)
            assert (folder / name).is_symlink()
        assert (folder / "diary.txt").read_text() == "Dear diary"
        assert not (folder / "nothing").exists()


class TestDatabases:
    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
    def test_rejects_the_database_of_the_client(self, local: Any, tmp_path: Path, suffix: str) -> None:
        memory = ScopedMemory(new_user(), client=local)
        memory.add("I am vegetarian")
        held = tmp_path / "m.db"
        (tmp_path / "x").mkdir()
        paths: list[Any] = [f"{held}{suffix}", tmp_path / "x" / ".." / f"{held.name}{suffix}"]
        for path in paths:
            with Spy(local) as spy, pytest.raises(InputError, match="path names a database"):
                memory.export_html(path)
            assert spy.calls == []
        assert memory.count() == 1
        if suffix:
            return
        # The memory file itself works under one name only, and is no page under any.
        os.link(held, tmp_path / "link")
        with pytest.raises(InputError, match="path names a database"):
            memory.export_html(tmp_path / "link")
        with pytest.raises(BackendError, match="second name"):
            memory.count()

    @pytest.mark.parametrize("database", ["a URL", "Qdrant", "nobody's", "nobody's, linked", "a log", "DuckDB"])
    def test_rejects_whatever_begins_as_a_database(self, tmp_path: Path, database: str) -> None:
        """The client does not name all files in which memories and transcripts lie."""
        with opened("qdrant", tmp_path) as client:
            url = f"sqlite:///file:{tmp_path / 'chats.db'}?uri=true"
            memory = ScopedMemory(new_user(), client=client, transcripts=url)
            memory.add("I am vegetarian", infer=False)
            memory.chat_history("s", recall=0, remember=False).add_user_message("hello")
            page = tmp_path / "page.html"
            match database:
                case "a URL":
                    page = tmp_path / "chats.db"
                case "Qdrant":
                    (page,) = tmp_path.rglob("storage.sqlite")
                case "DuckDB":
                    page.write_bytes(bytes(8) + b"DUCK" + bytes(100))
                case _:
                    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
                        connection.execute("CREATE TABLE t (x)")
                        page = tmp_path / ("other.db-wal" if database == "a log" else "other.db")
                        page.touch()
                        if database.endswith("linked"):
                            page = tmp_path / "page.html"
                            os.link(tmp_path / "other.db", page)
            before = page.read_bytes()
            with pytest.raises(InputError, match="path names a database"):
                memory.export_html(page)
            assert page.read_bytes() == before
            close_transcripts(client)

    def test_replaces_any_other_file(self, local: mem0.Memory, tmp_path: Path) -> None:
        for content in (b"", b"<!DOCTYPE html>", b"SQLite format 2", bytes(200)):
            (tmp_path / "page.html").write_bytes(content)
            ScopedMemory(new_user(), client=local).export_html(tmp_path / "page.html")
            assert (tmp_path / "page.html").read_bytes().startswith(b"<!DOCTYPE html>")

    def test_rejects_databases_of_transcripts(self, local: mem0.Memory, tmp_path: Path) -> None:
        memory = ScopedMemory(new_user(), client=local, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        assert memory.chat_history("monday").messages == []
        for name in ("chats.db", "chats.db-journal", "m.db"):
            with pytest.raises(InputError, match="path names a database"):
                memory.export_html(tmp_path / name)
        close_transcripts(local)

    def test_rejects_the_history_database_of_mem0(self, tmp_path: Path) -> None:
        with opened("qdrant", tmp_path) as client, pytest.raises(InputError, match="path names a database"):
            ScopedMemory(new_user(), client=client).export_html(client.db.db_path)

    def test_accepts_any_other_file(self, tmp_path: Path) -> None:
        refuse_databases(tmp_path / "alice.html", [tmp_path / "m.db"])


class TestWriting:
    @pytest.fixture(params=["unnamed", "named", "no such flag"])
    def way(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Linux, Linux with a file system without unnamed files, and other systems."""
        way: str = request.param
        if way == "unnamed" and not hasattr(os, "O_TMPFILE"):
            pytest.skip("this system has no unnamed files")
        if way == "named":

            def refused(*_: Any, **__: Any) -> None:
                raise OSError(95, "Operation not supported")

            monkeypatch.setattr(os, "link", refused)
        if way == "no such flag":
            monkeypatch.delattr(os, "O_TMPFILE", raising=False)
        return way

    def test_writes_the_whole_file_and_no_other(self, folder: Path, way: str) -> None:
        for page in (PAGE * 10_000, PAGE):
            write_atomically(folder / "a.html", page, no_check)
            assert (folder / "a.html").read_text(encoding="utf-8") == page
            assert (folder / "a.html").stat().st_mode & 0o777 == 0o600
        assert os.listdir(folder) == ["a.html"]

    def test_checks_before_and_after_the_file_is_in_place(self, folder: Path, way: str) -> None:
        seen: list[list[str]] = []
        write_atomically(
            folder / "a.html", PAGE, lambda: seen.append([name for name in os.listdir(folder) if name[0] != "."])
        )
        assert (seen[0], seen[-1]) == ([], ["a.html"])

    @pytest.mark.parametrize("is_there", [False, True])
    def test_failing_check_leaves_no_file(self, folder: Path, way: str, is_there: bool) -> None:
        def check() -> None:
            if (folder / "a.html").exists() == is_there:
                raise BackendError("out of date", retryable=True)

        with pytest.raises(BackendError, match="out of date"):
            write_atomically(folder / "a.html", PAGE, check)
        assert os.listdir(folder) == []

    def test_interrupted_check_leaves_no_file(self, folder: Path, way: str) -> None:
        def check() -> None:
            if (folder / "a.html").exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomically(folder / "a.html", PAGE, check)
        assert os.listdir(folder) == []

    def test_full_disk_leaves_no_file(self, folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BackendError, match="No space left on device"):
            write_atomically(folder / "a.html", PAGE, no_check)
        assert os.listdir(folder) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no unnamed files")
def test_kill_during_the_write_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from langchain_mem0_scoped import ScopedMemory, local_memory
        client = local_memory({str(tmp_path / "m.db")!r})
        memory = ScopedMemory("u_alice", client=client)
        memory.add("My cat is called Zephyrine")
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        if not (pid := os.fork()):
            memory.export_html({str(folder / "alice.html")!r})
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        client.close()
        """
    run_python(code)
    assert os.listdir(folder) == []
