"""with_scoped_memory(): the shapes of inputs and outputs, and prompts that would not show the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mem0
import pytest
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser, StrOutputParser
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough
from langgraph.graph import START, MessagesState, StateGraph

from langchain_mem0_scoped import InputError, ScopedMemory, ScopeError, local_memory, with_scoped_memory
from tests.agents import WAYS, EventRecorder, ask, calls, config_of, not_saved, remembered, run, transcript_texts
from tests.models import ScriptedModel, constant
from tests.support import MODES, Spy, label, new_user

HISTORY, ASKED = MessagesPlaceholder("history"), ("human", "{input}")
PROMPT = ChatPromptTemplate.from_messages([HISTORY, ASKED])
OTHER_PLACEHOLDER = ChatPromptTemplate.from_messages([MessagesPlaceholder("past"), ASKED])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("shapes") / "m.db")
    yield client
    client.close()


def roles(client: mem0.Memory, user: str) -> list[tuple[str | None, str]]:
    return [(one["role"], one["memory"]) for one in reversed(ScopedMemory(user, client=client).get_all())]


class TestListAnswers:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(
        ("output", "text"),
        [
            (["a"], "a"),
            (["red", "green"], "red\ngreen"),
            (("red", "green"), "red\ngreen"),
            ({"answer": ["red", "green"]}, "red\ngreen"),
            ({"messages": ["a"]}, "a"),
        ],
        ids=label,
    )
    async def test_list_of_strs_is_one_answer(self, client: mem0.Memory, way: str, output: Any, text: str) -> None:
        user = new_user()
        chain = with_scoped_memory(RunnableLambda(lambda _: output), client=client)
        assert await run(way, chain, {"input": "hi"}, config_of(user)) == output
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", text)]
        assert roles(client, user) == [("user", "hi"), ("assistant", text)]

    @pytest.mark.parametrize("way", WAYS)
    async def test_list_output_parser(self, client: mem0.Memory, way: str) -> None:
        user = new_user()
        chain = with_scoped_memory(PROMPT | constant("red, green") | CommaSeparatedListOutputParser(), client=client)
        assert await run(way, chain, {"input": "Which colours?"}, config_of(user)) == ["red", "green"]
        assert transcript_texts(client, user) == [("human", "Which colours?"), ("ai", "red\ngreen")]

    @pytest.mark.parametrize("way", WAYS)
    async def test_json_parser_saves_the_last_chunk(self, client: mem0.Memory, way: str) -> None:
        user = new_user()
        chain = with_scoped_memory(PROMPT | constant('["yes it is", "b"]') | JsonOutputParser(), client=client)
        await run(way, chain, {"input": "Is it?"}, config_of(user))
        assert transcript_texts(client, user) == [("human", "Is it?"), ("ai", "yes it is\nb")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_messages_and_strs_are_answers(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        chain = with_scoped_memory(RunnableLambda(lambda _: [AIMessage("one"), "two", ("ai", "three")]), client=client)
        await ask(mode, chain, "hi", config_of(user))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "one"), ("ai", "two"), ("ai", "three")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_str_that_repeats_the_turn_is_not_an_answer(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()

        def agent(given: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [*given["history"], given["input"], AIMessage(f"re {given['input']}")]}

        chain = with_scoped_memory(RunnableLambda(agent), client=client)
        for text in ("one", "two"):
            await ask(mode, chain, {"input": text}, config_of(user))
        assert transcript_texts(client, user) == [
            ("human", "one"),
            ("ai", "re one"),
            ("human", "two"),
            ("ai", "re two"),
        ]

    @pytest.mark.parametrize("mode", MODES)
    async def test_chat_message_is_an_answer(self, client: mem0.Memory, mode: str) -> None:
        user = new_user()
        own: list[BaseMessage] = [calls("look"), ChatMessage(content="found", role="critic")]
        await ask(mode, with_scoped_memory(RunnableLambda(lambda _: own), client=client), "hi", config_of(user))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", ""), ("chat", "found")]

    async def test_human_message_after_the_turn_is_kept(self, client: mem0.Memory) -> None:
        def answer(_: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage("asked a colleague"), HumanMessage("it is 7", name="colleague")]}

        user = new_user()
        graph: Any = StateGraph(MessagesState)
        graph.add_node(answer).add_edge(START, "answer")
        chain = with_scoped_memory(
            graph.compile(), client=client, input_messages_key="messages", history_messages_key="messages"
        )
        await chain.ainvoke({"messages": [HumanMessage("how much?")]}, config_of(user))
        assert transcript_texts(client, user) == [
            ("human", "how much?"),
            ("ai", "asked a colleague"),
            ("human", "it is 7"),
        ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "output",
    [
        [],
        (),
        {"messages": []},
        HumanMessage("I am the user"),
        [HumanMessage("I am the user")],
        [("human", "I am the user"), ("user", "and so am I")],
        SystemMessage("Be brief."),
        {"messages": [HumanMessage("hi")]},
        {"messages": [HumanMessage("yes"), AIMessage("an earlier answer"), HumanMessage("hi")]},
        ChatPromptTemplate.from_template("a prompt and no model").invoke({}),
        PromptTemplate.from_template("a prompt and no model").invoke({}),
    ],
    ids=label,
)
async def test_output_without_an_answer_is_returned_and_reported(
    client: mem0.Memory, caplog: pytest.LogCaptureFixture, mode: str, output: Any
) -> None:
    user, recorder = new_user(), EventRecorder()
    chain = with_scoped_memory(RunnableLambda(lambda _: output), client=client)
    assert await ask(mode, chain, {"input": "hi"}, config_of(user, callbacks=[recorder])) == output
    assert recorder.events == [not_saved("InputError")]
    assert "not yet remembered: the output holds no answer" in caplog.text
    assert "I am the user" not in caplog.text
    assert transcript_texts(client, user) == [("human", "hi")]
    assert remembered(client, user) == []


class TestPromptWithoutHistory:
    NO_HISTORY = ChatPromptTemplate.from_messages([("system", "Be brief."), ASKED])

    @pytest.mark.parametrize(
        "chain",
        [
            NO_HISTORY,
            NO_HISTORY | constant(),
            NO_HISTORY | constant() | StrOutputParser(),
            (NO_HISTORY | constant()).with_config(tags=["t"]),
            (NO_HISTORY | constant()).with_retry(),
            NO_HISTORY.with_config(tags=["t"]) | constant(),
            NO_HISTORY.bind() | (constant() | StrOutputParser()),
            PromptTemplate.from_template("Answer: {input}") | constant(),
            ChatPromptTemplate.from_messages([("system", "You are {who}."), ASKED]).partial(who="Ann") | constant(),
        ],
    )
    @pytest.mark.parametrize("recall", [5, 0])
    def test_raises_at_construction(self, client: mem0.Memory, chain: Runnable[Any, Any], recall: int) -> None:
        with pytest.raises(
            InputError, match=r'no variable "history", .* add MessagesPlaceholder\("history"\)'
        ) as refused:
            with_scoped_memory(chain, client=client, recall=recall)
        assert "name the placeholder" not in str(refused.value)

    @pytest.mark.parametrize(
        ("prompt", "named"),
        [
            ([MessagesPlaceholder("past"), ASKED], 'history_messages_key="past"'),
            ([("placeholder", "{past}"), ASKED], 'history_messages_key="past"'),
            (
                [MessagesPlaceholder("past"), MessagesPlaceholder("notes"), ASKED],
                'history_messages_key="past" or history_messages_key="notes"',
            ),
            ([MessagesPlaceholder("past"), MessagesPlaceholder("input")], 'history_messages_key="past"'),
            ([("system", "{context}"), MessagesPlaceholder("input")], 'history_messages_key="input"'),
        ],
    )
    def test_error_names_the_placeholders_it_has(self, client: mem0.Memory, prompt: Any, named: str) -> None:
        with pytest.raises(InputError) as refused:
            with_scoped_memory(ChatPromptTemplate.from_messages(prompt) | constant(), client=client)
        assert str(refused.value).endswith(f"or name the placeholder it has: {named}")

    def test_prompt_that_may_show_it_elsewhere_is_accepted(self, client: mem0.Memory) -> None:
        inner = ChatPromptTemplate.from_messages([("placeholder", "{history}"), ASKED])
        sections = ChatPromptTemplate.from_messages(
            [("system", "{{#ctx}}{{history}}{{/ctx}}"), ("human", "{{input}}")], template_format="mustache"
        )
        wrapped = with_scoped_memory(constant(), client=client)
        for chain in (
            ChatPromptTemplate([inner]) | constant(),
            sections | constant(),
            self.NO_HISTORY | wrapped,
            self.NO_HISTORY | wrapped.with_fallbacks([wrapped]),
            self.NO_HISTORY | RunnableParallel(answer=wrapped),
        ):
            with_scoped_memory(chain, client=client)

    def test_error_names_the_configured_history_key(self, client: mem0.Memory) -> None:
        with pytest.raises(InputError, match=r'no variable "before".*history_messages_key="history"'):
            with_scoped_memory(PROMPT | constant(), client=client, history_messages_key="before")


class _CustomPrompt(BasePromptTemplate[Any]):
    """A prompt class that is not LangChain's."""

    input_variables: list[str] = ["history", "input"]  # noqa: RUF012  # a pydantic field

    def format(self, **given: Any) -> str:
        return f"{len(given['history'])} before {given['input']}"

    async def aformat(self, **given: Any) -> str:
        return self.format(**given)

    def format_prompt(self, **given: Any) -> Any:
        return PromptTemplate.from_template("{text}").invoke({"text": self.format(**given)})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "built",
    [
        lambda: PROMPT,
        lambda: ChatPromptTemplate.from_messages([MessagesPlaceholder("history", optional=True), ASKED]),
        lambda: ChatPromptTemplate.from_messages([("placeholder", "{history}"), ASKED]),
        lambda: PROMPT.partial(history=[]),
        lambda: PromptTemplate.from_template("{history}\n{input}"),
        lambda: PromptTemplate.from_template("{{history}} {{input}}", template_format="mustache"),
        lambda: _CustomPrompt(),
        lambda: RunnablePassthrough.assign(now=lambda _: "now") | PROMPT,
        lambda: RunnableLambda(lambda given: {**given, "past": given["history"]}) | OTHER_PLACEHOLDER,
        lambda: {"past": lambda given: given["history"], "input": lambda given: given["input"]} | OTHER_PLACEHOLDER,
    ],
)
async def test_prompt_with_history_is_accepted(
    client: mem0.Memory, mode: str, built: Callable[[], Runnable[Any, Any]]
) -> None:
    user, model = new_user(), ScriptedModel(says=lambda messages: f"answer {len(messages)}")
    chain = with_scoped_memory(built() | model | StrOutputParser(), client=client)
    for text in ("the first", "the second"):
        await ask(mode, chain, {"input": text}, config_of(user))
    assert [kind for kind, _ in transcript_texts(client, user)] == ["human", "ai"] * 2
    told = "".join(message.text for message in model.seen[-1])
    assert "the first" in told or "2 before" in told


@pytest.mark.parametrize("mode", MODES)
async def test_wrapped_chain_after_a_prompt_gets_the_history_itself(client: mem0.Memory, mode: str) -> None:
    user, model = new_user(), constant()
    inner = with_scoped_memory(model, client=client).with_config(tags=["inner"])
    chain = with_scoped_memory(ChatPromptTemplate.from_messages([ASKED]) | inner, client=client)
    for text in ("the first", "the second"):
        await ask(mode, chain, {"input": text}, config_of(user))
    assert [message.text for message in model.seen[-1]] == ["the first", "ok", "the second"]
    assert transcript_texts(client, user) == [
        ("human", "the first"),
        ("ai", "ok"),
        ("human", "the second"),
        ("ai", "ok"),
    ]


class TestInputOtherThanDict:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("given", ["hi", HumanMessage("hi"), [HumanMessage("hi")], [("human", "hi")]], ids=label)
    @pytest.mark.parametrize(
        "prompt",
        [
            PROMPT,
            # LangChain would put the repr of all messages in place of the question.
            ChatPromptTemplate.from_messages([("placeholder", "{history}"), ASKED]),
            ChatPromptTemplate.from_messages([("placeholder", "{history}")]),
        ],
        ids=["both", "optional", "no other"],
    )
    async def test_raises_if_the_prompt_needs_a_dict(
        self, client: mem0.Memory, way: str, given: Any, prompt: ChatPromptTemplate
    ) -> None:
        user, model = new_user(), ScriptedModel()
        chain = with_scoped_memory((prompt | model).with_config(tags=["t"]), client=client)
        with Spy(client) as spy, pytest.raises(InputError) as refused:
            await run(way, chain, given, config_of(user))
        assert str(refused.value) == "this chain takes a dict: invoke({'input': …})"
        assert (spy.calls, model.seen) == ([], [])

    def test_error_names_the_key_and_missing_ids_come_first(self, client: mem0.Memory) -> None:
        prompt = ChatPromptTemplate.from_messages([HISTORY, ("human", "{question}")])
        chain = with_scoped_memory(prompt | constant(), client=client, input_messages_key="question")
        with pytest.raises(InputError, match="'question': …"):
            chain.invoke("hi", config_of(new_user()))
        with pytest.raises(ScopeError):
            chain.invoke("hi")

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("place", ["history", "messages", "input"])
    @pytest.mark.parametrize("more", [[], [("system", "Be brief.")]], ids=["alone", "with instructions"])
    async def test_fills_a_prompt_of_one_placeholder(
        self, client: mem0.Memory, mode: str, place: str, more: Any
    ) -> None:
        user, model = new_user(), constant()
        prompt = ChatPromptTemplate.from_messages([*more, MessagesPlaceholder(place)])
        chain = with_scoped_memory(prompt | model, client=client)
        for given in ("the first", [HumanMessage("the second")]):
            await ask(mode, chain, given, config_of(user))
        assert [message.text for message in model.seen[-1]][-3:] == ["the first", "ok", "the second"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_dict_for_a_prompt_of_one_placeholder_raises_unless_it_is_the_history(
        self, client: mem0.Memory, mode: str
    ) -> None:
        user, model = new_user(), constant()
        chain = ChatPromptTemplate.from_messages([MessagesPlaceholder("input")]) | model
        given = {"input": [HumanMessage("hi")]}
        with pytest.raises(InputError, match=r'no variable "history".*history_messages_key="input"'):
            await ask(mode, with_scoped_memory(chain, client=client), given, config_of(user))
        assert model.seen == []
        named = with_scoped_memory(chain, client=client, history_messages_key="input")
        for _ in range(2):
            await ask(mode, named, given, config_of(user))
        assert [message.text for message in model.seen[-1]] == ["hi", "ok", "hi"]
