"""Which memories are recalled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_mem0_scoped import (
    MemoryList,
    ScopedMemory,
    ScopedMemoryMiddleware,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.messages import MAX_QUERY
from langchain_mem0_scoped.recall import (
    arecall_other_sessions,
    as_query,
    last_human_text,
    recall_other_sessions,
)
from langchain_mem0_scoped.recall_text import recall_message
from tests.agents import config_of
from tests.models import constant
from tests.support import MODES, new_user, records_of, texts_of
from tests.worlds import WordEmbeddings


class TestLastHumanText:
    def test_returns_the_last_human_message_with_text(self) -> None:
        picture = HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])
        messages = [HumanMessage("first"), HumanMessage([{"type": "text", "text": "second"}]), AIMessage("x"), picture]
        assert last_human_text(messages) == "second"
        assert last_human_text([AIMessage("x"), SystemMessage("y")]) == last_human_text([]) == ""

    def test_a_recall_is_no_text_of_the_user(self) -> None:
        recall = recall_message(records_of("tea"))
        assert last_human_text([recall, HumanMessage("first"), AIMessage("x"), recall]) == "first"
        assert last_human_text([recall]) == ""


class TestAsQuery:
    @given(st.text(st.characters()))
    def test_any_text_becomes_a_valid_query(self, text: str) -> None:
        query = as_query(text)
        assert query == query.strip()
        assert "\x00" not in query
        query.encode()

    def test_long_text_is_cut(self) -> None:
        assert as_query("a" * (MAX_QUERY + 5)) == "a" * MAX_QUERY
        assert as_query("\n" * (MAX_QUERY + 5) + "b") == "b"


class TestRecallOtherSessions:
    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[mem0.Memory]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        yield client
        client.close()

    @pytest.fixture(params=["sync", "async"])
    def found(self, request: pytest.FixtureRequest) -> Any:
        async def ask(memory: ScopedMemory, *asked: Any) -> list[str]:
            if request.param == "sync":
                return texts_of(recall_other_sessions(memory.scoped_client, *asked))
            return texts_of(await arecall_other_sessions(memory.scoped_client, *asked))

        return ask

    async def test_leaves_out_the_current_session(self, client: mem0.Memory, found: Any) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("the tea is green", session_id="s1")
        memory.add("the tea is black", session_id="s2")
        memory.add("the tea is white")
        memory.add("the tea is red", session_id="s")
        assert set(await found(memory, "tea", "s1", 5)) == {"the tea is black", "the tea is white", "the tea is red"}
        assert await found(memory, "tea", "s1", 1) == [texts_of(await found_all(memory, "tea", "s1"))[0]]

    @pytest.mark.parametrize("query", ["", "  ", "\x00", "\ud83d"])
    async def test_blank_query_returns_the_latest(self, client: mem0.Memory, found: Any, query: str) -> None:
        memory = ScopedMemory(new_user(), client=client)
        for day in range(1, 9):
            memory.add(f"day {day}", session_id=f"s{day % 2}", at=f"2026-01-0{day}")
        assert await found(memory, query, "s0", 3) == ["day 7", "day 5", "day 3"]

    @pytest.mark.parametrize("query", ["tea", ""])
    async def test_long_current_session_does_not_hide_others(self, client: mem0.Memory, found: Any, query: str) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("tea as it was once", session_id="old", at="2020-01-01")
        memory.add(["tea"] * 150, session_id="s1")
        assert await found(memory, query, "s1", 2) == ["tea as it was once"]

    async def test_repeated_questions_do_not_crowd_out_facts(self, client: mem0.Memory, found: Any) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("my seat is at the window", session_id="first")
        asked = ["which seat is my seat?", "my seat, which is it now?", "is my seat my seat?", "which seat?"]
        for day in range(10):
            memory.add(
                [{"role": "user", "content": asked[day % 4]}, {"role": "assistant", "content": "your seat is booked"}],
                session_id=f"s{day}",
            )
        told = await found(memory, asked[0].upper(), "now", 3)
        assert "my seat, which is it now?" in told  # two clauses may hold a fact
        assert {"my seat is at the window", "your seat is booked"} < set(told)
        everything = await found(memory, asked[0], "now", 20)
        assert sorted(everything) == sorted({*asked[1:], "your seat is booked", "my seat is at the window"})
        assert set(everything[-2:]) == {"is my seat my seat?", "which seat?"}

    @pytest.mark.parametrize("k", [1, 5])
    async def test_repetitions_of_the_query_do_not_crowd_out_facts(
        self, client: mem0.Memory, found: Any, k: int
    ) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add("my password is 4711", session_id="first")
        for day in range(8 * k + 8):
            memory.add("what is my password?", session_id=f"s{day}")
        assert await found(memory, "What is my password?", "now", k) == ["my password is 4711"]

    async def test_questions_are_recalled_if_nothing_else_is_known(self, client: mem0.Memory, found: Any) -> None:
        memory = ScopedMemory(new_user(), client=client)
        memory.add(["is there tea?", "more tea?"], session_id="first")
        assert await found(memory, "tea", "now", 1) in (["is there tea?"], ["more tea?"])
        assert len(await found(memory, "", "now", 5)) == 2
        assert await found(memory, "tea", "now", 0) == []

    async def test_finds_nothing_of_another_user(self, client: mem0.Memory, found: Any) -> None:
        alice, bob = (ScopedMemory(new_user(), client=client) for _ in range(2))
        alice.add("tea", session_id="s1")
        assert await found(bob, "tea", "s2", 5) == await found(bob, "", "s2", 5) == []

    @pytest.mark.parametrize("way", ["chain", "history", "agent"])
    def test_a_pasted_log_fills_no_prompt(self, client: mem0.Memory, way: str) -> None:
        user, model = new_user(), constant()
        log = "GET /tea.html 200 in 12 ms\n" * 18_000
        ScopedMemory(user, client=client).add([log, "the tea is green", *[f"{n} {log}" for n in range(4)]], infer=False)
        if way == "chain":
            with_scoped_memory(model, client=client).invoke("tea?", config_of(user))
        elif way == "history":
            model.invoke([*ScopedMemory(user, client=client).chat_history("s").messages, HumanMessage("tea?")])
        else:
            agent: Any = create_agent(model, middleware=[ScopedMemoryMiddleware(client=client)])
            agent.invoke({"messages": [HumanMessage("tea?")]}, context={"user_id": user})
        prompt = "".join(message.text for message in model.seen[0])
        assert "GET /tea.html" in prompt
        assert "characters)" in prompt
        assert len(prompt) < 7_000


async def found_all(memory: ScopedMemory, query: str, session_id: str) -> Any:
    return await arecall_other_sessions(memory.scoped_client, query, session_id, 50)


class FakeClient:
    """Returns the first of some records, best first, and notes how many it was asked for."""

    def __init__(self, *texts: str) -> None:
        self.records = records_of(*texts)
        self.asked: list[tuple[str, str, int]] = []

    def search_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        self.asked.append((query, session_id, k))
        return MemoryList(self.records[:k])

    async def asearch_other_sessions(self, query: str, session_id: str, k: int) -> MemoryList:
        return self.search_other_sessions(query, session_id, k)

    @property
    def sizes(self) -> list[int]:
        return [k for *_, k in self.asked]


@pytest.mark.parametrize("mode", MODES)
class TestSelection:
    async def recall(self, mode: str, client: Any, k: int, text: str = "tea") -> list[str]:
        if mode == "sync":
            return texts_of(recall_other_sessions(client, text, "now", k))
        return texts_of(await arecall_other_sessions(client, text, "now", k))

    async def test_asks_once_if_that_is_enough(self, mode: str) -> None:
        client = FakeClient("one", "two", "three", "four", "five")
        assert await self.recall(mode, client, 2, " tea\x00 ") == ["one", "two"]
        assert client.asked == [("tea", "now", 4)]

    async def test_fetches_more_while_there_are_too_few_statements(self, mode: str) -> None:
        client = FakeClient(*(f"question {number}?" for number in range(100)), "a fact")
        assert await self.recall(mode, client, 2) == ["a fact", "question 0?"]
        assert client.sizes == [4, 16, 128]

    async def test_fetches_no_more_than_64_times_k(self, mode: str) -> None:
        client = FakeClient(*(f"question {number}?" for number in range(200)), "a fact")
        assert await self.recall(mode, client, 2) == ["question 0?", "question 1?"]
        assert client.sizes == [4, 16, 128]

    async def test_stops_when_there_are_no_more_rows(self, mode: str) -> None:
        client = FakeClient("really?", "a fact", "why?")
        assert await self.recall(mode, client, 2) == ["a fact", "really?"]
        assert client.sizes == [4]

    async def test_stops_as_soon_as_there_are_k_statements(self, mode: str) -> None:
        client = FakeClient("really?", "a fact", "why?", "another", "third")
        assert await self.recall(mode, client, 2) == ["a fact", "another"]
        assert client.sizes == [4]

    async def test_drops_duplicates_and_repetitions_of_the_text(self, mode: str) -> None:
        client = FakeClient("TEA  ", "I  drink\nit", "i drink IT", "tea", "I drink tea")
        assert await self.recall(mode, client, 5) == ["I  drink\nit", "I drink tea"]

    async def test_statements_come_before_questions_in_their_order(self, mode: str) -> None:
        client = FakeClient("a?", "one", "b\u061f", "two", "c\uff1f  ", "three, or four?", "so. why?")
        expected = ["one", "two", "three, or four?", "so. why?", "a?", "b\u061f", "c\uff1f  "]
        assert await self.recall(mode, client, 7) == expected

    async def test_zero_fetches_nothing(self, mode: str) -> None:
        client = FakeClient("one")
        assert await self.recall(mode, client, 0) == []
        assert client.asked == []
