"""The demo, run from the command line: without a key or a network, and without files left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import run_python

DEMO = 'import runpy; runpy.run_module("langchain_mem0_scoped", run_name="__main__")'
# A subprocess has no pytest-socket; this is the same.
NO_NETWORK = """
import sys
def audit(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("NETWORK", event, args)
sys.addaudithook(audit)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def output(home: Path) -> str:
    """The output of the demo. run_python fails if the exit status is not 0."""
    store = home / "memory.db"
    return run_python(NO_NETWORK + DEMO, HOME=str(home), MEM0_API_KEY=None, LANGCHAIN_MEM0_SCOPED_PATH=str(store))


def test_every_check_passes_without_key_or_network(output: str) -> None:
    assert output.rstrip().endswith("Every claim held.")
    assert "FAIL" not in output
    assert "NETWORK" not in output


def test_shows_three_leaks_of_mem0_and_seven_refusals(output: str) -> None:
    leaks, refusals = output.count("ok   LEAK: "), output.count("ok   refused: ")
    assert (leaks, refusals) == (3, 7)
    assert "user_id must not be '*', '.' or '..', got '*'" in output


def test_leaves_no_files(output: str, home: Path) -> None:
    # mem0 creates its own directory for settings.
    assert set(os.listdir(home)) <= {".mem0"}


def test_failed_check_is_printed_and_sets_the_exit_status() -> None:
    output = run_python(
        """
        import langchain_mem0_scoped as scoped
        from langchain_mem0_scoped.__main__ import main
        scoped.ScopedMemory.count = lambda memory: 2
        print("status", main())
        """
    )
    assert "FAIL each sees exactly their own memory" in output
    assert "2 claim(s) FAILED." in output
    assert output.endswith("status 1\n")
