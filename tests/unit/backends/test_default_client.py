"""set_default_client: the one default of a process, the warning where a scope forgets its client, and its erasures."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import mem0
import pytest
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import (
    InputError,
    ScopedChatMessageHistory,
    ScopedMemory,
    local_memory,
    set_default_client,
    with_scoped_memory,
)
from langchain_mem0_scoped.backends import default
from tests.support import Call, opened, texts_of

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As at the start of a process: nothing set, nothing made, nothing warned of."""
    made: dict[Any, Any] = {}
    monkeypatch.setattr(default, "_clients", made)
    monkeypatch.setattr(default, "_warned", False)
    yield
    set_default_client(None)
    for client in made.values():
        client.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Any]:
    with closing(local_memory(tmp_path / "other.db")) as client:
        yield client


class TestSet:
    def test_every_scope_without_a_client_uses_it(self, other: Any, call: Call) -> None:
        set_default_client(other)
        call(ScopedMemory("u_alice"), "add", "I like tea")
        assert texts_of(call(ScopedMemory("u_alice", client=other), "get_all")) == ["I like tea"]
        assert texts_of(ScopedMemory("u_alice").as_retriever().invoke("tea") and ScopedMemory("u_alice").get_all()) == [
            "I like tea"
        ]
        chain = with_scoped_memory(RunnableLambda(lambda said: "ok"))
        chain.invoke("Hello", {"configurable": {"user_id": "u_alice", "session_id": "s"}})
        history = ScopedChatMessageHistory("u_alice", "s", client=other)
        assert [message.text for message in history.messages][-2:] == ["Hello", "ok"]
        assert default._clients == {}, "the built-in one was not made"

    def test_none_is_the_built_in_one_again(self, other: Any) -> None:
        set_default_client(other)
        memory = ScopedMemory("u_alice")
        memory.add("I like tea")
        set_default_client(None)
        assert memory.count() == 1, "a scope that has made a call keeps its client"
        with pytest.warns(UserWarning, match="built-in default"):
            assert ScopedMemory("u_alice").count() == 0

    def test_any_kind_of_client(self, tmp_path: Path) -> None:
        with opened("qdrant", tmp_path) as client:
            set_default_client(client)
            ScopedMemory("u_alice").add("I like tea")
            assert ScopedMemory("u_alice").delete_all().memories == 1
            set_default_client(None)

    @pytest.mark.parametrize("wrong", [mem0.Memory, "memory.db", 3])
    def test_what_is_no_client_is_refused(self, wrong: Any, other: Any) -> None:
        set_default_client(other)
        with pytest.raises(InputError, match="client must be"):
            set_default_client(wrong)
        assert default.default_client() is other


class TestForgottenClient:
    def test_warns_once_and_names_the_line(self, other: Any, call: Call) -> None:
        with pytest.warns(UserWarning, match=r"built-in default store.*set_default_client\(client\)") as caught:
            ScopedMemory("u_alice").add("hello")
        assert [Path(warning.filename).name for warning in caught] == [HERE]
        call(ScopedMemory("u_bob"), "count")  # a second warning would be an error here

    def test_tells_of_every_kind_of_client(self, tmp_path: Path) -> None:
        hosted = mem0.MemoryClient.__new__(mem0.MemoryClient)
        with ExitStack() as stack:
            hosted.client = stack.enter_context(httpx.Client(base_url="https://mem0.test"))
            plain = stack.enter_context(opened("qdrant", tmp_path))
            for client in (plain, hosted):
                default._warned = False
                ScopedMemory("u_alice", client=client).scoped_client._bind()
                with pytest.warns(UserWarning, match="built-in default"):
                    ScopedMemory("u_alice").count()

    def test_is_silent_without_another_open_client(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            local_memory(tmp_path / "closed.db").close()
            with opened("qdrant", tmp_path) as plain:
                ScopedMemory("u_alice", client=plain).add("hello")
            freed = mem0.MemoryClient.__new__(mem0.MemoryClient)
            with httpx.Client(base_url="https://mem0.test") as freed.client:
                ScopedMemory("u_alice", client=freed).scoped_client._bind()
            del freed
            gc.collect()
            for name in ("one.db", "two.db"):
                # Two built-in ones, one for each environment, are no others.
                monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / name))
                ScopedMemory("u_alice").add("hello")
                assert ScopedMemory("u_alice").delete_all().memories == 1

    def test_erasure_is_refused(self, other: Any, call: Call) -> None:
        ScopedMemory("u_alice", client=other).add("I like tea")
        with pytest.warns(UserWarning, match="built-in default"), pytest.raises(InputError, match="nothing was erased"):
            call(ScopedMemory("u_alice"), "delete_all")
        assert ScopedMemory("u_alice", client=other).count() == 1
        assert call(ScopedMemory("u_alice", client=other), "delete_all").memories == 1
        set_default_client(other)
        assert call(ScopedMemory("u_alice"), "delete_all").memories == 0

    def test_erasure_is_refused_of_a_scope_that_was_used_before(self, tmp_path: Path, call: Call) -> None:
        memory = ScopedMemory("u_alice")
        memory.add("I like tea")
        with closing(local_memory(tmp_path / "other.db")) as other:
            set_default_client(other)
            with pytest.raises(InputError, match="set_default_client"):
                call(memory, "delete_all")
            set_default_client(None)
        assert call(memory, "delete_all").memories == 1
