"""A wrapped graph that is interrupted and resumed: in every stream mode, and what is refused before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, PIIMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from langchain_mem0_scoped import InputError, ScopedMemory, ScopeError, local_memory, with_scoped_memory
from tests.agents import ask, calls, collected, look, remembered, transcript_texts
from tests.models import ScriptedModel
from tests.support import MODES, label, new_user

APPROVED: Final[Command[Any]] = Command(resume={"decisions": [{"type": "approve"}]})
STREAM_MODES: Final[list[Any]] = [
    *("values", "updates", "messages", "custom", "debug", "tasks", "checkpoints"),
    *(["messages"], ["custom", "messages"], ["values", "updates"]),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("resuming") / "m.db")
    yield client
    client.close()


def wrapped(chain: Runnable[Any, Any], client: mem0.Memory) -> Any:
    return with_scoped_memory(
        chain, client=client, recall=0, input_messages_key="messages", history_messages_key="messages"
    )


def config(user: str, thread: str | None = None, session: str = "s1") -> Any:
    return {"configurable": {"user_id": user, "session_id": session, "thread_id": thread or user}}


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def asking_graph() -> Any:
    """Return a graph that gives a draft before it asks."""
    builder = StateGraph(MessagesState)
    builder.add_node("draft", lambda state: {"messages": [AIMessage("draft")]})
    builder.add_node("ask", lambda state: {"messages": [AIMessage(f"final: {interrupt('fine?')}")]})
    for one, other in ((START, "draft"), ("draft", "ask"), ("ask", END)):
        builder.add_edge(one, other)
    return builder.compile(checkpointer=InMemorySaver())


def _look_there(messages: list[BaseMessage]) -> str | AIMessage:
    return "It is there" if messages[-1].type == "tool" else calls("look", where="drawer")


def approved_agent(*middleware: Any) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel(says=_look_there)
    approves = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    return create_agent(model, [look], middleware=[approves, *middleware], checkpointer=InMemorySaver()), model


class TestStored:
    @pytest.mark.parametrize("form", [{}, {"subgraphs": True}, {"version": "v2"}], ids=label)
    async def test_an_interrupted_turn_in_every_stream_mode(self, client: mem0.Memory, form: dict[str, Any]) -> None:
        wrong: dict[str, Any] = {}
        chain = wrapped(asking_graph(), client)
        for number, mode in enumerate(STREAM_MODES):
            user = new_user()
            stored = []
            given: Any
            for given in (human("hi"), Command(resume="yes")):
                if number % 2:
                    await collected(chain.astream(given, config(user), stream_mode=mode, **form))
                else:
                    list(chain.stream(given, config(user), stream_mode=mode, **form))
                stored.append(transcript_texts(client, user))
            if stored != [[("human", "hi")], [("human", "hi"), ("ai", "draft"), ("ai", "final: yes")]]:
                wrong[str(mode)] = stored
            if remembered(client, user) != ["hi", "draft", "final: yes"]:
                wrong[f"{mode}, remembered"] = remembered(client, user)
        assert wrong == {}

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("built", ["sequence", "retry", "v2", "events"])
    async def test_around_the_graph(self, client: mem0.Memory, mode: str, built: str) -> None:
        user, graph = new_user(), asking_graph()
        chain = wrapped(
            {"sequence": RunnableLambda(lambda given: given) | graph, "retry": graph.with_retry()}.get(built, graph),
            client,
        )
        given: Any
        for given in (human("hi"), Command(resume="yes")):
            assert all(kind == "human" for kind, _ in transcript_texts(client, user))
            if built == "events":
                await collected(chain.astream_events(given, config(user), version="v2"))
            else:
                await ask(mode, chain, given, config(user), **({"version": "v2"} if built == "v2" else {}))
        assert transcript_texts(client, user) == [("human", "hi"), ("ai", "draft"), ("ai", "final: yes")]

    def test_none_resumes_a_graph_that_stops_before_a_step(self, client: mem0.Memory) -> None:
        builder = StateGraph(MessagesState)
        builder.add_node("answer", lambda state: {"messages": [AIMessage("answer")]})
        builder.add_edge(START, "answer")
        graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["answer"])
        for built in (graph, graph.with_config(tags=["t"]), graph.with_retry()):
            user, chain = new_user(), wrapped(built, client)
            chain.invoke(human("hi"), config(user))
            assert transcript_texts(client, user) == [("human", "hi")]
            chain.invoke(None, config(user))
            assert transcript_texts(client, user) == [("human", "hi"), ("ai", "answer")]

    async def test_a_rejected_call_and_an_edited_one(self, client: mem0.Memory) -> None:
        edited = {"type": "edit", "edited_action": {"name": "look", "args": {"where": "shelf"}}}
        for decision, tool_text in ((edited, "looked in shelf"), ({"type": "reject", "message": "No"}, "No")):
            user = new_user()
            chain = wrapped(approved_agent()[0], client)
            chain.invoke(human("Where?"), config(user))
            chain.invoke(Command(resume={"decisions": [decision]}), config(user))
            stored = transcript_texts(client, user)
            assert [kind for kind, _ in stored] == ["human", "ai", "tool", "ai"]
            assert stored[2][1].endswith(tool_text)

    async def test_beside_middlewares_that_change_the_message(self, client: mem0.Memory) -> None:
        """The answer is stored even if the agent's state no longer holds what the user said."""
        summarizer = FakeListChatModel(responses=["The user looks for it"] * 3)
        middlewares = (
            PIIMiddleware("email"),
            SummarizationMiddleware(model=summarizer, trigger=("messages", 3), keep=("messages", 1)),
        )
        for middleware in middlewares:
            user = new_user()
            chain = wrapped(approved_agent(middleware)[0], client)
            chain.invoke(human("Where is a@example.com?"), config(user))
            chain.invoke(APPROVED, config(user))
            stored = transcript_texts(client, user)
            assert stored[0] == ("human", "Where is a@example.com?")
            assert [one for one in stored if one[0] == "human"] == stored[:1]
            assert stored[-1] == ("ai", "It is there")


class TestRefused:
    @pytest.mark.parametrize("mode", MODES)
    async def test_after_an_erasure(self, client: mem0.Memory, mode: str) -> None:
        user, (agent, model) = new_user(), approved_agent()
        chain = wrapped(agent, client)
        await ask(mode, chain, human("My code is 4711"), config(user))
        ScopedMemory(user, client=client).delete_all()
        with pytest.raises(InputError, match="no turn to resume; begin one"):
            await ask(mode, chain, APPROVED, config(user))
        assert (len(model.seen), transcript_texts(client, user)) == (1, [])

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_thread_of_another_user(self, client: mem0.Memory, mode: str) -> None:
        alice, bob, (agent, model) = new_user(), new_user(), approved_agent()
        chain = wrapped(agent, client)
        for user in (alice, bob):
            await ask(mode, chain, human(f"I am {user}"), config(user))
        for given in (APPROVED, None, human("And now?")):
            with pytest.raises(ScopeError, match="not one of this user's threads") as raised:
                await ask(mode, chain, given, config(bob, alice))
            assert alice not in str(raised.value)
        assert len(model.seen) == 2
        said = [("human", f"I am {bob}"), ("human", "And now?")]
        assert transcript_texts(client, bob) == said

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_thread_of_another_session_or_none(self, client: mem0.Memory, mode: str) -> None:
        user, (agent, model) = new_user(), approved_agent()
        chain = wrapped(agent, client)
        for session in ("monday", "tuesday"):
            await ask(mode, chain, human(f"I say this on {session}"), config(user, f"{user} {session}", session))
        for thread in (f"{user} monday", "of nobody"):
            with pytest.raises(InputError, match="no run of this session to resume in this thread"):
                await ask(mode, chain, APPROVED, config(user, thread, "tuesday"))
        without_thread = {"configurable": {"user_id": user, "session_id": "tuesday"}}
        with pytest.raises(InputError, match="no thread_id"):
            await ask(mode, chain, APPROVED, without_thread)
        assert len(model.seen) == 2
        assert transcript_texts(client, user, "tuesday") == [("human", "I say this on tuesday")]

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_run_that_has_ended(self, client: mem0.Memory, mode: str) -> None:
        user, (agent, model) = new_user(), approved_agent()
        chain = wrapped(agent, client)
        await ask(mode, chain, human("Where is it?"), config(user))
        await ask(mode, chain, APPROVED, config(user))
        stored = transcript_texts(client, user)
        for again in (APPROVED, None):
            with pytest.raises(InputError, match="has ended: there is nothing to resume"):
                await ask(mode, chain, again, config(user))
        assert transcript_texts(client, user) == stored
        assert [text for kind, text in stored if kind != "tool" and text] == ["Where is it?", "It is there"]
        assert remembered(client, user) == ["Where is it?", "It is there"]
        assert len(model.seen) == 2

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_chain_that_cannot_be_resumed(self, client: mem0.Memory, mode: str) -> None:
        user, model, called = new_user(), ScriptedModel(), list[Any]()
        plain: Any = create_agent(model, [look])
        step: Any = RunnableLambda(lambda given: called.append(given))
        chain: Any
        for chain in (plain, step, step | plain):
            with pytest.raises(InputError, match="cannot be resumed by a Command: it has no graph that was compiled"):
                await ask(mode, wrapped(chain, client), APPROVED, config(user))
        for chain in (plain, plain.with_config(tags=["t"]), plain.with_retry()):
            with pytest.raises(InputError, match="cannot be resumed by None"):
                await ask(mode, wrapped(chain, client), None, config(user))
        assert (model.seen, called, transcript_texts(client, user)) == ([], [], [])

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_command_with_messages_of_the_user(self, client: mem0.Memory, mode: str) -> None:
        user, (agent, model) = new_user(), approved_agent()
        chain = wrapped(agent, client)
        await ask(mode, chain, human("Where?"), config(user))
        more: Any = Command(resume=APPROVED.resume, update={"messages": [HumanMessage("And my keys?")]})
        with pytest.raises(InputError, match=r"answer the interrupt with Command\(resume=…\)"):
            await ask(mode, chain, more, config(user))
        assert len(model.seen) == 1
        await ask(mode, chain, APPROVED, config(user))
        assert transcript_texts(client, user)[-1] == ("ai", "It is there")
