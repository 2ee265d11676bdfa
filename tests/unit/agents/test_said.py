"""What a user says in a run of an agent: every message once, as said, as an edit, and after a failure."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    before_agent,
    wrap_model_call,
)
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryMiddleware, ScopeError, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import FailingEmbeddings, agent, ask, calls, human, look, remembered, thread, transcript_texts
from tests.models import ScriptedModel, lines

ALICE: Any = {"user_id": "alice"}
APPROVE: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})


def texts(client: EngineMemory, session: str = "t1") -> list[str]:
    return [text for kind, text in transcript_texts(client, "alice", session) if kind != "tool" and text]


def approval() -> Any:
    return HumanInTheLoopMiddleware(interrupt_on={"look": True})


class TestTurns:
    async def test_all_messages_since_the_last_answer_are_said(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "Rice", "Bye", checkpointer=InMemorySaver())
        said: Any = {"messages": [HumanMessage("I am vegetarian"), HumanMessage("What can I eat?")]}
        await ask(mode, one, said, thread(), context=ALICE)
        await ask(mode, one, human("Thanks"), thread(), context=ALICE)
        expected = ["I am vegetarian", "What can I eat?", "Rice", "Thanks", "Bye"]
        assert remembered(client, "alice") == texts(client) == expected

    async def test_whole_conversation_without_a_checkpointer_adds_what_is_new(
        self, client: EngineMemory, mode: str
    ) -> None:
        one, _ = agent(client, "a1", "a2", "a3")
        sent: list[Any] = []
        for number in range(3):
            sent = [*sent, HumanMessage(f"q{number}")]
            sent = (await ask(mode, one, {"messages": sent}, thread(), context=ALICE))["messages"]
        assert remembered(client, "alice") == texts(client) == ["q0", "a1", "q1", "a2", "q2", "a3"]

    async def test_edited_message_of_a_thread_is_stored(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "Noted", "Noted again", "Same", checkpointer=InMemorySaver())
        for said in ("I live in Lima", "I moved to Quito", "I moved to Quito"):
            await ask(mode, one, {"messages": [HumanMessage(said, id="1")]}, thread(), context=ALICE)
        assert texts(client) == ["I live in Lima", "Noted", "I moved to Quito", "Noted again", "Same"]
        assert remembered(client, "alice") == ["I live in Lima", "Noted", "I moved to Quito", "Noted again"]

    async def test_front_end_that_counts_ids_anew_loses_nothing(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, *(f"a{number}" for number in range(3)))
        for said in ("Hi", "Bye", "Hi"):
            await ask(mode, one, {"messages": [HumanMessage(said, id="1")]}, thread(), context=ALICE)
        assert texts(client) == ["Hi", "a0", "Bye", "a1", "Hi", "a2"]
        assert remembered(client, "alice") == ["Hi", "a0", "Bye", "a1", "Hi", "a2"]

    async def test_answers_of_a_models_cache_are_stored_each_time(self, client: EngineMemory, mode: str) -> None:
        model = FakeListChatModel(responses=["pong"], cache=InMemoryCache())
        one: Any = create_agent(model, middleware=[ScopedMemoryMiddleware(client=client)])
        for _ in range(3):
            await ask(mode, one, {"messages": [HumanMessage("ping")]}, thread(), context=ALICE)
        assert texts(client) == ["ping", "pong"] * 3

    async def test_answers_with_one_id_are_stored_in_a_thread(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, AIMessage("a1", id="x"), AIMessage("a2", id="x"), checkpointer=InMemorySaver())
        for said in ("q1", "q2"):
            await ask(mode, one, human(said), thread(), context=ALICE)
        assert texts(client) == ["q1", "a1", "q2", "a2"]

    async def test_regenerated_answer_joins_the_turn(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "Tea", "Later", "Coffee", checkpointer=InMemorySaver())
        await ask(mode, one, human("I like black tea"), thread(), context=ALICE)
        before = next(state for state in one.get_state_history(thread()) if state.next == ("model",))
        await ask(mode, one, human("Thanks"), thread(), context=ALICE)
        await ask(mode, one, None, before.config, context=ALICE)
        assert texts(client) == ["I like black tea", "Tea", "Thanks", "Later", "Coffee"]
        assert remembered(client, "alice") == ["I like black tea", "Tea", "Thanks", "Later", "Coffee"]

    async def test_regenerating_without_a_transcript_remembers_words_once(
        self, client: EngineMemory, mode: str
    ) -> None:
        one, _ = agent(client, "Tea", "Coffee", checkpointer=InMemorySaver(), transcript=False)
        await ask(mode, one, human("I like black tea"), thread(), context=ALICE)
        before = next(state for state in one.get_state_history(thread()) if state.next == ("model",))
        await ask(mode, one, None, before.config, context=ALICE)
        assert remembered(client, "alice") == ["I like black tea", "Tea", "Coffee"]
        assert texts(client) == []

    async def test_message_edited_in_an_earlier_state_is_stored(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "Lima!", "Quito!", checkpointer=InMemorySaver())
        await ask(mode, one, human("I live in Lima"), thread(), context=ALICE)
        before = next(state for state in one.get_state_history(thread()) if state.next == ("model",))
        edited = HumanMessage("I moved to Quito", id=before.values["messages"][0].id)
        config = one.update_state(before.config, {"messages": [edited]})
        await ask(mode, one, None, config, context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["I live in Lima", "Lima!", "I moved to Quito", "Quito!"]

    async def test_message_added_to_a_thread_by_the_app_is_said(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "Hello", "Noted", checkpointer=InMemorySaver())
        await ask(mode, one, human("Hi"), thread(), context=ALICE)
        added: Any = {"messages": [HumanMessage("I keep bees")]}
        config = one.update_state(thread(), added, as_node="ScopedMemoryMiddleware.before_agent")
        await ask(mode, one, None, config, context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["Hi", "Hello", "I keep bees", "Noted"]


class TestUnanswered:
    @pytest.mark.parametrize("transcript", [True, False])
    async def test_words_of_a_failed_run_belong_to_the_next_turn(
        self, client: EngineMemory, mode: str, transcript: bool
    ) -> None:
        one, _ = agent(client, TimeoutError(), "Rice", checkpointer=InMemorySaver(), transcript=transcript)
        with pytest.raises(TimeoutError):
            await ask(mode, one, human("I am vegetarian"), thread(), context=ALICE)
        assert texts(client) == ["I am vegetarian"] * transcript
        assert remembered(client, "alice") == []
        await ask(mode, one, human("What can I eat?"), thread(), context=ALICE)
        assert remembered(client, "alice") == ["I am vegetarian", "What can I eat?", "Rice"]
        assert texts(client) == ["I am vegetarian", "What can I eat?", "Rice"] * transcript

    @pytest.mark.parametrize("transcript", [True, False])
    async def test_words_before_an_erasure_belong_to_no_later_turn(
        self, client: EngineMemory, mode: str, transcript: bool
    ) -> None:
        script = calls("look", where="x"), TimeoutError(), "Hello"
        one, _ = agent(
            client, *script, offers=[look], more=[approval()], checkpointer=InMemorySaver(), transcript=transcript
        )
        await ask(mode, one, human("My code is 4711"), thread(), context=ALICE)
        ScopedMemory("alice", client=client).delete_all()
        with pytest.raises(TimeoutError):
            await ask(mode, one, APPROVE, thread(), context=ALICE)
        await ask(mode, one, human("Hi"), thread(), context=ALICE)
        assert remembered(client, "alice") == ["Hi", "Hello"]
        assert texts(client) == ["Hi", "Hello"] * transcript

    async def test_without_a_checkpointer_the_transcript_keeps_them(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, TimeoutError(), "Rice")
        with pytest.raises(TimeoutError):
            await ask(mode, one, human("I am vegetarian"), thread(), context=ALICE)
        await ask(mode, one, human("What can I eat?"), thread(), context=ALICE)
        expected = ["I am vegetarian", "What can I eat?", "Rice"]
        assert remembered(client, "alice") == texts(client) == expected

    @pytest.mark.parametrize("saver", [InMemorySaver, lambda: None], ids=["checkpointer", "none"])
    async def test_retry_is_logged_once(self, client: EngineMemory, mode: str, saver: Any) -> None:
        one, _ = agent(client, TimeoutError(), TimeoutError(), "Rice", checkpointer=saver())
        said: Any = {"messages": [HumanMessage("I am vegetarian", id="h1")]}
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await ask(mode, one, said, thread(), context=ALICE)
        await ask(mode, one, said, thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["I am vegetarian", "Rice"]

    async def test_run_whose_tool_fails_logs_what_was_said(self, client: EngineMemory, mode: str) -> None:
        @tool
        def fail() -> str:
            """Fail."""
            raise TimeoutError

        one, _ = agent(client, calls("fail"), "Sorry", offers=[fail], checkpointer=InMemorySaver())
        with pytest.raises(TimeoutError):
            await ask(mode, one, human("I am vegetarian"), thread(), context=ALICE)
        assert transcript_texts(client, "alice", "t1") == [("human", "I am vegetarian")]
        await ask(mode, one, human("Go on"), thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["I am vegetarian", "Go on", "Sorry"]

    async def test_failed_run_that_is_resumed_is_one_turn(self, client: EngineMemory, mode: str) -> None:
        saver = InMemorySaver()
        one, _ = agent(client, calls("look", where="x"), TimeoutError(), offers=[look], checkpointer=saver)
        with pytest.raises(TimeoutError):
            await ask(mode, one, human("Where is my key?"), thread(), context=ALICE)
        # Another worker, another instance.
        other, _ = agent(client, "In the drawer", offers=[look], checkpointer=saver)
        await ask(mode, other, None, thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["Where is my key?", "In the drawer"]
        assert [kind for kind, _ in transcript_texts(client, "alice", "t1")] == ["human", "ai", "tool", "ai"]

    async def test_interrupted_run_is_resumed_by_another_worker(self, client: EngineMemory, mode: str) -> None:
        saver = InMemorySaver()
        one, _ = agent(client, calls("look", where="x"), offers=[look], more=[approval()], checkpointer=saver)
        await ask(mode, one, human("Where is my key?"), thread(), context=ALICE)
        assert texts(client) == ["Where is my key?"]
        assert remembered(client, "alice") == []
        other, _ = agent(client, "In the drawer", offers=[look], more=[approval()], checkpointer=saver)
        await ask(mode, other, APPROVE, thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["Where is my key?", "In the drawer"]

    async def test_message_that_comes_with_a_resume_is_said(self, client: EngineMemory, mode: str) -> None:
        script = calls("look", where="x"), "In the drawer"
        one, _ = agent(client, *script, offers=[look], more=[approval()], checkpointer=InMemorySaver())
        await ask(mode, one, human("Where is my key?"), thread(), context=ALICE)
        added: Any = {"messages": [HumanMessage("I am in a hurry")]}
        resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]}, update=added)
        await ask(mode, one, resume, thread(), context=ALICE)
        expected = ["Where is my key?", "I am in a hurry", "In the drawer"]
        assert remembered(client, "alice") == texts(client) == expected

    async def test_abandoned_interrupt_belongs_to_the_next_turn(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(
            client,
            calls("look", where="x"),
            "Never mind",
            offers=[look],
            more=[approval()],
            checkpointer=InMemorySaver(),
        )
        await ask(mode, one, human("I lost my key"), thread(), context=ALICE)
        await ask(mode, one, human("I found it"), thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["I lost my key", "I found it", "Never mind"]

    async def test_nothing_is_logged_that_no_model_was_given(self, client: EngineMemory, mode: str) -> None:
        blocking = PIIMiddleware("email", strategy="block")
        one, _ = agent(client, "ok", more=[blocking], checkpointer=InMemorySaver())
        with pytest.raises(Exception, match="email"):
            await ask(mode, one, human("Write to ann@example.com"), thread(), context=ALICE)
        assert texts(client) == []


class TestStopped:
    @pytest.mark.parametrize("stream_mode", ["updates", "values", "messages"])
    @pytest.mark.parametrize("saver", [InMemorySaver, lambda: None], ids=["checkpointer", "none"])
    def test_closed_stream(self, client: EngineMemory, stream_mode: Any, saver: Any) -> None:
        one, _ = agent(client, calls("look", where="x"), "a long answer", "Yes", offers=[look], checkpointer=saver())
        stream = one.stream(human("I keep bees"), thread(), context=ALICE, stream_mode=stream_mode)
        for part in stream:
            if "tool" in repr(part):
                break
        stream.close()
        assert texts(client) == ["I keep bees"]
        assert remembered(client, "alice") == []
        one.invoke(human("Do you know?"), thread(), context=ALICE)
        assert [text for text in texts(client) if "answer" not in text][:2] == ["I keep bees", "Do you know?"]
        assert remembered(client, "alice")[:2] == ["I keep bees", "Do you know?"]

    async def test_cancelled_task(self, client: EngineMemory) -> None:
        reached = asyncio.Event()

        @tool
        async def wait() -> str:
            """Wait."""
            reached.set()
            await asyncio.sleep(60)
            return "never"

        one, _ = agent(client, calls("wait"), "Yes", offers=[wait])
        task = asyncio.ensure_future(one.ainvoke(human("I keep bees"), thread(), context=ALICE))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert texts(client) == ["I keep bees"]
        await one.ainvoke(human("Do you know?"), thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["I keep bees", "Do you know?", "Yes"]

    async def test_closed_async_stream(self, client: EngineMemory) -> None:
        one, _ = agent(client, calls("look", where="x"), "Yes", offers=[look])
        stream = one.astream(human("I keep bees"), thread(), context=ALICE)
        async for part in stream:
            if "model" in part:
                break
        await stream.aclose()
        assert texts(client) == ["I keep bees"]


class TestRedaction:
    @pytest.mark.parametrize("order", ["before", "after"])
    @pytest.mark.parametrize("config", [thread(), None], ids=["thread", "no thread"])
    async def test_redacted_text_is_what_is_stored(
        self, client: EngineMemory, mode: str, order: str, config: Any
    ) -> None:
        memory = ScopedMemoryMiddleware(client=client)
        redacting = PIIMiddleware("email", strategy="redact")
        summarizing = SummarizationMiddleware(
            model=FakeListChatModel(responses=["a summary"]), trigger=("messages", 4), keep=("messages", 1)
        )
        pair = [redacting, memory] if order == "before" else [memory, redacting]
        script: list[Any] = [*(calls("look", str(number), where="x") for number in range(3)), "Done"]
        one: Any = create_agent(ScriptedModel(says=lines(*script)), [look], middleware=[*pair, summarizing])
        answer = await ask(mode, one, human("Write to ann@example.com"), config, context=ALICE)
        assert "ann@example.com" not in repr(answer)
        assert remembered(client, "alice") == ["Write to [REDACTED_EMAIL]", "Done"]
        if config:
            assert texts(client) == ["Write to [REDACTED_EMAIL]", "Done"]

    async def test_front_end_that_sends_the_first_text_again_does_not_undo_it(
        self, client: EngineMemory, mode: str
    ) -> None:
        redacting = PIIMiddleware("email", strategy="redact")
        one, _ = agent(client, "a1", "a2", "a3", more=[redacting], checkpointer=InMemorySaver())
        said = [HumanMessage("Write to ann@example.com", id="h1"), HumanMessage("Now", id="h2")]
        await ask(mode, one, {"messages": said[:1]}, thread(), context=ALICE)
        await ask(mode, one, {"messages": said}, thread(), context=ALICE)
        await ask(mode, one, {"messages": [*said, HumanMessage("Bye", id="h3")]}, thread(), context=ALICE)
        expected = ["Write to [REDACTED_EMAIL]", "a1", "Now", "a2", "Bye", "a3"]
        assert remembered(client, "alice") == texts(client) == expected

    def test_change_of_a_request_only_is_not_what_is_stored(self, client: EngineMemory) -> None:
        @wrap_model_call
        def quoting(request: Any, handler: Any) -> Any:
            quoted = [one.model_copy(update={"content": f"From a page: … {one.text}"}) for one in request.messages]
            return handler(request.override(messages=quoted))

        one, model = agent(client, "Rice", more=[quoting])
        one.invoke(human("What can I eat?"), thread(), context=ALICE)
        assert model.seen[0][-1].text == "From a page: … What can I eat?"
        assert remembered(client, "alice") == texts(client) == ["What can I eat?", "Rice"]

    async def test_summary_and_recall_are_nobodys_words(self, client: EngineMemory, mode: str) -> None:
        summary = HumanMessage("TOOLPOISON", additional_kwargs={"lc_source": "summarization"})
        one, _ = agent(client, "ok")
        await ask(mode, one, {"messages": [summary, HumanMessage("hello")]}, thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["hello", "ok"]

    async def test_message_of_a_middleware_is_not_said(self, client: EngineMemory, mode: str) -> None:
        class Nudging(AgentMiddleware[Any, Any]):
            def before_model(self, state: Any, runtime: Any) -> Any:
                is_first = len(state["messages"]) == 1
                return None if is_first else {"messages": [HumanMessage("Be quick")]}

        one, _ = agent(client, calls("look", where="x"), "ok", offers=[look], more=[Nudging()])
        await ask(mode, one, human("Where is my key?"), thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["Where is my key?", "ok"]


class TestAgentsThatEndEarly:
    @pytest.mark.parametrize("is_first", [True, False])
    async def test_agent_that_another_middleware_ends_at_once(
        self, client: EngineMemory, mode: str, is_first: bool
    ) -> None:
        @before_agent(can_jump_to=["end"])
        def guard(state: Any, runtime: Any) -> Any:
            stops = "tea" in state["messages"][-1].text
            return {"jump_to": "end", "messages": [AIMessage("I cannot help")]} if stops else None

        class Second(ScopedMemoryMiddleware):
            name = "second"

        ours = [ScopedMemoryMiddleware(client=client), Second(client=client, remember=False)]
        middleware: list[Any] = [*ours, guard] if is_first else [guard, *ours]
        model = ScriptedModel(says=lines("Hello", "Bye"))
        one = create_agent(model, middleware=middleware, checkpointer=InMemorySaver())
        for said in ("I like tea", "hi", "I like green tea", "bye"):
            await ask(mode, one, human(said), thread(), context=ALICE)
        no = "I cannot help"
        expected = ["I like tea", no, "hi", "Hello", "I like green tea", no, "bye", "Bye"]
        assert remembered(client, "alice") == texts(client) == expected

    async def test_blocked_turn_that_could_not_be_stored_belongs_to_the_next(self, tmp_path: Path, mode: str) -> None:
        @before_agent(can_jump_to=["end"])
        def guard(state: Any, runtime: Any) -> Any:
            stops = "tea" in state["messages"][-1].text
            return {"jump_to": "end", "messages": [AIMessage("I cannot help")]} if stops else None

        embeddings = FailingEmbeddings()
        client = local_memory(tmp_path / "failing.db", embeddings=embeddings)
        model = ScriptedModel(says=lines("Hello"))
        one = create_agent(
            model, middleware=[guard, ScopedMemoryMiddleware(client=client)], checkpointer=InMemorySaver()
        )
        embeddings.fail_writing = True
        await ask(mode, one, human("I like tea"), thread(), context=ALICE)
        embeddings.fail_writing = False
        await ask(mode, one, human("hi"), thread(), context=ALICE)
        assert texts(client) == ["I like tea", "I cannot help", "hi", "Hello"]
        assert {"I like tea", "hi", "Hello"} <= set(remembered(client, "alice"))
        client.close()

    async def test_conversation_that_ends_with_a_tools_result_is_not_said_again(
        self, client: EngineMemory, mode: str
    ) -> None:
        @tool(return_direct=True)
        def find(where: str) -> str:
            """Find a key."""
            return f"found in {where}"

        one, _ = agent(client, calls("find", where="a"), calls("find", where="b"), offers=[find])
        first = await ask(mode, one, human("Where is my key?"), thread(), context=ALICE)
        sent = [message.model_copy(update={"id": None}) for message in first["messages"]]
        await ask(mode, one, {"messages": [*sent, HumanMessage("And now?")]}, thread(), context=ALICE)
        assert remembered(client, "alice") == texts(client) == ["Where is my key?", "And now?"]


class TestSessions:
    @pytest.mark.parametrize("thread_id", [42, UUID(int=7)], ids=str)
    async def test_number_or_uuid_is_taken_as_text(self, client: EngineMemory, mode: str, thread_id: Any) -> None:
        one, _ = agent(client, "ok")
        await ask(mode, one, human("hello"), {"configurable": {"thread_id": thread_id}}, context=ALICE)
        assert texts(client, str(thread_id)) == ["hello", "ok"]
        assert {row["session_id"] for row in ScopedMemory("alice", client=client).get_all()} == {str(thread_id)}

    @pytest.mark.parametrize("thread_id", ["not a session", "", 1.5, True, ["t1"], "a\u200bb"], ids=ascii)
    async def test_other_thread_ids_are_refused_first(self, client: EngineMemory, mode: str, thread_id: Any) -> None:
        one, model = agent(client, "ok")
        with pytest.raises(ScopeError, match="thread_id"):
            await ask(mode, one, human("hello"), {"configurable": {"thread_id": thread_id}}, context=ALICE)
        assert model.seen == []

    async def test_without_a_thread_there_is_memory_only(self, client: EngineMemory, mode: str) -> None:
        one, _ = agent(client, "ok")
        await ask(mode, one, human("hello"), context=ALICE)
        memory = ScopedMemory("alice", client=client)
        assert [(row["memory"], row["session_id"]) for row in memory.get_all()] == [("ok", None), ("hello", None)]
        assert memory.scoped_client.transcript_store().sessions("alice") == []
