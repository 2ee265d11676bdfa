"""The README's Python blocks, run as they stand, one after another as a reader would."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.chat import close_transcripts

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_every_block_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Local Qdrant's own look at SQLite's threads leaves a connection unclosed, which Python 3.13 warns of.
    monkeypatch.setattr("qdrant_client.local.persistence.CollectionPersistence.CHECK_SAME_THREAD", False)
    # A module of its own: a dataclass looks for the one it is defined in.
    readme = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", readme)
    namespace = readme.__dict__
    assert len(blocks()) >= 6
    try:
        for number, block in enumerate(blocks()):
            exec(compile(block, f"README.md, Python block {number + 1}", "exec"), namespace)
    finally:
        for client in (namespace[name] for name in ("client", "own_client", "own") if name in namespace):
            close_transcripts(client)
            client.close()
        namespace["own"].vector_store.client.close()
    printed = capsys.readouterr().out
    assert "I fly to Oslo on Friday" in printed
    assert printed.count("is reserved") == 3
    assert "this user has no memory of that id" in printed


def test_the_first_block_finds_what_its_comments_say() -> None:
    namespace: dict[str, object] = {}
    exec(blocks()[0], namespace)
    alice, bob = namespace["alice"], namespace["bob"]
    assert alice.search("food preferences")[0]["memory"] == "I am vegetarian"  # type: ignore[attr-defined]
    assert all("vegetarian" not in hit["memory"] for hit in bob.search("food preferences"))  # type: ignore[attr-defined]


def test_its_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
