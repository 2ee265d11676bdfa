"""with_scoped_memory(): what is saved of a turn, and what happens if saving fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool

from langchain_mem0_scoped import (
    BackendError,
    InputError,
    ScopedMemory,
    history_factory,
    local_memory,
    with_scoped_memory,
)
from tests.agents import (
    WAYS,
    EventRecorder,
    FailingEmbeddings,
    ask,
    calls,
    config_of,
    not_saved,
    remembered,
    run,
    text_of,
    transcript,
    transcript_texts,
)
from tests.chat import close_transcripts
from tests.models import ScriptedModel, constant, lines
from tests.support import MODES, label, new_user, opened

PROMPT = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("saving") / "m.db")
    yield client
    client.close()


class TestFailures:
    SECRET = "my password is hunter2"

    @pytest.fixture
    def embeddings(self) -> FailingEmbeddings:
        return FailingEmbeddings()

    @pytest.fixture
    def failing(self, embeddings: FailingEmbeddings, tmp_path: Path) -> Iterator[mem0.Memory]:
        client = local_memory(tmp_path / "m.db", embeddings=embeddings)
        yield client
        client.close()

    @pytest.mark.parametrize("way", WAYS)
    async def test_failed_save_returns_the_answer_and_is_reported(
        self, failing: mem0.Memory, embeddings: FailingEmbeddings, caplog: pytest.LogCaptureFixture, way: str
    ) -> None:
        user, recorder = new_user(), EventRecorder()
        embeddings.fail_writing = True
        chain = with_scoped_memory(PROMPT | ScriptedModel(), client=failing)
        with caplog.at_level(logging.DEBUG):
            answer = await run(way, chain, {"input": self.SECRET}, config_of(user, callbacks=[recorder]))
        assert text_of(answer) == f"I was given: {self.SECRET}"
        assert recorder.events == [not_saved("BackendError", transcript=True)]
        assert "is in the transcript, but is not remembered (BackendError)" in caplog.text
        assert "hunter2" not in caplog.text
        # The transcript is stored first: a failure to remember does not lose it.
        assert len(transcript_texts(failing, user)) == 2
        assert remembered(failing, user) == []

    @pytest.mark.parametrize("within", [True, False])
    async def test_failed_save_is_among_the_events(self, client: mem0.Memory, within: bool) -> None:
        wrapped = with_scoped_memory(RunnableLambda(lambda _: object()), client=client)
        chain = wrapped | RunnableLambda(str) if within else wrapped
        events = [event async for event in chain.astream_events("hi", config_of(new_user()), version="v2")]
        (told,) = (event for event in events if event["event"] == "on_custom_event")
        assert (told["name"], told["data"]) == not_saved("InputError")
        (run_id,) = {event["run_id"] for event in events if event["name"] == "ScopedMemory"}
        assert told["run_id"] == run_id
        assert events[0]["event"] == "on_chain_start"
        assert (events[0]["run_id"] == run_id) == (not within)

    @pytest.mark.parametrize("way", WAYS)
    async def test_value_that_is_not_json_keeps_its_turn(self, client: mem0.Memory, way: str) -> None:
        user, recorder = new_user(), EventRecorder()
        found = ToolMessage("ok", tool_call_id="c1", artifact={"when": object()})
        chain = with_scoped_memory(RunnableLambda(lambda _: [calls("look"), found, AIMessage("a key")]), client=client)
        await run(way, chain, {"input": "look"}, config_of(user, callbacks=[recorder]))
        assert recorder.events == []
        assert transcript_texts(client, user) == [("human", "look"), ("ai", ""), ("tool", "ok"), ("ai", "a key")]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("output", [object(), None, b"ok", {"answer": iter(["ok"])}, {}, []], ids=label)
    async def test_output_of_another_type_is_returned_and_reported(
        self, client: mem0.Memory, mode: str, output: Any
    ) -> None:
        user, recorder = new_user(), EventRecorder()
        chain = with_scoped_memory(RunnableLambda(lambda _: output), client=client)
        assert await ask(mode, chain, {"input": "go"}, config_of(user, callbacks=[recorder])) == output
        assert recorder.events == [not_saved("InputError", transcript=False)]
        # What the user said is kept, and is remembered with the next turn.
        assert transcript_texts(client, user) == [("human", "go")]
        assert remembered(client, user) == []
        await ask(mode, with_scoped_memory(constant(), client=client), "now", config_of(user))
        assert remembered(client, user) == ["go", "now", "ok"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_missing_answer_key_is_logged_with_advice(
        self, client: mem0.Memory, caplog: pytest.LogCaptureFixture, way: str
    ) -> None:
        user = new_user()
        chain = with_scoped_memory(
            RunnableLambda(lambda _: {"result": self.SECRET}), client=client, output_messages_key="reply"
        )
        await run(way, chain, {"input": self.SECRET}, config_of(user))
        assert "not yet remembered: the output has no key 'reply'; name the key" in caplog.text
        assert "output_messages_key=…" in caplog.text
        assert "hunter2" not in caplog.text
        assert user not in caplog.text

    @pytest.mark.parametrize("mode", MODES)
    async def test_failing_remember_function_returns_the_answer(self, client: mem0.Memory, mode: str) -> None:
        def predicate(message: BaseMessage) -> bool:
            raise KeyError(message.text)

        user, recorder = new_user(), EventRecorder()
        chain = with_scoped_memory(constant(), client=client, remember=predicate)
        assert (await ask(mode, chain, "go", config_of(user, callbacks=[recorder]))).text == "ok"
        assert recorder.events == [not_saved("KeyError", transcript=True)]
        assert len(transcript_texts(client, user)) == 2

    @pytest.mark.parametrize("way", WAYS)
    async def test_failed_recall_fails_the_run(
        self, failing: mem0.Memory, embeddings: FailingEmbeddings, way: str
    ) -> None:
        user, model = new_user(), ScriptedModel()
        ScopedMemory(user, client=failing).add("I live in Lisbon", session_id="s0")
        embeddings.fail_searching = True
        chain = with_scoped_memory(PROMPT | model, client=failing)
        with pytest.raises(BackendError) as raised:
            await run(way, chain, {"input": self.SECRET}, config_of(user))
        assert "hunter2" not in str(raised.value)
        assert model.seen == []
        without = with_scoped_memory(PROMPT | model, client=failing, recall=0)
        assert text_of(await run(way, without, {"input": "hi"}, config_of(user))).endswith(" | hi")

    @pytest.mark.parametrize("mode", MODES)
    async def test_client_without_transcripts_raises_with_advice(self, tmp_path: Path, mode: str) -> None:
        with opened("qdrant", tmp_path) as qdrant:
            user = new_user()
            with pytest.raises(BackendError, match="transcripts="):
                await ask(mode, with_scoped_memory(constant(), client=qdrant), "hi", config_of(user))
            chain = with_scoped_memory(constant(), client=qdrant, transcripts=f"sqlite:///{tmp_path}/chats.db")
            assert (await ask(mode, chain, "hi", config_of(user))).text == "ok"
            assert transcript_texts(qdrant, user) == [("human", "hi"), ("ai", "ok")]
            close_transcripts(qdrant)


class TestInvalidArguments:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"client": object()},
            {"recall": -1},
            {"recall": "5"},
            {"recall": True},
            {"remember": "yes"},
            {"remember": None},
            {"max_messages": 0},
            {"max_tokens": -3},
        ],
        ids=label,
    )
    def test_invalid_options_raise_at_construction(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            with_scoped_memory(constant(), **wrong)
        if not any(name.endswith("_key") for name in wrong):
            with pytest.raises(InputError):
                history_factory(**wrong)

    @pytest.mark.parametrize("chain", [3, None, str.upper, {"input": 1}], ids=label)
    def test_chain_of_another_type_raises(self, chain: Any) -> None:
        with pytest.raises(InputError, match="chain must be a LangChain Runnable"):
            with_scoped_memory(chain)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "given", [{"question": "hi"}, {}, [], {"input": []}, 7, None, {"input": 7}, [7]], ids=label
    )
    async def test_input_without_a_message_raises(self, client: mem0.Memory, mode: str, given: Any) -> None:
        model = ScriptedModel()
        with pytest.raises(InputError):
            await ask(mode, with_scoped_memory(model, client=client), given, config_of(new_user()))
        assert model.seen == []


class TestSavedTranscript:
    @pytest.mark.parametrize("way", WAYS)
    async def test_repeated_answer_is_stored_again(self, client: mem0.Memory, way: str) -> None:
        user = new_user()
        chain = with_scoped_memory(constant("yes"), client=client)
        for _ in range(3):
            await run(way, chain, "yes", config_of(user))
        assert transcript_texts(client, user) == [("human", "yes"), ("ai", "yes")] * 3

    @pytest.mark.parametrize("way", WAYS)
    async def test_answer_that_repeats_the_history_stores_only_new_messages(
        self, client: mem0.Memory, way: str
    ) -> None:
        user = new_user()
        ScopedMemory(user, client=client).add("I live in Lisbon", session_id="s0", infer=False)

        def agent(given: dict[str, Any]) -> dict[str, Any]:
            own = [calls("look"), ToolMessage("found", tool_call_id="c1"), AIMessage("yes")]
            return {"messages": [*given["history"], HumanMessage(given["input"], id="given-by-the-agent"), *own]}

        chain = with_scoped_memory(RunnableLambda(agent), client=client)
        for _ in range(3):
            await run(way, chain, {"input": "yes"}, config_of(user))
        assert transcript_texts(client, user) == [("human", "yes"), ("ai", ""), ("tool", "found"), ("ai", "yes")] * 3

    @pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"])
    @pytest.mark.parametrize("keys", ["same", "mapped"])
    async def test_agent(self, client: mem0.Memory, way: str, keys: str) -> None:
        @tool
        def weather(city: str) -> str:
            """The weather."""
            return f"rain in {city}"

        user = new_user()
        model = ScriptedModel(says=lines(calls("weather", city="Lisbon"), "It rains", "Bring an umbrella"))
        agent: Runnable[Any, Any] = create_agent(model, [weather])
        if keys == "same":
            chain = with_scoped_memory(
                agent, client=client, input_messages_key="messages", history_messages_key="messages"
            )
            given = [{"messages": [HumanMessage(text)]} for text in ("Lisbon?", "So?")]
        else:
            into: Runnable[Any, Any] = RunnableLambda(lambda messages: {"messages": messages})
            chain = with_scoped_memory(into | agent, client=client)
            given = [[HumanMessage(text)] for text in ("Lisbon?", "So?")]  # type: ignore[misc]
        for one in given:
            streamed = way in ("stream", "astream")
            await (_streamed(way, chain, one, user) if streamed else run(way, chain, one, config_of(user)))
        turns = [
            ("human", "Lisbon?"),
            ("ai", ""),
            ("tool", "rain in Lisbon"),
            ("ai", "It rains"),
            ("human", "So?"),
            ("ai", "Bring an umbrella"),
        ]
        assert transcript_texts(client, user) == turns
        assert transcript(client, user)[1].tool_calls[0]["args"] == {"city": "Lisbon"}  # type: ignore[attr-defined]
        assert [message.text for message in model.seen[2]] == [text for _, text in turns[:5]]
        # Tool output is in the transcript and is not remembered.
        assert remembered(client, user) == ["Lisbon?", "It rains", "So?", "Bring an umbrella"]

    @pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"])
    async def test_summary_of_an_agent_is_not_logged(self, client: mem0.Memory, way: str) -> None:
        @tool
        def look() -> str:
            """Look around."""
            return "TOOLPOISON"

        user = new_user()
        summarizing = SummarizationMiddleware(
            model=FakeListChatModel(responses=["TOOLPOISON says the user"]),
            trigger=("messages", 4),
            keep=("messages", 2),
        )
        model = ScriptedModel(says=lines(*(calls("look", f"c{number}") for number in range(3)), "Nothing to see"))
        agent: Runnable[Any, Any] = create_agent(model, [look], middleware=[summarizing])
        chain = with_scoped_memory(agent, client=client, input_messages_key="messages", history_messages_key="messages")
        given = {"messages": [HumanMessage("What is there?")]}
        if way in ("stream", "astream"):
            await _streamed(way, chain, given, user)
        else:
            answer = await run(way, chain, given, config_of(user))
            # Control: the summary stands in place of the question.
            assert "TOOLPOISON says the user" in answer["messages"][0].text
        kept = transcript_texts(client, user)
        assert [text for kind, text in kept if kind == "human"] == ["What is there?"]
        assert kept[-1] == ("ai", "Nothing to see")
        assert {kind for kind, _ in kept} == {"human", "ai", "tool"}

    def test_system_messages_at_the_head_come_first_and_are_not_logged(self, client: mem0.Memory) -> None:
        user, model = new_user(), constant()
        ScopedMemory(user, client=client).add("I live in Lisbon", session_id="s0", infer=False)
        chain = with_scoped_memory(model, client=client)
        for text in ("one", "where do I live?"):
            chain.invoke([SystemMessage("Be brief."), HumanMessage(text)], config_of(user))
        assert [message.type for message in model.seen[-1]] == ["system", "human", "human", "ai", "human"]
        assert model.seen[-1][0].text == "Be brief."
        assert transcript_texts(client, user) == [
            ("human", "one"),
            ("ai", "ok"),
            ("human", "where do I live?"),
            ("ai", "ok"),
        ]

    def test_messages_are_stored_exactly(self, client: mem0.Memory) -> None:
        user = new_user()
        given = HumanMessage(
            [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}],
            id="h1",
            name="Ann",
        )
        answer = AIMessage(
            "a cat",
            id="a1",
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"model": "m"},
        )
        with_scoped_memory(RunnableLambda(lambda _: answer), client=client).invoke([given], config_of(user))
        assert transcript(client, user) == [given, answer]
        assert remembered(client, user) == ["what is this?", "a cat"]

    @pytest.mark.parametrize("cap", [None, 2])
    @pytest.mark.parametrize("mode", MODES)
    async def test_answer_from_a_model_cache_is_stored_again(
        self, client: mem0.Memory, cap: int | None, mode: str
    ) -> None:
        user = new_user()
        model = ScriptedModel(says=lambda messages: f"re {messages[-1].text}", cache=InMemoryCache())
        # With the history in the prompt no prompt would repeat.
        blind = RunnableLambda(lambda given: given[-1:]) | model
        chain = with_scoped_memory(blind, client=client, max_messages=cap)
        for text in "ABAB":
            await ask(mode, chain, text, config_of(user))
        assert len(model.seen) == 2
        assert transcript_texts(client, user) == [(kind, said) for text in "ABAB" for kind, said in _turn(text)]
        assert remembered(client, user) == [said for text in "ABAB" for _, said in _turn(text)]

    def test_max_messages_limits_what_the_chain_gets(self, client: mem0.Memory) -> None:
        user, model = new_user(), constant()
        chain = with_scoped_memory(model, client=client, max_messages=2)
        for number in range(3):
            chain.invoke(str(number), config_of(user))
        assert [message.text for message in model.seen[-1]] == ["1", "ok", "2"]
        assert len(transcript_texts(client, user)) == 6


@pytest.mark.parametrize("mode", MODES)
class TestRememberOption:
    async def test_false_remembers_nothing(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        await ask(mode, with_scoped_memory(constant(), client=client, remember=False), "a secret", config_of(user))
        assert remembered(client, user) == []
        assert transcript_texts(client, user) == [("human", "a secret"), ("ai", "ok")]

    async def test_function_selects_messages(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        asked: list[str] = []

        def human(message: BaseMessage) -> bool:
            asked.append(message.type)
            return message.type == "human"

        own = [calls("look"), ToolMessage("found", tool_call_id="c1"), AIMessage("yes")]
        chain = with_scoped_memory(RunnableLambda(lambda _: own), client=client, remember=human)
        await ask(mode, chain, "a fact", config_of(user))
        assert remembered(client, user) == ["a fact"]
        assert asked == ["human", "ai", "tool", "ai"]

    async def test_function_can_select_tool_output(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        own = [calls("look"), ToolMessage("found", tool_call_id="c1")]
        chain = with_scoped_memory(
            RunnableLambda(lambda _: own), client=client, remember=lambda message: message.type == "tool"
        )
        await ask(mode, chain, "look", config_of(user))
        assert remembered(client, user) == ["found"]

    async def test_function_can_replace_text(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        chain = with_scoped_memory(
            constant(), client=client, remember=lambda message: message.text.replace("4711", "[number]")
        )
        await ask(mode, chain, "my card is 4711", config_of(user))
        assert remembered(client, user) == ["my card is [number]", "ok"]
        assert transcript_texts(client, user)[0] == ("human", "my card is 4711")

    async def test_function_can_pause(self, client: mem0.Memory, mode: str) -> None:
        user, paused = new_user(), [True]
        chain = with_scoped_memory(constant(), client=client, remember=lambda _: not paused[0])
        await ask(mode, chain, "off the record", config_of(user))
        paused[0] = False
        await ask(mode, chain, "on the record", config_of(user))
        assert remembered(client, user) == ["on the record", "ok"]


def _turn(text: str) -> list[tuple[str, str]]:
    return [("human", text), ("ai", f"re {text}")]


async def _streamed(way: str, chain: Runnable[Any, Any], given: Any, user: str) -> None:
    """Stream a graph. Its chunks are updates, which cannot be added up."""
    if way == "stream":
        assert list(chain.stream(given, config_of(user)))
    else:
        assert [part async for part in chain.astream(given, config_of(user))]
