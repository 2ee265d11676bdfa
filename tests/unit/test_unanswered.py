"""The messages of a run that failed or was stopped: logged at once, remembered with the next turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_mem0_scoped import BackendError, ScopedChatMessageHistory, ScopedMemory, local_memory
from tests.chat import Talk, turn
from tests.support import new_user, texts_of
from tests.worlds import WordEmbeddings, left_in


@pytest.fixture
def client(tmp_path: Path) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


def texts(messages: list[BaseMessage]) -> list[str]:
    return [message.text for message in messages]


def leave(talk: Talk, history: ScopedChatMessageHistory, *messages: BaseMessage, **options: Any) -> int:
    if talk.mode == "sync":
        return history.add_unanswered(messages, **options).messages
    return asyncio.run(history.aadd_unanswered(messages, **options)).messages


def test_it_is_remembered_with_the_next_turn(bound: dict[str, Any], talk: Talk) -> None:
    user = new_user()
    talk.add(ScopedChatMessageHistory(user, **bound), turn("before"))
    for number in range(2):
        history = ScopedChatMessageHistory(user, **bound)
        assert leave(talk, history, HumanMessage(f"stopped {number}"), AIMessage("partial")) == 1
    memory = ScopedMemory(user, client=bound["client"])
    assert sorted(texts_of(memory.get_all())) == ["before 0", "before 1"]
    talk.add(ScopedChatMessageHistory(user, **bound), turn("after"))
    said = ["before 0", "before 1", "stopped 0", "stopped 1", "after 0", "after 1"]
    assert texts(talk.read(ScopedChatMessageHistory(user, **bound))) == said
    assert sorted(texts_of(memory.get_all())) == sorted(said)
    talk.add(ScopedChatMessageHistory(user, **bound), turn("later"))
    assert sorted(texts_of(memory.get_all())) == sorted([*said, "later 0", "later 1"])


@pytest.mark.parametrize("message_id", [None, "h1"])
def test_a_retry_is_logged_and_remembered_once(bound: dict[str, Any], talk: Talk, message_id: str | None) -> None:
    user, message = new_user(), HumanMessage("tea", id=message_id)
    assert [leave(talk, ScopedChatMessageHistory(user, **bound), message) for _ in range(3)] == [1, 0, 0]
    talk.add(ScopedChatMessageHistory(user, **bound), [message, AIMessage("milk")])
    assert texts(talk.read(ScopedChatMessageHistory(user, **bound))) == ["tea", "milk"]
    assert sorted(texts_of(ScopedMemory(user, client=bound["client"]).get_all())) == ["milk", "tea"]


def test_a_history_shows_what_was_left_through_it(bound: dict[str, Any], talk: Talk) -> None:
    history = ScopedChatMessageHistory(new_user(), **bound)
    assert talk.read(history) == []
    leave(talk, history, HumanMessage("one"))
    leave(talk, history, HumanMessage("two"))
    assert texts(talk.read(history)) == ["one", "two"]
    assert history.run_input([HumanMessage("two")]).new == []


def test_nothing_is_logged_after_an_erasure(bound: dict[str, Any], talk: Talk) -> None:
    user = new_user()
    memory = ScopedMemory(user, client=bound["client"])
    memory.add("old")
    token = memory.scoped_client.erasure_token()
    memory.delete_all()
    if token is None:
        pytest.skip("this client does not detect an erasure")
    for options in ({"token": token}, {"token": list(token)}):
        with pytest.raises(BackendError, match="erased"):
            leave(talk, ScopedChatMessageHistory(user, **bound), HumanMessage("tea"), **options)
        with pytest.raises(BackendError, match="erased"):
            ScopedChatMessageHistory(user, **bound).add_turn(turn("t"), **options)
    assert talk.read(ScopedChatMessageHistory(user, **bound)) == []


def test_it_is_not_remembered_where_nothing_is(bound: dict[str, Any], talk: Talk) -> None:
    user = new_user()
    leave(talk, ScopedChatMessageHistory(user, **bound), HumanMessage("secret"))
    talk.add(ScopedChatMessageHistory(user, **bound, remember=lambda one: one.text != "secret"), turn("t"))
    assert sorted(texts_of(ScopedMemory(user, client=bound["client"]).get_all())) == ["t 0", "t 1"]


def test_it_is_exported_and_erased_like_any_message(client: mem0.Memory, talk: Talk, tmp_path: Path) -> None:
    leave(talk, ScopedChatMessageHistory("alice", client=client), HumanMessage("only-in-transcript"))
    memory = ScopedMemory("alice", client=client)
    memory.export_html(tmp_path / "a.html")
    assert "only-in-transcript" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert memory.delete_all().transcripts == 1
    assert left_in(tmp_path / "m.db", "only-in-transcript") == []
