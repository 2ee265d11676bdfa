"""Snapshots of partitions: current for every thread, client and process, and bounded in memory."""

import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine import cache as cache_module
from langchain_mem0_scoped.engine.cache import Cache, Snapshot
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.sqlite import partitions
from langchain_mem0_scoped.sqlite.partitions import RowKind
from tests.models import extracting
from tests.worlds import WordEmbeddings, entities, unsynced

_HERE = "Xenobia is here"


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def client(path: Path) -> Iterator[EngineMemory]:
    client = local_memory(path, embeddings=WordEmbeddings(), llm=extracting())
    yield client
    client.close()


def snapshot(client: EngineMemory, user_id: str, kind: RowKind = RowKind.MEMORY) -> Snapshot:
    database = client._database
    with database.reading() as connection:
        partition = partitions.find(connection, user_id, database.salt)
        assert partition is not None
        return client._cache.get(connection, partition, kind)


def found(memory: ScopedMemory, query: str = _HERE) -> list[str]:
    return [row["memory"] for row in memory.search(query, threshold=0, k=50)]


def test_a_partition_that_has_not_changed_is_not_read_again(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    first = snapshot(client, "u_alice")
    assert snapshot(client, "u_alice") is first
    # Nor when somebody else's has.
    ScopedMemory("u_bob", client=client).add("Bob is here", infer=False)
    assert snapshot(client, "u_alice") is first


def test_every_change_is_seen_at_once(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    first, second = alice.add([_HERE, "Quillon is here"], infer=False)
    assert len(found(alice)) == 2
    alice.update(first["id"], "Zephyr is here")
    assert sorted(found(alice)) == ["Quillon is here", "Zephyr is here"]
    alice.delete(second["id"])
    assert found(alice) == ["Zephyr is here"]
    alice.delete_all()
    assert found(alice) == []
    alice.add(_HERE, infer=False)
    assert found(alice) == [_HERE], "a user who comes back has a new partition"


def test_a_change_by_another_client_is_seen(client: EngineMemory, path: Path) -> None:
    other = local_memory(path, embeddings=WordEmbeddings())
    mine, theirs = ScopedMemory("u_alice", client=client), ScopedMemory("u_alice", client=other)
    (row,) = mine.add(_HERE, infer=False)
    assert found(mine) == found(theirs) == [_HERE]
    theirs.update(row["id"], "Zephyr is here")
    assert found(mine) == ["Zephyr is here"]
    mine.add("Quillon is here", infer=False)
    assert len(found(theirs)) == 2
    theirs.delete_all()
    assert found(mine) == []
    theirs.add("Back again", infer=False)
    assert found(mine, "back") == ["Back again"]
    other.close()


def test_a_change_by_another_process_is_seen(client: EngineMemory, path: Path) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    assert found(alice) == [_HERE]
    code = (
        "import sys\n"
        "from langchain_mem0_scoped import ScopedMemory, local_memory\n"
        "from tests.worlds import WordEmbeddings\n"
        "client = local_memory(sys.argv[1], embeddings=WordEmbeddings())\n"
        "alice = ScopedMemory('u_alice', client=client)\n"
        "alice.update(alice.get_all()[0]['id'], 'Zephyr is here')\n"
        "alice.add('Quillon is here')\n"
        "client.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[3], timeout=60)
    assert sorted(found(alice)) == ["Quillon is here", "Zephyr is here"]


def test_a_changed_entity_is_seen(client: EngineMemory) -> None:
    with entities():
        alice = ScopedMemory("u_alice", client=client)
        alice.add(_HERE, infer=True)
        before = snapshot(client, "u_alice", RowKind.ENTITY)
        alice.add("Quillon is here", infer=True)
        assert len(snapshot(client, "u_alice", RowKind.ENTITY).ids) == len(before.ids) + 1


def test_what_was_used_last_stays_and_the_oldest_goes(client: EngineMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u_{number}" for number in range(6)]
    for user_id in users:
        ScopedMemory(user_id, client=client).add([_HERE] * 10, infer=False)
    size = snapshot(client, "u_0").size
    cache = client._cache = Cache()
    monkeypatch.setattr(cache_module, "_CAPACITY", 3 * size)
    held = {user_id: snapshot(client, user_id) for user_id in users[:3]}
    assert snapshot(client, "u_0") is held["u_0"], "which makes u_1 the oldest"
    snapshot(client, "u_3")
    assert cache._size <= 3 * size
    assert snapshot(client, "u_0") is held["u_0"]
    assert snapshot(client, "u_2") is held["u_2"]
    assert snapshot(client, "u_1") is not held["u_1"]
    for user_id in users * 3:
        snapshot(client, user_id)
        assert cache._size <= 3 * size
        assert cache._size == sum(kept.snapshot.size for kept in cache._held.values())


def test_one_partition_larger_than_the_bound_is_served_all_the_same(
    client: EngineMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_CAPACITY", 1)
    alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
    for memory in (alice, bob):
        memory.add([_HERE] * 10, infer=False)
    assert len(found(alice)) == len(found(bob)) == len(found(alice)) == 10
    assert len(client._cache._held) == 1


def test_an_erasure_leaves_no_vectors_of_the_user_in_memory(client: EngineMemory) -> None:
    alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
    with entities():
        alice.add(_HERE, infer=True)
        found(alice)
    bob.add(_HERE, infer=False)
    found(bob)
    before = snapshot(client, "u_bob")
    alice.delete_all()
    assert [kept.snapshot for kept in client._cache._held.values()] == [before]
    assert client._cache._size == before.size


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_is_what_a_fresh_look_would_find(path: Path, seed: int) -> None:
    """Whatever two clients write in turn: rows that were only added to are grown, others read again."""
    chance = random.Random(seed)
    clients = [local_memory(path, embeddings=WordEmbeddings(), llm=extracting()) for _ in range(2)]
    memories = [ScopedMemory("u_alice", client=client) for client in clients]
    texts = ["Xenobia is here", "Zephyr was there", "Quillon is gone", "Xenobia and Zephyr", "素食 here"]
    with entities():
        for _ in range(60):
            memory = chance.choice(memories)
            act, rows, text = chance.random(), memory.get_all(), chance.choice(texts)
            if act < 0.5 or not rows:
                memory.add([text] * chance.randint(1, 3), infer=chance.random() < 0.5)
            elif act < 0.7:
                memory.update(chance.choice(rows)["id"], text)
            elif act < 0.95:
                memory.delete(chance.choice(rows)["id"])
            else:
                memory.delete_all()
            if chance.random() < 0.7:
                same_as_fresh(chance.choice(clients), memory)
    for client in clients:
        same_as_fresh(client, memories[0])
        client.close()


def same_as_fresh(client: EngineMemory, memory: ScopedMemory) -> None:
    if client.vector_store.list({"user_id": memory.user_id}) == [[]]:
        assert found(ScopedMemory(memory.user_id, client=client)) == []
        return
    reader = ScopedMemory(memory.user_id, client=client)
    asked = [reader.search(query, threshold=0, k=50) for query in (_HERE, "Zephyr", "素食")]
    kept, client._cache = client._cache, Cache()
    stores = [client.vector_store, client.entity_store]
    for store in stores:
        store._cache = client._cache
    # To the last bit: a score may not depend on how the rows came to be in memory.
    assert [reader.search(query, threshold=0, k=50) for query in (_HERE, "Zephyr", "素食")] == asked
    for store in [client, *stores]:
        store._cache = kept


def test_threads_that_search_while_others_write_see_whole_states(client: EngineMemory) -> None:
    """Each add writes a pair in one transaction, so no search may ever see an odd number."""
    alice = ScopedMemory("u_alice", client=client)
    alice.add([_HERE, _HERE], infer=False)

    def write() -> list[int]:
        for _ in range(15):
            alice.add([_HERE, _HERE], infer=False)
        return []

    def read() -> list[int]:
        return [len(alice.search(_HERE, threshold=0, k=100)) for _ in range(40)]

    with ThreadPoolExecutor(4) as threads:
        seen = [threads.submit(act) for act in (write, read, read, read)]
    counts = [count for future in seen for count in future.result()]
    assert counts
    assert all(count % 2 == 0 and count >= 2 for count in counts)
    for future in seen[1:]:
        assert future.result() == sorted(future.result()), "and never an older state after a newer one"
