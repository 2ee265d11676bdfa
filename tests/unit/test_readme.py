"""The README's Python blocks run as they are, one after another, as a reader would run them."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import pytest
from langchain_core.messages import SystemMessage
from langchain_core.messages.utils import count_tokens_approximately
from mem0.configs.prompts import ADDITIVE_EXTRACTION_PROMPT

from langchain_mem0_scoped import set_default_client
from tests.chat import close_transcripts
from tests.documents import README, blocks
from tests.support import texts_of


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
        set_default_client(None)
        for client in (namespace[name] for name in ("client", "own_client", "own") if name in namespace):
            close_transcripts(client)
            client.close()
        namespace["own"].vector_store.client.close()
    printed = capsys.readouterr().out
    assert "I fly to Oslo on Friday" in printed
    assert printed.count("is reserved") == 3
    assert "this user has no memory of that id" in printed


def test_size_of_mem0s_prompt_is_what_is_stated() -> None:
    text = README.read_text(encoding="utf-8")
    stated = re.search(r"mem0's prompt, about ([\d,]+) tokens \(counted by LangChain's `(\w+)`", text)
    assert stated is not None
    assert stated.group(2) == count_tokens_approximately.__name__
    counted = count_tokens_approximately([SystemMessage(ADDITIVE_EXTRACTION_PROMPT)])
    assert int(stated.group(1).replace(",", "")) == round(counted, -2)


def test_readme_names_clients_one_way() -> None:
    assert any("set_default_client(client)" in block for block in blocks())
    named = [block for block in blocks() if "client=client" in block]
    assert all("transcripts=" in block for block in named), "only a second store is named"


def test_first_block_finds_what_its_comments_say() -> None:
    namespace: dict[str, Any] = {}
    exec(blocks()[0], namespace)
    alice, bob = namespace["alice"], namespace["bob"]
    assert texts_of(alice.search("food preferences"))[0] == "I am vegetarian"
    assert texts_of(bob.search("food preferences")) == ["I prefer a window seat on flights"]


def test_its_commands_are_targets_of_the_makefile() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
