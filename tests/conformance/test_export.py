"""A user's HTML page, on every kind of client: everything stored of this user is on it, and nothing of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_mem0_scoped import ScopedMemory
from tests.pages import Page
from tests.support import Call, new_user, texts_of


@pytest.fixture
def alice(client: Any) -> ScopedMemory:
    return ScopedMemory(new_user("alice"), client=client)


@pytest.fixture
def bob(client: Any) -> ScopedMemory:
    return ScopedMemory(new_user("bob"), client=client)


def page_text(memory: ScopedMemory, call: Call, folder: Path) -> str:
    """Export a page; return the text that assistive technology reads."""
    path: Path = call(memory, "export_html", folder / "page.html")
    return Page(path.read_text(encoding="utf-8")).text


def test_expired_memory_is_on_it(alice: ScopedMemory, call: Call, tmp_path: Path) -> None:
    alice.add("The old flat has green doors", expires_on="2001-01-02", at="2001-01-01")
    alice.add("The new flat has blue doors", expires_on="2999-12-31")
    alice.add("In between I slept in a tent", at="2002-01-01")
    assert "The old flat has green doors" not in texts_of(alice.get_all())
    text = page_text(alice, call, tmp_path)
    assert "Memories3Memories no longer used1" in text
    # The latest comes first.
    assert text.index("blue doors") < text.index("a tent") < text.index("green doors")
    assert text.count("No longer usedits last day was 2001-01-02") == text.count("No longer used") == 1
    assert text.count("Used until the end of2999-12-31") == text.count("Used until") == 1


def test_conversation_without_memories_is_on_it(alice: ScopedMemory, call: Call, tmp_path: Path) -> None:
    alice.chat_history("tuesday").add_messages([HumanMessage("I am vegetarian"), AIMessage("Noted")])
    alice.chat_history("monday").add_messages([SystemMessage("Be brief")])
    for record in alice.get_all():
        alice.delete(record["id"])
    text = page_text(alice, call, tmp_path)
    assert "Nothing is remembered." in text
    assert "Conversations2Messages in them3" in text
    # In the order in which they began.
    assert -1 < text.find("tuesday (2 messages)YouI am vegetarian") < text.find("monday (1 message)")


def test_cleared_conversation_is_not_on_it(alice: ScopedMemory, call: Call, tmp_path: Path) -> None:
    for session in ("cleared", "kept"):
        alice.chat_history(session).add_messages([SystemMessage("Be brief")])
    alice.chat_history("cleared").clear()
    text = page_text(alice, call, tmp_path)
    assert "kept (1 message)" in text
    assert "cleared" not in text


def test_session_of_the_same_name_of_another_user_is_not_on_it(
    alice: ScopedMemory, bob: ScopedMemory, call: Call, tmp_path: Path
) -> None:
    for memory, words in ((alice, "green tea"), (bob, "black coffee")):
        memory.chat_history("monday").add_messages([HumanMessage(f"I drink {words}"), AIMessage("Noted")])
        memory.add(f"I drank {words} as a child", session_id="monday", expires_on="2001-01-01")
    text = page_text(alice, call, tmp_path)
    assert text.count("green tea") == 3
    assert text.count("monday (2 messages)") == 1
    for hidden in ("black coffee", bob.user_id):
        assert hidden not in text


def test_empty_after_erasure(alice: ScopedMemory, bob: ScopedMemory, call: Call, tmp_path: Path) -> None:
    for memory in (alice, bob):
        memory.chat_history("monday").add_messages([HumanMessage("I drink tea"), AIMessage("Noted")])
        memory.add("I drank milk", expires_on="2001-01-01")
    alice.delete_all()
    text = page_text(alice, call, tmp_path)
    assert "Memories0Conversations0Messages in them0" in text
    assert "Nothing is remembered." in text
    assert "No conversation is kept here." in text
    assert "I dr" not in text
    assert page_text(bob, call, tmp_path).count("I dr") == 3
