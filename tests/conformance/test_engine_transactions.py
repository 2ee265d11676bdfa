"""How many transactions each call of a scope takes on each storage, and that no model is asked within one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_mem0_scoped import MemoryNotFoundError, ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from langchain_mem0_scoped.requests import add_request
from langchain_mem0_scoped.scoped_client import ScopedClient
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from langchain_mem0_scoped.transcripts.codec import dump_messages
from tests.counted_storage import CountedStorage
from tests.memory_storage import MemoryStorage
from tests.models import extracting
from tests.worlds import WordEmbeddings, entities

_NEVER = "00000000-0000-4000-8000-000000000000"


Call = tuple[Callable[..., Any], tuple[int, int]]

BY_ID: Final[dict[str, Call]] = {
    "get": (lambda memory, one: memory.get(one), (1, 0)),
    "history": (lambda memory, one: memory.history(one), (2, 0)),
    "update of the text": (lambda memory, one: memory.update(one, "Quillon owns a bird"), (2, 1)),
    "update of metadata": (lambda memory, one: memory.update(one, metadata={"a": 1}), (2, 1)),
    "delete": (lambda memory, one: memory.delete(one), (2, 1)),
}

OTHERS: Final[dict[str, Call]] = {
    "add": (lambda memory: memory.add("tea"), (1, 1)),
    "get_all": (lambda memory: memory.get_all(), (1, 0)),
    "get_all, narrowed": (lambda memory: memory.get_all(session_id="s1", limit=1), (1, 0)),
    "count": (lambda memory: memory.count(), (1, 0)),
    "a first search": (lambda memory: memory.search("owns"), (2, 0)),
    "delete_all": (lambda memory: memory.delete_all(), (0, 1)),
}
"""Each call of a scope, and how many reads and writes it takes."""


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CountedStorage]:
    kept: Storage = MemoryStorage() if request.param == "memory" else SqliteStorage(tmp_path / "m.db", "tests")
    yield CountedStorage(kept)
    kept.close()


@pytest.fixture
def embeddings(storage: CountedStorage) -> WordEmbeddings:
    def before(_: object) -> None:
        assert storage.open_transactions == 0, "a model is asked while a transaction is open"

    return WordEmbeddings(before)


@pytest.fixture
def client(storage: CountedStorage, embeddings: WordEmbeddings) -> EngineMemory:
    def before(_: object) -> None:
        assert storage.open_transactions == 0, "a model is asked while a transaction is open"

    return EngineMemory(storage, embeddings, extracting(before))


@pytest.fixture(params=[False, True], ids=["without entities", "with entities"])
def ids(request: pytest.FixtureRequest, client: EngineMemory) -> Iterator[list[str]]:
    """The ids of a user's memories; with entities, mem0 links every capitalised word to them."""
    if not request.param:
        added = ScopedMemory("u_alice", client=client).add(["Zephyr owns a dog", "Xenobia owns a cat"], infer=False)
        yield [row["id"] for row in added]
        return
    with entities():
        added = ScopedMemory("u_alice", client=client).add(["Zephyr owns a dog", "Xenobia owns a cat"], infer=True)
        assert len(client.entity_store.list({"user_id": "u_alice"})[0]) == 2
        yield [row["id"] for row in added]


class TestCallsById:
    """A scope reads the row once to check whose it is; the backend's own work is at most one read and one write."""

    @pytest.mark.parametrize("call", BY_ID)
    def test_own_memory(self, client: EngineMemory, storage: CountedStorage, ids: list[str], call: str) -> None:
        memory, (act, expected) = ScopedMemory("u_alice", client=client), BY_ID[call]
        for memory_id in ids:
            storage.start()
            act(memory, memory_id)
            assert storage.counted == expected

    @pytest.mark.parametrize("user_id", ["u_bob", "u_nobody"])
    @pytest.mark.parametrize("call", BY_ID)
    def test_missing_and_foreign_memories_cost_one_read(
        self, client: EngineMemory, storage: CountedStorage, ids: list[str], call: str, user_id: str
    ) -> None:
        memory, (act, _) = ScopedMemory(user_id, client=client), BY_ID[call]
        ScopedMemory("u_bob", client=client).add("Bob is here", infer=False)
        for memory_id in (*ids, _NEVER):
            storage.start()
            with pytest.raises(MemoryNotFoundError):
                act(memory, memory_id)
            assert storage.counted == (1, 0)

    def test_the_backend_alone(self, client: EngineMemory, storage: CountedStorage, ids: list[str]) -> None:
        storage.start()
        assert client.backend.get("u_alice", ids[0])
        assert storage.counted == (1, 0)
        storage.start()
        assert len(client.backend.history("u_alice", ids[0])) == 1
        assert storage.counted == (1, 0)
        storage.start()
        assert client.backend.delete("u_alice", ids[0])
        assert storage.counted == (1, 1)
        storage.start()
        assert not client.backend.delete("u_alice", ids[0])
        assert storage.counted == (1, 0)


class TestOtherCalls:
    @pytest.mark.parametrize("call", OTHERS)
    @pytest.mark.parametrize("infer", [False, True])
    def test_call(self, storage: CountedStorage, embeddings: WordEmbeddings, call: str, infer: bool) -> None:
        """Without a language model; entities that a client with one has left change nothing."""
        extractor = EngineMemory(storage, embeddings, extracting())
        with entities():
            ScopedMemory("u_alice", client=extractor).add(["Zephyr owns a dog", "a cat"], infer=infer, session_id="s1")
        memory, (act, expected) = ScopedMemory("u_alice", client=EngineMemory(storage, embeddings)), OTHERS[call]
        storage.start()
        act(memory)
        assert storage.counted == expected

    def test_later_searches_take_one_read(self, client: EngineMemory, storage: CountedStorage, ids: list[str]) -> None:
        memory = ScopedMemory("u_alice", client=client)
        first = memory.search("who owns", k=1)
        storage.start()
        assert memory.search("who owns", k=1) == first
        assert storage.counted == (1, 0)

    def test_expired_memories_are_not_counted(self, client: EngineMemory) -> None:
        memory = ScopedMemory("u_alice", client=client)
        memory.add('not "expiration_date": "2001-01-01"', infer=False)
        memory.add("for good", infer=False, expires_on="2999-01-01")
        memory.add("no more", infer=False, expires_on="2001-01-01")
        memory.add("of other code", infer=False, metadata={"note": "expiration_date"})
        assert memory.count() == len(memory.get_all()) == 3
        assert len(client.backend.list_including_expired("u_alice")) == 4

    def test_an_extraction_that_links_entities_is_one_write(
        self, client: EngineMemory, storage: CountedStorage, ids: list[str]
    ) -> None:
        storage.start()
        ScopedMemory("u_alice", client=client).add(["Zephyr sleeps", "Quillon sleeps"], infer=True)
        reads, writes = storage.counted
        assert writes == 1
        assert reads <= 5, "the token, mem0's kept messages, two for what is known already, the entities"


class TestTurns:
    @pytest.mark.parametrize(("has_model", "writes"), [(False, 1), (True, 2)])
    @pytest.mark.parametrize("has_ids", [False, True])
    def test_a_turn_is_one_write_or_two_where_a_model_is_asked(
        self, storage: CountedStorage, embeddings: WordEmbeddings, has_model: bool, writes: int, has_ids: bool
    ) -> None:
        client = ScopedClient("u_alice", client=EngineMemory(storage, embeddings, extracting() if has_model else None))
        for number in range(3):
            token = client.erasure_token()
            given = [
                HumanMessage(f"tea {number}", id=f"h{number}" if has_ids else None),
                AIMessage(f"milk {number}"),
            ]
            storage.start()
            with client.turn("s1", token) as turn:
                assert turn.append(dump_messages(given)).new == [0, 1]
                turn.remember(add_request([f"tea {number}", f"milk {number}"], session_id="s1"))
                assert storage.open_transactions == 0
            reads = storage.count["read"]
            assert storage.count["write"] == writes
            # mem0's extraction looks at what is known already.
            assert reads <= (4 if has_model else has_ids)
        assert client.count() == len(client.transcript_store().read("u_alice", "s1")) == 6

    def test_a_turn_that_is_known_already_writes_nothing(
        self, storage: CountedStorage, embeddings: WordEmbeddings
    ) -> None:
        client = ScopedClient("u_alice", client=EngineMemory(storage, embeddings))
        messages = dump_messages([HumanMessage("tea", id="a")])
        for expected in ([0], []):
            token = client.erasure_token()
            storage.start()
            with client.turn("s1", token) as turn:
                assert turn.append(messages).new == expected
        assert storage.counted == (1, 0)
        assert turn.appended
