"""A call's writes meet what other calls have written meanwhile: nothing that was corrected or deleted comes back."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel

from langchain_mem0_scoped import BackendError, ErasureError, MemoryNotFoundError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from tests.worlds import entities


class Waiting(Embeddings):
    """Embeds by length; waits while it embeds a text it was told to wait at."""

    def __init__(self) -> None:
        self.at: str | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.at in texts and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(30)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, float(len(text))]


@pytest.fixture
def embeddings() -> Waiting:
    return Waiting()


@pytest.fixture
def client(storage: Storage, embeddings: Waiting) -> EngineMemory:
    return EngineMemory(storage, embeddings)


def test_a_slow_update_of_metadata_does_not_bring_corrected_text_back(
    client: EngineMemory, embeddings: Waiting
) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory_id = memory.add("My PIN is 4711")[0]["id"]
    embeddings.at = "My PIN is 4711"
    failed: list[BackendError] = []

    def slow() -> None:
        try:
            memory.update(memory_id, metadata={"topic": "codes"})
        except BackendError as error:
            failed.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    assert embeddings.reached.wait(30)
    memory.update(memory_id, "I have no PIN")
    embeddings.go_on.set()
    thread.join()
    assert failed[0].retryable
    assert memory.get(memory_id)["memory"] == "I have no PIN"
    assert not any("4711" in str(row) for row in memory.history(memory_id))
    memory.update(memory_id, metadata={"topic": "codes"})
    assert memory.get(memory_id)["metadata"] == {"topic": "codes"}


@pytest.mark.parametrize("how", ["deleted", "corrected"])
def test_an_entity_mem0_did_not_look_at_lets_go_as_well(client: EngineMemory, how: str) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory_id = memory.add("Zephyr is my cat")[0]["id"]
    other = memory.add("Zephyr sleeps")[0]["id"]
    for name, links in (("Zephyr", [memory_id, other]), ("Cat", [memory_id])):
        payload: dict[str, Any] = {"data": name, "linked_memory_ids": links, "user_id": "u_alice"}
        client.entity_store.insert([[1.0, 2.0]], [payload], [str(uuid4())])
    # As where there are more than the 10,000 mem0 lists.
    client._remove_memory_from_entity_store = lambda *_: None
    if how == "deleted":
        memory.delete(memory_id)
    else:
        memory.update(memory_id, metadata={"kept": True})
        assert len(client.entity_store.list({"user_id": "u_alice"})[0]) == 2
        memory.update(memory_id, "I have a dog")
    (left,) = client.entity_store.list({"user_id": "u_alice"})[0]
    assert (left.payload["data"], left.payload["linked_memory_ids"]) == ("Zephyr", [other])


def test_metadata_that_looks_like_an_entitys_is_metadata(client: EngineMemory) -> None:
    memory = ScopedMemory("u_alice", client=client)
    for links in (5, [{"a": 1}], ["x"]):
        memory_id = memory.add("hello", metadata={"linked_memory_ids": links})[0]["id"]
        assert memory.update(memory_id, "hello again")["metadata"] == {"linked_memory_ids": links}
        memory.delete(memory_id)
    assert memory.count() == 0


def test_bytes_that_a_reader_kept_go_with_the_next_write(
    embeddings: Waiting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_mem0_scoped.sqlite.database._TRUNCATE_SECONDS", 0.2)
    client = local_memory(tmp_path / "m.db", embeddings=embeddings)
    memory = ScopedMemory("u_alice", client=client)
    memory_id = memory.add("My PIN is 4711")[0]["id"]
    reader = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM texts").fetchone()
    with pytest.raises(ErasureError) as caught:
        memory.delete(memory_id)
    assert caught.value.kinds == ("bytes",)
    assert memory.count() == 0
    reader.execute("ROLLBACK")
    reader.close()
    ScopedMemory("u_bob", client=client).add("Hello")
    client.close()
    assert b"4711" not in b"".join(file.read_bytes() for file in tmp_path.glob("m.db*"))


def test_a_summary_mem0_asks_for_need_not_be_json(storage: Storage, embeddings: Waiting) -> None:
    client = EngineMemory(storage, embeddings, FakeListChatModel(responses=["Step one: look."]))
    options: dict[str, Any] = {"agent_id": "a", "memory_type": "procedural_memory"}
    added = client.add([{"role": "user", "content": "hi"}], user_id="u_alice", **options)
    assert added["results"][0]["memory"] == "Step one: look."


@pytest.mark.parametrize("how", ["update", "delete"])
def test_a_row_that_another_call_has_removed_meanwhile_is_reported_as_missing(
    client: EngineMemory, embeddings: Waiting, how: str
) -> None:
    """Also where this call has read it before."""
    memory = ScopedMemory("u_alice", client=client)
    memory_id = memory.add("My PIN is 4711")[0]["id"]
    remove = client._remove_memory_from_entity_store
    removing = iter([True])

    def meanwhile(*args: Any) -> None:
        if next(removing, False):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(memory.delete, memory_id).result()
        remove(*args)

    client._remove_memory_from_entity_store = meanwhile
    with pytest.raises(MemoryNotFoundError):
        memory.delete(memory_id) if how == "delete" else memory.update(memory_id, "I have no PIN")
    assert memory.count() == 0
    with pytest.raises(MemoryNotFoundError):
        memory.get(memory_id)


def test_a_row_that_another_call_has_removed_meanwhile_raises_in_mem0s_interface(client: EngineMemory) -> None:
    memory_id = ScopedMemory("u_alice", client=client).add("My PIN is 4711")[0]["id"]
    remove = client._remove_memory_from_entity_store
    removing = iter([True])

    def meanwhile(*args: Any) -> None:
        if next(removing, False):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(client.delete, memory_id, user_id="u_alice").result()
        remove(*args)

    client._remove_memory_from_entity_store = meanwhile
    with pytest.raises(MemoryNotFoundError):
        client.delete(memory_id, user_id="u_alice")
    with pytest.raises(ValueError, match="not found"):
        client.delete(memory_id, user_id="u_alice")


def test_a_corrected_memory_keeps_the_entities_that_another_call_has_added_meanwhile(
    client: EngineMemory, embeddings: Waiting
) -> None:
    """The correction adds an entity of a name that, at its commit, another call has added already."""
    memory = ScopedMemory("u_alice", client=client)
    first, second = memory.add(["nobody sleeps", "Zephyr is here"])
    embeddings.at = "Zephyr sleeps"

    def slow() -> None:
        memory.update(first["id"], "Zephyr sleeps")

    with entities(), ThreadPoolExecutor(1) as thread:
        correcting = thread.submit(slow)
        assert embeddings.reached.wait(30)
        payload: dict[str, Any] = {"data": "Zephyr", "linked_memory_ids": [second["id"]], "user_id": "u_alice"}
        client.entity_store.insert([[1.0, 2.0]], [payload], [str(uuid4())])
        embeddings.go_on.set()
        correcting.result()
    (entity,) = client.entity_store.list({"user_id": "u_alice"})[0]
    assert entity.payload["linked_memory_ids"] == sorted([first["id"], second["id"]])
