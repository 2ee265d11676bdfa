"""What every port shares: recall from other sessions on any store, and which of two ways async work takes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import ScopedChatMessageHistory, ScopedMemory, local_memory, with_scoped_memory
from langchain_mem0_scoped.backends.base import exclude_session, fetch_sizes
from langchain_mem0_scoped.backends.mem0_memory import Mem0Backend
from langchain_mem0_scoped.recall import is_recall
from tests.agents import config_of, remembered, said
from tests.support import Call, new_user, texts_of
from tests.worlds import WordEmbeddings


class TestElsewhere:
    def found(self, call: Call, memory: ScopedMemory, query: str, k: int = 5) -> list[str]:
        if call.mode == "sync":
            return texts_of(memory._search_other_sessions(query, "s1", k))
        return texts_of(asyncio.run(memory._asearch_other_sessions(query, "s1", k)))

    @pytest.fixture
    def memory(self, client: mem0.Memory) -> ScopedMemory:
        """Ten matches in the session under way, one in another, one in none."""
        memory = ScopedMemory(new_user(), client=client)
        memory.add([f"I drink green tea {number}" for number in range(10)], session_id="s1", infer=False)
        memory.add("I drink green tea with my brother", session_id="s2", infer=False, at="2026-01-01")
        memory.add("I drink green tea in the garden", infer=False, at="2026-01-02")
        return memory

    def test_this_session_is_left_out_and_what_belongs_to_none_is_not(self, memory: ScopedMemory, call: Call) -> None:
        others = {"I drink green tea with my brother", "I drink green tea in the garden"}
        assert set(self.found(call, memory, "green tea")) == others
        assert set(self.found(call, memory, "green tea", k=1_500)) == others

    def test_of_those_only_the_best(self, memory: ScopedMemory, call: Call) -> None:
        assert self.found(call, memory, "green tea in the garden", k=1) == ["I drink green tea in the garden"]

    def test_without_a_query_the_latest(self, memory: ScopedMemory, call: Call) -> None:
        expected = ["I drink green tea in the garden", "I drink green tea with my brother"]
        assert self.found(call, memory, "") == expected
        assert self.found(call, memory, "", k=1) == expected[:1]

    def test_nothing_where_only_this_session_is_known(self, client: mem0.Memory, call: Call) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add(["tea", "more tea"], session_id="s1", infer=False)
        assert self.found(call, memory, "tea") == self.found(call, memory, "") == []


class TestWidening:
    @pytest.mark.parametrize(
        ("k", "asked"),
        [(1, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000]), (400, [800, 1_000]), (900, [1_000]), (1_500, [1_500])],
    )
    def test_goes_on_to_a_thousand_and_never_below_what_is_wanted(self, k: int, asked: list[int]) -> None:
        assert list(fetch_sizes(k)) == asked

    @pytest.mark.parametrize(
        ("own", "others", "wide", "enough"),
        [(3, 2, 5, True), (4, 1, 5, False), (3, 1, 5, True), (999, 1, 1_000, True), (1_500, 0, 1_500, True)],
    )
    def test_ends_where_enough_is_found_or_no_more_will_come(
        self, own: int, others: int, wide: int, enough: bool
    ) -> None:
        rows: list[dict[str, Any]] = [{"metadata": {"session_id": "s1"}}] * own + [{"metadata": None}] * others
        assert exclude_session(rows, "s1", 2, wide) == ([{"metadata": None}] * others if enough else None)


class TestEither:
    async def test_all_the_work_is_done_in_one_thread_beside_the_event_loop(self, client: mem0.Memory) -> None:
        threads: list[int] = []

        def work() -> str:
            threads.append(threading.get_ident())
            return "done"

        async def awork() -> str:
            raise AssertionError("the twin is for clients whose async is real")

        assert await ScopedMemory("u", client=client)._run_sync_or_async(work, awork) == "done"
        assert threads != [threading.get_ident()]

    async def test_a_client_whose_async_is_real_is_asked_call_by_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def real(self: Mem0Backend, work: Callable[[], Any], awork: Callable[[], Awaitable[Any]]) -> Any:
            return await awork()

        monkeypatch.setattr(Mem0Backend, "either", real)
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        user = new_user()
        history = ScopedChatMessageHistory(user, "s1", client=client)
        await history.aadd_messages([HumanMessage("my cat is Tom", id="a"), AIMessage("hello Tom")])
        await history.aadd_messages([HumanMessage("my cat is Tom", id="a")])
        assert said(client, user) == [("human", "my cat is Tom"), ("ai", "hello Tom")]
        chain = with_scoped_memory(RunnableLambda(lambda given: f"{len(given)} given"), client=client)
        assert await chain.ainvoke("my cat?", config_of(user, "s2")) == "2 given"
        assert said(client, user, "s2") == [("human", "my cat?"), ("ai", "2 given")]
        assert remembered(client, user) == ["my cat is Tom", "hello Tom", "my cat?", "2 given"]
        first, *_ = await ScopedChatMessageHistory(user, "s3", client=client).aget_messages()
        assert is_recall(first)
        client.close()
