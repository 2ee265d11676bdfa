"""Search in one user's rows: what is ranked, how often the storage is asked, and what happens when rows change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.row_search import RowQuery, RowSearch
from langchain_mem0_scoped.engine.storage import RowKind, Version
from langchain_mem0_scoped.requests import SearchRequest
from tests.memory_storage import MemoryStorage
from tests.worlds import WordEmbeddings, vector_of

_ALICE = {"user_id": "u_alice"}


@pytest.fixture
def memory(client: EngineMemory) -> ScopedMemory:
    return ScopedMemory("u_alice", client=client)


class Counting(MemoryStorage):
    """Notes the two reads of a search; before a read of bodies, it does what a test puts there."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int]] = []
        self.before_bodies: list[Any] = []

    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Any:
        found = super().snapshot(user_id, kind, cached)
        self.reads.append(("snapshot", 0 if found is None else len(found.ids)))
        return found

    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        if self.before_bodies:
            self.before_bodies.pop()()
        self.reads.append(("bodies", len(seqs)))
        return super().bodies(user_id, kind, version, seqs)

    def asked(self) -> list[tuple[str, int]]:
        reads, self.reads = self.reads, []
        return reads


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def alice(counting: Counting) -> ScopedMemory:
    return ScopedMemory("u_alice", client=EngineMemory(counting, WordEmbeddings()))


def texts_of(found: Sequence[Any]) -> list[str]:
    return [row["memory"] for row in found]


class TestReads:
    def test_a_first_search_takes_two_reads_and_a_cached_one_takes_one(
        self, alice: ScopedMemory, counting: Counting
    ) -> None:
        alice.add([f"tea number {number}" for number in range(10)])
        alice.search("tea", k=3)
        assert counting.asked() == [("snapshot", 10), ("bodies", 3)]
        alice.search("tea", k=4)
        assert counting.asked() == [("bodies", 4)]

    def test_bodies_are_read_once_however_many_rows_are_passed_over(
        self, alice: ScopedMemory, counting: Counting
    ) -> None:
        alice.add([f"word{number} and thing{number}" for number in range(30)])
        alice.search("word7")
        counting.asked()
        # Two of the first nine have a score of 0, and others after them have not.
        assert len(alice.search("moon", k=9, threshold=0)) == 9
        assert counting.asked() == [("bodies", 9)]
        assert len(alice.search("leaf", k=9, threshold=0)) == 1
        assert counting.asked() == [("bodies", 1)]

    def test_after_an_add_only_the_added_rows_are_read(self, alice: ScopedMemory, counting: Counting) -> None:
        alice.add(["tea", "juice"])
        alice.search("tea")
        alice.add("more tea")
        counting.asked()
        assert len(alice.search("tea", threshold=0)) == 3
        assert counting.asked() == [("snapshot", 1), ("bodies", 3)]

    def test_a_change_by_another_client_costs_one_read_more(self, alice: ScopedMemory, counting: Counting) -> None:
        alice.add(["tea", "juice"])
        alice.search("tea")
        ScopedMemory("u_alice", client=EngineMemory(counting, WordEmbeddings())).add("more tea")
        counting.asked()
        assert len(alice.search("tea", threshold=0)) == 3
        assert counting.asked() == [("bodies", 2), ("snapshot", 1), ("bodies", 3)]

    def test_a_search_that_finds_nothing_still_makes_sure_that_its_rows_are_current(
        self, alice: ScopedMemory, counting: Counting
    ) -> None:
        alice.add("juice")
        assert alice.search("tea", threshold=1) == []
        counting.asked()
        assert alice.search("tea", threshold=1) == []
        assert counting.asked() == [("bodies", 0)]
        ScopedMemory("u_alice", client=EngineMemory(counting, WordEmbeddings())).add("tea of somebody else's client")
        assert alice.search("tea", threshold=0.3)

    def test_a_user_without_rows_takes_one_read(self, alice: ScopedMemory, counting: Counting) -> None:
        assert alice.search("tea") == []
        assert counting.asked() == [("snapshot", 0)]
        alice.scoped_client.transcript_store().append("u_alice", "s1", [])
        assert alice.search("tea") == []

    def test_filters_fetch_a_few_rows_more_and_go_on_until_enough_are_found(
        self, alice: ScopedMemory, counting: Counting
    ) -> None:
        alice.add([f"tea {number}" for number in range(90)], metadata={"rare": False})
        alice.add("a single cup of something", metadata={"rare": True})
        alice.search("tea", k=1)
        counting.asked()
        assert texts_of(alice.search("tea cup", k=1, filters={"rare": True}, threshold=0)) == [
            "a single cup of something"
        ]
        reads = counting.asked()
        assert {name for name, _ in reads} == {"bodies"}
        assert reads[0] == ("bodies", 3)


class TestChangesMeanwhile:
    def test_it_starts_over_with_the_rows_as_they_are(self, alice: ScopedMemory, counting: Counting) -> None:
        first, _ = alice.add(["tea at noon", "juice"])
        alice.search("tea")
        counting.before_bodies.append(lambda: alice.update(first["id"], "no more of it"))
        assert "tea at noon" not in texts_of(alice.search("tea", threshold=0))

    def test_an_erasure_meanwhile_finds_nothing_and_keeps_nothing(
        self, alice: ScopedMemory, counting: Counting
    ) -> None:
        client = alice.scoped_client.client
        assert isinstance(client, EngineMemory)
        alice.add(["tea at noon", "juice"])
        counting.before_bodies.append(alice.delete_all)
        assert alice.search("tea", threshold=0) == []
        assert client.cache.entries == {}
        assert client.cache.size == 0

    def test_rows_that_keep_changing_are_a_retryable_error(self, alice: ScopedMemory, counting: Counting) -> None:
        other = ScopedMemory("u_alice", client=EngineMemory(counting, WordEmbeddings()))
        alice.add("tea")
        counting.before_bodies = [lambda: other.add("tea")] * 100
        with pytest.raises(BackendError, match="keep changing") as raised:
            alice.search("tea")
        assert raised.value.retryable
        counting.before_bodies.clear()
        assert alice.search("tea")


class TestUncommitted:
    """A call reads its own writes."""

    def test_new_rows_are_found_by_their_words_with_the_score_they_will_have(
        self, client: EngineMemory, memory: ScopedMemory
    ) -> None:
        memory.add(["green tea", "some juice"], session_id="s1")
        store = client.vector_store
        with client.units.unit("u_alice"):
            new = str(uuid4())
            store.insert([vector_of("x")], [{**_ALICE, "data": "zyzzogeton", "session_id": "s1"}], [new])
            first = store.search("zyzzogeton", [0.0] * 32, 5, _ALICE)
            assert first[0].id == new
            pending = {hit.id: hit.score for hit in first}
        committed = {hit.id: hit.score for hit in store.search("zyzzogeton", [0.0] * 32, 5, _ALICE)}
        assert committed == pending, "to the last bit"

    def test_a_users_first_rows_are_found(self, client: EngineMemory) -> None:
        store = client.vector_store
        with client.units.unit("u_new"):
            payload = {"user_id": "u_new", "data": "zyzzogeton"}
            store.insert([vector_of("x")], [payload], [str(uuid4())])
            assert len(store.search("zyzzogeton", [0.0] * 32, 5, {"user_id": "u_new"})) == 1

    @pytest.mark.parametrize("kind", ["memories", "entities"])
    def test_replaced_and_removed_rows_are_as_they_will_be(self, client: EngineMemory, kind: str) -> None:
        store = client.vector_store if kind == "memories" else client.entity_store
        links = {"linked_memory_ids": [str(uuid4())]}
        ids = [str(uuid4()) for _ in range(3)]
        texts = ["green tea", "black tea", "juice"]
        store.insert(list(map(vector_of, texts)), [{**_ALICE, **links, "data": text} for text in texts], ids)
        store.search("tea", vector_of("tea"), 5, _ALICE)
        with client.units.unit("u_alice"):
            store.delete(ids[0])
            store.update(ids[2], vector_of("white tea"), {**_ALICE, **links, "data": "white tea"})
            found = {hit.payload["data"] for hit in store.search("tea", vector_of("tea"), 2, _ALICE)}
        assert found == {"black tea", "white tea"}

    def test_another_users_unit_changes_nothing(self, client: EngineMemory, memory: ScopedMemory) -> None:
        memory.add("green tea")
        with client.units.unit("u_bob"):
            payload = {"user_id": "u_bob", "data": "tea of bob"}
            client.vector_store.insert([vector_of("tea")], [payload], [str(uuid4())])
            assert texts_of(memory.search("tea")) == ["green tea"]


def test_entities_are_ranked_by_meaning_alone(client: EngineMemory) -> None:
    links = {"linked_memory_ids": [str(uuid4())]}
    client.entity_store.insert([vector_of("x")], [{**_ALICE, **links, "data": "zyzzogeton"}], [str(uuid4())])
    (hit,) = client.entity_store.search("zyzzogeton", vector_of("x"), 5, _ALICE)
    assert hit.score == pytest.approx(1)
    assert client.entity_store.search("zyzzogeton", vector_of("nothing like it"), 5, _ALICE)[0].score < 0.9


def test_a_query_quotes_nothing(client: EngineMemory) -> None:
    query = RowQuery("u_alice", "my PIN is 4711", np.zeros(32), 5, {"note": "4711"}, show_expired=False)
    assert "4711" not in repr(query)
    assert "4711" not in repr(SearchRequest("my PIN is 4711", {"note": "4711"}, 5))
    assert RowSearch(client.units, client.cache, RowKind.MEMORY).find(query) == []
