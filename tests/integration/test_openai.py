"""langchain-openai's own serialisation, over the wire: chains, agents, embeddings, and mem0's extraction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import InternalServerError
from pydantic import SecretStr

from langchain_mem0_scoped import (
    BackendError,
    ScopedMemory,
    ScopedMemoryMiddleware,
    create_memory_tools,
    local_memory,
    with_scoped_memory,
)
from tests.agents import (
    WAYS,
    EventRecorder,
    ask,
    config_of,
    not_saved,
    remembered,
    run,
    text_of,
    transcript,
    transcript_texts,
)
from tests.integration.openai_server import KEY, OpenAIServer, echo
from tests.support import MODES, Call, texts_of

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{input}")]
)
MODEL = "gpt-4o-mini"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server
    assert server.refused == []


@pytest.fixture
def model(server: OpenAIServer) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=server.url, api_key=SecretStr(KEY), max_retries=0)


@pytest.fixture
def embeddings(server: OpenAIServer) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=server.url,
        api_key=SecretStr(KEY),
        check_embedding_ctx_length=False,  # it would fetch a tokenizer
        max_retries=0,
    )


@pytest.fixture
def client(embeddings: OpenAIEmbeddings, tmp_path: Path) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path / "m.db", embeddings=embeddings)
    yield client
    client.close()


class TestChains:
    @pytest.mark.parametrize("way", WAYS)
    async def test_prompt_model_and_parser(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, way: str
    ) -> None:
        chain = with_scoped_memory(PROMPT | model | StrOutputParser(), client=client)
        first = await run(way, chain, {"input": "I am Ann"}, config_of("u_ann"))
        second = await run(way, chain, {"input": "Who am I?"}, config_of("u_ann"))
        assert first == "I was given: Be brief. | I am Ann"
        assert second == f"I was given: Be brief. | I am Ann | {first} | Who am I?"
        assert [message["role"] for message in server.chats[1]["messages"]] == ["system", "user", "assistant", "user"]
        assert transcript_texts(client, "u_ann") == [
            ("human", "I am Ann"),
            ("ai", first),
            ("human", "Who am I?"),
            ("ai", second),
        ]

    @pytest.mark.parametrize("way", WAYS)
    async def test_memory_of_one_session_reaches_the_model_in_another(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, way: str
    ) -> None:
        chain = with_scoped_memory(model, client=client)
        await run(way, chain, "I am allergic to peanuts", config_of("u_ann", "monday"))
        await run(way, chain, "Am I allergic to peanuts?", config_of("u_ann", "tuesday"))
        await run(way, chain, "Am I allergic to peanuts?", config_of("u_bob", "tuesday"))
        hers, his = server.chats[1]["messages"], server.chats[2]["messages"]
        assert hers[0]["role"] == "user"
        assert '"I am allergic to peanuts"' in hers[0]["content"]
        assert [message["role"] for message in his] == ["user"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_usage_and_ids_are_in_the_transcript(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, way: str
    ) -> None:
        counting = model.model_copy(update={"stream_usage": True})
        answer = await run(way, with_scoped_memory(counting, client=client), "hello", config_of("u_ann"))
        logged = transcript(client, "u_ann")[-1]
        assert text_of(answer) == logged.text == "I was given: hello"
        assert logged.usage_metadata["total_tokens"] == 5  # type: ignore[attr-defined]
        assert logged.id

    async def test_tool_calls_in_the_history_are_sent_back(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory
    ) -> None:
        server.brain = lambda messages, tools: (
            [("list_memories", {"limit": 3})] if messages[-1]["role"] == "user" and tools else echo(messages)
        )
        tools = create_memory_tools(ScopedMemory("u_ann", client=client))
        chain = with_scoped_memory(model.bind_tools(tools), client=client)
        called = chain.invoke("what do you know?", config_of("u_ann"))
        answer = tools[2].invoke(called.tool_calls[0])
        assert isinstance(answer, ToolMessage)
        chain.invoke([answer], config_of("u_ann"))
        assert [message.type for message in transcript(client, "u_ann")] == ["human", "ai", "tool", "ai"]
        assert server.chats[1]["messages"][1]["tool_calls"][0]["id"] == called.tool_calls[0]["id"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_failed_embedding_on_save_returns_the_answer(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, mode: str
    ) -> None:
        server.down, recorder = {"/embeddings"}, EventRecorder()
        chain = with_scoped_memory(model, client=client, recall=0)
        answer = await ask(mode, chain, "hello", config_of("u_ann", callbacks=[recorder]))
        assert answer.text == "I was given: hello"
        name, data = not_saved("BackendError", transcript=True)
        assert recorder.events == [(name, data | {"status": 500, "code": "server_error"})]
        assert len(transcript_texts(client, "u_ann")) == 2

    @pytest.mark.parametrize("way", WAYS)
    async def test_failed_model_call_is_logged_and_not_remembered(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, way: str
    ) -> None:
        server.down = {"/chat/completions"}
        with pytest.raises(InternalServerError):
            await run(way, with_scoped_memory(model, client=client), "hello", config_of("u_ann"))
        assert transcript_texts(client, "u_ann") == [("human", "hello")]
        assert remembered(client, "u_ann") == []


def knowing(messages: list[dict[str, Any]], tools: list[str]) -> str | list[tuple[str, dict[str, Any]]]:
    """Remembers what it is told, looks for what it is asked, then says what came back."""
    last = messages[-1]
    if last["role"] == "tool":
        return f"The tool said {last['content']}"
    if last["content"].endswith("?"):
        return [("search_memory", {"query": last["content"], "k": 1, "user_id": "u_bob"})]
    return [("remember", {"text": last["content"], "user_id": "u_bob", "runtime": {"context": {"user_id": "u_bob"}}})]


class TestAgents:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
    async def test_recall_and_tools(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory, mode: str, streaming: bool
    ) -> None:
        server.brain = knowing
        middleware = ScopedMemoryMiddleware(client=client, tools=True, remember=False)
        agent: Any = create_agent(
            model.model_copy(update={"streaming": streaming}), [], middleware=[middleware], system_prompt="Be brief."
        )

        async def turn(text: str, user: str) -> str:
            answer = await ask(mode, agent, {"messages": [HumanMessage(text)]}, context={"user_id": user})
            return str(answer["messages"][-1].text)

        assert "peanuts" in await turn("I am allergic to peanuts", "u_ann")
        assert remembered(client, "u_ann") == ["I am allergic to peanuts"]
        assert "peanuts" in await turn("What am I allergic to?", "u_ann")
        assert await turn("What am I allergic to?", "u_bob") == "The tool said []"
        assert remembered(client, "u_bob") == []
        asked = server.chats[2]["messages"]
        assert asked[0]["content"].startswith("Be brief.")
        assert "peanuts" in asked[0]["content"]
        offered = server.chats[0]["tools"]
        assert len(offered) == 5
        assert "user_id" not in json.dumps(offered)
        assert all(bool(chat.get("stream")) == streaming for chat in server.chats)

    async def test_tokens_stream_from_the_agent(
        self, server: OpenAIServer, model: ChatOpenAI, client: mem0.Memory
    ) -> None:
        agent: Any = create_agent(model, [], middleware=[ScopedMemoryMiddleware(client=client)])
        given = {"messages": [HumanMessage("one two three")]}
        parts = [part async for part in agent.astream(given, context={"user_id": "u_ann"}, stream_mode="messages")]
        assert "".join(part.text for part, _ in parts) == "I was given: one two three"
        assert len(parts) > 4
        assert remembered(client, "u_ann") == ["one two three", "I was given: one two three"]


class TestEmbeddings:
    @pytest.mark.parametrize("mode", MODES)
    async def test_documents_are_embedded_in_batches(
        self, server: OpenAIServer, client: mem0.Memory, mode: str
    ) -> None:
        memory = ScopedMemory("u_ann", client=client)
        facts = [f"The box number {number} holds thing{number}" for number in range(600)]
        call = Call(mode)
        assert len(await asyncio.to_thread(call, memory, "add", facts)) == 600
        assert [len(texts) for texts in server.embedded] == [256, 256, 88]
        assert texts_of(await asyncio.to_thread(call, memory, "search", "thing77", k=1)) == [facts[77]]
        assert server.embedded[-1] == ["thing77"]

    def test_failed_embedding_raises_an_error_without_text(self, server: OpenAIServer, client: mem0.Memory) -> None:
        memory = ScopedMemory("u_ann", client=client)
        server.down = {"/embeddings"}
        for verb, text in (("add", "my password is hunter2"), ("search", "hunter2")):
            with pytest.raises(BackendError) as raised:
                getattr(memory, verb)(text)
            assert "hunter2" not in str(raised.value)
            assert KEY not in str(raised.value)
        server.down = set()
        assert memory.get_all() == []


class TestExtraction:
    @pytest.fixture
    def extracting(self, model: ChatOpenAI, embeddings: OpenAIEmbeddings, tmp_path: Path) -> Iterator[mem0.Memory]:
        client = local_memory(tmp_path / "extracting.db", llm=model, embeddings=embeddings)
        yield client
        client.close()

    @pytest.mark.parametrize("mode", MODES)
    async def test_extracted_facts_are_stored(self, server: OpenAIServer, extracting: mem0.Memory, mode: str) -> None:
        memory = ScopedMemory("u_ann", client=extracting)
        turn: list[Any] = [HumanMessage("I moved to Porto"), {"role": "assistant", "content": "Enjoy the river"}]
        added = await memory.aadd(turn, infer=True) if mode == "async" else memory.add(turn, infer=True)
        assert sorted(texts_of(added)) == ["Enjoy the river", "I moved to Porto"]
        assert sorted(texts_of(memory.get_all())) == ["Enjoy the river", "I moved to Porto"]
        assert memory.search("Where did I move to?", k=1)[0]["memory"] == "I moved to Porto"
        assert len(server.chats) == 1
        assert ScopedMemory("u_bob", client=extracting).get_all() == []

    @pytest.mark.parametrize("mode", MODES)
    async def test_extraction_through_a_chain(
        self, server: OpenAIServer, model: ChatOpenAI, extracting: mem0.Memory, mode: str
    ) -> None:
        chain = with_scoped_memory(PROMPT | model | StrOutputParser(), client=extracting)
        await ask(mode, chain, {"input": "I moved to Porto"}, config_of("u_ann", "monday"))
        later = await ask(mode, chain, {"input": "Where did I move to?"}, config_of("u_ann", "tuesday"))
        assert '"I moved to Porto"' in later
        # One request for the answer, one for the extraction, for each of both turns.
        assert len(server.chats) == 4

    @pytest.mark.parametrize("mode", MODES)
    async def test_failed_extraction_keeps_the_transcript(
        self, server: OpenAIServer, model: ChatOpenAI, extracting: mem0.Memory, mode: str
    ) -> None:
        recorder = EventRecorder()
        chain = with_scoped_memory(going_down(server), client=extracting)
        answer = await ask(mode, chain, "I moved to Porto", config_of("u_ann", callbacks=[recorder]))
        assert answer == "noted"
        assert [data["error"] for _, data in recorder.events] == ["BackendError"]
        assert transcript_texts(extracting, "u_ann") == [("human", "I moved to Porto"), ("ai", "noted")]
        assert remembered(extracting, "u_ann") == []


def going_down(server: OpenAIServer) -> Runnable[Any, str]:
    """A chain whose answer comes just before the model's server goes down."""

    def answer(_: Any) -> str:
        server.down = {"/chat/completions"}
        return "noted"

    return RunnableLambda(answer)
