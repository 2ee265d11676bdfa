"""with_scoped_memory(): every chain, every way to run it, and the memory of one user only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.config import merge_configs

from langchain_mem0_scoped import InputError, ScopedMemory, ScopeError, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import (
    WAYS,
    EventRecorder,
    Together,
    ask,
    config_of,
    not_saved,
    remembered,
    run,
    text_of,
    transcript,
    transcript_texts,
)
from tests.models import ScriptedModel, constant
from tests.support import MODES, label, new_user
from tests.worlds import WordEmbeddings

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{input}")]
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path_factory.mktemp("runnables") / "m.db")
    yield client
    client.close()


class TestChainsAndWaysToRun:
    @pytest.mark.parametrize("way", WAYS)
    async def test_prompt_model_and_parser(self, client: mem0.Memory, way: str) -> None:
        user = new_user()
        chain = with_scoped_memory(PROMPT | ScriptedModel() | StrOutputParser(), client=client)
        first = await run(way, chain, {"input": "I am Ann"}, config_of(user))
        second = await run(way, chain, {"input": "Who am I?"}, config_of(user))
        assert first == "I was given: Be brief. | I am Ann"
        assert second == f"I was given: Be brief. | I am Ann | {first} | Who am I?"
        turns = [("human", "I am Ann"), ("ai", first), ("human", "Who am I?"), ("ai", second)]
        assert transcript_texts(client, user) == turns
        assert remembered(client, user) == [text for _, text in turns]

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(
        "given",
        ["I am Ann", [HumanMessage("I am Ann")], [("human", "I am Ann")], [{"role": "user", "content": "I am Ann"}]],
        ids=["str", "message", "tuple", "dict"],
    )
    async def test_chat_model_alone(self, client: mem0.Memory, way: str, given: Any) -> None:
        user = new_user()
        chain = with_scoped_memory(ScriptedModel(), client=client)
        first = await run(way, chain, given, config_of(user))
        assert text_of(first) == "I was given: I am Ann"
        await run(way, chain, "Who am I?", config_of(user))
        kept = transcript(client, user)
        assert [message.type for message in kept] == ["human", "ai", "human", "ai"]
        assert [type(message) for message in kept] == [HumanMessage, AIMessage, HumanMessage, AIMessage]
        assert kept[-1].text == "I was given: I am Ann | I was given: I am Ann | Who am I?"

    async def test_accepts_a_prompt_value(self, client: mem0.Memory) -> None:
        user = new_user()
        given = ChatPromptTemplate.from_messages([("human", "I am {name}")]).invoke({"name": "Ann"})
        with_scoped_memory(constant(), client=client).invoke(given, config_of(user))
        assert transcript_texts(client, user) == [("human", "I am Ann"), ("ai", "ok")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_accepts_a_single_message(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        heard = RunnableLambda(lambda messages: messages[-1].text.upper())
        chain = with_scoped_memory(heard, client=client)
        assert await ask(mode, chain, HumanMessage("hello"), config_of(user)) == "HELLO"
        assert transcript_texts(client, user) == [("human", "hello"), ("ai", "HELLO")]

    def test_completion_model(self, client: mem0.Memory) -> None:
        user = new_user()
        chain = with_scoped_memory(FakeListLLM(responses=["one", "two"]), client=client)
        assert [chain.invoke("go", config_of(user)) for _ in range(2)] == ["one", "two"]
        assert transcript_texts(client, user) == [("human", "go"), ("ai", "one"), ("human", "go"), ("ai", "two")]

    @pytest.mark.parametrize("turn", ["hi", HumanMessage("hi"), [HumanMessage("hi")], [("human", "hi")]])
    def test_dict_input_accepts_str_message_or_list(self, client: mem0.Memory, turn: Any) -> None:
        user = new_user()
        prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("past"), MessagesPlaceholder("question")])
        inner = RunnablePassthrough.assign(question=lambda given: convert_to_messages(_listed(given["question"])))
        chain = with_scoped_memory(
            inner | prompt | constant(), client=client, input_messages_key="question", history_messages_key="past"
        )
        chain.invoke({"question": turn}, config_of(user))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "ok")]

    @pytest.mark.parametrize(
        ("output", "named"),
        [
            ({"output": "ok"}, None),
            ({"answer": "ok", "context": ["text"]}, None),
            ({"messages": [AIMessage("ok")]}, None),
            ({"answer": "no", "result": "ok"}, "result"),
            ([AIMessage("ok")], None),
            (AIMessage("ok"), None),
            ("ok", None),
        ],
    )
    def test_finds_the_answer_in_the_output(self, client: mem0.Memory, output: Any, named: str | None) -> None:
        user = new_user()
        chain = with_scoped_memory(RunnableLambda(lambda _: output), client=client, output_messages_key=named)
        assert chain.invoke({"input": "hi"}, config_of(user)) == output
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "ok")]


def _listed(turn: Any) -> list[Any]:
    return turn if isinstance(turn, list) else [turn]


class TestStreaming:
    """Each chunk is handed on before the model makes the next one."""

    def chain(self, client: mem0.Memory, given_on: list[Any]) -> Runnable[Any, Any]:
        at: list[int] = []

        def look(number: int) -> None:
            at.append(number)
            assert len(given_on) == number

        model = ScriptedModel(says=lambda _: "one two three four", before=look)
        return with_scoped_memory(PROMPT | model | StrOutputParser(), client=client)

    def test_stream_hands_on_each_chunk(self, client: mem0.Memory) -> None:
        given_on: list[Any] = []
        for part in self.chain(client, given_on).stream({"input": "go"}, config_of(new_user())):
            given_on.append(part)
        assert [part for part in given_on if part] == ["one ", "two ", "three ", "four"]

    async def test_astream_hands_on_each_chunk(self, client: mem0.Memory) -> None:
        given_on: list[Any] = []
        async for part in self.chain(client, given_on).astream({"input": "go"}, config_of(new_user())):
            given_on.append(part)
        assert [part for part in given_on if part] == ["one ", "two ", "three ", "four"]

    async def test_astream_events_has_the_events_of_the_model(self, client: mem0.Memory) -> None:
        chain = with_scoped_memory(PROMPT | constant("one two"), client=client)
        events = [event async for event in chain.astream_events({"input": "go"}, config_of(new_user()), version="v2")]
        told = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
        assert "".join(told) == "one two"
        assert len(told) >= 2

    async def test_the_first_chunk_needs_no_valid_ids_to_be_refused(self, client: mem0.Memory) -> None:
        """A server validates by the call, before it begins a response with status 200."""
        chain = with_scoped_memory(constant(), client=client)
        configs: list[Any] = [config_of("a b"), config_of("u", ""), {}]
        for config in configs:
            for stream in (chain.stream, chain.astream):
                with pytest.raises(ScopeError):
                    stream("hi", config)
                with pytest.raises(InputError):
                    stream([], config_of("u"))


class TestUserAndSession:
    REFUSED = ("", "*", " ", "..", "a b", 7, None, b"u", ["u"], {"user_id": "u"}, "u\u200b", "x" * 257)

    @pytest.mark.parametrize("way", WAYS)
    async def test_memories_come_before_the_history(self, client: mem0.Memory, way: str) -> None:
        user, model = new_user(), constant()
        ScopedMemory(user, client=client).add("I am allergic to peanuts", session_id="s0", infer=False)
        chain = with_scoped_memory(model, client=client)
        for text in ("hello", "Am I allergic to peanuts?"):
            await run(way, chain, text, config_of(user))
        assert [message.type for message in model.seen[-1]] == ["human", "human", "ai", "human"]
        assert is_recall(model.seen[-1][0])

    @pytest.mark.parametrize("way", ["ainvoke", "astream"])
    async def test_memories_come_before_the_history_on_a_client_with_async_calls(
        self, client: EngineMemory, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """As on the hosted platform, where each call of a turn is a coroutine of its own."""

        async def each_by_itself(work: Any, awork: Any) -> Any:
            return await awork()

        monkeypatch.setattr(client.backend, "run_sync_or_async", each_by_itself)
        await self.test_memories_come_before_the_history(client, way)

    async def test_async_turn_uses_two_threads(self, client: EngineMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        """One reads the context, one saves the turn, whatever they read and write."""
        user = new_user()
        hops: list[Any] = []
        chain = with_scoped_memory(constant(), client=client)
        ScopedMemory(user, client=client).add("I am allergic to peanuts", session_id="s0", infer=False)
        to_thread = asyncio.to_thread

        async def counted(work: Any, *arguments: Any) -> Any:
            hops.append(work)
            return await to_thread(work, *arguments)

        monkeypatch.setattr(asyncio, "to_thread", counted)
        await chain.ainvoke("Am I allergic to peanuts?", config_of(user))
        assert len(hops) == 2

    @pytest.mark.parametrize("mode", MODES)
    async def test_erasure_between_history_and_recall_stops_the_turn(self, tmp_path: Path, mode: str) -> None:
        erasures: list[Any] = []

        def erase(_: list[str]) -> None:
            if erasures:
                erasures.pop()()

        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings(before=erase))
        memory, recorder = ScopedMemory("u_alice", client=client), EventRecorder()
        chain = with_scoped_memory(ScriptedModel(), client=client)
        await ask(mode, chain, "The safe opens with 4711", config_of("u_alice"))
        erasures.append(memory.delete_all)
        # The recall embeds the question: by then the history has been read.
        answer = await ask(mode, chain, "What opens the safe?", config_of("u_alice", callbacks=[recorder]))
        assert "4711" in answer.text
        assert recorder.events == [not_saved("BackendError")]
        assert transcript_texts(client, "u_alice") == []
        assert remembered(client, "u_alice") == []
        client.close()


class TestRunnableInterface:
    """What LangChain derives from any runnable works with this one."""

    def chain(self, client: mem0.Memory) -> Runnable[Any, Any]:
        return with_scoped_memory(PROMPT | ScriptedModel() | StrOutputParser(), client=client)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "made",
        [
            lambda chain: chain | RunnableLambda(lambda text: text),
            lambda chain: RunnableLambda(lambda given: given) | chain,
            lambda chain: chain.with_retry(),
            lambda chain: RunnableLambda(_refuse).with_fallbacks([chain]),
            lambda chain: chain.with_types(input_type=dict),
            lambda chain: chain.with_config(tags=["t"]),
            lambda chain: RunnablePassthrough.assign(said=chain) | RunnableLambda(lambda given: given["said"]),
        ],
        ids=["before", "after", "retry", "fallback", "types", "config", "assign"],
    )
    async def test_derived_runnables_save_the_turn_once(self, client: mem0.Memory, mode: str, made: Any) -> None:
        user = new_user()
        answer = await ask(mode, made(self.chain(client)), {"input": "hi"}, config_of(user))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", answer)]

    def test_retried_run_saves_its_answer_once(self, client: mem0.Memory) -> None:
        failures, user = [ConnectionError("gone")], new_user()
        model = ScriptedModel(says=lambda _: "ok", before=lambda _: _refuse(failures.pop()) if failures else None)
        chain = with_scoped_memory(PROMPT | model, client=client).with_retry(wait_exponential_jitter=False)
        assert chain.invoke({"input": "hi"}, config_of(user)).text == "ok"
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "ok")]

    def test_ids_can_be_bound_with_config(self, client: mem0.Memory) -> None:
        user = new_user()
        answer = self.chain(client).with_config(config_of(user)).invoke({"input": "hi"})
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", answer)]

    def test_call_options_reach_the_chain(self, client: mem0.Memory) -> None:
        heard: list[Any] = []

        def answer(_: Any, **options: Any) -> str:
            heard.append(options)
            return "ok"

        chain: Runnable[Any, str] = with_scoped_memory(RunnableLambda(answer), client=client)
        chain.bind(stop=["."]).invoke("hi", config_of(new_user()))
        assert heard == [{"stop": ["."]}]

    def test_schemas_are_the_chains_without_the_history(self, client: mem0.Memory) -> None:
        chain, bare = self.chain(client), PROMPT | ScriptedModel() | StrOutputParser()
        assert set(bare.get_input_jsonschema()["properties"]) == {"history", "input"}
        assert set(chain.get_input_jsonschema()["properties"]) == {"input"}
        assert chain.get_input_jsonschema()["required"] == ["input"]
        assert chain.get_output_jsonschema() == bare.get_output_jsonschema()
        assert (chain.InputType, chain.OutputType) == (bare.InputType, bare.OutputType)
        model = with_scoped_memory(ScriptedModel(), client=client)
        assert model.get_input_jsonschema() == ScriptedModel().get_input_jsonschema()

    def test_config_specs_have_each_id_once(self, client: mem0.Memory) -> None:
        field = ConfigurableField(id="system")
        inner = with_scoped_memory(
            ChatPromptTemplate.from_template("{input}").configurable_fields(metadata=field) | ScriptedModel(),
            client=client,
        )
        for chain in (inner, with_scoped_memory(inner, client=client), RunnableParallel(a=inner, b=self.chain(client))):
            assert sorted(spec.id for spec in chain.config_specs) == ["session_id", "system", "user_id"]

    def test_name_graph_and_prompts(self, client: mem0.Memory) -> None:
        chain = self.chain(client)
        assert chain.get_name() == "ScopedMemory"
        names = [node.name for node in chain.get_graph().nodes.values()]
        assert names[1:4] == ["ChatPromptTemplate", "ScriptedModel", "StrOutputParser"]
        assert chain.get_prompts() == [PROMPT]


def _refuse(given: Any) -> Any:
    raise given if isinstance(given, Exception) else ConnectionError("no")


class TestNestedAndConcurrent:
    @pytest.mark.parametrize("mode", MODES)
    async def test_inside_a_parallel_each_turn_is_saved(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        short, long = (with_scoped_memory(PROMPT | constant(text), client=client) for text in ("short", "long"))
        both = RunnableParallel(short=short, long=long)
        answer = await ask(mode, both, {"input": "hi"}, config_of(user))
        assert {key: message.text for key, message in answer.items()} == {"short": "short", "long": "long"}
        kept = transcript_texts(client, user)
        assert kept[0] == kept[2] == ("human", "hi")
        assert {kept[1], kept[3]} == {("ai", "short"), ("ai", "long")}

    @pytest.mark.parametrize("way", WAYS)
    async def test_nested_in_the_same_session_saves_the_turn_once(self, client: mem0.Memory, way: str) -> None:
        user = new_user()
        model = ScriptedModel()
        inner = with_scoped_memory(PROMPT | model | StrOutputParser(), client=client)
        outer = with_scoped_memory(inner | RunnableLambda(str.upper), client=client)
        answer = await run(way, outer, {"input": "I am Ann"}, config_of(user))
        assert answer == "I WAS GIVEN: BE BRIEF. | I AM ANN"
        assert transcript_texts(client, user) == [("human", "I am Ann"), ("ai", answer)]
        await run(way, outer, {"input": "again"}, config_of(user))
        assert len(transcript_texts(client, user)) == 4
        assert [str(message.text) for message in model.seen[-1]].count("I am Ann") == 1

    @pytest.mark.parametrize("mode", MODES)
    async def test_nested_call_with_its_own_config_saves_both_sessions(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        inner = with_scoped_memory(PROMPT | constant("inner"), client=client)
        search_other_sessions = inner.with_config({"configurable": {"session_id": "notes"}})
        noted = (
            RunnableLambda(lambda given: search_other_sessions.invoke(given, config_of(user, "notes")))
            | StrOutputParser()
        )
        outer = with_scoped_memory(noted, client=client)
        await ask(mode, outer, {"input": "hi"}, config_of(user))
        assert (
            transcript_texts(client, user)
            == transcript_texts(client, user, "notes")
            == [("human", "hi"), ("ai", "inner")]
        )

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("other", [{"session_id": "notes"}, {"user_id": "u_agent"}], ids=label)
    async def test_nested_for_another_session_or_user_saves_both(
        self, client: mem0.Memory, way: str, other: dict[str, str]
    ) -> None:
        """The outer chain's config is passed on, as LangChain passes it."""
        user = new_user()
        ids = {"user_id": user, "session_id": "s1", **{key: f"{user}{value}" for key, value in other.items()}}
        inner = with_scoped_memory(PROMPT | constant("inner") | StrOutputParser(), client=client)

        def call(given: Any, config: RunnableConfig) -> Any:
            return inner.invoke(given, merge_configs(config, {"configurable": ids}))

        outer = with_scoped_memory(RunnableLambda(call), client=client)
        await run(way, outer, {"input": "hi"}, config_of(user))
        assert transcript_texts(client, user) == transcript_texts(client, **ids) == [("human", "hi"), ("ai", "inner")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_three_levels_of_one_session_save_the_turn_once(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        chain = with_scoped_memory(PROMPT | constant("ok") | StrOutputParser(), client=client)
        for _ in range(2):
            chain = with_scoped_memory(chain, client=client)
        await ask(mode, chain, {"input": "hi"}, config_of(user))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "ok")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_session_of_an_outer_chain_is_left_to_it_across_another_session(
        self, client: mem0.Memory, mode: str
    ) -> None:
        user = new_user()

        def inside(session_id: str, inner: Runnable[Any, Any]) -> Runnable[Any, Any]:
            def call(given: Any, config: RunnableConfig) -> Any:
                return inner.invoke(given, merge_configs(config, {"configurable": {"session_id": session_id}}))

            return RunnableLambda(call)

        innermost = with_scoped_memory(PROMPT | constant("ok") | StrOutputParser(), client=client)
        notes = with_scoped_memory(inside("s1", innermost), client=client)
        outer = with_scoped_memory(inside("notes", notes), client=client)
        await ask(mode, outer, {"input": "hi"}, config_of(user))
        assert (
            transcript_texts(client, user) == transcript_texts(client, user, "notes") == [("human", "hi"), ("ai", "ok")]
        )

    def test_nested_with_another_client_saves_both(self, client: mem0.Memory, tmp_path: Path) -> None:
        user, other = new_user(), local_memory(tmp_path / "other.db")
        inner = with_scoped_memory(PROMPT | constant("inner") | StrOutputParser(), client=other)
        with_scoped_memory(inner, client=client).invoke({"input": "hi"}, config_of(user))
        assert transcript_texts(client, user) == transcript_texts(other, user) == [("human", "hi"), ("ai", "inner")]
        other.close()

    async def test_concurrent_turns_of_a_session_are_not_interleaved(self, client: mem0.Memory) -> None:
        user, several = new_user(), 4
        together = Together(several)
        said_back: Runnable[Any, str] = RunnableLambda(lambda given: f"re: {given['input']}")
        answer = said_back | RunnableLambda(together)
        chain = with_scoped_memory(answer, client=client)
        chain.batch([{"input": str(n)} for n in range(several)], config_of(user, max_concurrency=several))
        await chain.abatch([{"input": str(n)} for n in range(several)], config_of(user))
        kept = transcript_texts(client, user)
        assert len(kept) == 4 * several
        assert all(
            (human[0], ai) == ("human", ("ai", f"re: {human[1]}"))
            for human, ai in zip(kept[::2], kept[1::2], strict=True)
        )
