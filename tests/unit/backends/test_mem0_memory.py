"""Mem0Backend on a vector store that fails, ignores deletions or filters, or is not thread-safe."""

from __future__ import annotations

import gc
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mem0
import pytest
from mem0.configs.llms.base import BaseLlmConfig
from mem0.llms.base import LLMBase
from mem0.llms.langchain import LangchainLLM

from langchain_mem0_scoped import (
    BackendError,
    ErasureError,
    MemoryNotFoundError,
    ScopedMemory,
    ScopeError,
)
from langchain_mem0_scoped.backends import backend_for
from langchain_mem0_scoped.backends.mem0_memory import Mem0Backend
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.requests import AddRequest
from tests.models import constant
from tests.support import CLIENTS, NOBODYS_ID, TEXTS, Call, Spy, opened, texts_of
from tests.worlds import facts_of

# The tests open mem0's entity store themselves. Local Qdrant then warns of an index it cannot use.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

SECRET = "the spare key lies under the flowerpot"
VERBS: dict[str, tuple[Any, ...]] = {
    "add": (SECRET,),
    "search": (SECRET,),
    "get_all": (),
    "count": (),
    "get": ("id",),
    "update": ("id", SECRET),
    "delete": ("id",),
    "history": ("id",),
    "delete_all": (),
}


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[mem0.Memory]:
    with opened("qdrant", tmp_path) as client:
        yield client


@contextmanager
def shadowed(target: Any, name: str, act: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of a part of mem0 while the block runs."""
    setattr(target, name, act)
    try:
        yield
    finally:
        delattr(target, name)


def add_name(plain: mem0.Memory, user_id: str, *memory_ids: str, number: int = 1) -> None:
    """Add a row to the entity store, as mem0 does for a name in these memories."""
    plain.entity_store.insert(
        vectors=[plain.embedding_model.embed("Frieda", "add")],
        payloads=[{"data": "Frieda", "user_id": user_id, "linked_memory_ids": list(memory_ids)}],
        ids=[f"00000000-0000-4000-8000-00000000000{number}"],
    )


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


class TestFailures:
    @pytest.mark.parametrize("verb", VERBS)
    def test_are_backend_errors_without_text(self, plain: mem0.Memory, call: Call, verb: str) -> None:
        memory = ScopedMemory("u_alice", client=plain)
        memory_id = memory.add(SECRET)[0]["id"]
        arguments = tuple(memory_id if argument == "id" else argument for argument in VERBS[verb])
        store = plain.vector_store
        broken = {
            name: failing(RuntimeError(SECRET)) for name in ("insert", "search", "list", "get", "update", "delete")
        }
        store.__dict__.update(broken)
        try:
            with pytest.raises(BackendError) as caught:
                call(memory, verb, *arguments)
        finally:
            for name in broken:
                del store.__dict__[name]
        error = caught.value
        assert "RuntimeError" in str(error)
        assert SECRET not in repr(error)
        assert error.__cause__ is error.__context__ is None
        assert not error.retryable
        # And it was only the store: afterwards all is as it was.
        assert texts_of(memory.get_all()) == [SECRET]

    @pytest.mark.parametrize(
        ("error", "retryable"),
        [(ConnectionResetError("x"), True), (TimeoutError("x"), True), (OSError("x"), False), (KeyError("x"), False)],
        ids=lambda value: type(value).__name__,
    )
    def test_are_retryable_where_a_connection_failed(
        self, plain: mem0.Memory, call: Call, error: Exception, retryable: bool
    ) -> None:
        def wrapped(*_: Any, **__: Any) -> Any:
            raise RuntimeError("store") from error

        for broken in (failing(error), wrapped):
            with shadowed(plain.vector_store, "search", broken), pytest.raises(BackendError) as caught:
                call(ScopedMemory("u_alice", client=plain), "search", "tea")
            assert caught.value.retryable is retryable
            assert type(error).__name__ in str(caught.value)

    @pytest.mark.parametrize("kind", CLIENTS)
    def test_an_add_that_fails_half_way_is_undone(self, tmp_path: Path, call: Call, kind: str) -> None:
        with opened(kind, tmp_path) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add(TEXTS[0])
            insert = client.vector_store.insert

            def fourth_fails(*arguments: Any, **options: Any) -> Any:
                if len(calls) == 3:
                    raise ConnectionError("full")
                calls.append(1)
                return insert(*arguments, **options)

            calls: list[int] = []
            with shadowed(client.vector_store, "insert", fourth_fails), pytest.raises(BackendError):
                call(memory, "add", TEXTS)
            assert texts_of(call(memory, "get_all")) == [TEXTS[0]]
            assert memory.delete_all().history == 1

    def test_of_a_model_are_not_quoted(self, plain: mem0.Memory, call: Call) -> None:
        class Model(LLMBase):
            def generate_response(self, messages: list[dict[str, str]], **_: Any) -> str:
                raise TimeoutError(str(messages))

        plain.llm = Model()
        with pytest.raises(BackendError) as caught:
            call(ScopedMemory("u_alice", client=plain), "add", SECRET)
        assert SECRET not in str(caught.value)
        assert "TimeoutError" in str(caught.value)
        assert caught.value.retryable


@contextmanager
def kept_by_trigger(client: mem0.Memory, table: str) -> Iterator[None]:
    """Make deletions from a table of history.db do nothing."""
    client.db.connection.execute(f"CREATE TRIGGER kept BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END")
    try:
        yield
    finally:
        client.db.connection.execute("DROP TRIGGER kept")


class TestIgnoredDeletions:
    """A store that ignores a deletion and reports success. mem0's own delete_all reports success too."""

    @pytest.fixture
    def memory(self, plain: mem0.Memory) -> ScopedMemory:
        memory = ScopedMemory("u_alice", client=plain)
        memory_id = memory.add(SECRET)[0]["id"]
        add_name(plain, "u_alice", memory_id)
        plain.db.save_messages([{"role": "user", "content": SECRET}], "user_id=u_alice")
        return memory

    def kept(self, client: mem0.Memory, kind: str) -> Any:
        return {
            "memories": lambda: shadowed(client.vector_store, "delete", lambda vector_id: None),
            "entities": lambda: shadowed(client.entity_store, "delete", lambda vector_id: None),
            "history": lambda: kept_by_trigger(client, "history"),
            "messages": lambda: kept_by_trigger(client, "messages"),
        }[kind]()

    @pytest.mark.parametrize("kind", ["memories", "entities", "history", "messages"])
    def test_delete_all_names_what_is_left(
        self, plain: mem0.Memory, memory: ScopedMemory, call: Call, kind: str
    ) -> None:
        with self.kept(plain, kind), pytest.raises(ErasureError, match=kind) as caught:
            call(memory, "delete_all")
        assert caught.value.kinds == (kind,)
        assert SECRET not in str(caught.value)
        # Once the store deletes again, a second call finds all that the first has left.
        call(memory, "delete_all")
        assert plain.get_all(filters={"user_id": "u_alice"})["results"] == []
        assert plain.db.connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        assert plain.entity_store.list(filters={"user_id": "u_alice"})[0] == []
        if kind != "history":
            assert plain.db.connection.execute("SELECT count(*) FROM history").fetchone() == (0,)

    @pytest.mark.parametrize("kind", ["memories", "entities", "history", "messages"])
    def test_delete_names_what_is_left(self, plain: mem0.Memory, memory: ScopedMemory, call: Call, kind: str) -> None:
        memory_id = memory.get_all()[0]["id"]
        with self.kept(plain, kind), pytest.raises(ErasureError) as caught:
            call(memory, "delete", memory_id)
        assert caught.value.kinds == (kind,)

    def test_an_ignored_update_raises(self, plain: mem0.Memory, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.get_all()[0]["id"]
        ignored = shadowed(plain.vector_store, "update", lambda vector_id, vector=None, payload=None: None)
        with ignored, pytest.raises((BackendError, ErasureError)):
            call(memory, "update", memory_id, "no key any more")

    def test_delete_all_can_be_repeated_after_an_error(
        self, plain: mem0.Memory, memory: ScopedMemory, call: Call
    ) -> None:
        memory.add(TEXTS)
        delete, left = plain.vector_store.delete, [3]

        def sometimes(vector_id: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise ConnectionError("gone")
            delete(vector_id)

        with shadowed(plain.vector_store, "delete", sometimes), pytest.raises(BackendError) as caught:
            call(memory, "delete_all")
        assert caught.value.retryable
        assert call(memory, "delete_all").memories >= len(TEXTS) - 3
        assert call(memory, "get_all") == []


class TestForeignEntities:
    """An entity store that ignores filters, beside a vector store that keeps to them."""

    @pytest.fixture
    def leaking(self, plain: mem0.Memory) -> Iterator[mem0.Memory]:
        for number, user in enumerate(("u_alice", "u_bob")):
            add_name(plain, user, number=number)
            plain.add(f"{SECRET}, says {user}", user_id=user, infer=False)
        listing = plain.entity_store.list
        with shadowed(plain.entity_store, "list", lambda filters=None, top_k=100: listing({}, top_k)):
            yield plain
        assert [row.payload["user_id"] for row in listing({"user_id": "u_bob"}, 10)[0]] == ["u_bob"]

    def test_delete_all_deletes_none(self, leaking: mem0.Memory, call: Call) -> None:
        with pytest.raises(ScopeError) as caught:
            call(ScopedMemory("u_alice", client=leaking), "delete_all")
        assert "u_bob" not in str(caught.value)
        assert SECRET not in str(caught.value)
        # The check comes first: nothing of the user is half erased either.
        assert len(leaking.get_all(filters={"user_id": "u_alice"})["results"]) == 1
        assert len(leaking.get_all(filters={"user_id": "u_bob"})["results"]) == 1

    def test_delete_raises_instead_of_trusting_them(self, leaking: mem0.Memory, call: Call) -> None:
        memory = ScopedMemory("u_alice", client=leaking)
        with pytest.raises(ScopeError):
            call(memory, "delete", memory.get_all()[0]["id"])


class TestErasureBesideOtherWriters:
    """Other calls write while rows are deleted one by one."""

    def erase_while(
        self, plain: mem0.Memory, memory: ScopedMemory, call: Call, meanwhile: Callable[[str], None]
    ) -> Any:
        """Erase, and call `meanwhile` with the id of the first row before it is deleted."""
        delete, first = plain.delete, [True]

        def deleting(memory_id: str) -> Any:
            if first:
                first.clear()
                meanwhile(memory_id)
            return delete(memory_id)

        with shadowed(plain, "delete", deleting):
            return call(memory, "delete_all")

    def test_names_that_are_added_meanwhile_are_erased(self, plain: mem0.Memory, call: Call) -> None:
        memory = ScopedMemory("u_alice", client=plain)
        memory.add(SECRET)

        erased = self.erase_while(plain, memory, call, lambda _: add_name(plain, "u_alice"))
        assert erased.entities == 1
        assert plain.entity_store.list(filters={"user_id": "u_alice"})[0] == []

    def test_the_history_of_a_row_that_is_deleted_meanwhile_is_erased(self, plain: mem0.Memory, call: Call) -> None:
        memory = ScopedMemory("u_alice", client=plain)
        memory.add([SECRET, *TEXTS])
        self.erase_while(plain, memory, call, plain.vector_store.delete)
        assert plain.db.connection.execute("SELECT count(*) FROM history").fetchone() == (0,)


def test_update_cleans_names_that_mem0_has_not_opened(plain: mem0.Memory, call: Call) -> None:
    memory = ScopedMemory("u_alice", client=plain)
    memory_id = memory.add(SECRET)[0]["id"]
    add_name(plain, "u_alice", memory_id)
    plain._entity_store = None  # As in a process that has just started.
    call(memory, "update", memory_id, "nobody sings")
    assert plain.entity_store.list(filters={"user_id": "u_alice"})[0] == []


@pytest.mark.parametrize("verb", ["update", "delete"])
def test_a_row_that_is_deleted_meanwhile_is_not_found(plain: mem0.Memory, call: Call, verb: str) -> None:
    memory = ScopedMemory("u_alice", client=plain)
    memory_id = memory.add(SECRET)[0]["id"]
    arguments = (memory_id, "new") if verb == "update" else (memory_id,)
    change = getattr(plain, verb)

    def deleted_first(*given: Any, **options: Any) -> Any:
        plain.__dict__.pop(verb, None)
        ScopedMemory("u_alice", client=plain).delete(memory_id)
        return change(*given, **options)

    setattr(plain, verb, deleted_first)
    with pytest.raises(MemoryNotFoundError):
        call(memory, verb, *arguments)
    assert memory.get_all() == []


def test_a_store_that_lists_few_rows_at_a_time_is_erased(plain: mem0.Memory, call: Call) -> None:
    memory = ScopedMemory("u_alice", client=plain)
    memory.add([f"text {number}" for number in range(60)])
    listing = plain.vector_store.list
    with shadowed(plain.vector_store, "list", lambda filters=None, top_k=100: listing(filters, min(top_k, 25))):
        assert call(memory, "delete_all").memories == 60
    assert memory.get_all() == []


def test_a_listing_goes_on_until_no_more_rows_come(
    plain: mem0.Memory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_mem0_scoped.backends.mem0_memory._FIRST_PAGE", 2)
    memory = ScopedMemory("u_alice", client=plain)
    memory.add([f"text {number}" for number in range(9)])
    assert len(call(memory, "get_all")) == 9


def test_a_history_that_cannot_be_cleaned_is_refused_before_anything_is_deleted(plain: mem0.Memory, call: Call) -> None:
    class ElsewhereHistory:
        """Has what mem0.Memory calls, but cannot be cleaned."""

        def __init__(self, db: Any) -> None:
            self._db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

    memory_id = plain.add(SECRET, user_id="u_alice", infer=False)["results"][0]["id"]
    history, plain.db = plain.db, ElsewhereHistory(plain.db)
    try:
        memory = ScopedMemory("u_alice", client=plain)
        for verb, arguments in {"delete_all": (), "delete": (memory_id,), "update": (memory_id, "new")}.items():
            with pytest.raises(BackendError, match="ElsewhereHistory"):
                call(memory, verb, *arguments)
        # Deleting first and failing afterwards would leave history that nobody can attribute any more.
        assert texts_of(memory.get_all()) == [SECRET]
    finally:
        plain.db = history


class TestBackend:
    def test_is_the_same_for_every_thread(self, plain: mem0.Memory) -> None:
        made: list[Any] = []
        threads = [threading.Thread(target=lambda: made.append(backend_for(plain))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, made))) == 1
        assert type(made[0]) is Mem0Backend

    @pytest.mark.parametrize("kind", CLIENTS)
    def test_does_not_keep_its_client_alive(self, tmp_path: Path, kind: str) -> None:
        with opened(kind, tmp_path) as client:
            ScopedMemory("u_alice", client=client).add("hello")
        freed = weakref.ref(client)
        del client
        gc.collect()
        assert freed() is None

    def test_two_memories_on_one_qdrant_share_a_lock(self, plain: mem0.Memory) -> None:
        # What is not thread-safe is the Qdrant client. mem0's entity store shares it, and so may a second Memory.
        twin = object.__new__(type(plain))
        twin.__dict__.update(plain.__dict__)
        assert Mem0Backend(plain)._store_lock is Mem0Backend(twin)._store_lock

    def test_without_its_client_is_a_clear_error(self, tmp_path: Path) -> None:
        with opened("qdrant", tmp_path) as client:
            backend = Mem0Backend(client)
        del client
        gc.collect()
        with pytest.raises(BackendError, match="closed and freed"):
            backend.get("u_alice", NOBODYS_ID)

    def test_files_are_those_of_mem0s_history(self, plain: mem0.Memory, tmp_path: Path) -> None:
        assert backend_for(plain).files() == [tmp_path / "history.db"]

    def test_cannot_detect_erasures(self, plain: mem0.Memory) -> None:
        backend = backend_for(plain)
        assert backend.erasure_token("u_alice") is None
        backend.check_not_erased("u_alice", ["any"])

    def test_stores_roles_but_no_names(self, plain: mem0.Memory) -> None:
        # mem0 stores a name as actor_id, which may be another user's id.
        (row,) = backend_for(plain).add("u_alice", AddRequest([TextMessage("assistant", "tea", "u_bob")]))
        payload = plain.vector_store.get(row["id"]).payload
        assert (row["role"], payload["role"], payload.get("actor_id")) == ("assistant", "assistant", None)


def test_a_search_is_one_call_of_mem0(plain: mem0.Memory, call: Call) -> None:
    memory = ScopedMemory("u_alice", client=plain)
    memory.add(TEXTS)
    for verb, arguments in {"search": ("tea",), "get_all": ()}.items():
        with Spy(plain) as spy:
            call(memory, verb, *arguments)
        assert [name for name in spy.calls if "." not in name] == [verb]


def test_a_locked_history_is_a_clear_error(plain: mem0.Memory, tmp_path: Path, call: Call) -> None:
    memory = ScopedMemory("u_alice", client=plain)
    memory_id = memory.add(SECRET)[0]["id"]
    plain.db.connection.execute("PRAGMA busy_timeout=50")
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendError):
            call(memory, "delete_all")
        other.execute("ROLLBACK")
    finally:
        other.close()
    call(memory, "delete_all")
    with pytest.raises(MemoryNotFoundError):
        call(memory, "get", memory_id)
    assert memory.get_all() == []


class TestExtraction:
    """What is special here; the rules are in tests/conformance/test_extraction.py."""

    @pytest.fixture
    def alice(self, plain: mem0.Memory) -> ScopedMemory:
        plain.llm = LangchainLLM(BaseLlmConfig(model=constant(facts_of(["Likes tea"]))))
        return ScopedMemory("u_alice", client=plain)

    def test_needs_no_entity_store(self, alice: ScopedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: object) -> None:
            raise BackendError("the store cannot make another collection")

        monkeypatch.setattr(Mem0Backend, "_open_entity_store", fail)
        assert texts_of(alice.add("I like tea")) == ["Likes tea"]

    def test_fact_that_was_stored_is_returned_although_its_copy_cannot_be_looked_for(
        self, alice: ScopedMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise BackendError("the store is gone")

        monkeypatch.setattr(Mem0Backend, "_list_all", fail)
        assert texts_of(alice.add("I like tea")) == ["Likes tea"]
        assert "a fact may be stored twice: the store is gone" in caplog.text
        assert "tea" not in caplog.text

    def test_client_is_not_changed(self, alice: ScopedMemory, plain: mem0.Memory) -> None:
        parts = (plain.vector_store, plain.llm, plain.embedding_model, plain.db)
        alice.add("I like tea")
        assert (plain.vector_store, plain.llm, plain.embedding_model, plain.db) == parts

    @pytest.mark.parametrize("part", ["model", "embedding of a search"])
    def test_error_of_a_provider_says_when_to_try_again(
        self, alice: ScopedMemory, plain: mem0.Memory, call: Call, part: str
    ) -> None:
        request = httpx.Request("POST", "https://provider.example")
        answer = httpx.Response(429, headers={"retry-after": "7"}, text=SECRET, request=request)
        error = failing(httpx.HTTPStatusError(SECRET, request=request, response=answer))
        target, name = (plain.llm, "generate_response") if part == "model" else (plain.embedding_model, "embed")
        with shadowed(target, name, error), pytest.raises(BackendError, match="status 429") as caught:
            call(alice, "add" if part == "model" else "search", SECRET)
        assert (caught.value.retryable, caught.value.retry_after) == (True, 7.0)
        assert SECRET not in str(caught.value)
        assert alice.count() == 0
