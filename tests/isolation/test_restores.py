"""Backups that are put back in every wrong way, logs that are mixed, and kills: a state that was, or an error.

`make restores` runs 200 schedules.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.restores import Schedule
from tests.worlds import unsynced

SCHEDULES = int(os.environ.get("RESTORE_SCHEDULES", "4"))


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_nobody_is_shown_another_users_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    unsynced(monkeypatch)
    schedule = Schedule(tmp_path, seed)
    schedule.run(rounds=4)
    assert schedule.outcomes["right"], "nothing was tested"
