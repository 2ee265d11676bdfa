"""Rows kept for searches: current for every thread, client and process, and bounded in memory."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine.cache import SearchRows
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import RowKind, Storage
from tests.models import extracting
from tests.support import run_python
from tests.worlds import WordEmbeddings, entities

_HERE = "Xenobia is here"


@pytest.fixture
def client(extractor: EngineMemory) -> EngineMemory:
    return extractor


def kept(client: EngineMemory, user_id: str, kind: RowKind = RowKind.MEMORY) -> SearchRows | None:
    return client.cache.entries.get((user_id, kind))


def refreshed(client: EngineMemory, user_id: str, kind: RowKind = RowKind.MEMORY) -> SearchRows:
    rows = client.cache.refresh(user_id, kind, client.cache.get(user_id, kind)[0])
    assert rows is not None
    return rows


def found(memory: ScopedMemory, query: str = _HERE) -> list[str]:
    return [row["memory"] for row in memory.search(query, threshold=0, k=50)]


def test_rows_that_have_not_changed_are_not_read_again(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    found(alice)
    first = kept(client, "u_alice")
    assert first is not None
    # Nor when somebody else's have.
    ScopedMemory("u_bob", client=client).add("Bob is here", infer=False)
    found(alice)
    assert kept(client, "u_alice") is first
    again = refreshed(client, "u_alice")
    assert (again.rows, again.index) == (first.rows, first.index)
    assert again.rows is first.rows
    assert again.index is first.index


def test_the_index_is_built_once_for_the_same_rows(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(["tea", "juice"], infer=False)
    found(alice, "tea")
    ((place, rows),) = client.cache.entries.items()
    index = rows.index
    found(alice, "juice")
    assert place == ("u_alice", RowKind.MEMORY)
    assert client.cache.entries[place].index is index


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


def test_a_change_by_another_client_is_seen(client: EngineMemory, storage: Storage) -> None:
    other = EngineMemory(storage, WordEmbeddings())
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


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    client = local_memory(path, embeddings=WordEmbeddings())
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    assert found(alice) == [_HERE]
    code = f"""
        from langchain_mem0_scoped import ScopedMemory, local_memory
        from tests.worlds import WordEmbeddings
        client = local_memory({str(path)!r}, embeddings=WordEmbeddings())
        alice = ScopedMemory("u_alice", client=client)
        alice.update(alice.get_all()[0]["id"], "Zephyr is here")
        alice.add("Quillon is here")
        client.close()
        """
    assert run_python(code) == ""
    assert sorted(found(alice)) == ["Quillon is here", "Zephyr is here"]
    client.close()


def test_a_changed_entity_is_seen(client: EngineMemory) -> None:
    with entities():
        alice = ScopedMemory("u_alice", client=client)
        alice.add(_HERE, infer=True)
        before = refreshed(client, "u_alice", RowKind.ENTITY)
        alice.add("Quillon is here", infer=True)
        assert len(refreshed(client, "u_alice", RowKind.ENTITY).ids) == len(before.ids) + 1


def test_what_was_used_last_stays_and_the_oldest_goes(client: EngineMemory) -> None:
    users = [f"u_{number}" for number in range(6)]
    for user_id in users:
        ScopedMemory(user_id, client=client).add([_HERE] * 10, infer=False)
    size = refreshed(client, "u_0").size
    client.cache.clear()
    cache = client.cache
    cache.capacity = 3 * size
    held = {user_id: refreshed(client, user_id) for user_id in users[:3]}
    assert cache.get("u_0", RowKind.MEMORY) == (held["u_0"], True), "which makes u_1 the oldest"
    refreshed(client, "u_3")
    assert cache.size <= 3 * size
    assert kept(client, "u_0") is held["u_0"]
    assert kept(client, "u_2") is held["u_2"]
    assert kept(client, "u_1") is None
    for user_id in users * 3:
        refreshed(client, user_id)
        assert cache.size <= 3 * size
        assert cache.size == sum(rows.size for rows in cache.entries.values())


def test_one_user_larger_than_the_bound_is_served_all_the_same(client: EngineMemory) -> None:
    client.cache.capacity = 1
    alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
    for memory in (alice, bob):
        memory.add([_HERE] * 10, infer=False)
    assert len(found(alice)) == len(found(bob)) == len(found(alice)) == 10
    assert len(client.cache.entries) == 1


def test_an_erasure_leaves_no_vectors_of_the_user_in_memory(client: EngineMemory) -> None:
    alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
    with entities():
        alice.add(_HERE, infer=True)
        found(alice)
        bob.add(_HERE, infer=False)
        found(bob)
    before = kept(client, "u_bob")
    assert before is not None
    assert ("u_alice", RowKind.ENTITY) in client.cache.entries
    alice.delete_all()
    assert client.cache.entries == {("u_bob", RowKind.MEMORY): before}
    assert client.cache.size == before.size


def test_rows_of_a_user_whom_another_client_has_erased_are_given_up_at_the_next_search(
    client: EngineMemory, storage: Storage
) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    found(alice)
    EngineMemory(storage, WordEmbeddings()).erase("u_alice")
    assert found(alice) == []
    assert client.cache.entries == {}


def test_a_forked_child_starts_with_nothing(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(_HERE, infer=False)
    found(alice)
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, str(len(client.cache.entries)).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"0"
    os.close(read)
    assert len(client.cache.entries) == 1


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_is_what_a_fresh_look_would_find(storage: Storage, seed: int) -> None:
    """Whatever two clients write in turn: rows that were only added to are grown, others read again."""
    chance = random.Random(seed)
    clients = [EngineMemory(storage, WordEmbeddings(), extracting()) for _ in range(2)]
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


def same_as_fresh(client: EngineMemory, memory: ScopedMemory) -> None:
    reader = ScopedMemory(memory.user_id, client=client)
    if client.vector_store.list({"user_id": memory.user_id}) == [[]]:
        assert found(reader) == []
        return
    fresh = ScopedMemory(memory.user_id, client=EngineMemory(client.storage, WordEmbeddings()))
    for query in (_HERE, "Zephyr", "素食"):
        # To the last bit: a score may not depend on how the rows came to be in memory.
        assert reader.search(query, threshold=0, k=50) == fresh.search(query, threshold=0, k=50)


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
