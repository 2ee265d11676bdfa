"""ScopedMemoryRetriever: one user's memories as documents, and no way to another user's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import mem0
import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda, RunnableParallel
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_mem0_scoped import InputError, ScopedMemory, ScopedMemoryRetriever, ScopeError
from tests.agents import ask
from tests.models import ScriptedModel
from tests.support import MODES, TEXTS, Spy, new_user, texts_of
from tests.worlds import WordEmbeddings

DIET, SEAT = TEXTS[0], TEXTS[1]


@pytest.fixture
def alice(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user("alice"), client=client)
    memory.add(DIET, session_id="s1", metadata={"topic": "food"}, at="2026-03-01")
    memory.add([SEAT, {"role": "assistant", "content": "A window seat it is"}], session_id="s2")
    return memory


@pytest.fixture
def bob(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user("bob"), client=client)
    memory.add("I eat steak and meat every day", infer=False)
    return memory


def texts(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


class TestConstruction:
    @pytest.mark.parametrize("user_id", ["", "*", "a b", " alice", "..", "a\u200b", 7, None, b"alice"])
    def test_invalid_user_id_raises(self, user_id: Any) -> None:
        with pytest.raises(ScopeError, match="user_id"):
            ScopedMemoryRetriever(user_id=user_id)

    def test_str_enum_as_user_id_raises(self) -> None:
        class User(StrEnum):
            ALICE = "u_alice"

        with pytest.raises(ScopeError):
            ScopedMemoryRetriever(user_id=User.ALICE)

    @pytest.mark.parametrize("filters", [{"user_id": "u_bob"}, {"OR": []}, {"AND": [{"user_id": "u_bob"}]}, "topic"])
    def test_filters_on_scope_raise(self, filters: Any) -> None:
        with pytest.raises(ScopeError):
            ScopedMemoryRetriever(user_id="u_alice", filters=filters)

    @pytest.mark.parametrize(
        "fields",
        [
            {"k": 0},
            {"k": "3"},
            {"k": True},
            {"threshold": 2},
            {"threshold": "high"},
            {"client": object()},
            {"max_characters": 0},
            {"max_characters": "9"},
        ],
    )
    def test_invalid_arguments_raise(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            ScopedMemoryRetriever(user_id="u_alice", **fields)

    @pytest.mark.parametrize("extra", ["users", "agent_id", "run_id", "session", "search_kwargs"])
    def test_unknown_fields_raise(self, extra: str) -> None:
        with pytest.raises(ValueError, match="Extra inputs are not permitted"):
            ScopedMemoryRetriever(user_id="u_alice", **{extra: "x"})  # type: ignore[arg-type]

    def test_construction_does_no_io(self, client: mem0.Memory) -> None:
        with Spy(client) as spy:
            retriever = ScopedMemoryRetriever(user_id="u_alice", client=client, name="mine", tags=["t"])
        assert spy.calls == []
        assert (retriever.get_name(), retriever.tags, retriever.k) == ("mine", ["t"], 5)

    def test_repr_and_dump_leave_out_the_client(self, client: mem0.Memory) -> None:
        retriever = ScopedMemoryRetriever(user_id="u_alice", client=client)
        assert "client" not in repr(retriever)
        assert "client" not in retriever.model_dump()

    def test_as_retriever_has_the_same_user(self, alice: ScopedMemory) -> None:
        retriever = alice.as_retriever(k=2, threshold=0.0, filters={"topic": "food"})
        assert isinstance(retriever, BaseRetriever)
        assert retriever.user_id == alice.user_id
        assert texts(retriever.invoke("anything to eat")) == [DIET]


class TestUserIsFixed:
    def test_fields_are_frozen(self, alice: ScopedMemory) -> None:
        retriever = alice.as_retriever()
        for field in ("user_id", "client", "k", "filters"):
            with pytest.raises(ValueError, match="frozen"):
                setattr(retriever, field, "u_bob")

    def test_is_hashable(self, alice: ScopedMemory) -> None:
        retriever = alice.as_retriever(filters={"topic": "food"})
        assert {retriever: 1}[retriever] == 1
        assert hash(retriever) == hash(copy.copy(retriever))

    @pytest.mark.parametrize("field", ["user_id", "client"])
    def test_model_copy_rejects_user_and_client(self, alice: ScopedMemory, field: str) -> None:
        with pytest.raises(ScopeError):
            alice.as_retriever().model_copy(update={field: "u_bob"})

    def test_model_copy_validates_other_fields(self, alice: ScopedMemory) -> None:
        retriever = alice.as_retriever()
        changed = retriever.model_copy(update={"k": 1, "filters": {"topic": "food"}}, deep=True)
        assert (changed.k, retriever.k) == (1, 5)
        assert texts(changed.invoke("vegetarian food")) == [DIET]
        with pytest.raises(ScopeError):
            retriever.model_copy(update={"filters": {"user_id": "u_bob"}})
        with pytest.raises(InputError):
            retriever.model_copy(update={"k": 0})

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
    def test_copies_keep_user_and_client(
        self, alice: ScopedMemory, copied: Callable[[ScopedMemoryRetriever], ScopedMemoryRetriever]
    ) -> None:
        retriever = alice.as_retriever(k=2)
        again = copied(retriever)
        assert (again.user_id, again.k) == (retriever.user_id, 2)
        assert again.client is retriever.client
        assert texts(again.invoke("seat")) == texts(retriever.invoke("seat"))

    def test_pickle_with_the_default_client(self) -> None:
        retriever = ScopedMemoryRetriever(user_id="u_alice", k=3)
        again = pickle.loads(pickle.dumps(retriever))
        assert (again.user_id, again.k) == ("u_alice", 3)
        assert again.invoke("anything") == []

    @pytest.mark.filterwarnings("ignore:The `copy` method is deprecated")
    @pytest.mark.parametrize("mode", MODES)
    async def test_user_changed_after_construction_raises(
        self, alice: ScopedMemory, bob: ScopedMemory, mode: str
    ) -> None:
        retriever = alice.as_retriever()
        forged = [
            retriever.copy(update={"user_id": bob.user_id}),
            ScopedMemoryRetriever.model_construct(user_id=bob.user_id, client=retriever.client),
            alice.as_retriever(),
            alice.as_retriever(),
        ]
        object.__setattr__(forged[2], "user_id", bob.user_id)
        forged[3]._scoped_client = bob.scoped_client
        for one in forged:
            with pytest.raises(ScopeError, match="after its construction"):
                await ask(mode, one, "meat")

    def test_model_validate_checks_the_user(self, alice: ScopedMemory) -> None:
        retriever = alice.as_retriever()
        assert ScopedMemoryRetriever.model_validate(retriever).user_id == alice.user_id
        with pytest.raises(ValueError, match="user_id"):
            ScopedMemoryRetriever.model_validate({"user_id": "*"})

    @pytest.mark.parametrize("field", ["user_id", "client"])
    def test_user_and_client_are_not_configurable(self, alice: ScopedMemory, field: str) -> None:
        with pytest.raises(ScopeError):
            alice.as_retriever().configurable_fields(**{field: ConfigurableField(id="whose")})

    def test_configurable_fields_are_validated(self, alice: ScopedMemory) -> None:
        flexible = alice.as_retriever().configurable_fields(
            k=ConfigurableField(id="most"), filters=ConfigurableField(id="about")
        )
        assert len(flexible.invoke("window seat", {"configurable": {"most": 1}})) == 1
        with pytest.raises(ScopeError):
            flexible.invoke("meat", {"configurable": {"about": {"user_id": "u_bob"}}})

    def test_retriever_of_another_user_is_no_alternative(self, alice: ScopedMemory, bob: ScopedMemory) -> None:
        field = ConfigurableField(id="which")
        with pytest.raises(ScopeError):
            alice.as_retriever().configurable_alternatives(field, other=bob.as_retriever())
        lazy = alice.as_retriever().configurable_alternatives(field, other=lambda: bob.as_retriever())
        assert DIET in texts(lazy.invoke("vegetarian"))
        with pytest.raises(ScopeError):
            lazy.invoke("meat", {"configurable": {"which": "other"}})

    def test_alternatives_of_the_same_user_are_accepted(self, alice: ScopedMemory) -> None:
        fixed: Runnable[str, list[Document]] = RunnableLambda(lambda _: [Document("from elsewhere")])
        choice = alice.as_retriever().configurable_alternatives(
            ConfigurableField(id="which"), one=lambda: alice.as_retriever(k=1), search_other_sessions=fixed
        )
        assert len(choice.invoke("window seat", {"configurable": {"which": "one"}})) == 1
        assert texts(choice.invoke("x", {"configurable": {"which": "search_other_sessions"}})) == ["from elsewhere"]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("extra", ["user_id", "client", "filters", "memory"])
    async def test_invoke_accepts_only_k(self, alice: ScopedMemory, mode: str, extra: str) -> None:
        with pytest.raises(TypeError, match=extra):
            await ask(mode, alice.as_retriever(), "meat", None, **{extra: "u_bob"})

    @pytest.mark.parametrize("mode", MODES)
    async def test_filters_changed_in_place_are_validated_again(self, alice: ScopedMemory, mode: str) -> None:
        retriever = alice.as_retriever(filters={"topic": "food"})
        assert retriever.filters is not None
        retriever.filters["user_id"] = "u_bob"
        with pytest.raises(ScopeError):
            await ask(mode, retriever, "meat")


class TestSearching:
    @pytest.mark.parametrize("mode", MODES)
    async def test_threshold_applies(self, alice: ScopedMemory, mode: str) -> None:
        query, found = "a window seat on a flight", {}
        for threshold in (None, 0.0, 0.3, 1.0):
            retriever = alice.as_retriever(k=50, threshold=threshold)
            found[threshold] = texts(await ask(mode, retriever, query))
            assert found[threshold] == texts_of(alice.search(query, k=50, threshold=threshold))
        assert found[0.0] != found[1.0] == []

    @pytest.mark.parametrize("mode", MODES)
    async def test_documents_have_the_fields_of_a_record(self, alice: ScopedMemory, mode: str) -> None:
        best = (await ask(mode, alice.as_retriever(), "vegetarian, no meat or fish"))[0]
        record = next(record for record in alice.get_all() if record["memory"] == DIET)
        assert best.page_content == DIET
        assert best.id == record["id"]
        assert 0 < best.metadata.pop("score") <= 1
        assert best.metadata == {
            "topic": "food",
            "id": record["id"],
            "session_id": "s1",
            "role": "user",
            "created_at": record["created_at"],
            "updated_at": record["updated_at"],
            "expires_on": None,
            "extracted": False,
        }
        assert str(record["created_at"]).startswith("2026-03-01")

    def test_record_fields_win_over_metadata_of_the_same_name(self, client: mem0.Memory) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("I collect stamps", metadata={"score": 99, "topic": "hobby"}, infer=False)
        found = memory.search("stamps")
        document = found.to_documents()[0]
        assert document.metadata["score"] == found[0]["score"] != 99
        assert document.metadata["topic"] == "hobby"

    @pytest.mark.parametrize("mode", MODES)
    async def test_long_text_is_whole_or_cut_as_asked(self, client: mem0.Memory, mode: str) -> None:
        log = "GET /index.html 200\n" * 20_000
        memory = ScopedMemory(new_user(), client=client)
        memory.add([log, "GET well soon"], infer=False)
        whole = await ask(mode, memory.as_retriever(threshold=0), "GET index")
        assert set(texts(whole)) == {log, "GET well soon"}
        retriever = memory.as_retriever(threshold=0, max_characters=100)
        for one in (retriever, copy.copy(retriever), retriever.model_copy(update={"k": 4})):
            cut = await ask(mode, one, "GET index")
            assert set(texts(cut)) == {f"{log[:99]} \u2026 (cut; 400,000 characters)", "GET well soon"}
        assert [document.id for document in cut] == [document.id for document in whole]

    @pytest.mark.parametrize("mode", MODES)
    async def test_empty_query_raises(self, alice: ScopedMemory, mode: str) -> None:
        with pytest.raises(InputError):
            await ask(mode, alice.as_retriever(), " ")


class TestInChains:
    @pytest.mark.parametrize("mode", MODES)
    async def test_merged_with_another_retriever(self, alice: ScopedMemory, mode: str) -> None:
        # EnsembleRetriever and MergerRetriever live in langchain-classic; this is what they do.
        manuals = InMemoryVectorStore(WordEmbeddings())
        manuals.add_texts(["The canteen serves vegetarian food on Fridays"])
        both = RunnableParallel(known=alice.as_retriever(k=1), manuals=manuals.as_retriever()) | RunnableLambda(
            lambda found: [*found["known"], *found["manuals"]]
        )
        assert texts(await ask(mode, both, "vegetarian food")) == [
            DIET,
            "The canteen serves vegetarian food on Fridays",
        ]

    def test_with_config(self, alice: ScopedMemory) -> None:
        named = alice.as_retriever(k=1).with_config(run_name="recall", tags=["memory"])
        assert texts(named.invoke("vegetarian food")) == [DIET]

    def test_as_a_fallback(self, alice: ScopedMemory) -> None:
        failing: Runnable[str, list[Document]] = RunnableLambda(lambda query: alice.search(query, k=0).to_documents())
        safe = failing.with_fallbacks([alice.as_retriever(k=1)])
        assert texts(safe.invoke("vegetarian food")) == [DIET]

    async def test_events_have_the_documents(self, alice: ScopedMemory) -> None:
        chain = alice.as_retriever(k=1) | RunnableLambda(texts) | RunnableLambda(str) | ScriptedModel()
        events = [event async for event in chain.astream_events("vegetarian food", version="v2")]
        ended = [event for event in events if event["event"] == "on_retriever_end"]
        assert [texts(event["data"]["output"]) for event in ended] == [[DIET]]
