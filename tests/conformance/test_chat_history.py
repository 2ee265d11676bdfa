"""Chat history on every kind of client: the transcript, recall from other sessions, LangChain's own runnable."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_mem0_scoped import HISTORY_CONFIG, ScopedChatMessageHistory, ScopedMemory, history_factory
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import ask, config_of, transcript
from tests.models import ScriptedModel
from tests.support import MODES, new_user, texts_of

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You are kind."), MessagesPlaceholder("history"), MessagesPlaceholder("input")]
)


def test_is_a_langchain_history(client: Any) -> None:
    history = ScopedChatMessageHistory(new_user(), client=client)
    assert isinstance(history, BaseChatMessageHistory)
    history.add_user_message("hi")
    history.add_ai_message("hello")
    history.add_message(SystemMessage("be brief"))
    assert str(history) == "Human: hi\nAI: hello\nSystem: be brief"
    assert history.session_id == "default"


@pytest.mark.parametrize("mode", MODES)
async def test_recalls_what_other_sessions_of_the_user_hold(client: Any, mode: str) -> None:
    user, other = new_user(), new_user()

    async def read(who: str, session_id: str) -> list[Any]:
        history = ScopedChatMessageHistory(who, session_id, client=client)
        return await history.aget_messages() if mode == "async" else history.messages

    async def add(who: str, session_id: str, text: str) -> None:
        history = ScopedChatMessageHistory(who, session_id, client=client)
        if mode == "async":
            await history.aadd_messages([HumanMessage(text)])
        else:
            history.add_messages([HumanMessage(text)])

    await add(user, "s1", "My cat is called Tom")
    await add(other, "s1", "My cat is called Eve")
    await add(user, "s2", "What is my cat called?")
    first, *rest = await read(user, "s2")
    assert type(first) is HumanMessage
    assert is_recall(first)
    assert '"My cat is called Tom"' in first.text
    assert "Eve" not in first.text
    assert "What is my cat called" not in first.text
    assert [message.text for message in rest] == ["What is my cat called?"]
    assert await read(new_user(), "s2") == []
    assert [message.text for message in (await read(user, "s1"))[1:]] == ["My cat is called Tom"]


@pytest.mark.parametrize("mode", MODES)
class TestRunnableWithMessageHistory:
    @pytest.fixture
    def model(self) -> ScriptedModel:
        return ScriptedModel(says=lambda messages: f"answer to {messages[-1].text}")

    @pytest.fixture
    def chain(self, client: Any, model: ScriptedModel) -> RunnableWithMessageHistory:
        return RunnableWithMessageHistory(
            PROMPT | model,
            history_factory(client=client),
            history_factory_config=HISTORY_CONFIG,
            input_messages_key="input",
            history_messages_key="history",
        )

    async def say(self, mode: str, chain: Any, text: str, user: str, session: str = "s1") -> None:
        await ask(mode, chain, {"input": [HumanMessage(text)]}, config_of(user, session))

    async def test_transcript_holds_each_turn_once_in_order(self, client: Any, mode: str, chain: Any) -> None:
        user = new_user()
        ScopedMemory(user, client=client).add("something known from elsewhere", session_id="s0")
        for number in range(3):
            await self.say(mode, chain, f"turn {number}", user)
        log = transcript(client, user)
        assert [message.text for message in log] == [
            part for number in range(3) for part in (f"turn {number}", f"answer to turn {number}")
        ]
        assert [type(message) for message in log] == [HumanMessage, AIMessage] * 3
        known = texts_of(ScopedMemory(user, client=client).get_all(session_id="s1"))
        assert sorted(known) == sorted(message.text for message in log)

    async def test_model_sees_recall_transcript_and_turn(self, mode: str, chain: Any, model: ScriptedModel) -> None:
        user = new_user()
        await self.say(mode, chain, "my cat is called Tom", user, "s0")
        await self.say(mode, chain, "first", user)
        await self.say(mode, chain, "what is my cat called", user)
        seen = [message.text for message in model.seen[-1] if message.text != "You are kind."]
        assert "my cat is called Tom" in seen[0]
        assert seen[1:] == ["first", "answer to first", "what is my cat called"]

    async def test_another_user_is_shown_nothing(self, mode: str, chain: Any, model: ScriptedModel) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        await self.say(mode, chain, "my cat is called Tom", alice, "s0")
        for session in ("s0", "s1"):
            await self.say(mode, chain, "what is my cat called", bob, session)
            assert not any("Tom" in message.text for message in model.seen[-1])
