"""EngineMemory: a real mem0.Memory on a storage, with every part of mem0 at work on it."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import mem0
import pytest

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, ScopeError, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from tests.models import ScriptedModel, extracting
from tests.support import run_python
from tests.worlds import WordEmbeddings, entities, left_in, vector_of

_ALICE = {"user_id": "u_alice"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def embeddings() -> WordEmbeddings:
    return WordEmbeddings()


@pytest.fixture
def model() -> ScriptedModel:
    return extracting()


@pytest.fixture
def client(storage: Storage, embeddings: WordEmbeddings, model: ScriptedModel) -> Iterator[EngineMemory]:
    with entities():
        yield EngineMemory(storage, embeddings, model)


def texts_of(answer: dict[str, Any]) -> list[str]:
    return [row["memory"] for row in answer["results"]]


def test_is_mem0s_own_memory_and_answers_in_its_shapes(client: EngineMemory) -> None:
    assert isinstance(client, mem0.Memory)
    added = client.add("I like tea", user_id="u_alice", infer=False, metadata={"topic": "drinks"})["results"][0]
    assert (added["memory"], added["event"]) == ("I like tea", "ADD")
    row = client.get(added["id"], user_id="u_alice")
    assert row is not None
    assert (row["memory"], row["user_id"], row["metadata"]) == ("I like tea", "u_alice", {"topic": "drinks"})
    assert texts_of(client.get_all(filters=_ALICE)) == ["I like tea"]
    (hit,) = client.search("tea", filters=_ALICE)["results"]
    assert 0 < hit["score"] <= 1
    client.update(added["id"], text="I like coffee", user_id="u_alice")
    assert texts_of(client.get_all(filters=_ALICE)) == ["I like coffee"]
    assert [event["event"] for event in client.history(added["id"], user_id="u_alice")] == ["ADD", "UPDATE"]
    client.delete(added["id"], user_id="u_alice")
    assert client.get(added["id"], user_id="u_alice") is None
    client.delete_all(user_id="u_alice")


class TestCallsById:
    """mem0's calls by id name no user; here they must, and reach nobody else's memory."""

    CALLS: Final[dict[str, Callable[..., Any]]] = {
        "get": lambda client, memory_id, **user: client.get(memory_id, **user),
        "history": lambda client, memory_id, **user: client.history(memory_id, **user),
        "update": lambda client, memory_id, **user: client.update(memory_id, text="changed", **user),
        "delete": lambda client, memory_id, **user: client.delete(memory_id, **user),
    }

    @pytest.mark.parametrize("call", CALLS)
    def test_user_must_be_named(self, client: EngineMemory, call: str) -> None:
        (row,) = client.add("I like tea", user_id="u_alice", infer=False)["results"]
        with pytest.raises(ScopeError, match=rf"name the user: {call}\(memory_id, user_id=…\)"):
            self.CALLS[call](client, row["id"])
        for user_id in ("*", "", " u_alice"):
            with pytest.raises(ScopeError):
                self.CALLS[call](client, row["id"], user_id=user_id)
        assert texts_of(client.get_all(filters=_ALICE)) == ["I like tea"]

    @pytest.mark.parametrize("user_id", ["u_bob", "u_nobody"])
    def test_another_users_memory_is_like_a_missing_one(self, client: EngineMemory, user_id: str) -> None:
        (row,) = client.add("I like tea", user_id="u_alice", infer=False)["results"]
        client.add("I like juice", user_id="u_bob", infer=False)
        for memory_id in (row["id"], "00000000-0000-4000-8000-000000000000"):
            assert client.get(memory_id, user_id=user_id) is None
            assert client.history(memory_id, user_id=user_id) == []
            for call in ("update", "delete"):
                with pytest.raises(ValueError, match="not found"):
                    self.CALLS[call](client, memory_id, user_id=user_id)
        assert texts_of(client.get_all(filters=_ALICE)) == ["I like tea"]
        assert [event["event"] for event in client.history(row["id"], user_id="u_alice")] == ["ADD"]

    @pytest.mark.parametrize("memory_id", ["", "*", "..", "x"])
    def test_id_that_is_no_uuid_names_nothing(self, client: EngineMemory, memory_id: str) -> None:
        assert client.get(memory_id, user_id="u_alice") is None
        assert client.history(memory_id, user_id="u_alice") == []
        for call in ("update", "delete"):
            with pytest.raises(ValueError, match="UUID"):
                self.CALLS[call](client, memory_id, user_id="u_alice")

    def test_users_blocks_may_be_nested(self, client: EngineMemory) -> None:
        ids = {
            user_id: client.add(user_id, user_id=user_id, infer=False)["results"][0]["id"]
            for user_id in ("u_alice", "u_bob")
        }
        with client.for_user("u_alice"):
            with client.for_user("u_bob"):
                assert client.vector_store.get(ids["u_alice"]) is None
                assert client.vector_store.get(ids["u_bob"]) is not None
            assert client.vector_store.get(ids["u_alice"]) is not None
            assert client.get(ids["u_bob"], user_id="u_bob") is not None
            assert client.vector_store.get(ids["u_bob"]) is None
        with pytest.raises(ScopeError):
            client.vector_store.get(ids["u_alice"])
        with pytest.raises(ScopeError), client.for_user("*"):
            pytest.fail("a block for everybody was entered")

    def test_named_user_is_the_threads_own(self, client: EngineMemory) -> None:
        (row,) = client.add("I like tea", user_id="u_alice", infer=False)["results"]
        with client.for_user("u_alice"), ThreadPoolExecutor(1) as thread:
            assert client.vector_store.get(row["id"]) is not None
            with pytest.raises(ScopeError):
                thread.submit(client.vector_store.get, row["id"]).result()


def test_what_was_added_is_there_when_the_file_is_opened_again(path: Path) -> None:
    first = local_memory(path, embeddings=WordEmbeddings())
    ScopedMemory("u_alice", client=first).add("I like tea", session_id="s1", metadata={"n": 1}, at="2023-05-08")
    before = ScopedMemory("u_alice", client=first).get_all()
    first.close()
    again = local_memory(path, embeddings=WordEmbeddings())
    assert ScopedMemory("u_alice", client=again).get_all() == before
    assert before[0]["created_at"] == "2023-05-08T00:00:00+00:00"
    again.close()


def test_two_clients_of_one_file_lose_nothing_to_a_third_process(path: Path) -> None:
    """Closing any descriptor of a file drops this process's locks on it: the next to leave deletes the log."""
    first = local_memory(path, embeddings=WordEmbeddings())
    alice = ScopedMemory("u_alice", client=first)
    alice.add("one")
    second = local_memory(path, embeddings=WordEmbeddings())
    code = f"""
        from langchain_mem0_scoped import ScopedMemory, local_memory
        from tests.worlds import WordEmbeddings
        client = local_memory({str(path)!r}, embeddings=WordEmbeddings())
        print(ScopedMemory("u_alice", client=client).count())
        client.close()
        """

    def counted_elsewhere() -> int:
        return int(run_python(code))

    assert counted_elsewhere() == 1
    alice.add("two")
    assert counted_elsewhere() == alice.count() == ScopedMemory("u_alice", client=second).count() == 2
    first.close()
    second.close()


def test_it_needs_no_key_and_no_download(path: Path) -> None:
    client = local_memory(path)
    alice = ScopedMemory("u_alice", client=client)
    alice.add(["I am vegetarian", "My sister lives in Berlin"])
    assert alice.search("food preferences", k=1)[0]["memory"] == "I am vegetarian"
    client.close()


@pytest.mark.parametrize("wrong", [{"embeddings": "wordllama"}, {"llm": "gpt-5"}, {"embeddings": 3}, {"llm": len}])
def test_what_is_neither_embeddings_nor_model_is_refused_and_makes_no_file(path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be a LangChain"):
        local_memory(path, **wrong)
    assert not path.exists()


@pytest.mark.parametrize("user_id", [None, "", " ", "*", " * "])
def test_rejects_a_call_that_does_not_name_one_user(client: EngineMemory, user_id: Any) -> None:
    client.add("I like tea", user_id="u_alice", infer=False)
    with pytest.raises(ScopeError):
        client.add("x", user_id=user_id, infer=False)
    with pytest.raises(ScopeError):
        client.add("x", user_id=user_id, run_id="r", infer=False)
    with pytest.raises(ScopeError):
        client.delete_all(user_id=user_id)
    with pytest.raises(ScopeError):
        client.delete_all(user_id=user_id, run_id="*")
    assert texts_of(client.get_all(filters=_ALICE)) == ["I like tea"]


@pytest.mark.parametrize("filters", [{"user_id": "*"}, {"run_id": "*"}, {"agent_id": "a"}])
def test_rejects_reading_everybody(client: EngineMemory, filters: dict[str, str]) -> None:
    client.add("I like tea", user_id="u_alice", infer=False)
    with pytest.raises(ScopeError):
        client.get_all(filters=filters)
    with pytest.raises(ScopeError):
        client.search("tea", filters=filters)


def test_rejects_reset(client: EngineMemory) -> None:
    client.add("I like tea", user_id="u_alice", infer=False)
    with pytest.raises(ScopeError):
        client.reset()
    assert texts_of(client.get_all(filters=_ALICE)) == ["I like tea"]


def test_without_a_model_text_is_kept_verbatim(storage: Storage) -> None:
    client = EngineMemory(storage, WordEmbeddings())
    alice = ScopedMemory("u_alice", client=client)
    assert [row["role"] for row in alice.add(["I like tea", {"role": "assistant", "content": "So do I"}])] == [
        "user",
        "assistant",
    ]
    with pytest.raises(InputError, match="language model"):
        alice.add("x", infer=True)
    with pytest.raises(InputError, match="language model"):
        client.add("x", user_id="u_alice")
    assert alice.count() == 2


def test_with_a_model_facts_are_extracted_from_what_is_new(client: EngineMemory, model: ScriptedModel) -> None:
    alice = ScopedMemory("u_alice", client=client)
    model.says = lambda _: '```json\n{"memory": [{"text": "Likes tea"}, {"text": "Lives in Berlin"}]}\n```'
    assert [row["memory"] for row in alice.add("I like tea, and I live in Berlin")] == ["Likes tea", "Lives in Berlin"]
    assert "I like tea, and I live in Berlin" in model.prompts[-1]
    alice.add("and what else?")
    # Its own messages and memories, and nobody else's, are what the model is shown.
    assert "## Last k Messages\nuser: I like tea, and I live in Berlin" in model.prompts[-1]
    assert "Likes tea" in model.prompts[-1]
    ScopedMemory("u_bob", client=client).add("and what else?")
    assert "tea" not in model.prompts[-1]
    assert "## Existing Memories\n[]" in model.prompts[-1]


def test_an_entity_in_the_query_lifts_the_memories_it_is_linked_to(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    linked, plain = alice.add("Xenobia plays chess", infer=True)[0], alice.add("nobody plays chess", infer=False)[0]
    first, second = alice.search("Xenobia chess", threshold=0)
    assert (first["id"], second["id"]) == (linked["id"], plain["id"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mem0.memory.main.extract_entities", lambda _: [])
        unlifted = {row["id"]: row["score"] for row in alice.search("Xenobia chess", threshold=0)}
    ratio = (first["score"] or 0) / (second["score"] or 1)
    assert ratio > (unlifted[linked["id"]] or 0) / (unlifted[plain["id"]] or 1)


def test_verbatim_texts_are_embedded_in_one_go_as_documents(client: EngineMemory, embeddings: WordEmbeddings) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(["one thing", "another", "a third"], infer=False)
    assert embeddings.documents == [["one thing", "another", "a third"]]
    assert embeddings.queries == []
    alice.search("thing")
    assert embeddings.queries == ["thing"]
    assert len(embeddings.documents) == 1


def test_an_extraction_embeds_its_facts_in_one_go(client: EngineMemory, embeddings: WordEmbeddings) -> None:
    ScopedMemory("u_alice", client=client).add(["Xenobia sings", "Zephyr dances"], infer=True)
    assert embeddings.documents == [["Xenobia sings", "Zephyr dances"], ["Xenobia", "Zephyr"]]
    assert embeddings.queries == ["user: Xenobia sings\nuser: Zephyr dances\n"], "to look for what is known already"


def test_repeated_texts_in_one_add_each_have_their_own_vector(client: EngineMemory) -> None:
    alice = ScopedMemory("u_alice", client=client)
    alice.add(["cats", "cats", "dogs", "cats"], infer=False)
    hits = client.vector_store.search("", vector_of("cats"), 10, _ALICE)
    scores = {hit.payload["data"]: hit.score for hit in hits}
    assert [hit.payload["data"] for hit in hits[:3]] == ["cats"] * 3
    assert scores["cats"] == hits[2].score > scores.get("dogs", 0)


def test_other_code_may_use_run_ids_under_a_user_and_erasing_the_user_takes_them(
    client: EngineMemory, storage: Storage
) -> None:
    client.add("I own a zyzzogeton", user_id="u_alice", run_id="r1", infer=False)
    client.add("I own a cat", user_id="u_alice", agent_id="a1", infer=False)
    alice = ScopedMemory("u_alice", client=client)
    assert alice.count() == 2
    client.delete_all(user_id="u_alice", run_id="r1")
    for file in storage.files():
        assert left_in(file, "zyzzogeton", "cat") == ["cat"]
    assert [row["memory"] for row in alice.get_all()] == ["I own a cat"]
    assert alice.delete_all().memories == 1
    for file in storage.files():
        assert left_in(file, "cat", "u_alice") == []


def test_a_run_that_is_not_there_leaves_no_trace_of_the_user(client: EngineMemory, storage: Storage) -> None:
    client.delete_all(user_id="u_alice", run_id="r1")
    with storage.reading() as transaction:
        assert transaction.find("u_alice") is None
    for file in storage.files():
        assert left_in(file, "u_alice") == []


def test_deleting_every_memory_one_by_one_then_erasing_counts_nothing(client: EngineMemory, storage: Storage) -> None:
    alice = ScopedMemory("u_alice", client=client)
    for row in alice.add(["Xenobia", "Zephyr"], infer=True):
        alice.delete(row["id"])
    receipt = alice.delete_all()
    assert (receipt.memories, receipt.history, receipt.messages, receipt.entities) == (0, 0, 0, 0)
    for file in storage.files():
        assert left_in(file, "xenobia", "zephyr", "u_alice") == []


def test_after_closing_every_call_says_so(storage: Storage) -> None:
    client = EngineMemory(storage, WordEmbeddings())
    alice = ScopedMemory("u_alice", client=client)
    (row,) = alice.add("I like tea")
    client.close()
    client.close()
    for act in (
        lambda: alice.add("x"),
        lambda: alice.search("x"),
        lambda: alice.get_all(),
        lambda: alice.get(row["id"]),
        lambda: alice.delete(row["id"]),
        lambda: alice.delete_all(),
    ):
        with pytest.raises(BackendError, match="closed"):
            act()


def test_a_closed_file_is_one_file_that_can_be_moved(path: Path) -> None:
    client = local_memory(path, embeddings=WordEmbeddings())
    ScopedMemory("u_alice", client=client).add("I like tea")
    client.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    shutil.move(path, path.with_name("moved.db"))
    moved = local_memory(path.with_name("moved.db"), embeddings=WordEmbeddings())
    assert ScopedMemory("u_alice", client=moved).count() == 1
    moved.close()


def test_threads_share_one_client(client: EngineMemory) -> None:
    users = [f"u_{number}" for number in range(8)]

    def live(user_id: str) -> list[str]:
        memory = ScopedMemory(user_id, client=client)
        for turn in range(6):
            (row,) = memory.add(f"{user_id} turn{turn} likes tea", infer=turn % 2 == 0)
            assert {row["user_id"] for row in memory.search("likes tea", k=20)} == {user_id}
            if turn == 2:
                memory.delete(row["id"])
            if turn == 3:
                memory.update(row["id"], f"{user_id} changed likes coffee")
        return sorted(row["memory"] for row in memory.get_all())

    with ThreadPoolExecutor(8) as threads:
        for user_id, texts in zip(users, threads.map(live, users), strict=True):
            expected = {f"{user_id} turn{turn} likes tea" for turn in (0, 1, 4, 5)}
            assert texts == sorted(expected | {f"{user_id} changed likes coffee"})


def test_a_text_of_a_megabyte_is_kept_whole(client: EngineMemory, storage: Storage) -> None:
    alice = ScopedMemory("u_alice", client=client)
    text = "zyzzogeton " * 90_000
    (row,) = alice.add(text, infer=False)
    assert alice.get(row["id"])["memory"] == text
    alice.delete(row["id"])
    for file in storage.files():
        assert left_in(file, "zyzzogeton") == []


def test_erasure_forgets_the_rows_it_has_read(client: EngineMemory) -> None:
    """Nothing of an erased user stays in memory; what is read of another one does."""
    alice, bob = (ScopedMemory(user_id, client=client) for user_id in ("u_alice", "u_bob"))
    for memory in (alice, bob):
        memory.add("I like tea", infer=False)
        memory.search("tea")
    assert {user_id for user_id, _ in client.cache.entries} == {"u_alice", "u_bob"}
    alice.delete_all()
    assert {user_id for user_id, _ in client.cache.entries} == {"u_bob"}
