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
from langchain_mem0_scoped.requests import UpdateRequest
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


class TestRemovedMeanwhile:
    """Another call removes a memory after this one has read it, and before this one is committed."""

    @pytest.fixture
    def memory_id(self, client: EngineMemory) -> str:
        memory_id = ScopedMemory("u_alice", client=client).add("My PIN is 4711")[0]["id"]
        remove, pending = client._remove_memory_from_entity_store, iter([True])

        def meanwhile(*args: Any) -> None:
            if next(pending, False):
                with ThreadPoolExecutor(1) as thread:
                    assert thread.submit(client.backend.delete, "u_alice", memory_id).result()
            remove(*args)

        client._remove_memory_from_entity_store = meanwhile
        return memory_id

    @pytest.mark.parametrize("call", ["update", "delete"])
    def test_a_scope_says_that_it_is_missing(self, client: EngineMemory, memory_id: str, call: str) -> None:
        memory = ScopedMemory("u_alice", client=client)
        with pytest.raises(MemoryNotFoundError):
            memory.delete(memory_id) if call == "delete" else memory.update(memory_id, "I have no PIN")
        assert memory.count() == 0
        with pytest.raises(MemoryNotFoundError):
            memory.get(memory_id)

    def test_the_backends_delete_returns_false(self, client: EngineMemory, memory_id: str) -> None:
        assert client.backend.delete("u_alice", memory_id) is False

    def test_the_backends_update_returns_none(self, client: EngineMemory, memory_id: str) -> None:
        assert client.backend.update("u_alice", UpdateRequest(memory_id, "I have no PIN", None)) is None

    def test_mem0s_delete_raises(self, client: EngineMemory, memory_id: str) -> None:
        with pytest.raises(MemoryNotFoundError):
            client.delete(memory_id, user_id="u_alice")
        with pytest.raises(ValueError, match="not found"):
            client.delete(memory_id, user_id="u_alice")

    def test_mem0s_update_raises(self, client: EngineMemory, memory_id: str) -> None:
        with pytest.raises(MemoryNotFoundError):
            client.update(memory_id, text="I have no PIN", user_id="u_alice")


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
