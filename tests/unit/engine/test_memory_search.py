"""Searching memories: what is returned by default, what narrows a search, and that it equals mem0's own search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import mem0
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from langchain_mem0_scoped.ranking import DEFAULT_THRESHOLD
from langchain_mem0_scoped.requests import SearchRequest
from tests.worlds import WordEmbeddings, bytes_of, entities, files_of, names_in, vector_of

_ALICE = {"user_id": "u_alice"}

TEXTS = [
    "I am vegetarian",
    "Alice and Bob met in Berlin",
    "I love spicy food from Sichuan",
    "My sister Alice moved to Berlin in the spring",
    "Berlin Berlin Berlin",
    "I prefer a window seat on long flights",
    "My dog Rex loves the garden",
    "food, all the food there is",
]


@pytest.fixture
def memory(client: EngineMemory) -> ScopedMemory:
    return ScopedMemory("u_alice", client=client)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ScopedMemory]:
    """With the offline embedding."""
    client = local_memory(tmp_path / "real.db")
    yield ScopedMemory("u_alice", client=client)
    client.close()


def scores(found: Any) -> dict[str, Any]:
    return {row["memory"]: row["score"] for row in found}


class TestThreshold:
    _KNOWN = (
        "I am vegetarian",
        "My sister is a nurse in Leeds",
        "I play the cello on Sundays",
        "We moved to Lisbon, and the dog came along",
    )

    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_a_user_of_few_memories_is_understood(self, real: ScopedMemory, count: int) -> None:
        real.add(list(self._KNOWN[:count]))
        asked = ["food preferences", "Where does my sister work?", "music", "pets"]
        for text, query in zip(self._KNOWN[:count], asked, strict=False):
            assert real.search(query)[0]["memory"] == text

    @pytest.mark.parametrize("query", ["What is the capital gains tax rate?", "How do I fix my bicycle tyre?"])
    def test_an_unrelated_query_finds_nothing(self, real: ScopedMemory, query: str) -> None:
        real.add(list(self._KNOWN))
        assert real.search(query) == []

    def test_by_default_the_best_decides_whether_there_is_an_answer(self, memory: ScopedMemory) -> None:
        memory.add(["tea at noon", "tea", "a word about tea, and then about much else that nobody asked for"])
        found = memory.search("tea at noon")
        assert scores(found)["tea at noon"] >= DEFAULT_THRESHOLD
        assert len(found) == 3
        assert found == memory.search("tea at noon", threshold=0)

    def test_a_threshold_that_is_given_is_the_lowest_score(self, memory: ScopedMemory, client: EngineMemory) -> None:
        memory.add([f"tea {'and more ' * number}" for number in range(12)])
        everything = memory.search("tea", k=50, threshold=0)
        middle = everything[5]["score"]
        assert middle is not None
        assert memory.search("tea", k=50, threshold=middle) == everything[:6]
        assert len(client.search("tea", filters=_ALICE, threshold=middle, top_k=50)["results"]) == 6
        assert memory.search("tea", threshold=1) == []

    def test_at_0_whatever_has_anything_in_common_is_found_and_nothing_else(
        self, memory: ScopedMemory, client: EngineMemory
    ) -> None:
        memory.add(["tea", "tea and juice"], session_id="s1")
        memory.add("zzz", session_id="s2")
        opposite = [-one for one in vector_of("tea")]
        client.vector_store.insert([opposite], [{**_ALICE, "data": "qqq", "created_at": "2001-01-01"}], [str(uuid4())])
        found = scores(memory.search("tea", k=50, threshold=0))
        assert {"tea", "tea and juice"} <= set(found)
        assert "qqq" not in found
        assert all(score > 0 for score in found.values())


class TestNarrowing:
    def test_neither_filter_nor_session_nor_k_changes_a_score(self, memory: ScopedMemory) -> None:
        for number in range(40):
            memory.add(f"tea number {number}", session_id=f"s{number % 3}", metadata={"even": number % 2 == 0})
        memory.add("tea of no session", metadata={"even": True})
        everything = scores(memory.search("tea number 3", k=100, threshold=0))
        assert len(everything) == 41
        narrowings: list[dict[str, Any]] = [{"filters": {"even": True}}, {"session_id": "s1"}, {"k": 7}]
        narrowings += [{"session_id": "s1", "filters": {"even": False}}]
        for narrowing in narrowings:
            found = scores(memory.search("tea number 3", threshold=0, **{"k": 100, **narrowing}))
            assert found
            assert found.items() <= everything.items()
        assert len(scores(memory.search("tea", k=100, threshold=0, session_id="s1"))) == 13
        assert len(memory.scoped_client.search_other_sessions("tea", "s1", 100)) == 41 - 13
        assert memory.search("tea", session_id="never", threshold=0) == []

    def test_an_expired_row_is_not_shown_and_changes_no_score(self, memory: ScopedMemory, client: EngineMemory) -> None:
        memory.add(["tea", "juice"])
        (expiring,) = memory.add("tea and juice", expires_on="2999-01-01")
        before = scores(memory.search("tea", threshold=0, k=50))
        assert before.pop(expiring["memory"])
        with client.for_user("u_alice"):
            payload = client.vector_store.get(expiring["id"]).payload
            client.vector_store.update(expiring["id"], None, {**payload, "expiration_date": "2001-01-01"})
        assert scores(memory.search("tea", threshold=0, k=50)) == before

    def test_a_session_that_mem0s_own_code_corrects_is_the_new_one(
        self, memory: ScopedMemory, client: EngineMemory
    ) -> None:
        (row,) = memory.add("tea", session_id="s1")
        with client.for_user("u_alice"):
            payload = client.vector_store.get(row["id"]).payload
            client.vector_store.update(row["id"], None, {**payload, "session_id": "s2"})
        assert memory.search("tea", session_id="s1") == []
        assert [one["id"] for one in memory.search("tea", session_id="s2")] == [row["id"]]


class TestSpeakers:
    def test_who_is_named_as_the_speaker_is_found_first(self, memory: ScopedMemory) -> None:
        for number in range(3):
            said = [
                HumanMessage("the mountains are lovely", name="Ann"),
                AIMessage("the mountains are lovely", name="Rex"),
            ]
            memory.add(said, session_id=f"s{number}", infer=False)
        by_role = {"Rex": "assistant", "Ann": "user"}
        for name, role in by_role.items():
            found = memory.search(f"What did {name} say of mountains?", k=3)
            assert [row["role"] for row in found] == [role] * 3

    def test_a_name_is_no_metadata_and_no_scope(self, memory: ScopedMemory, client: EngineMemory) -> None:
        (row,) = memory.add({"role": "user", "content": "I went home", "name": "u_bob"})
        assert row["metadata"] == {}
        assert memory.get(row["id"])["metadata"] == {}
        with client.for_user("u_alice"):
            assert client.vector_store.get(row["id"]).payload["actor_id"] == "u_bob"
        assert ScopedMemory("u_bob", client=client).get_all() == []

    def test_nothing_of_sessions_and_names_outlives_an_erasure(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "speakers.db", embeddings=WordEmbeddings())
        memory = ScopedMemory("u_alice", client=client)
        memory.add({"role": "user", "content": "I went home", "name": "Zyzzogeton"}, session_id="quillonian")
        memory.delete_all()
        client.close()
        held = bytes_of(*files_of(tmp_path / "speakers.db"))
        assert b"zyzzogeton" not in held
        assert b"quillonian" not in held


class TestEqualToMem0sOwn:
    """mem0's own code, given this store and a threshold, finds the same rows with the same scores, field for field."""

    _OPTIONS = tuple(
        {"limit": limit, "threshold": threshold, "explain": explain, "show_expired": show_expired}
        for limit, threshold, explain, show_expired in itertools.product(
            (1, 5, 100), (0.0, 0.1, 0.6), (False, True), (False, True)
        )
        if not (explain and show_expired)
    )

    @pytest.fixture
    def filled(self, extractor: EngineMemory) -> Iterator[EngineMemory]:
        memory = ScopedMemory("u_alice", client=extractor)
        with entities():
            for number, text in enumerate(TEXTS):
                more: dict[str, Any] = {"expires_on": "2001-01-01"} if number % 4 == 3 else {}
                memory.add(text, session_id=f"s{number % 2}", metadata={"n": number}, infer=number % 3 == 0, **more)
            yield extractor

    @pytest.mark.parametrize("options", _OPTIONS, ids=str)
    def test_search(self, filled: EngineMemory, options: dict[str, Any]) -> None:
        found = 0
        filters: list[dict[str, Any]] = [{}, {"session_id": "s1"}, {"n": {"gte": 3}}]
        for query, narrowing in itertools.product(
            (TEXTS[1], "Berlin", "Where does Alice live?", "zyzzogeton"), filters
        ):
            for has_entities in (True, False):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("mem0.memory.main.extract_entities", names_in if has_entities else lambda _: [])
                    pinned = {**_ALICE, **narrowing}
                    theirs = mem0.Memory._search_vector_store(filled, query, pinned, **options)
                    ours = filled._search_vector_store(query, pinned, **options)
                assert ours == theirs
                found += len(ours)
        assert found or options["threshold"] == 0.6

    @pytest.mark.parametrize(("k", "threshold"), list(itertools.product([1, 100], [None, 0.0, 0.6])))
    def test_the_backend_finds_what_mem0s_interface_finds(
        self, filled: EngineMemory, k: int, threshold: float | None
    ) -> None:
        filters: list[dict[str, Any]] = [{}, {"session_id": {"ne": "s1"}}, {"n": {"gte": 1, "lt": 6}}]
        for query, narrowing in itertools.product((TEXTS[1], "  Berlin ", "zyzzogeton"), filters):
            pinned = {**_ALICE, **narrowing}
            through_mem0 = filled.search(query, filters=pinned, top_k=k, threshold=threshold)["results"]
            assert filled.backend.search(SearchRequest(query, pinned, k, threshold)) == through_mem0

    def test_the_query_is_trimmed_as_mem0_trims_it(self, storage: Storage) -> None:
        embeddings = WordEmbeddings()
        client = EngineMemory(storage, embeddings)
        client.search("  Berlin ", filters=_ALICE)
        client.backend.search(SearchRequest("  Berlin ", _ALICE, 5))
        assert embeddings.queries == ["Berlin", "Berlin"]
