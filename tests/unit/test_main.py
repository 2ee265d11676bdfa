"""The walk-through, run as a reader runs it: with no key and no network, and no trace left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import run_python

WALK = 'import runpy; runpy.run_module("langchain_mem0_scoped", run_name="__main__")'
# A subprocess has no pytest-socket; this is the same.
NO_NETWORK = """
import sys
def told(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("NETWORK", event, args)
sys.addaudithook(told)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told(home: Path) -> str:
    """What it prints; run_python itself fails where the exit status is not 0."""
    store = home / "memory.db"
    return run_python(NO_NETWORK + WALK, HOME=str(home), MEM0_API_KEY=None, LANGCHAIN_MEM0_SCOPED_PATH=str(store))


def test_every_claim_holds_without_a_key_or_a_network(told: str) -> None:
    assert told.rstrip().endswith("Every claim held.")
    assert "FAIL" not in told
    assert "NETWORK" not in told


def test_it_shows_plain_mem0_leaking_and_the_same_refused(told: str) -> None:
    leaks, refusals = told.count("ok   LEAK: "), told.count("ok   refused: ")
    assert (leaks, refusals) == (3, 7)
    assert "user_id must name one user or session; '*'" in told


def test_nothing_of_it_is_left(told: str, home: Path) -> None:
    # mem0 makes a directory of its own, for settings.
    assert set(os.listdir(home)) <= {".mem0"}


def test_a_claim_that_does_not_hold_is_told_and_an_exit_status() -> None:
    told = run_python(
        """
        import langchain_mem0_scoped as scoped
        from langchain_mem0_scoped.__main__ import main
        scoped.ScopedMemory.count = lambda memory: 2
        print("status", main())
        """
    )
    assert "FAIL each sees exactly their own memory" in told
    assert "2 claim(s) FAILED." in told
    assert told.endswith("status 1\n")
