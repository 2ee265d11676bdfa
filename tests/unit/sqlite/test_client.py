"""local_memory(): which paths it takes, and who may read what it creates."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, local_memory
from langchain_mem0_scoped.backends import default
from tests.faults import store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder / "m.db"


class TestPaths:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_path_may_be_str_or_path(self, path: Path, kind: type) -> None:
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
    def test_file_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "o'clock #% ?"
        folder.mkdir()
        with store(folder / name) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")
        assert [file.name for file in folder.iterdir()] == [name]
        with store(folder / name) as client:
            assert ScopedMemory("u_alice", client=client).get_all()[0]["memory"] == "I am vegetarian"

    def test_relative_path_is_kept_when_the_working_directory_changes(
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
    def test_path_that_names_no_file_is_rejected(self, given: Any) -> None:
        with pytest.raises(InputError, match="path must name a file"):
            local_memory(given)

    @pytest.mark.parametrize("given", ["nul\0byte.db", "~no_such_user_here/m.db"])
    def test_path_that_no_file_can_have_is_rejected(self, given: str) -> None:
        with pytest.raises((InputError, BackendError)):
            local_memory(given)

    def test_error_names_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="No such file or directory") as caught:
            local_memory(tmp_path / "missing" / "m.db")
        assert str(tmp_path / "missing" / "m.db") in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_directory_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="directory"):
            local_memory(tmp_path)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_device_is_rejected(self) -> None:
        with pytest.raises(BackendError):
            local_memory("/dev/full")

    def test_file_is_readable_by_its_owner_only(self, path: Path) -> None:
        before = os.umask(0)
        try:
            with store(path) as client:
                ScopedMemory("u_alice", client=client).add("I am vegetarian")
                modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        finally:
            os.umask(before)
        assert modes == {"m.db": 0o600, "m.db-wal": 0o600, "m.db-shm": 0o600}

    def test_default_directory_is_accessible_to_its_owner_only(
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

    def test_default_directory_that_cannot_be_created_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv(default.PATH_VARIABLE, str(tmp_path / "file" / "memory.db"))
        with pytest.raises(BackendError, match="file"):
            ScopedMemory("u_alice").add("I am vegetarian")
