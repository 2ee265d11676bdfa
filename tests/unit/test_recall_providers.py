"""A recall in every kind of prompt, formatted by the integrations of three providers: none refuses or drops it.

No request is sent: the payloads are what the integrations would send.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import mem0
import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, merge_message_runs
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI

from langchain_mem0_scoped import (
    HISTORY_CONFIG,
    ScopedMemory,
    ScopedMemoryMiddleware,
    history_factory,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import config_of
from tests.models import constant
from tests.support import new_user
from tests.worlds import WordEmbeddings

MEMORY: Final = "The safe opens with 4711"
ASKED: Final = "Which number opens the safe?"

SYSTEM: Final = ("system", "Be brief.")
EXAMPLES: Final = (("human", "One and one?"), ("ai", "Two."))
HISTORY: Final = MessagesPlaceholder("history")
INPUT: Final = ("human", "{input}")
FEW_SHOT: Final = FewShotChatMessagePromptTemplate(
    example_prompt=ChatPromptTemplate.from_messages([("human", "{q}"), ("ai", "{a}")]),
    examples=[{"q": "One and one?", "a": "Two."}],
)
NESTED: Final = ChatPromptTemplate.from_messages([SYSTEM, *EXAMPLES])

PROMPTS: Final[dict[str, list[Any]]] = {
    "system, history": [SYSTEM, HISTORY, INPUT],
    "system, system, history": [SYSTEM, ("system", "Be kind."), HISTORY, INPUT],
    "system, examples, history": [SYSTEM, *EXAMPLES, HISTORY, INPUT],
    "system, few shot, history": [SYSTEM, FEW_SHOT, HISTORY, INPUT],
    "nested prompt, history": [NESTED, HISTORY, INPUT],
    "examples, history": [*EXAMPLES, HISTORY, INPUT],
    "history": [HISTORY, INPUT],
    "history, examples": [SYSTEM, HISTORY, *EXAMPLES, INPUT],
    "history, system": [HISTORY, SYSTEM, INPUT],
    "system, history, system": [SYSTEM, HISTORY, ("system", "In French."), INPUT],
    "system, optional, history": [SYSTEM, MessagesPlaceholder("examples", optional=True), HISTORY, INPUT],
    "history after the question": [SYSTEM, INPUT, HISTORY],
}

INPUTS: Final[dict[str, Any]] = {
    "str": ASKED,
    "messages": [HumanMessage(ASKED)],
    "instructions": [SystemMessage("Be brief."), HumanMessage(ASKED)],
    "instructions and examples": [
        SystemMessage("Be brief."), HumanMessage("One and one?"), AIMessage("Two."), HumanMessage(ASKED)
    ],
    "system in the middle": [HumanMessage("Hello"), SystemMessage("In French."), HumanMessage(ASKED)],
    "system twice": [SystemMessage("Be brief."), HumanMessage("Hello"), SystemMessage("x"), HumanMessage(ASKED)],
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("providers") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture
def user(client: mem0.Memory) -> str:
    user = new_user()
    ScopedMemory(user, client=client).add(MEMORY, session_id="earlier", infer=False)
    return user


@pytest.fixture(scope="module")
def providers() -> dict[str, Callable[[list[BaseMessage]], Any]]:
    """What each integration sends as the conversation, beside its system instruction."""
    anthropic = ChatAnthropic(model="claude-sonnet-4-5", api_key="none")  # type: ignore[call-arg,arg-type]
    openai = ChatOpenAI(model="gpt-5", api_key="none")  # type: ignore[arg-type]
    responses = ChatOpenAI(model="gpt-5", api_key="none", use_responses_api=True)  # type: ignore[arg-type]
    gemini = ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="none")
    return {
        "anthropic": lambda messages: anthropic._get_request_payload(messages)["messages"],
        "openai": lambda messages: openai._get_request_payload(messages)["messages"],
        "openai responses": lambda messages: responses._get_request_payload(messages)["input"],
        "gemini": lambda messages: gemini._prepare_request(messages)["contents"],
    }


def failure(formats: Callable[[list[BaseMessage]], Any], messages: list[BaseMessage]) -> str | None:
    """What an integration says about these messages, an error or else a warning; None if it takes them."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            formats(messages)
        except ValueError as error:
            return repr(error)
    return str(warned[0].message) if warned else None


def check(seen: Sequence[list[BaseMessage]], providers: dict[str, Any], *, accepted: bool = True) -> None:
    """Each provider is given the recall before the question, and finds no fault that it would not find without."""
    for messages in seen:
        without = [message for message in messages if not is_recall(message)]
        assert len(without) == len(messages) - 1
        for name, formats in providers.items():
            found = failure(formats, messages)
            assert found == failure(formats, without), name
            if accepted:
                assert found is None, name
            if found is None:
                sent = str(formats(messages))
                assert sent.count(MEMORY) == 1, name
                assert ASKED in sent, name


def asked_twice(chain: Runnable[Any, Any], given: Any, user: str) -> None:
    """The second time there is a history."""
    for _ in range(2):
        chain.invoke(given, config_of(user))


class TestDictChains:
    @pytest.mark.parametrize("prompt", PROMPTS)
    @pytest.mark.parametrize("history", ["with_scoped_memory", "RunnableWithMessageHistory"])
    def test_prompt(self, client: mem0.Memory, user: str, providers: Any, prompt: str, history: str) -> None:
        model = constant()
        chain = ChatPromptTemplate.from_messages(PROMPTS[prompt]) | model
        asked_twice(remembering(history, chain, client), {"input": ASKED}, user)
        # With a system message after the history, providers refuse the prompt as soon as there is a history.
        early = "history, system" in prompt
        check(model.seen[1:] if early else model.seen, providers, accepted=not early)
        if prompt != "history after the question":
            for messages in model.seen:
                texts = [message.text for message in messages]
                assert next(position for position, text in enumerate(texts) if MEMORY in text) < len(texts) - 1

    def test_placeholder_that_takes_messages(self, client: mem0.Memory, user: str, providers: Any) -> None:
        model = constant()
        prompt = ChatPromptTemplate.from_messages([SYSTEM, *EXAMPLES, MessagesPlaceholder("messages")])
        chain = with_scoped_memory(prompt | model, client=client, history_messages_key="messages")
        for given in ("str", "messages"):
            asked_twice(chain, INPUTS[given], user)
        check(model.seen, providers)

    def test_prompt_that_a_function_builds(self, client: mem0.Memory, user: str, providers: Any) -> None:
        """Where the history goes cannot be known before the run."""
        model = constant()

        def build(given: dict[str, Any]) -> list[BaseMessage]:
            return [SystemMessage("x"), HumanMessage("1+1?"), AIMessage("2"), *given["history"], HumanMessage(ASKED)]

        asked_twice(with_scoped_memory(RunnableLambda(build) | model, client=client), {"input": ASKED}, user)
        check(model.seen, providers)


class TestChainsOfMessages:
    @pytest.mark.parametrize("given", INPUTS)
    def test_model(self, client: mem0.Memory, user: str, providers: Any, given: str) -> None:
        model = constant()
        asked_twice(with_scoped_memory(model, client=client), INPUTS[given], user)
        check(model.seen, providers, accepted="middle" not in given and "twice" not in given)

    def test_wrapped_agent(self, client: mem0.Memory, user: str, providers: Any) -> None:
        model = constant()
        chain = with_scoped_memory(
            create_agent(model, system_prompt="Be brief."),
            client=client,
            input_messages_key="messages",
            history_messages_key="messages",
        )
        asked_twice(chain, {"messages": [HumanMessage(ASKED)]}, user)
        check(model.seen, providers)

    def test_chain_inside_a_chain(self, client: mem0.Memory, user: str, providers: Any) -> None:
        model = constant()
        inner = with_scoped_memory(model, client=client, recall=0)
        asked_twice(with_scoped_memory(inner, client=client), ASKED, user)
        check(model.seen, providers)

    def test_history_that_begins_with_the_assistant(self, client: mem0.Memory, user: str, providers: Any) -> None:
        """Providers want a human message first: the recall is one."""
        model = constant()
        history = ScopedMemory(user, client=client).chat_history("s1", recall=0)
        history.add_messages([AIMessage("Hello, how can I help?")])
        asked_twice(with_scoped_memory(model, client=client), ASKED, user)
        check(model.seen, providers)
        assert [message.type for message in model.seen[0]] == ["human", "ai", "human"]


def test_agent_with_the_middleware(client: mem0.Memory, user: str, providers: Any) -> None:
    model = constant()
    agent: Any = create_agent(model, system_prompt="Be brief.", middleware=[ScopedMemoryMiddleware(client=client)])
    examples = [HumanMessage("One and one?"), AIMessage("Two.")]
    agent.invoke({"messages": [*examples, HumanMessage(ASKED)]}, context={"user_id": user})
    (messages,) = model.seen
    assert MEMORY in messages[0].text
    for formats in providers.values():
        assert failure(formats, messages) is None


@pytest.mark.parametrize("prompt", ["system, history", "system, examples, history", "history"])
def test_roles_alternate_after_merge_message_runs(client: mem0.Memory, user: str, prompt: str) -> None:
    """As the README says: for a provider that refuses two human messages in a row."""
    model = constant()
    merge: Any = merge_message_runs()
    chain = ChatPromptTemplate.from_messages(PROMPTS[prompt]) | merge | model
    asked_twice(with_scoped_memory(chain, client=client), {"input": ASKED}, user)
    for messages in model.seen:
        roles = [message.type for message in messages if message.type != "system"]
        assert roles == [("human", "ai")[position % 2] for position in range(len(roles))]
        assert sum(MEMORY in message.text for message in messages) == 1


def remembering(history: str, chain: Runnable[Any, Any], client: mem0.Memory) -> Runnable[Any, Any]:
    if history == "with_scoped_memory":
        return with_scoped_memory(chain, client=client)
    return RunnableWithMessageHistory(
        chain,
        history_factory(client),
        input_messages_key="input",
        history_messages_key="history",
        history_factory_config=HISTORY_CONFIG,
    )
