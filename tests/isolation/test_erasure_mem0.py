"""Decision 5 on mem0 as it comes, local Qdrant and history.db: rows, history, kept messages and entities are gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mem0
import pytest
from mem0.llms.base import LLMBase

from langchain_mem0_scoped import MemoryNotFoundError, ScopedMemory
from tests.support import opened
from tests.worlds import entities, facts_of, new_messages_in

# "&", "=" and "%" are what mem0's session scope is made of and escaped with; "_" and "%" are LIKE's wildcards.
_IDS = [
    "a",
    "ab",
    "a%",
    "a_",
    "a&b",
    "a=b",
    "a%26b",
    "a%25",
    "user_id=a",
    "b&user_id=a",
    "agent_id=x&user_id=a",
    "%",
    "_",
]


class Model(LLMBase):
    """mem0's side of `tests.models.extracting`."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []

    def generate_response(self, messages: list[dict[str, str]], **_: Any) -> str:
        self.prompts.append(messages[-1]["content"])
        return facts_of(new_messages_in(self.prompts[-1]))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[mem0.Memory]:
    with opened("qdrant", tmp_path) as client, entities():
        client.llm = Model()
        yield client


def history_rows(tmp_path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        return list(connection.execute("SELECT memory_id, old_memory, new_memory, event FROM history ORDER BY rowid"))


def message_rows(tmp_path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        return list(connection.execute("SELECT session_scope, content FROM messages ORDER BY session_scope, content"))


@pytest.mark.parametrize("victim", _IDS)
def test_erasure_removes_one_user_whatever_characters_the_id_has(
    plain: mem0.Memory, tmp_path: Path, victim: str
) -> None:
    people = {user_id: ScopedMemory(user_id, client=plain) for user_id in _IDS}
    ids = {}
    for number, (user_id, memory) in enumerate(people.items()):
        (row,) = memory.add(f"Number{number} likes tea", infer=True)
        ids[user_id] = row["id"]
    mine = _IDS.index(victim)
    assert len(message_rows(tmp_path)) == len(history_rows(tmp_path)) == len(_IDS)

    receipt = people[victim].delete_all()

    assert (receipt.memories, receipt.history, receipt.messages, receipt.entities) == (1, 1, 1, 1)
    assert people[victim].get_all() == []
    kept = [f"Number{number} likes tea" for number in range(len(_IDS)) if number != mine]
    assert sorted(content for _, content in message_rows(tmp_path)) == sorted(kept)
    assert sorted(new for _, _, new, _ in history_rows(tmp_path)) == sorted(kept)
    assert not [row for row in history_rows(tmp_path) if row[0] == ids[victim]]
    with pytest.raises(MemoryNotFoundError):
        people[victim].history(ids[victim])
    for user_id, memory in people.items():
        if user_id != victim:
            assert [row["id"] for row in memory.get_all()] == [ids[user_id]]
            assert len(memory.history(ids[user_id])) == 1
    # Not even the next extraction hears of it.
    people[victim].add("hello again", infer=True)
    assert f"Number{mine}" not in plain.llm.prompts[-1]


def test_mem0_erasure_leaves_history_messages_and_names(plain: mem0.Memory, tmp_path: Path) -> None:
    """The control: without this package the same erasure leaves the text in three places."""
    plain.add("Xenobia owns a zyzzogeton", user_id="a", infer=True)
    plain._entity_store = None  # as in a process that has just started
    plain.delete_all(user_id="a")
    assert any("zyzzogeton" in str(row) for row in history_rows(tmp_path))
    assert any("zyzzogeton" in str(row) for row in message_rows(tmp_path))
    assert plain.entity_store.list(filters={"user_id": "a"})[0]
    plain.add("hello again", user_id="a", infer=True)
    assert "zyzzogeton" in plain.llm.prompts[-1]


def test_erasure_removes_entities_mem0_has_not_opened(plain: mem0.Memory) -> None:
    memory = ScopedMemory("a", client=plain)
    memory.add("Xenobia owns a zyzzogeton", infer=True)
    plain._entity_store = None
    receipt = memory.delete_all()
    assert receipt.entities == 1
    assert plain.entity_store.list(filters={"user_id": "a"})[0] == []


def test_erasure_removes_messages_of_every_run_and_agent(plain: mem0.Memory, tmp_path: Path) -> None:
    """Other code may have used mem0's own run_id and agent_id under this user: those rows are the user's as well."""
    plain.add("Xenobia owns a zyzzogeton", user_id="a", run_id="r&user_id=b", infer=True)
    plain.add("Xenobia owns two", user_id="a", agent_id="b", infer=True)
    plain.add("Bob owns a cat", user_id="b", infer=True)
    receipt = ScopedMemory("a", client=plain).delete_all()
    assert (receipt.memories, receipt.messages) == (2, 2)
    assert [content for _, content in message_rows(tmp_path)] == ["Bob owns a cat"]
    assert ScopedMemory("b", client=plain).count() == 1


@pytest.mark.parametrize("verb", ["update", "delete"])
def test_update_and_delete_leave_no_old_text(plain: mem0.Memory, tmp_path: Path, verb: str) -> None:
    alice, bob = ScopedMemory("a", client=plain), ScopedMemory("ab", client=plain)
    bob.add("Bob owns a cat", infer=True)
    (row,) = alice.add("Xenobia owns a zyzzogeton", infer=True)
    if verb == "delete":
        alice.delete(row["id"])
    else:
        alice.update(row["id"], "Quillon owns a dog")
        assert [event["event"] for event in alice.history(row["id"])] == ["ADD", "UPDATE"]
    assert "zyzzogeton" not in str(history_rows(tmp_path) + message_rows(tmp_path))
    assert [content for _, content in message_rows(tmp_path)] == ["Bob owns a cat"]
    names = {hit.payload["data"] for hit in plain.entity_store.list(filters={"user_id": "a"})[0]}
    assert names == (set() if verb == "delete" else {"Quillon"})
    assert bob.count() == 1


def test_erasure_removes_expired_rows_and_more_than_a_page(plain: mem0.Memory, tmp_path: Path) -> None:
    alice = ScopedMemory("a", client=plain)
    alice.add("an expired zyzzogeton", infer=False, expires_on="2001-01-01")
    # mem0's get_all stops at 20, its delete_all lists a hundred at a time.
    alice.add([f"memory number {number}" for number in range(120)], infer=False)
    receipt = alice.delete_all()
    assert (receipt.memories, receipt.history) == (121, 121)
    assert history_rows(tmp_path) == []
    assert plain.get_all(filters={"user_id": "a"}, top_k=1000, show_expired=True)["results"] == []
