"""Every filter, metadata and store that could widen a query or forge a row: refused, and seen to work on plain mem0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import mem0
import pytest

from langchain_mem0_scoped import ScopedMemory, ScopeError
from tests.attacks import ALICE, BOB, HERS, HIS, QUERY, Stage, found, listed, plain_stage, staged
from tests.support import NOBODYS_ID, Call, new_user, opened, texts_of

# The tests open mem0's entity store themselves, on a local Qdrant that then warns of an index it has no use for.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture(scope="module")
def stage(client: mem0.Memory) -> Iterator[Stage]:
    with staged(client) as stage:
        yield stage


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[mem0.Memory]:
    with plain_stage(tmp_path) as client:
        yield client


# -- filters

ALICES = {"user_id": ALICE}
FILTERS: dict[str, Any] = {
    "user_id": ALICES,
    "user_id wildcard": {"user_id": "*"},
    "user_id own": {"user_id": BOB},
    "user_id None": {"user_id": None},
    "user_id list": {"user_id": [ALICE]},
    "user_id ne": {"user_id": {"ne": BOB}},
    "user_id in": {"user_id": {"in": [BOB, ALICE]}},
    "user_id nin": {"user_id": {"nin": [BOB]}},
    "user_id contains": {"user_id": {"contains": "u"}},
    "user_id gte": {"user_id": {"gte": ""}},
    "user_id unknown operator": {"user_id": {"$regex": ".*"}},
    "USER_ID": {"USER_ID": ALICE},
    "fullwidth user_id": {"\uff55ser_id": ALICE},
    "padded user_id": {"user_id ": ALICE},
    "dotted user_id": {"metadata.user_id": ALICE},
    "run_id wildcard": {"run_id": "*"},
    "agent_id wildcard": {"agent_id": "*"},
    "app_id wildcard": {"app_id": "*"},
    "actor_id wildcard": {"actor_id": "*"},
    "run_id": {"run_id": "r"},
    "agent_id": {"agent_id": "a"},
    "actor_id": {"actor_id": ALICE},
    "AND": {"AND": [ALICES]},
    "AND wildcard": {"AND": [{"user_id": "*"}]},
    "AND ne": {"AND": [{"user_id": {"ne": BOB}}]},
    "AND empty": {"AND": []},
    "AND harmless": {"AND": [{"topic": "food"}]},
    "OR": {"OR": [ALICES]},
    "OR wildcard": {"OR": [{"user_id": "*"}, {"user_id": BOB}]},
    "NOT": {"NOT": [{"user_id": BOB}]},
    "$and": {"$and": [ALICES]},
    "$or": {"$or": [ALICES]},
    "$not": {"$not": [{"user_id": BOB}]},
    "and": {"and": [ALICES]},
    "Or": {"Or": [ALICES]},
    "AND after a harmless key": {"topic": "food", "AND": [ALICES]},
    "AND before a harmless key": {"AND": [ALICES], "topic": "food"},
    "AND below a key": {"topic": {"AND": [ALICES]}},
    "user_id below a key": {"topic": {"user_id": ALICE}},
    "list below a key": {"topic": [ALICES]},
    "unknown operator": {"topic": {"$gt": ""}},
    "two operators, one unknown": {"topic": {"eq": "x", "or": "y"}},
    "wildcard value": {"topic": "*"},
    "session_id": {"session_id": f"s_{ALICE}"},
    "session_id wildcard": {"session_id": "*"},
    "session_id ne": {"session_id": {"ne": ""}},
    "data": {"data": {"contains": "key"}},
    "hash": {"hash": "0"},
    "created_at": {"created_at": {"gte": "1970"}},
    "id": {"id": "0"},
    "memory_id": {"memory_id": "0"},
    "expiration_date": {"expiration_date": {"gte": "1970"}},
    "list of filters": [ALICES],
    "text": "user_id",
}


def test_search_and_get_all_reject_filters(stage: Stage, call: Call) -> None:
    for name, filters in FILTERS.items():
        for session in ({}, {"session_id": "s"}):
            stage.refused(partial(call, stage.bob, "search", QUERY, filters=filters, **session), name)
            stage.refused(partial(call, stage.bob, "get_all", filters=filters, **session), name)


# What the same filters do in plain mem0, put behind the pin as an application would: {"user_id": me, **filters}.
# OR, NOT and the $ forms come back empty on 2.2.1's Qdrant, operators and lists as a user_id become one odd user name
# or a ValueError, and run_id, agent_id, app_id and actor_id confine the answer to the pinned user there. For these the
# nearest that does leak stands below: without the pin, which is how a filter that was merged in comes about.
LEAKS = {name: FILTERS[name] for name in ("user_id", "user_id wildcard", "AND", "AND wildcard")}
LEAKS |= {"AND after a harmless key": {"session_id": "*", "AND": [ALICES]}}


@pytest.mark.parametrize("filters", LEAKS.values(), ids=LEAKS)
def test_mem0_leaks_through_filter_merged_behind_the_user(plain: mem0.Memory, filters: dict[str, Any]) -> None:
    assert HERS in found(plain, **{"user_id": BOB, **filters})


@pytest.mark.parametrize("filters", [LEAKS["AND"], LEAKS["AND wildcard"]], ids=["AND", "AND wildcard"])
def test_mem0_leaks_through_filter_merged_before_the_user(plain: mem0.Memory, filters: dict[str, Any]) -> None:
    # {**caller, "user_id": me}: where the caller's keys hold a user_id, the pin takes its place but keeps its position,
    # in front of the AND that overwrites it.
    caller = {"user_id": "whoever", **filters}
    assert HERS in found(plain, **{**caller, "user_id": BOB})
    assert HERS not in found(plain, **{**filters, "user_id": BOB})  # the order of keys decides


@pytest.mark.parametrize("name", ["run_id", "agent_id"])
def test_mem0_wildcard_run_or_agent_reads_all_users(plain: mem0.Memory, name: str) -> None:
    assert set(found(plain, **{name: "*"})) == set(listed(plain, **{name: "*"})) == {HERS, HIS}


@pytest.mark.parametrize("name", ["run_id", "agent_id"])
def test_mem0_wildcard_run_or_agent_erases_all_users(plain: mem0.Memory, name: str) -> None:
    plain.delete_all(**{name: "*"})
    assert listed(plain, user_id=ALICE) == listed(plain, user_id=BOB) == []


def test_mem0_shared_run_reads_across_users(plain: mem0.Memory) -> None:
    plain.add("alice in the shared run", user_id=ALICE, run_id="r", infer=False)
    assert listed(plain, run_id="r") == ["alice in the shared run"]


# -- metadata

FORGERIES: dict[str, Any] = {
    "user_id": ALICE,
    "User_ID": ALICE,
    "agent_id": "*",
    "app_id": "*",
    "run_id": "*",
    "actor_id": ALICE,
    "metadata.user_id": ALICE,
    "AND": [ALICES],
    "$or": [ALICES],
    "data": "what she never said",
    "hash": "0",
    "role": "assistant",
    "created_at": "1970-01-01",
    "updated_at": "2999-01-01",
    "expiration_date": "2000-01-01",
    "Expiration_Date": "2000-01-01",
    "text_lemmatized": "bait",
    "attributed_to": "user",
    "id": "00000000-0000-4000-8000-000000000000",
    "memory_id": "00000000-0000-4000-8000-000000000000",
    "session_id": f"s_{ALICE}",
    "SESSION_ID": "s",
}


def test_add_and_update_reject_metadata(stage: Stage, call: Call) -> None:
    own = stage.bob.get_all()[0]["id"]
    for key, value in FORGERIES.items():
        metadata = {"topic": "food", key: value}
        stage.refused(partial(call, stage.bob, "add", "hello", metadata=metadata), key)
        stage.refused(partial(call, stage.bob, "add", "hello", metadata=metadata, session_id="s", infer=False), key)
        for memory_id in (own, stage.hers):
            for text in ((), ("hello",)):
                stage.refused(partial(call, stage.bob, "update", memory_id, *text, metadata=metadata), key)


# mem0 2.2.1 drops user_id, agent_id, run_id and actor_id from metadata (earlier releases did not, mem0 #6655), and it
# writes data, hash, updated_at and text_lemmatized itself. The rest is stored as it is given.
@pytest.mark.parametrize(
    "key", ["created_at", "attributed_to", "id", "memory_id", "app_id", "session_id", "expiration_date"]
)
def test_mem0_add_stores_forged_metadata(plain: mem0.Memory, key: str) -> None:
    memory_id = plain.add("hello", user_id=BOB, infer=False, metadata={key: FORGERIES[key]})["results"][0]["id"]
    assert plain.vector_store.get(memory_id).payload[key] == FORGERIES[key]


@pytest.mark.parametrize("key", ["role", "attributed_to", "expiration_date", "id", "session_id"])
def test_mem0_update_stores_forged_metadata(plain: mem0.Memory, key: str) -> None:
    memory_id = plain.add("hello", user_id=BOB, infer=False)["results"][0]["id"]
    plain.update(memory_id, metadata={key: FORGERIES[key]})
    assert plain.vector_store.get(memory_id).payload[key] == FORGERIES[key]


def test_mem0_metadata_hides_a_row_from_lists_and_erasure(plain: mem0.Memory) -> None:
    # It can be hidden and kept: neither read nor, by whoever lists before deleting, erased.
    plain.add("hidden", user_id=BOB, infer=False, metadata={"expiration_date": "2000-01-01"})
    assert listed(plain, user_id=BOB) == [HIS]
    assert texts_of(plain.get_all(filters={"user_id": BOB}, show_expired=True)["results"]) != [HIS]


# -- a store that does not keep its filters


@contextmanager
def ignoring_filters(folder: Path, *stores: str, after: int = 0) -> Iterator[Stage]:
    """mem0 on local Qdrant, in which some of its stores search everybody, and list everybody after some listings."""
    listings = count()
    with opened("qdrant", folder) as client:
        hers = ScopedMemory(ALICE, client=client).add(HERS)[0]["id"]
        ScopedMemory(BOB, client=client).add(HIS)
        qdrant = type(client.vector_store)

        class Leaking(qdrant):  # type: ignore[valid-type,misc]  # whichever class mem0 has for Qdrant
            def search(self, query: str, vectors: Any, top_k: int = 5, filters: Any = None) -> Any:
                return super().search(query, vectors, top_k, {"user_id": "*"})

            def list(self, filters: Any = None, top_k: int = 100) -> Any:
                return super().list({"user_id": "*"} if next(listings) >= after else filters, top_k)

        for store in stores:
            getattr(client, store).__class__ = Leaking
        yield Stage(client, hers)
        for store in stores:
            getattr(client, store).__class__ = qdrant
        assert texts_of(ScopedMemory(ALICE, client=client).get_all()) == [HERS]


@pytest.fixture
def leaking(tmp_path: Path) -> Iterator[Stage]:
    with ignoring_filters(tmp_path, "vector_store", "entity_store") as stage:
        yield stage


@pytest.mark.parametrize("verb", ["search", "get_all", "count"])
def test_foreign_row_in_a_result_raises(leaking: Stage, call: Call, verb: str) -> None:
    with pytest.raises(ScopeError) as caught:
        call(leaking.bob, verb, *((QUERY,) if verb == "search" else ()))
    assert caught.type is ScopeError
    assert ALICE not in str(caught.value)
    assert HERS not in str(caught.value)


@pytest.mark.parametrize("after", [0, 1])
def test_erasure_removes_no_foreign_row(tmp_path: Path, call: Call, after: int) -> None:
    with ignoring_filters(tmp_path, "vector_store", after=after) as stage:
        with pytest.raises(ScopeError):
            call(stage.bob, "delete_all")
        assert call(ScopedMemory(ALICE, client=stage.client), "get", stage.hers)["memory"] == HERS


@pytest.mark.parametrize("stores", [("entity_store",), ("vector_store", "entity_store")], ids="+".join)
def test_erasure_removes_no_foreign_entity(tmp_path: Path, call: Call, stores: tuple[str, ...]) -> None:
    with ignoring_filters(tmp_path, *stores) as stage:
        entities, vector = stage.client.entity_store, stage.client.embedding_model.embed("Frieda", "add")
        payload = {"data": "Frieda", "user_id": ALICE, "linked_memory_ids": [stage.hers]}
        entities.insert(vectors=[vector], payloads=[payload], ids=[NOBODYS_ID])
        with pytest.raises(ScopeError):
            call(stage.bob, "delete_all")
        assert entities.get(NOBODYS_ID).payload == payload


def test_erasure_that_finds_a_foreign_row_deletes_nothing(tmp_path: Path, call: Call) -> None:
    with ignoring_filters(tmp_path, "vector_store") as stage:
        entities, vector = stage.client.entity_store, stage.client.embedding_model.embed("Frieda", "add")
        entities.insert(vectors=[vector], payloads=[{"data": "Frieda", "user_id": BOB}], ids=[NOBODYS_ID])
        with pytest.raises(ScopeError):
            call(stage.bob, "delete_all")
        assert entities.get(NOBODYS_ID).payload == {"data": "Frieda", "user_id": BOB}


def test_failed_add_removes_no_foreign_row(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    # An add that fails half way removes what it stored, which it knows by id, or by date and text.
    with ignoring_filters(tmp_path, "vector_store") as stage:
        embed = stage.client.embedding_model.embed

        def failing(text: str, *arguments: Any) -> Any:
            if text == HERS:
                raise ConnectionError
            return embed(text, *arguments)

        metadata = {"created_at": "2026-01-01T00:00:00+00:00"}
        row = stage.client.add(HERS, user_id=ALICE, infer=False, metadata=metadata)["results"][0]["id"]
        monkeypatch.setattr(stage.client.embedding_model, "embed", failing)
        with pytest.raises(ScopeError):
            call(stage.bob, "add", ["first", HERS], at="2026-01-01", infer=False)
        monkeypatch.undo()
        assert stage.client.get(row)["memory"] == HERS
        stage.client.delete(row)


# -- rows of this user that other code wrote


def test_rows_of_the_user_with_run_or_agent_are_found_and_erased(client: mem0.Memory, call: Call) -> None:
    user = new_user("runs")
    memory = ScopedMemory(user, client=client)
    for name, ids in {
        "plain": {},
        "run": {"run_id": "r"},
        "agent": {"agent_id": "a"},
        "both": {"run_id": "r", "agent_id": "a"},
    }.items():
        client.add(f"flowers, {name}", user_id=user, infer=False, **cast(dict[str, Any], ids))
    texts = {f"flowers, {name}" for name in ("plain", "run", "agent", "both")}
    assert set(texts_of(call(memory, "get_all"))) == set(texts_of(call(memory, "search", "flowers"))) == texts
    assert call(memory, "count") == 4
    for record in memory.get_all():
        assert call(memory, "get", record["id"]) == record
    assert call(memory, "delete_all").memories == 4
    assert client.get_all(filters={"user_id": user}, show_expired=True)["results"] == []
    assert client.get_all(filters={"user_id": user, "run_id": "r"}, show_expired=True)["results"] == []
