"""Our history inside LangChain's RunnableWithMessageHistory, in every shape in which people run it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_mem0_scoped import HISTORY_CONFIG, ScopedChatMessageHistory, ScopedMemory, ScopeError, history_factory
from tests.agents import Together, collected, config_of
from tests.chat import client_with_transcripts
from tests.models import ScriptedModel
from tests.support import new_user, texts_of

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You are kind."), MessagesPlaceholder("history"), MessagesPlaceholder("input")]
)
SHAPES = ("history key", "list key", "messages")
"""A prompt with a placeholder for the history; a dict in which history and input are one list; a bare list."""

MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


@pytest.fixture(scope="module", params=["embedded", "sql"])
def bound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with client_with_transcripts(request.param, tmp_path_factory.mktemp(request.param)) as (client, transcripts):
        yield {"client": client, "transcripts": transcripts}


class Chat:
    """A chain with a memory: `say(text, user)` in the shape and mode under test."""

    def __init__(
        self, shape: str, bound: dict[str, Any], chain: Runnable[Any, Any] | None = None, **options: Any
    ) -> None:
        self.shape = shape
        self.model = ScriptedModel(says=lambda messages: f"answer to {messages[-1].text}")
        keys: dict[str, Any] = {
            "history key": {"input_messages_key": "input", "history_messages_key": "history"},
            "list key": {"input_messages_key": "input"},
            "messages": {},
        }[shape]
        around: dict[str, Runnable[Any, Any]] = {
            "history key": PROMPT | self.model,
            "list key": RunnableLambda(lambda given: given["input"]) | self.model,
            "messages": self.model,
        }
        self.chain = RunnableWithMessageHistory(
            chain or around[shape], history_factory(**bound, **options), history_factory_config=HISTORY_CONFIG, **keys
        )

    def given(self, text: str) -> Any:
        message = [HumanMessage(text)]
        return message if self.shape == "messages" else {"input": message}

    def say(self, mode: str, text: str, user: str, session: str = "s1") -> None:
        given, config = self.given(text), config_of(user, session)
        if mode == "invoke":
            self.chain.invoke(given, config)
        elif mode == "ainvoke":
            asyncio.run(self.chain.ainvoke(given, config))
        elif mode == "stream":
            assert len(list(self.chain.stream(given, config))) > 1
        elif mode == "astream":
            assert len(asyncio.run(collected(self.chain.astream(given, config)))) > 1
        elif mode == "batch":
            self.chain.batch([given], config)
        else:
            asyncio.run(self.chain.abatch([given], config))


def log_of(user: str, bound: dict[str, Any], session: str = "s1") -> list[BaseMessage]:
    return ScopedChatMessageHistory(user, session, **bound, recall=0).messages


def said(user: str, bound: dict[str, Any], session: str = "s1") -> list[str]:
    return [message.text for message in log_of(user, bound, session)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
class TestEveryShape:
    def test_the_transcript_holds_each_turn_once_in_order(self, shape: str, mode: str, bound: dict[str, Any]) -> None:
        user, chat = new_user(), Chat(shape, bound)
        ScopedMemory(user, client=bound["client"]).add("something known from elsewhere", session_id="s0")
        for number in range(3):
            chat.say(mode, f"turn {number}", user)
        log = log_of(user, bound)
        assert [message.text for message in log] == [
            part for number in range(3) for part in (f"turn {number}", f"answer to turn {number}")
        ]
        assert [type(message) for message in log] == [HumanMessage, AIMessage] * 3
        known = texts_of(ScopedMemory(user, client=bound["client"]).get_all(session_id="s1"))
        assert sorted(known) == sorted(message.text for message in log)

    def test_the_model_sees_recall_transcript_and_turn(self, shape: str, mode: str, bound: dict[str, Any]) -> None:
        user, chat = new_user(), Chat(shape, bound)
        chat.say(mode, "my cat is called Tom", user, "s0")
        chat.say(mode, "first", user)
        chat.say(mode, "what is my cat called", user)
        seen = [message.text for message in chat.model.seen[-1] if message.text != "You are kind."]
        assert "my cat is called Tom" in seen[0]
        assert seen[1:] == ["first", "answer to first", "what is my cat called"]

    def test_another_user_is_told_nothing(self, shape: str, mode: str, bound: dict[str, Any]) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        chat = Chat(shape, bound)
        chat.say(mode, "my cat is called Tom", alice, "s0")
        for session in ("s0", "s1"):
            chat.say(mode, "what is my cat called", bob, session)
            assert not any("Tom" in message.text for message in chat.model.seen[-1])


@pytest.mark.parametrize("shape", SHAPES)
class TestManyAtOnce:
    def test_a_batch_of_50_users(self, shape: str, bound: dict[str, Any]) -> None:
        chat, users = Chat(shape, bound), [new_user() for _ in range(50)]
        for word in ("first", "second"):
            answers = chat.chain.batch([chat.given(f"{word} of {u}") for u in users], [config_of(u) for u in users])
            assert [answer.text for answer in answers] == [f"answer to {word} of {user}" for user in users]
        for user in users:
            assert said(user, bound) == [
                f"first of {user}",
                f"answer to first of {user}",
                f"second of {user}",
                f"answer to second of {user}",
            ]

    async def test_50_users_on_one_event_loop(self, shape: str, bound: dict[str, Any]) -> None:
        chat, users = Chat(shape, bound), [new_user() for _ in range(50)]
        await asyncio.gather(*(chat.chain.ainvoke(chat.given(f"I am {user}"), config_of(user)) for user in users))
        for user in users:
            assert said(user, bound) == [f"I am {user}", f"answer to I am {user}"]

    def test_two_turns_at_once_in_one_session(self, shape: str, bound: dict[str, Any]) -> None:
        user, meet = new_user(), Together(2)
        chat = Chat(shape, bound)
        chat.say("invoke", "before", user)
        # Both have read the history when either is answered.
        chat.model.before = meet
        chat.chain.batch([chat.given(f"turn {number}") for number in range(2)], [config_of(user), config_of(user)])
        log = said(user, bound)
        assert log[:2] == ["before", "answer to before"]
        assert sorted([tuple(log[2:4]), tuple(log[4:6])]) == [
            ("turn 0", "answer to turn 0"),
            ("turn 1", "answer to turn 1"),
        ]
        assert len(log) == 6


class TestAnswers:
    def test_a_parsed_answer_is_logged_as_the_assistants(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("history key", bound, PROMPT | ScriptedModel(says=lambda _: "plain text") | StrOutputParser())
        chat.say("stream", "hi", user)
        assert log_of(user, bound) == [HumanMessage("hi"), AIMessage("plain text")]

    def test_a_streamed_answer_is_logged_as_one_message(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("messages", bound)
        chat.say("stream", "hi", user)
        answer = log_of(user, bound)[1]
        assert type(answer) is AIMessage
        assert not isinstance(answer, AIMessageChunk)

    def test_an_agents_answer_repeats_nothing(self, bound: dict[str, Any]) -> None:
        """It answers with all it was given and then its own; ids tell what is known already."""
        user = new_user()

        def agent(given: dict[str, Any]) -> dict[str, Any]:
            number = len(given["messages"])
            call = AIMessage("", id=f"call{number}", tool_calls=[{"name": "f", "args": {}, "id": "c"}])
            tool = ToolMessage("data", tool_call_id="c", id=f"tool{number}")
            return {"messages": [*given["messages"], call, tool, AIMessage("done", id=f"done{number}")]}

        chain = RunnableWithMessageHistory(
            RunnableLambda(agent),
            history_factory(**bound),
            history_factory_config=HISTORY_CONFIG,
            input_messages_key="messages",
            output_messages_key="messages",
        )
        for number in range(3):
            chain.invoke({"messages": [HumanMessage(f"turn {number}", id=f"turn{number}")]}, config_of(user))
        assert said(user, bound) == [text for n in range(3) for text in (f"turn {n}", "", "data", "done")]
        assert "data" not in texts_of(ScopedMemory(user, client=bound["client"]).get_all())

    def test_a_failed_chain_and_an_abandoned_stream_log_nothing(self, bound: dict[str, Any]) -> None:
        user, chat = new_user(), Chat("messages", bound)

        def fail(_: int) -> None:
            raise RuntimeError("no answer")

        chat.model.before = fail
        with pytest.raises(RuntimeError):
            chat.say("invoke", "lost", user)
        chat.model.before = None
        stream = chat.chain.stream(chat.given("abandoned"), config_of(user))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert said(user, bound) == []

    def test_the_history_is_there_for_the_chain(self, bound: dict[str, Any]) -> None:
        """How a chain inside recalls by the query: RunnableWithMessageHistory puts its history into the config."""
        user = new_user()
        ScopedMemory(user, client=bound["client"]).add("the tea is green", session_id="s0")

        def answer(given: Any, config: Any) -> str:
            history = config["configurable"]["message_history"]
            return str(history.memory.search(given[-1].text)[0]["memory"])

        chat = Chat("messages", bound, RunnableLambda(answer), recall=0)
        assert chat.chain.invoke([HumanMessage("tea?")], config_of(user)) == "the tea is green"


class TestConfig:
    @pytest.mark.parametrize(
        "configurable", [{}, {"user_id": "u"}, {"session_id": "s"}, {"user_id": "u", "session_id": "s", "thread": 1}]
    )
    def test_both_fields_are_needed(self, bound: dict[str, Any], configurable: dict[str, Any]) -> None:
        chat = Chat("messages", bound)
        if len(configurable) < 2:
            with pytest.raises(ValueError, match="Missing keys"):
                chat.chain.invoke(chat.given("hi"), {"configurable": configurable})
        else:
            chat.chain.invoke(chat.given("hi"), {"configurable": configurable | {"user_id": new_user()}})

    @pytest.mark.parametrize("user", ["", None, "*", "a b", 7, " alice"])
    def test_a_user_that_is_none_is_refused(self, bound: dict[str, Any], user: Any) -> None:
        chat = Chat("messages", bound)
        with pytest.raises(ScopeError):
            chat.chain.invoke(chat.given("hi"), config_of(user))
        with pytest.raises(ScopeError):
            chat.chain.invoke(chat.given("hi"), config_of("alice", user))
        assert chat.model.seen == []

    def test_its_fields_are_told_apart_and_described(self, bound: dict[str, Any]) -> None:
        specs = {spec.id: spec for spec in Chat("messages", bound).chain.config_specs}
        assert {"user_id", "session_id"} <= specs.keys()
        assert all(spec.annotation is str and spec.is_shared for spec in HISTORY_CONFIG)

    def test_caps_and_what_is_remembered_reach_each_history(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("messages", bound, max_messages=1, remember=False)
        for number in range(3):
            chat.say("invoke", f"turn {number}", user)
        assert [message.text for message in chat.model.seen[-1]] == ["answer to turn 1", "turn 2"]
        assert len(said(user, bound)) == 6
        assert ScopedMemory(user, client=bound["client"]).count() == 0
        capped = Chat("messages", bound, max_tokens=1)
        capped.say("invoke", "alone", user)
        assert [message.text for message in capped.model.seen[-1]] == ["alone"]
