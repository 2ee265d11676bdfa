"""ScopedMemory itself: which clients it takes, which arguments it refuses, that it only delegates."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import mem0
import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, ScopeError, local_memory
from tests.support import CLIENTS, MODES, VERBS, Call, Spy, label, new_user, opened, run_python, texts_of


@pytest.fixture
def memory(client: mem0.Memory) -> ScopedMemory:
    return ScopedMemory(new_user(), client=client)


class TestListing:
    @pytest.mark.parametrize("kind", CLIENTS)
    def test_has_no_cap(self, tmp_path: Path, kind: str) -> None:
        # mem0 itself stops at 20, and the first page that is asked for has 1,000. This has a client of its own, because
        # local Qdrant reads all rows at every call, which would slow the tests that follow.
        texts = [f"memory number {number}" for number in range(1_050)]
        with opened(kind, tmp_path) as client:
            memory = ScopedMemory("u_alice", client=client)
            if kind == "embedded":
                memory.add(texts, session_id="s1")
            else:  # mem0 adds them one by one, which takes Qdrant many seconds
                days = (f"2026-01-01T00:00:00.{number:06}+00:00" for number in range(1_050))
                rows = [
                    {"data": text, "user_id": "u_alice", "session_id": "s1", "created_at": day}
                    for text, day in zip(texts, days, strict=True)
                ]
                vectors = client.embedding_model.embed_batch(texts)
                client.vector_store.insert(vectors, rows, [str(UUID(int=number)) for number in range(1_050)])
            for call in map(Call, MODES):
                listed = call(memory, "get_all")
                assert texts_of(listed) == texts[::-1]
                assert len({record["id"] for record in listed}) == call(memory, "count") == 1_050
                assert texts_of(call(memory, "get_all", session_id="s1", limit=1_001)) == texts[:-1_002:-1]
                assert texts_of(call(memory, "get_all", limit=3)) == texts[:-4:-1]


QUERIES: dict[str, dict[str, Any]] = {
    **{f"query {query!r}": {"query": query} for query in ("", " \n", None, 5, b"tea", ["tea"], "a\0", "\ud83d")},
    "query too long": {"query": "x" * 100_001},
    **{f"k {k!r}": {"query": "tea", "k": k} for k in (0, -1, True, 2.0, "5", None)},
    **{f"threshold {t!r}": {"query": "tea", "threshold": t} for t in (-0.1, 1.1, "0.5", True, float("nan"))},
}
ADDS: dict[str, dict[str, Any]] = {
    **{
        f"messages {m!r}"[:40]: {"messages": m}
        for m in ("", " ", None, 5, b"x", {}, {"role": "user"}, [5], "a\0", "\udc00")
    },
    "10 MB": {"messages": "x" * 10_000_000},
    "at": {"messages": "x", "at": "yesterday"},
    "expires_on": {"messages": "x", "expires_on": 5},
    "infer": {"messages": "x", "infer": "yes"},
}


class TestInvalidArguments:
    def refused(self, client: mem0.Memory, act: Callable[[], object]) -> None:
        with Spy(client) as spy, pytest.raises(InputError) as caught:
            act()
        assert spy.calls == []
        assert caught.value.__cause__ is None
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("arguments", QUERIES.values(), ids=QUERIES)
    def test_of_search_are_refused(
        self, memory: ScopedMemory, call: Call, client: mem0.Memory, arguments: dict[str, Any]
    ) -> None:
        self.refused(client, lambda: call(memory, "search", **arguments))

    @pytest.mark.parametrize("arguments", ADDS.values(), ids=ADDS)
    def test_of_add_are_refused(
        self, memory: ScopedMemory, call: Call, client: mem0.Memory, arguments: dict[str, Any]
    ) -> None:
        self.refused(client, lambda: call(memory, "add", **arguments))

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
    def test_of_get_all_are_refused(self, memory: ScopedMemory, call: Call, client: mem0.Memory, limit: Any) -> None:
        self.refused(client, lambda: call(memory, "get_all", limit=limit))

    @pytest.mark.parametrize("text", [None, "", " ", 5, b"x", "a\0", "\ud83d"], ids=label)
    def test_of_update_are_refused(self, memory: ScopedMemory, call: Call, client: mem0.Memory, text: Any) -> None:
        memory_id = memory.add("x")[0]["id"]
        self.refused(client, lambda: call(memory, "update", memory_id, text))

    def test_very_large_counts_are_accepted(self, memory: ScopedMemory, call: Call) -> None:
        memory.add("x")
        assert len(call(memory, "get_all", limit=10**30)) == len(call(memory, "search", "x", k=10**30)) == 1


class TestFacade:
    def test_repr_shows_the_user(self, client: mem0.Memory) -> None:
        memory = ScopedMemory("u_alice", client=client)
        assert (memory.user_id, repr(memory)) == ("u_alice", "ScopedMemory('u_alice')")

    def test_every_verb_has_an_async_twin_with_the_same_arguments(self) -> None:
        for verb in VERBS:
            one, twin = getattr(ScopedMemory, verb), getattr(ScopedMemory, f"a{verb}")
            assert inspect.signature(one) == inspect.signature(twin)
            assert inspect.iscoroutinefunction(twin)

    def test_public_names_are_verbs_and_views(self) -> None:
        verbs = {*VERBS, *(f"a{verb}" for verb in VERBS)}
        views = {"as_retriever", "chat_history", "export_html", "aexport_html", "tools"}
        own = {"user_id", "scoped_client", "factory"}
        assert {name for name in dir(ScopedMemory) if not name.startswith("_")} == verbs | views | own

    def test_no_argument_but_the_constructors_names_a_user(self) -> None:
        for name in (name for name in dir(ScopedMemory) if not name.startswith("_")):
            method = getattr(ScopedMemory, name)
            parameters = inspect.signature(method).parameters if callable(method) else {}
            assert not [parameter for parameter in parameters if "user" in parameter or "scope" in parameter], name

    def test_user_and_client_cannot_be_replaced(self, client: mem0.Memory) -> None:
        memory: Any = ScopedMemory("u_alice", client=client)
        for name in ("user_id", "scoped_client", "anything"):
            with pytest.raises(AttributeError):
                setattr(memory, name, "u_bob")
        assert not hasattr(memory, "__dict__")

    def test_views_are_of_its_user_and_client(self, client: mem0.Memory) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("I drink green tea")
        history = memory.chat_history("s1", recall=0)
        assert (history.user_id, history.session_id) == (memory.user_id, "s1")
        assert history.scoped_client.client is client
        assert [document.page_content for document in memory.as_retriever(k=1).invoke("tea")] == ["I drink green tea"]
        search = next(tool for tool in memory.tools() if "search" in tool.name)
        assert "green tea" in search.invoke({"query": "tea"})

    def test_it_can_be_weakly_referenced_and_compared_by_identity(self, client: mem0.Memory) -> None:
        memory = ScopedMemory("u_alice", client=client)
        assert weakref.ref(memory)() is memory
        assert memory != ScopedMemory("u_alice", client=client)

    def test_factory_builds_on_one_client(self, client: mem0.Memory) -> None:
        memory_of = ScopedMemory.factory(client)
        users = [new_user(), new_user()]
        for user in users:
            memory_of(user).add(f"I am {user}")
        assert [texts_of(memory_of(user).get_all()) for user in users] == [[f"I am {user}"] for user in users]

    def test_factory_passes_the_database_of_the_transcripts(self, tmp_path: Path) -> None:
        chats, client = tmp_path / "chats.db", local_memory(tmp_path / "m.db")
        memory_of = ScopedMemory.factory(client, transcripts=f"sqlite:///{chats}")
        for user in ("u_alice", "u_bob"):
            memory_of(user).chat_history("monday", remember=False).add_messages([HumanMessage(user)])
            assert [message.text for message in memory_of(user).chat_history("monday").messages] == [user]
            assert chats in memory_of(user).scoped_client.files()
        client.close()

    def test_only_mem0_clients_are_accepted(self, tmp_path: Path) -> None:
        class AsyncMemory:
            """Stands for mem0's own, which cannot be built without a model."""

        for wrong in ("m.db", tmp_path, 5, object(), mem0.Memory, AsyncMemory, {"user_id": "u"}, local_memory):
            for build in (lambda c: ScopedMemory("u", client=c), ScopedMemory.factory):
                with pytest.raises(InputError, match=r"mem0\.Memory"):
                    build(wrong)
        for path in ("m.db", str(tmp_path), tmp_path):
            with pytest.raises(InputError, match=r"got \S+; local_memory\(path\) opens a file$"):
                ScopedMemory("u", client=path)
        for kind in (mem0.Memory, mem0.MemoryClient, dict):
            with pytest.raises(InputError, match=rf"\.{kind.__name__}, the class instead of an instance of it$"):
                ScopedMemory("u", client=kind)
        with pytest.raises(InputError, match=r"got mem0\.\S+\.AsyncMemory.*sync counterpart"):
            ScopedMemory("u", client=mem0.AsyncMemory)
        asynchronous = mem0.AsyncMemory.__new__(mem0.AsyncMemory)
        with pytest.raises(InputError, match="sync counterpart"):
            ScopedMemory("u", client=asynchronous)

    def test_building_does_no_io_and_imports_no_mem0(self, tmp_path: Path) -> None:
        code = """
            import os, sys
            opened = []
            io = ("open", "sqlite3.connect", "socket.connect", "os.mkdir")
            sys.addaudithook(lambda event, args: opened.append(args[0]) if event in io else None)
            from langchain_mem0_scoped import ScopedMemory
            ScopedMemory("u_warm")
            opened.clear()
            memories = [ScopedMemory(f"u_{n}") for n in range(1000)] + [ScopedMemory.factory()("u_alice")]
            print(opened, "mem0" in sys.modules, "wordllama" in sys.modules, sorted(os.listdir(os.environ["HOME"])))
        """
        output = run_python(code, HOME=str(tmp_path), MEM0_DIR=None, LANGCHAIN_MEM0_SCOPED_PATH=None)
        assert output == "[] False False []\n"


class TestEventLoop:
    async def test_async_calls_do_not_block_it(self, client: mem0.Memory) -> None:
        entered, leave = threading.Event(), threading.Event()
        embed = client.embedding_model.embed

        def slowly(*arguments: Any) -> Any:
            entered.set()
            leave.wait(30)
            return embed(*arguments)

        client.embedding_model.embed = slowly
        try:
            search = asyncio.create_task(ScopedMemory(new_user(), client=client).asearch("tea"))
            while not entered.is_set():  # noqa: ASYNC110  # a thread sets it
                await asyncio.sleep(0.001)
            assert not search.done()
        finally:
            leave.set()
            del client.embedding_model.embed
        assert await search == []


def test_a_closed_client_is_a_clear_error(tmp_path: Path, call: Call) -> None:
    with opened("embedded", tmp_path) as client:
        memory = ScopedMemory("u", client=client)
        memory.add("hello")
    for verb, arguments in {"add": ("x",), "search": ("x",), "get_all": (), "delete_all": ()}.items():
        with pytest.raises(BackendError, match="closed"):
            call(memory, verb, *arguments)


def test_scope_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="user_id"):
        ScopedMemory("")
    assert issubclass(ScopeError, ValueError)
