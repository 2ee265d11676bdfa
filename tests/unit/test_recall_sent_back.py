"""An app that sends back all messages of an agent sends back the recall: it is nobody's words, and is given once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import mem0
import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    SystemMessage,
    convert_to_messages,
    convert_to_openai_messages,
)

from langchain_mem0_scoped import (
    InputError,
    ScopedMemory,
    ScopedMemoryMiddleware,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import ask, config_of, remembered, transcript_texts
from tests.models import ScriptedModel
from tests.support import MODES, new_user
from tests.worlds import WordEmbeddings

MEMORY: Final = "my cat is called Tom"
KEYS: Final = {"input_messages_key": "messages", "history_messages_key": "messages"}

SentBack = Callable[[list[BaseMessage]], list[BaseMessage]]

SENT_BACK: Final[dict[str, SentBack]] = {
    "as they are": lambda messages: messages,
    "without ids": lambda messages: [message.model_copy(update={"id": None}) for message in messages],
    "as role and content": lambda messages: convert_to_messages(list(convert_to_openai_messages(messages))),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("recall") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture
def user(client: mem0.Memory) -> str:
    user = new_user()
    ScopedMemory(user, client=client).add(MEMORY, session_id="earlier", infer=False)
    return user


def numbered() -> ScriptedModel:
    model = ScriptedModel()
    model.says = lambda _: f"answer {len(model.seen)}"
    return model


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sent_back", SENT_BACK)
async def test_conversation_with_a_wrapped_agent(client: mem0.Memory, user: str, mode: str, sent_back: str) -> None:
    model = numbered()
    chain: Any = with_scoped_memory(create_agent(model), client=client, **KEYS)  # type: ignore[arg-type]
    messages: list[BaseMessage] = []
    asked = ["What is my cat called?", "And whose cat is it?", "Which cat?"]
    for text in asked:
        messages.append(HumanMessage(text))
        answer = await ask(mode, chain, {"messages": messages}, config_of(user))
        # The control: the app does get the recall.
        assert any(map(is_recall, answer["messages"]))
        messages = SENT_BACK[sent_back](answer["messages"])
    said = [("human", text) for text in asked]
    answers = [("ai", f"answer {number}") for number in (1, 2, 3)]
    assert transcript_texts(client, user) == [part for turn in zip(said, answers, strict=True) for part in turn]
    assert remembered(client, user) == [MEMORY, *(text for turn in zip(said, answers, strict=True) for _, text in turn)]
    for given in model.seen:
        assert sum(map(is_recall, given)) == 1
        texts = [message.text for message in given]
        assert len(set(texts)) == len(texts)


def test_a_recall_alone_is_refused(client: mem0.Memory, user: str) -> None:
    model = numbered()
    chain = with_scoped_memory(model, client=client)
    chain.invoke("What is my cat called?", config_of(user))
    recall = model.seen[0][0]
    assert is_recall(recall)
    for given in (recall, [recall], recall.text, [SystemMessage("Be brief."), recall]):
        with pytest.raises(InputError, match="no message of the user"):
            chain.invoke(given, config_of(user))
    assert len(model.seen) == 1


@pytest.mark.parametrize("recall", [0, 5])
def test_a_chain_inside_a_chain_passes_the_recall_on(client: mem0.Memory, user: str, recall: int) -> None:
    model = numbered()
    inner = with_scoped_memory(model, client=client, recall=recall)
    with_scoped_memory(inner, client=client).invoke("What is my cat called?", config_of(user))
    assert any(MEMORY in message.text for message in model.seen[0])
    assert transcript_texts(client, user) == [("human", "What is my cat called?"), ("ai", "answer 1")]


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_with_the_middleware_inside_a_chain(client: mem0.Memory, user: str, mode: str) -> None:
    """The chain stores the turn, once, and the recall that it has put into the agent's state is no part of it."""
    agent: Any = create_agent(numbered(), middleware=[ScopedMemoryMiddleware(client=client, recall=0)])
    chain: Any = with_scoped_memory(agent, client=client, **KEYS)  # type: ignore[arg-type]
    given = {"messages": [HumanMessage("What is my cat called?")]}
    await ask(mode, chain, given, config_of(user), context={"user_id": user})
    assert remembered(client, user) == [MEMORY, "What is my cat called?", "answer 1"]


def test_adding_what_a_history_returns(client: mem0.Memory, user: str) -> None:
    memory = ScopedMemory(user, client=client)
    history = memory.chat_history("s1")
    history.add_messages([HumanMessage("What is my cat called?")])
    messages = history.messages
    assert is_recall(messages[0])
    other = memory.chat_history("s2", remember=False)
    other.add_messages(messages)
    assert transcript_texts(client, user, "s2") == [("human", "What is my cat called?")]
    memory.add(messages, infer=False)
    assert remembered(client, user).count(MEMORY) == 1
    assert not any("<memories>" in text for text in remembered(client, user))
