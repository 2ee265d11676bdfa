"""What every backend shares: searches in other sessions, counting, and how async work of several calls is run."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import (
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopeError,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.backends import backend_for
from langchain_mem0_scoped.backends.base import exclude_session, fetch_sizes
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import config_of, remembered, transcript_texts
from tests.support import MODES, Call, new_user, opened, texts_of
from tests.worlds import WordEmbeddings


class TestOtherSessions:
    def found(self, call: Call, memory: ScopedMemory, query: str, k: int = 5) -> list[str]:
        return texts_of(call(memory.scoped_client, "search_other_sessions", query, "s1", k))

    @pytest.fixture
    def memory(self, client: mem0.Memory) -> ScopedMemory:
        """Ten matches in the current session, one in another, one in none."""
        memory = ScopedMemory(new_user(), client=client)
        memory.add([f"I drink green tea {number}" for number in range(10)], session_id="s1", infer=False)
        memory.add("I drink green tea with my brother", session_id="s2", infer=False, at="2026-01-01")
        memory.add("I drink green tea in the garden", infer=False, at="2026-01-02")
        return memory

    def test_only_the_current_session_is_left_out(self, memory: ScopedMemory, call: Call) -> None:
        others = {"I drink green tea with my brother", "I drink green tea in the garden"}
        assert set(self.found(call, memory, "green tea")) == others
        assert set(self.found(call, memory, "green tea", k=1_500)) == others

    def test_k_takes_the_best(self, memory: ScopedMemory, call: Call) -> None:
        assert self.found(call, memory, "green tea in the garden", k=1) == ["I drink green tea in the garden"]

    def test_blank_query_takes_the_latest(self, memory: ScopedMemory, call: Call) -> None:
        expected = ["I drink green tea in the garden", "I drink green tea with my brother"]
        assert self.found(call, memory, "") == expected
        assert self.found(call, memory, "", k=1) == expected[:1]

    def test_nothing_where_there_is_no_other_session(self, client: mem0.Memory, call: Call) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add(["tea", "more tea"], session_id="s1", infer=False)
        assert self.found(call, memory, "tea") == self.found(call, memory, "") == []


class TestFetchSizes:
    @pytest.mark.parametrize(
        ("k", "asked"),
        [(1, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000]), (400, [800, 1_000]), (900, [1_000]), (1_500, [1_500])],
    )
    def test_grow_to_the_maximum_and_start_at_k(self, k: int, asked: list[int]) -> None:
        assert list(fetch_sizes(k)) == asked

    @pytest.mark.parametrize(
        ("own", "others", "wide", "enough"),
        [(3, 2, 5, True), (4, 1, 5, False), (3, 1, 5, True), (999, 1, 1_000, True), (1_500, 0, 1_500, True)],
    )
    def test_excluding_a_session_says_whether_more_may_come(
        self, own: int, others: int, wide: int, enough: bool
    ) -> None:
        rows: list[dict[str, Any]] = [{"metadata": {"session_id": "s1"}}] * own + [{"metadata": None}] * others
        assert exclude_session(rows, "s1", 2, wide) == ([{"metadata": None}] * others if enough else None)


class TestCount:
    @pytest.mark.parametrize("mode", MODES)
    def test_is_of_rows_that_are_listed(self, client: mem0.Memory, mode: str) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add(["one", "two"], session_id="s1")
        memory.add("expired", expires_on="2001-01-01")
        ScopedMemory(new_user(), client=client).add("of somebody else")
        assert Call(mode)(memory, "count") == 2

    @pytest.mark.parametrize("mode", MODES)
    def test_of_a_foreign_row_raises(self, tmp_path: Path, mode: str) -> None:
        with opened("qdrant", tmp_path) as client:
            ScopedMemory("u_bob", client=client).add("of somebody else")
            listing = client.vector_store.list
            client.vector_store.list = lambda filters=None, top_k=None: listing({"user_id": "u_bob"}, top_k)
            try:
                with pytest.raises(ScopeError):
                    Call(mode)(ScopedMemory("u_alice", client=client), "count")
            finally:
                del client.vector_store.list


class TestRunSyncOrAsync:
    async def test_work_is_done_in_one_thread(self, client: mem0.Memory) -> None:
        threads: list[int] = []

        def work() -> str:
            threads.append(threading.get_ident())
            return "done"

        async def awork() -> str:
            raise AssertionError("the twin is for clients whose async is real")

        assert await ScopedMemory("u", client=client).scoped_client.run_sync_or_async(work, awork) == "done"
        assert threads != [threading.get_ident()]

    async def test_a_backend_with_real_async_is_awaited_call_by_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def real(self: Any, work: Callable[[], Any], awork: Callable[[], Awaitable[Any]]) -> Any:
            return await awork()

        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        monkeypatch.setattr(type(backend_for(client)), "run_sync_or_async", real)
        user = new_user()
        history = ScopedChatMessageHistory(user, "s1", client=client)
        await history.aadd_messages([HumanMessage("my cat is Tom", id="a"), AIMessage("hello Tom")])
        await history.aadd_messages([HumanMessage("my cat is Tom", id="a")])
        assert transcript_texts(client, user) == [("human", "my cat is Tom"), ("ai", "hello Tom")]
        chain = with_scoped_memory(RunnableLambda(lambda given: f"{len(given)} given"), client=client)
        assert await chain.ainvoke("my cat?", config_of(user, "s2")) == "2 given"
        assert transcript_texts(client, user, "s2") == [("human", "my cat?"), ("ai", "2 given")]
        assert remembered(client, user) == ["my cat is Tom", "hello Tom", "my cat?", "2 given"]
        first, *_ = await ScopedChatMessageHistory(user, "s3", client=client).aget_messages()
        assert is_recall(first)
        client.close()
