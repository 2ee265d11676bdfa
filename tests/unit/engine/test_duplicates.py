"""Facts that are stored already: linked to entities, corrected, in the runs of other code, in a turn."""

from __future__ import annotations

import pytest

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from tests.models import ScriptedModel, extracting
from tests.support import texts_of
from tests.worlds import WordEmbeddings, entities

ALICE = {"user_id": "u_alice"}


def client_on(storage: Storage, model: ScriptedModel | None = None) -> EngineMemory:
    return EngineMemory(storage, WordEmbeddings(), extracting() if model is None else model)


def test_entities_of_a_known_fact_are_linked_to_the_memory_that_stays(storage: Storage) -> None:
    with entities():
        client = client_on(storage)
        alice = ScopedMemory("u_alice", client=client)
        (kept,) = alice.add("Xenobia plays chess", infer=False, expires_on="2999-01-01")
        (lifted,) = alice.add("Xenobia plays chess")
        assert (lifted["id"], lifted["extracted"]) == (kept["id"], False)
        (added,) = alice.add("Xenobia sings")
        with client.for_user("u_alice"):
            (entity,) = client.entity_store.list(ALICE)[0]
        assert sorted(entity.payload["linked_memory_ids"]) == sorted([kept["id"], added["id"]])
        alice.delete(kept["id"])
        alice.delete(added["id"])
        assert alice.delete_all().entities == 0


def test_mem0s_own_add_returns_what_was_stored(storage: Storage) -> None:
    client = client_on(storage)
    (first,) = client.add("Likes tea", user_id="u_alice", expiration_date="2999-01-01")["results"]
    assert client.add("Likes tea", user_id="u_alice", expiration_date="2998-01-01")["results"] == []
    (lifted,) = client.add("Likes tea", user_id="u_alice")["results"]
    assert (lifted["id"], lifted["memory"], lifted["event"]) == (first["id"], "Likes tea", "UPDATE")
    events = client.history(first["id"], user_id="u_alice")
    assert [(event["event"], event["new_memory"]) for event in events] == [("ADD", None), ("UPDATE", "Likes tea")]
    assert client.add("Likes tea", user_id="u_alice")["results"] == []


def test_facts_of_a_run_that_other_code_names_are_compared_with_those_of_the_same_run(storage: Storage) -> None:
    client = client_on(storage)
    for run_id, stored in [(None, 1), ("r", 2), ("r", 2), ("s", 3), (None, 3)]:
        client.add("Likes tea", user_id="u_alice", run_id=run_id)
        assert len(client.get_all(filters=ALICE)["results"]) == stored


def test_corrected_memory_is_not_taken_for_its_old_text(storage: Storage) -> None:
    alice = ScopedMemory("u_alice", client=client_on(storage))
    (tea,) = alice.add("Likes tea")
    alice.update(tea["id"], "Likes coffee")
    assert texts_of(alice.add("Likes tea")) == ["Likes tea"]
    assert alice.add("Likes coffee") == []
    assert sorted(texts_of(alice.get_all())) == ["Likes coffee", "Likes tea"]


def test_a_turn_that_extracts_a_known_fact_is_stored(storage: Storage) -> None:
    alice = ScopedMemory("u_alice", client=client_on(storage))
    for number in range(2):
        alice.chat_history(f"s{number}").add_user_message("Likes tea")
    assert texts_of(alice.get_all()) == ["Likes tea"]
    assert [message.text for message in alice.chat_history("s1").messages][-1] == "Likes tea"


@pytest.mark.parametrize("expires_on", [None, "2999-01-01"])
def test_search_finds_a_last_day_that_was_lifted_at_once(storage: Storage, expires_on: str | None) -> None:
    alice = ScopedMemory("u_alice", client=client_on(storage))
    alice.add("Likes tea", expires_on="2001-01-01")
    assert alice.search("tea") == []
    alice.add("Likes tea", expires_on=expires_on)
    assert [(hit["memory"], hit["expires_on"]) for hit in alice.search("tea")] == [("Likes tea", expires_on)]
