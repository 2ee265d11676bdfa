"""The history inside LangChain's RunnableWithMessageHistory, in every shape and mode in which people run it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from sqlalchemy import create_engine, event

from langchain_mem0_scoped import HISTORY_CONFIG, ScopedChatMessageHistory, ScopedMemory, ScopeError, history_factory
from langchain_mem0_scoped.requests import search_request
from tests.agents import Together, collected, config_of
from tests.models import ScriptedModel
from tests.support import new_user, opened, texts_of

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You are kind."), MessagesPlaceholder("history"), MessagesPlaceholder("input")]
)
SHAPES = ("history key", "list key", "messages")
"""A prompt with a placeholder for the history; a dict in which history and input are one list; a bare list."""

MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A client that keeps transcripts itself."""
    with opened("embedded", tmp_path_factory.mktemp("embedded")) as client:
        yield {"client": client, "transcripts": None}


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A client whose transcripts are in a SQL database."""
    folder = tmp_path_factory.mktemp("separate")
    engine = create_engine(f"sqlite:///{folder / 'chats.db'}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    with opened("embedded", folder) as client:
        yield {"client": client, "transcripts": engine}
    engine.dispose()


@pytest.fixture(params=["embedded", "separate"])
def bound(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the two."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


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


def check_turns(shape: str, mode: str, bound: dict[str, Any]) -> None:
    """Three turns are stored once, in order; the model is given recall, transcript and turn; and no other user's."""
    alice, bob, chat = new_user("alice"), new_user("bob"), Chat(shape, bound)
    memory = ScopedMemory(alice, client=bound["client"])
    memory.add("my cat is called Tom", session_id="s0")
    for number in range(3):
        chat.say(mode, f"turn {number}: what is my cat called", alice)
    log = log_of(alice, bound)
    assert [message.text for message in log] == [
        text
        for n in range(3)
        for text in (f"turn {n}: what is my cat called", f"answer to turn {n}: what is my cat called")
    ]
    assert [type(message) for message in log] == [HumanMessage, AIMessage] * 3
    assert sorted(texts_of(memory.get_all(session_id="s1"))) == sorted(message.text for message in log)
    recalled, *rest = [message.text for message in chat.model.seen[-1] if message.text != "You are kind."]
    assert '"my cat is called Tom"' in recalled
    assert rest == [message.text for message in log[:-1]]
    for session in ("s0", "s1"):
        chat.say(mode, "what is my cat called", bob, session)
        assert [message.text for message in chat.model.seen[-1][-1:]] == ["what is my cat called"]
        assert not any("Tom" in message.text for message in chat.model.seen[-1])


@pytest.mark.parametrize("mode", MODES)
class TestTurns:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_in_every_shape_and_mode(self, shape: str, mode: str, embedded: dict[str, Any]) -> None:
        check_turns(shape, mode, embedded)

    def test_with_separate_transcripts_in_every_mode(self, mode: str, separate: dict[str, Any]) -> None:
        check_turns("history key", mode, separate)


class TestManyAtOnce:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_batch_of_50_users(self, shape: str, embedded: dict[str, Any]) -> None:
        check_batch(shape, embedded, 50)

    def test_a_batch_of_users_with_separate_transcripts(self, separate: dict[str, Any]) -> None:
        check_batch("messages", separate, 20)

    @pytest.mark.parametrize("shape", SHAPES)
    async def test_50_users_on_one_event_loop(self, shape: str, embedded: dict[str, Any]) -> None:
        await check_event_loop(shape, embedded, 50)

    async def test_users_on_one_event_loop_with_separate_transcripts(self, separate: dict[str, Any]) -> None:
        await check_event_loop("messages", separate, 20)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_two_concurrent_turns_of_one_session(self, shape: str, bound: dict[str, Any]) -> None:
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


def check_batch(shape: str, bound: dict[str, Any], number: int) -> None:
    chat, users = Chat(shape, bound), [new_user() for _ in range(number)]
    for word in ("first", "second"):
        answers = chat.chain.batch([chat.given(f"{word} of {u}") for u in users], [config_of(u) for u in users])
        assert [answer.text for answer in answers] == [f"answer to {word} of {user}" for user in users]
    for user in users:
        turns = [f"{word} of {user}" for word in ("first", "second")]
        assert said(user, bound) == [text for one in turns for text in (one, f"answer to {one}")]


async def check_event_loop(shape: str, bound: dict[str, Any], number: int) -> None:
    chat, users = Chat(shape, bound), [new_user() for _ in range(number)]
    await asyncio.gather(*(chat.chain.ainvoke(chat.given(f"I am {user}"), config_of(user)) for user in users))
    for user in users:
        assert said(user, bound) == [f"I am {user}", f"answer to I am {user}"]


class TestAnswers:
    def test_a_parsed_answer_is_stored_as_the_assistants(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("history key", bound, PROMPT | ScriptedModel(says=lambda _: "plain text") | StrOutputParser())
        chat.say("stream", "hi", user)
        assert log_of(user, bound) == [HumanMessage("hi"), AIMessage("plain text")]

    def test_a_streamed_answer_is_stored_as_one_message(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("messages", bound)
        chat.say("stream", "hi", user)
        answer = log_of(user, bound)[1]
        assert type(answer) is AIMessage
        assert not isinstance(answer, AIMessageChunk)

    def test_an_agents_answer_is_stored_without_what_it_repeats(self, bound: dict[str, Any]) -> None:
        """An agent returns its input messages before its own. Messages whose ids exist are not stored again."""
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

    def test_a_failed_chain_and_an_abandoned_stream_store_nothing(self, bound: dict[str, Any]) -> None:
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

    def test_the_chain_can_use_its_history(self, bound: dict[str, Any]) -> None:
        """RunnableWithMessageHistory puts the history into the config, so that a chain can search by its query."""
        user = new_user()
        ScopedMemory(user, client=bound["client"]).add("the tea is green", session_id="s0")

        def answer(given: Any, config: Any) -> str:
            history = config["configurable"]["message_history"]
            return str(history.scoped_client.search(search_request(given[-1].text))[0]["memory"])

        chat = Chat("messages", bound, RunnableLambda(answer), recall=0)
        assert chat.chain.invoke([HumanMessage("tea?")], config_of(user)) == "the tea is green"


class TestSameMessages:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_model_may_give_all_its_answers_one_id(self, shape: str, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat(shape, bound, RunnableLambda(lambda _: AIMessage("Sure", id="always")))
        for text in ("one", "two", "two"):
            chat.say("invoke", text, user)
        assert said(user, bound) == ["one", "Sure", "two", "Sure", "two", "Sure"]
        assert sorted(texts_of(ScopedMemory(user, client=bound["client"]).get_all())) == sorted(said(user, bound))

    @pytest.mark.parametrize("shape", SHAPES)
    def test_an_edited_message_keeps_its_id_and_is_stored(self, shape: str, bound: dict[str, Any]) -> None:
        user, chat = new_user(), Chat(shape, bound)
        for text in ("I live in Lima", "I moved to Quito"):
            given = [HumanMessage(text, id="1")]
            chat.chain.invoke(given if shape == "messages" else {"input": given}, config_of(user))
        assert said(user, bound)[::2] == ["I live in Lima", "I moved to Quito"]

    @pytest.mark.parametrize("with_ids", [True, False])
    def test_an_agent_that_repeats_what_it_was_given(self, with_ids: bool, bound: dict[str, Any]) -> None:
        """create_agent gives an id to every message without one, and returns all of them."""
        user = new_user()
        memory = ScopedMemory(user, client=bound["client"])
        memory.add("tea matters", session_id="s0")
        agent: Any = create_agent(ScriptedModel(says=lambda given: f"re {given[-1].text}"))
        chain = RunnableWithMessageHistory(
            agent,
            history_factory(**bound),
            history_factory_config=HISTORY_CONFIG,
            input_messages_key="messages",
            output_messages_key="messages",
        )
        for number, text in enumerate(("one", "two", "one", "three")):
            given = HumanMessage(text, id=str(number) if with_ids else None)
            chain.invoke({"messages": [given]}, config_of(user))
        expected = [part for text in ("one", "two", "one", "three") for part in (text, f"re {text}")]
        assert said(user, bound) == expected
        assert sorted(texts_of(memory.get_all(session_id="s1"))) == sorted(expected)

    def test_a_caller_that_sends_the_whole_conversation(self, bound: dict[str, Any]) -> None:
        user, chat, sent = new_user(), Chat("history key", bound), list[BaseMessage]()
        for text in ("one", "two", "three"):
            sent.append(HumanMessage(text))
            sent.append(AIMessage(chat.chain.invoke({"input": sent}, config_of(user)).text))
        assert said(user, bound) == ["one", "answer to one", "two", "answer to two", "three", "answer to three"]


class TestConfig:
    @pytest.mark.parametrize(
        "configurable", [{}, {"user_id": "u"}, {"session_id": "s"}, {"user_id": "u", "session_id": "s", "thread": 1}]
    )
    def test_both_ids_are_needed(self, bound: dict[str, Any], configurable: dict[str, Any]) -> None:
        chat = Chat("messages", bound)
        if len(configurable) < 2:
            with pytest.raises(ValueError, match="Missing keys"):
                chat.chain.invoke(chat.given("hi"), {"configurable": configurable})
        else:
            chat.chain.invoke(chat.given("hi"), {"configurable": configurable | {"user_id": new_user()}})

    @pytest.mark.parametrize("user", ["", None, "*", "a b", 7, " alice"])
    def test_invalid_ids_are_refused(self, bound: dict[str, Any], user: Any) -> None:
        chat = Chat("messages", bound)
        with pytest.raises(ScopeError):
            chat.chain.invoke(chat.given("hi"), config_of(user))
        with pytest.raises(ScopeError):
            chat.chain.invoke(chat.given("hi"), config_of("alice", user))
        assert chat.model.seen == []

    def test_the_ids_are_configurable_fields(self, bound: dict[str, Any]) -> None:
        specs = {spec.id: spec for spec in Chat("messages", bound).chain.config_specs}
        assert {"user_id", "session_id"} <= specs.keys()
        assert all(spec.annotation is str and spec.is_shared for spec in HISTORY_CONFIG)

    def test_options_reach_each_history(self, bound: dict[str, Any]) -> None:
        user = new_user()
        chat = Chat("messages", bound, max_messages=1, remember=False)
        for number in range(3):
            chat.say("invoke", f"turn {number}", user)
        assert [message.text for message in chat.model.seen[-1]] == ["turn 1", "answer to turn 1", "turn 2"]
        assert len(said(user, bound)) == 6
        assert ScopedMemory(user, client=bound["client"]).count() == 0
        capped = Chat("messages", bound, max_tokens=1)
        capped.say("invoke", "alone", user)
        assert [message.text for message in capped.model.seen[-1]] == ["turn 2", "answer to turn 2", "alone"]
