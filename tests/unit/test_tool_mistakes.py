"""Whatever a model passes to a memory tool, it gets a text that it can act on, within a cap; nothing is quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import mem0
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.tools import BaseTool
from pydantic import ValidationError

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.tools import MAX_RESULT, MAX_RESULT_TEXT
from tests.models import ScriptedModel, lines
from tests.support import NOBODYS_ID, new_user, texts_of
from tests.worlds import WordEmbeddings

SECRET: Final = "SECRETPIN 4711"

NO_TEXT: Final = (None, 7, 7.5, True, [SECRET], {SECRET: SECRET}, "", " \n\u3000", f"{SECRET}\x00", f"{SECRET}\ud83d")
NO_QUERY: Final = (*NO_TEXT, SECRET + "x" * 100_000)
NO_MEMORY_TEXT: Final = (*NO_TEXT, SECRET + "x" * 1_000_000)
NO_COUNT: Final[tuple[Any, ...]] = (
    SECRET,
    "three",
    "3 ",
    0,
    -1,
    51,
    1_000,
    10**400,
    2.5,
    float("nan"),
    float("inf"),
    True,
    [3],
    {},
)
NO_ID: Final[tuple[Any, ...]] = (
    None,
    7,
    True,
    [NOBODYS_ID],
    {},
    "",
    SECRET,
    NOBODYS_ID,
    f"{NOBODYS_ID}\u200b",
    f" {NOBODYS_ID}",
)


def mistakes() -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """Yield a tool's name, wrong arguments, and which of them are wrong."""
    yield from (("search_memory", {"query": query}, {"query"}) for query in NO_QUERY)
    yield from (("search_memory", {"query": SECRET, "k": k}, {"k"}) for k in NO_COUNT if k != "3 ")
    yield "search_memory", {}, {"query"}
    yield "search_memory", {"k": "three"}, {"query", "k"}
    yield "search_memory", {"q": SECRET, "args": [SECRET], "kwargs": {"query": SECRET}}, {"query"}
    yield from (("remember", {"text": text}, {"text"}) for text in NO_MEMORY_TEXT)
    yield "remember", {"memory": SECRET}, {"text"}
    yield from (("list_memories", {"limit": limit}, {"limit"}) for limit in NO_COUNT if limit != "3 ")
    yield from (("correct_memory", {"memory_id": NOBODYS_ID, "text": text}, {"text"}) for text in NO_MEMORY_TEXT)
    yield from (("correct_memory", {"memory_id": wrong, "text": SECRET}, {"memory_id"}) for wrong in NO_ID)
    yield "correct_memory", {"id": SECRET}, {"memory_id", "text"}
    yield from (("forget_memory", {"memory_id": wrong}, {"memory_id"}) for wrong in NO_ID)
    yield "forget_memory", {}, {"memory_id"}


MISTAKES: Final = list(mistakes())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("tools") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture
def memory(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user(), client=client)
    memory.add("I keep bees", infer=False)
    return memory


def tools_of(memory: ScopedMemory) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in memory.tools()}


def tool_call(name: str, arguments: dict[str, Any]) -> Any:
    return {"name": name, "args": dict(arguments), "id": "c1", "type": "tool_call"}


def check(answer: Any, wrong: set[str]) -> None:
    if isinstance(answer, ToolMessage):
        assert answer.status == "error"
        answer = answer.content
    assert answer.startswith("error: ")
    assert len(answer) < 200
    assert SECRET not in answer
    assert "Traceback" not in answer
    assert "pydantic" not in answer
    assert "has no memory of that id" in answer or all(f"{name} must " in answer for name in wrong)


class TestMistakes:
    def test_invoke_and_run(self, memory: ScopedMemory) -> None:
        tools = tools_of(memory)
        for name, arguments, wrong in MISTAKES:
            check(tools[name].invoke(dict(arguments)), wrong)
            check(tools[name].invoke(tool_call(name, arguments)), wrong)
            check(tools[name].run(dict(arguments)), wrong)
        assert texts_of(memory.get_all()) == ["I keep bees"]

    async def test_ainvoke_and_arun(self, memory: ScopedMemory) -> None:
        tools = tools_of(memory)
        for name, arguments, wrong in MISTAKES:
            check(await tools[name].ainvoke(dict(arguments)), wrong)
            check(await tools[name].ainvoke(tool_call(name, arguments)), wrong)
            check(await tools[name].arun(dict(arguments)), wrong)
        assert texts_of(memory.get_all()) == ["I keep bees"]

    @pytest.mark.parametrize("mode", ["sync", "async"])
    async def test_agent_goes_on(self, memory: ScopedMemory, mode: str) -> None:
        calls = [{**tool_call(name, given), "id": f"c{number}"} for number, (name, given, _) in enumerate(MISTAKES)]
        model = ScriptedModel(says=lines(AIMessage("", tool_calls=calls), "I could not do that"))
        agent = create_agent(model, memory.tools())
        given: Any = {"messages": [("human", "What do you know?")]}
        answer = agent.invoke(given) if mode == "sync" else await agent.ainvoke(given)
        assert answer["messages"][-1].text == "I could not do that"
        results = {message.tool_call_id: message for message in answer["messages"] if isinstance(message, ToolMessage)}
        for number, (_, _, wrong) in enumerate(MISTAKES):
            check(results[f"c{number}"], wrong)
        assert texts_of(memory.get_all()) == ["I keep bees"]

    @pytest.mark.parametrize("mode", ["sync", "async"])
    async def test_agent_executor_goes_on(self, memory: ScopedMemory, mode: str) -> None:
        classic = pytest.importorskip("langchain_classic.agents")
        calls = [{**tool_call(name, given), "id": f"c{number}"} for number, (name, given, _) in enumerate(MISTAKES)]
        model = ScriptedModel(says=lines(AIMessage("", tool_calls=calls), "I could not do that"))
        prompt = ChatPromptTemplate.from_messages([("human", "{input}"), ("placeholder", "{agent_scratchpad}")])
        executor = classic.AgentExecutor(
            agent=classic.create_tool_calling_agent(model, memory.tools(), prompt),
            tools=memory.tools(),
            return_intermediate_steps=True,
        )
        given = {"input": "What do you know?"}
        answer = executor.invoke(given) if mode == "sync" else await executor.ainvoke(given)
        assert answer["output"] == "I could not do that"
        for (_, observed), (_, _, wrong) in zip(answer["intermediate_steps"], MISTAKES, strict=True):
            check(observed, wrong)

    def test_agent_of_plain_text_goes_on(self, memory: ScopedMemory) -> None:
        """A ReAct agent passes one str for all arguments."""
        classic = pytest.importorskip("langchain_classic.agents")
        steps = [
            ("search_memory", "bees"),
            ("correct_memory", SECRET),
            ("forget_memory", SECRET),
            ("list_memories", ""),
        ]
        says = [f"Thought: x\nAction: {name}\nAction Input: {given}" for name, given in steps]
        model = ScriptedModel(says=lines(*says, "Final Answer: done"))
        template = "{tools} {tool_names} {input} {agent_scratchpad}"
        executor = classic.AgentExecutor(
            agent=classic.create_react_agent(model, memory.tools(), PromptTemplate.from_template(template)),
            tools=memory.tools(),
            return_intermediate_steps=True,
        )
        answer = executor.invoke({"input": "go"})
        assert answer["output"] == "done"
        found, correct, forget, listed = (observed for _, observed in answer["intermediate_steps"])
        assert "I keep bees" in found
        assert "I keep bees" in listed
        check(correct, {"text"})
        check(forget, {"memory_id"})

    def test_no_arguments_at_all(self, memory: ScopedMemory) -> None:
        for name, tool in tools_of(memory).items():
            for passed in (None, [SECRET], 7):
                if not (name == "list_memories" and passed is None):
                    check(tool.run(passed), set())  # type: ignore[arg-type]

    def test_a_validation_error_quotes_no_input(self, memory: ScopedMemory) -> None:
        """Some agents validate a call themselves, and show or log the error."""
        quoted = []
        for name, arguments, wrong in MISTAKES:
            schema: Any = tools_of(memory)[name].args_schema
            if not wrong.isdisjoint(arguments) and arguments.get("text") in ([SECRET], {SECRET: SECRET}):
                with pytest.raises(ValidationError) as raised:
                    schema.model_validate(arguments)
                quoted += [SECRET in str(raised.value), SECRET in repr(raised.value)]
        assert quoted
        assert not any(quoted)


NAMES: Final = st.sampled_from(["query", "k", "limit", "memory_id", "text", "user_id", "args", SECRET, "self", "only"])
LEAVES: Final = st.sampled_from([SECRET, NOBODYS_ID, f"{SECRET}\x00", "", "3", None, True, 0, 7, 10**30, -1.5, 2.0])
VALUES: Final = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)
ARGUMENTS: Final = st.dictionaries(NAMES, VALUES, max_size=4)


@given(name=st.sampled_from(["search_memory", "list_memories", "correct_memory", "forget_memory"]), arguments=ARGUMENTS)
def test_any_arguments_give_a_text(client: mem0.Memory, name: str, arguments: dict[str, Any]) -> None:
    tool = tools_of(ScopedMemory("u_nobody", client=client))[name]
    answers = [tool.invoke(dict(arguments)), tool.invoke(tool_call(name, arguments)).content, tool.run(dict(arguments))]
    assert answers == answers[:1] * 3
    assert answers[0] == "[]" or answers[0].startswith("error: ")
    assert "SECRET" not in answers[0]


class TestTolerated:
    def test_null_and_empty_are_the_default(self, memory: ScopedMemory) -> None:
        memory.add([f"fact {number}" for number in range(30)], infer=False)
        tools = tools_of(memory)
        for nothing in (None, ""):
            assert len(json.loads(tools["list_memories"].invoke({"limit": nothing}))) == 20
            assert len(json.loads(tools["search_memory"].invoke({"query": "fact", "k": nothing}))) == 5
        for three in (3, "3", 3.0, "3 "):
            assert len(json.loads(tools["list_memories"].invoke({"limit": three}))) == 3

    def test_extra_arguments_are_dropped(self, memory: ScopedMemory) -> None:
        extra = dict.fromkeys(("user_id", "args", "kwargs", "only", "config", "runtime", "callbacks", "self"), "u_bob")
        (found,) = json.loads(tools_of(memory)["search_memory"].invoke({"query": "bees", **extra}))
        assert found["memory"] == "I keep bees"

    async def test_agents_without_tool_calls_pass_one_str(self, memory: ScopedMemory) -> None:
        """As an AgentExecutor does: `tool.run(text)`."""
        tools = tools_of(memory)

        async def both(name: str, given: str) -> str:
            answer: str = tools[name].run(given)
            assert await tools[name].arun(given) == answer
            return answer

        assert "I keep bees" in await both("search_memory", "bees")
        assert "I keep bees" in await both("list_memories", "1")
        assert "I keep bees" in await both("list_memories", "")
        check(await both("list_memories", "all"), {"limit"})
        check(await both("search_memory", ""), {"query"})
        check(await both("correct_memory", NOBODYS_ID), {"text"})
        assert "I like tea" in tools["remember"].run("I like tea")
        (tea,) = (record for record in memory.get_all() if record["memory"] == "I like tea")
        assert tools["forget_memory"].run(tea["id"]) == "forgotten"


class TestCaps:
    LOG: Final = "GET /index.html 200\n" * 25_000

    def test_a_long_memory_is_cut_and_says_so(self, memory: ScopedMemory) -> None:
        tools = tools_of(memory)
        answers = [tools["remember"].invoke({"text": self.LOG})]
        (known,) = (record for record in memory.get_all() if record["memory"] != "I keep bees")
        answers.append(tools["correct_memory"].invoke({"memory_id": known["id"], "text": f"{self.LOG}."}))
        answers += [tools["search_memory"].invoke({"query": "GET index"}), tools["list_memories"].invoke({"limit": 1})]
        for answer in answers:
            found = json.loads(answer)[0]
            assert self.LOG.startswith(found["memory"])
            assert len(found["memory"]) <= MAX_RESULT_TEXT
            assert found["cut"] in ("\u2026 (cut; 500,000 characters)", "\u2026 (cut; 500,001 characters)")
            assert found["id"] == known["id"]
        # The memory itself is whole.
        assert memory.get(known["id"])["memory"] == f"{self.LOG}."

    @pytest.mark.parametrize("text", [LOG, "\x01" * 3_000, "🐈" * 3_000], ids=["log", "escapes", "emoji"])
    def test_a_result_has_a_cap_and_counts_what_is_left_out(self, memory: ScopedMemory, text: str) -> None:
        memory.add([f"item {number} {text[:3_000]}" for number in range(49)], infer=False)
        tools = tools_of(memory)
        answers = [
            tools["list_memories"].invoke({"limit": 50}),
            tools["search_memory"].invoke({"query": "item bees", "k": 50}),
        ]
        for answer in answers:
            assert len(answer) < MAX_RESULT + 500
            *found, note = json.loads(answer)
            assert len(found) >= 1
            assert len(found) + note["left_out"] == 50

    def test_short_memories_are_all_in(self, memory: ScopedMemory) -> None:
        memory.add([f"I like the number {number}" for number in range(49)], infer=False)
        assert len(json.loads(tools_of(memory)["list_memories"].invoke({"limit": 50}))) == 50
