"""What a notebook displays for a ScopedMemory: one user's memories as a table, and errors as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mem0
import pytest
from IPython.core.formatters import DisplayFormatter

from langchain_mem0_scoped import BackendError, MemoryList, ScopedMemory
from langchain_mem0_scoped.records import record_from
from langchain_mem0_scoped.scoped_client import ScopedClient
from tests.support import Spy, new_user


def displayed(value: object) -> dict[str, Any]:
    """Return what Jupyter stores for a cell's last value, by MIME type."""
    bundle: dict[str, Any] = DisplayFormatter().format(value)[0]
    return bundle


def test_displays_the_memories_of_one_user(client: mem0.Memory) -> None:
    alice, bob = (ScopedMemory(new_user(name), client=client) for name in ("alice", "bob"))
    alice.add("<script>alert(1)</script> I am vegetarian", session_id="s1")
    bob.add("I prefer a window seat")
    bundle = displayed(alice)
    assert f"{alice.user_id}: 1 memory" in bundle["text/html"]
    assert "I am vegetarian" in bundle["text/html"]
    assert "I am vegetarian" in bundle["text/plain"]
    assert "<script>" not in bundle["text/html"]
    assert "window seat" not in str(bundle)
    assert alice._repr_html_() == bundle["text/html"]


def test_display_reads_once_and_repr_never(client: mem0.Memory) -> None:
    memory = ScopedMemory(new_user(), client=client)
    memory.add("I am vegetarian")
    with Spy(client) as spy:
        assert "vegetarian" not in f"{memory} {memory!r} {[memory]}"
        assert spy.calls == []
        displayed(memory)
    assert spy.calls.count("backend.list") + spy.calls.count("get_all") == 1


def test_displays_at_most_the_latest_100(client: mem0.Memory) -> None:
    memory = ScopedMemory(new_user(), client=client)
    memory.add([f"memory number {number}" for number in range(103)])
    html = memory._repr_html_()
    assert "more than 100 memories, the latest of them" in html
    assert len(re.findall("memory number", html)) == 100
    assert "memory number 102<" in html


def test_exactly_100_memories_are_all_of_them(client: mem0.Memory) -> None:
    memory = ScopedMemory(new_user(), client=client)
    memory.add([f"memory number {number}" for number in range(100)])
    assert f"{memory.user_id}: 100 memories<" in memory._repr_html_()


def test_user_without_memories(client: mem0.Memory) -> None:
    memory = ScopedMemory(new_user(), client=client)
    assert displayed(memory)["text/plain"] == f"{memory.user_id}: 0 memories"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendError("the file is <b>gone</b>"), "BackendError: the file is &lt;b&gt;gone&lt;/b&gt;"),
        (RuntimeError("zebra text"), "RuntimeError"),
    ],
)
def test_failed_read_is_displayed(monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ScopedClient, "list", fail)
    html = ScopedMemory("u_alice")._repr_html_()
    assert html == f"<p>ScopedMemory(&#x27;u_alice&#x27;): its memories cannot be read. {told}</p>"


def test_failed_formatting_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other code may have stored anything. JSON has no such key.
    row = {"id": "1", "user_id": "u_alice", "memory": "zebra text", "metadata": {"seen": {("zebra",): 1}}}
    monkeypatch.setattr(ScopedClient, "list", lambda *_, **__: MemoryList([record_from(row)]))
    bundle = displayed(ScopedMemory("u_alice"))
    assert bundle["text/plain"] == "ScopedMemory('u_alice'): its memories cannot be read. TypeError"
    assert bundle["text/html"].endswith(": its memories cannot be read. TypeError</p>")


def test_invalid_database_file_is_displayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("not a database, but long enough to be looked at " * 50)
    monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / "no.db"))
    assert "cannot be read" in displayed(ScopedMemory("u_alice"))["text/plain"]
