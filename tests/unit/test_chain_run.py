"""One run of a wrapped chain: what the model is given of a conversation, and what is logged of a run that failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.transcripts import EngineTranscripts
from tests.agents import WAYS, ask, config_of, remembered, run, transcript_texts
from tests.models import ScriptedModel, constant
from tests.support import MODES, new_user

PROMPT = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("runs") / "m.db")
    yield client
    client.close()


def said(client: mem0.Memory, user: str) -> list[str]:
    return [text for _, text in transcript_texts(client, user)]


class Failing:
    """Makes a ScriptedModel fail as often as it is told to, in a stream after the first chunk."""

    def __init__(self, way: str) -> None:
        self.failures = 0
        self.at = 1 if way in ("stream", "astream", "astream_events") else 0

    def __call__(self, number: int) -> None:
        if self.failures and number == self.at:
            self.failures -= 1
            raise ConnectionError("the model is gone")


def repeating(before: Failing) -> ScriptedModel:
    return ScriptedModel(says=lambda given: f"re {given[-1].text}", before=before)


class TestFailures:
    @pytest.mark.parametrize("way", WAYS)
    async def test_the_users_words_are_logged_and_remembered_with_the_next_turn(
        self, client: mem0.Memory, way: str
    ) -> None:
        user, failing = new_user(), Failing(way)
        chain = with_scoped_memory(repeating(failing), client=client)
        await run(way, chain, "one", config_of(user))
        failing.failures = 2
        for text in ("two", "three"):
            with pytest.raises(ConnectionError, match="the model is gone"):
                await run(way, chain, text, config_of(user))
        assert said(client, user) == ["one", "re one", "two", "three"]
        assert remembered(client, user) == ["one", "re one"]
        await run(way, chain, "four", config_of(user))
        assert said(client, user) == ["one", "re one", "two", "three", "four", "re four"]
        assert remembered(client, user) == said(client, user)

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("message_id", [None, "h1"])
    async def test_a_retry_is_the_same_turn(self, client: mem0.Memory, way: str, message_id: str | None) -> None:
        user, failing = new_user(), Failing(way)
        model = repeating(failing)
        chain = with_scoped_memory(model, client=client)
        await run(way, chain, "one", config_of(user))
        failing.failures = 2
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await run(way, chain, [HumanMessage("two", id=message_id)], config_of(user))
        await run(way, chain, [HumanMessage("two", id=message_id)], config_of(user))
        assert said(client, user) == ["one", "re one", "two", "re two"]
        assert remembered(client, user) == said(client, user)
        assert [[message.text for message in given] for given in model.seen[1:]] == [["one", "re one", "two"]] * 3

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_stream_that_is_closed_early_is_a_run_that_was_stopped(
        self, client: mem0.Memory, mode: str
    ) -> None:
        user, chain = new_user(), with_scoped_memory(PROMPT | constant("one two three"), client=client)
        for number in range(2):
            given = {"input": f"go {number}"}
            if mode == "sync":
                parts = chain.stream(given, config_of(user))
                next(parts)
                parts.close()  # type: ignore[attr-defined]
            else:
                aparts = chain.astream(given, config_of(user))
                await anext(aparts)
                await aparts.aclose()  # type: ignore[attr-defined]
        assert transcript_texts(client, user) == [("human", "go 0"), ("human", "go 1")]
        assert remembered(client, user) == []

    async def test_a_task_that_is_cancelled_is_a_run_that_was_stopped(self, client: mem0.Memory) -> None:
        async def answer(_: Any) -> AsyncIterator[str]:
            yield "one "
            reached.set()
            await asyncio.sleep(30)

        user, reached = new_user(), asyncio.Event()
        chain = with_scoped_memory(RunnableLambda(answer), client=client)

        async def stream() -> None:
            async for _ in chain.astream("streamed", config_of(user)):
                pass

        for call in (stream(), chain.ainvoke("whole", config_of(user))):
            reached.clear()
            task = asyncio.ensure_future(call)
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert said(client, user) == ["streamed", "whole"]

    def test_an_interrupt_by_the_keyboard_is_a_run_that_was_stopped(self, client: mem0.Memory) -> None:
        def interrupted(_: Any) -> str:
            raise KeyboardInterrupt

        user = new_user()
        with pytest.raises(KeyboardInterrupt):
            with_scoped_memory(RunnableLambda(interrupted), client=client).invoke("hi", config_of(user))
        assert said(client, user) == ["hi"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_after_an_erasure_nothing_is_logged(
        self, client: mem0.Memory, caplog: pytest.LogCaptureFixture, mode: str
    ) -> None:
        user = new_user()
        memory = ScopedMemory(user, client=client)

        def answer(_: Any) -> str:
            memory.delete_all()
            raise ConnectionError("the model is gone")

        memory.add("old")
        with pytest.raises(ConnectionError, match="the model is gone"):
            await ask(mode, with_scoped_memory(RunnableLambda(answer), client=client), "hunter2", config_of(user))
        assert said(client, user) == []
        assert "a run that failed or was stopped are not in the transcript (BackendError)" in caplog.text
        assert "hunter2" not in caplog.text

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_log_that_fails_does_not_hide_why_the_run_failed(
        self, client: mem0.Memory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        def full(*_: Any, **__: Any) -> Any:
            raise BackendError("the disk is full")

        def answer(_: Any) -> str:
            raise ConnectionError("the model is gone")

        monkeypatch.setattr(EngineTranscripts, "turn", full)
        with pytest.raises(ConnectionError, match="the model is gone"):
            await ask(mode, with_scoped_memory(RunnableLambda(answer), client=client), "hi", config_of(new_user()))
        assert "are not in the transcript (BackendError)" in caplog.text

    def test_a_failure_in_a_batch_leaves_the_others(self, client: mem0.Memory) -> None:
        def failing(given: Any) -> str:
            if given["input"] == "bad":
                raise ConnectionError("the model is gone")
            return "ok"

        users = [new_user(), new_user()]
        chain = with_scoped_memory(RunnableLambda(failing), client=client)
        given = [{"input": "bad"}, {"input": "good"}]
        answers = chain.batch(given, [config_of(user) for user in users], return_exceptions=True)
        assert isinstance(answers[0], ConnectionError)
        assert answers[1] == "ok"
        assert [said(client, user) for user in users] == [["bad"], ["good", "ok"]]

    def test_a_chain_inside_another_leaves_it_to_the_outer_one(self, client: mem0.Memory) -> None:
        def answer(_: Any) -> str:
            raise ConnectionError("the model is gone")

        user = new_user()
        inner = with_scoped_memory(RunnableLambda(answer), client=client)
        asked: Runnable[Any, Any] = RunnableLambda(lambda _: "a planner's words")
        with pytest.raises(ConnectionError):
            with_scoped_memory(asked | inner, client=client).invoke("the user's words", config_of(user))
        assert said(client, user) == ["the user's words"]


class FrontEnd:
    """A front end that keeps the conversation and sends all of it, or its last messages."""

    def __init__(self, client: mem0.Memory, shape: str, *, with_ids: bool, last: int | None, **options: Any) -> None:
        self.user, self.model, self.shape = new_user(), ScriptedModel(says=lambda given: f"re {given[-1].text}"), shape
        self.shown: list[Any] = []
        self.with_ids, self.last = with_ids, last
        placeholders = [MessagesPlaceholder("history"), MessagesPlaceholder("input")]
        chains: dict[str, tuple[Runnable[Any, Any], dict[str, Any]]] = {
            "messages": (self.model, {}),
            "two keys": (ChatPromptTemplate.from_messages(placeholders) | self.model, {}),
            "one key": (
                RunnableLambda(lambda given: given["messages"]) | self.model,
                {"input_messages_key": "messages", "history_messages_key": "messages"},
            ),
        }
        chain, keys = chains[shape]
        self.chain = with_scoped_memory(chain, client=client, recall=0, **keys, **options)

    async def say(self, mode: str, text: str, *instructions: SystemMessage) -> None:
        self.shown.append(HumanMessage(text, id=f"own{len(self.shown)}" if self.with_ids else None))
        sent = [*instructions, *(self.shown if self.last is None else self.shown[-self.last :])]
        given = {"messages": sent, "one key": {"messages": sent}, "two keys": {"input": sent}}[self.shape]
        answer = await ask(mode, self.chain, given, config_of(self.user))
        # A front end has ids of its own.
        self.shown.append(AIMessage(answer.text, id=f"own{len(self.shown)}" if self.with_ids else None))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["messages", "one key", "two keys"])
class TestWholeConversations:
    @pytest.mark.parametrize("with_ids", [True, False])
    @pytest.mark.parametrize("last", [None, 5, 2, 1])
    async def test_each_message_is_given_stored_and_remembered_once(
        self, client: mem0.Memory, mode: str, shape: str, with_ids: bool, last: int | None
    ) -> None:
        front_end = FrontEnd(client, shape, with_ids=with_ids, last=last)
        words = ["one", "two", "two", "one", "three"]
        for text in words:
            await front_end.say(mode, text)
        expected = [text for word in words for text in (word, f"re {word}")]
        assert said(client, front_end.user) == expected
        assert remembered(client, front_end.user) == expected
        assert [message.text for message in front_end.model.seen[-1]] == expected[:-1]

    async def test_a_cap_holds_for_what_is_sent_as_well(self, client: mem0.Memory, mode: str, shape: str) -> None:
        front_end = FrontEnd(client, shape, with_ids=False, last=None, max_messages=2)
        for text in ("one", "two", "three"):
            await front_end.say(mode, text)
        assert [message.text for message in front_end.model.seen[-1]] == ["two", "re two", "three"]
        assert len(said(client, front_end.user)) == 6

    async def test_an_edit_and_a_regenerated_answer(self, client: mem0.Memory, mode: str, shape: str) -> None:
        front_end = FrontEnd(client, shape, with_ids=False, last=None)
        for text in ("one", "two"):
            await front_end.say(mode, text)
        front_end.shown = front_end.shown[:2]
        await front_end.say(mode, "two")
        assert [message.text for message in front_end.model.seen[-1]] == ["one", "re one", "two"]
        assert said(client, front_end.user) == ["one", "re one", "two", "re two", "re two"]
        front_end.shown = front_end.shown[:2]
        await front_end.say(mode, "edited")
        assert said(client, front_end.user)[5:] == ["edited", "re edited"]
        assert remembered(client, front_end.user) == said(client, front_end.user)

    async def test_instructions_stay_at_the_head(self, client: mem0.Memory, mode: str, shape: str) -> None:
        front_end = FrontEnd(client, shape, with_ids=True, last=None)
        for text in ("one", "two"):
            await front_end.say(mode, text, SystemMessage("Be brief."))
        given = [message.text for message in front_end.model.seen[-1]]
        assert sorted(given) == sorted(["Be brief.", "one", "re one", "two"])
        assert (given[0] == "Be brief.") == (shape != "two keys")
        assert said(client, front_end.user) == ["one", "re one", "two", "re two"]


@pytest.mark.parametrize("mode", MODES)
async def test_what_the_transcript_lacks_of_a_conversation_is_stored(client: mem0.Memory, mode: str) -> None:
    user, chain = new_user(), with_scoped_memory(constant(), client=client)
    await ask(mode, chain, "one", config_of(user))
    given = [HumanMessage("one"), AIMessage("ok"), HumanMessage("elsewhere"), AIMessage("yes"), HumanMessage("two")]
    await ask(mode, chain, given, config_of(user))
    assert said(client, user) == ["one", "ok", "elsewhere", "yes", "two", "ok"]


@pytest.mark.parametrize("mode", MODES)
async def test_it_is_stored_once_where_the_run_fails_first(client: mem0.Memory, mode: str) -> None:
    user, failing = new_user(), Failing("invoke")
    chain = with_scoped_memory(repeating(failing), client=client)
    given = [HumanMessage("elsewhere"), AIMessage("yes"), HumanMessage("two")]
    failing.failures = 2
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await ask(mode, chain, given, config_of(user))
    await ask(mode, chain, given, config_of(user))
    assert said(client, user) == remembered(client, user) == ["elsewhere", "yes", "two", "re two"]


@pytest.mark.parametrize("around", ["with_retry", "with_fallbacks"])
async def test_a_chain_that_is_tried_again_stores_its_turn_once(client: mem0.Memory, around: str) -> None:
    user, failing = new_user(), Failing("invoke")
    chain = with_scoped_memory(repeating(failing), client=client)
    failing.failures = 1
    again = chain.with_retry(wait_exponential_jitter=False) if around == "with_retry" else chain.with_fallbacks([chain])
    assert (await again.ainvoke("one", config_of(user))).text == "re one"
    assert said(client, user) == remembered(client, user) == ["one", "re one"]


@pytest.mark.parametrize("mode", MODES)
async def test_an_id_with_another_text_is_another_message(client: mem0.Memory, mode: str) -> None:
    user = new_user()
    chain = with_scoped_memory(RunnableLambda(lambda _: AIMessage("Noted", id="always")), client=client)
    for text in ("I live in Lima", "I moved to Quito"):
        await ask(mode, chain, [HumanMessage(text, id="1")], config_of(user))
    expected = ["I live in Lima", "Noted", "I moved to Quito", "Noted"]
    assert said(client, user) == remembered(client, user) == expected


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_what_a_summary_keeps_of_the_history_is_not_stored_again(
    client: mem0.Memory, keep: int, with_ids: bool
) -> None:
    user = new_user()
    summarizing = SummarizationMiddleware(
        model=FakeListChatModel(responses=["a summary"]), trigger=("messages", 5), keep=("messages", keep)
    )
    agent: Any = create_agent(ScriptedModel(says=lambda given: f"re {given[-1].text}"), middleware=[summarizing])
    keys: Any = {"input_messages_key": "messages", "history_messages_key": "messages"}
    chain = with_scoped_memory(agent, client=client, recall=0, **keys)
    words = ["one", "two", "three", "four", "five"]
    for word in words:
        given = HumanMessage(word, id=f"{user} {word}" if with_ids else None)
        chain.invoke({"messages": [given]}, config_of(user))
    texts = said(client, user)
    assert [text for kind, text in transcript_texts(client, user) if kind == "human"] == words
    assert [text for text in texts if text.startswith("re ")] == [text for text in texts if text not in words]
    assert len(texts) == 2 * len(words)
