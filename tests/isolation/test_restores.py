"""Backups that are put back in every wrong way, logs that are mixed, and kills: a state that was, or an error.

`make restores` runs 200 schedules.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_mem0_scoped import ScopedMemory
from tests.documents import blocks
from tests.faults import store
from tests.restores import Schedule
from tests.support import texts_of
from tests.worlds import WordEmbeddings

SCHEDULES = int(os.environ.get("RESTORE_SCHEDULES", "4"))


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_nobody_is_shown_another_users_text(tmp_path: Path, seed: int) -> None:
    schedule = Schedule(tmp_path, seed)
    schedule.run(rounds=4)
    assert schedule.outcomes["right"], "nothing was tested"


def test_commands_of_the_readme(tmp_path: Path) -> None:
    backup, restore = (block for block in blocks("sh") if "backup.db" in block)
    path = tmp_path / "memory.db"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(commands: str) -> None:
        subprocess.run(["sh", "-e", "-c", commands], check=True, cwd=tmp_path, env=environment)

    with store(path, embeddings=WordEmbeddings()) as client:
        alice, bob = (ScopedMemory(user_id, client=client) for user_id in ("u_alice", "u_bob"))
        alice.add("I am vegetarian")
        run(backup)
        bob.add("I prefer a window seat")
        # As a killed process leaves it.
        log = path.with_name("memory.db-wal").read_bytes()
    path.with_name("memory.db-wal").write_bytes(log)
    run(restore)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup.db", "memory.db"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    with store(path, embeddings=WordEmbeddings()) as client:
        alice, bob = (ScopedMemory(user_id, client=client) for user_id in ("u_alice", "u_bob"))
        assert texts_of(alice.get_all()) == texts_of(alice.search("vegetarian")) == ["I am vegetarian"]
        assert bob.get_all() == []
        bob.add("I prefer an aisle seat")
        assert texts_of(bob.get_all()) == ["I prefer an aisle seat"]
