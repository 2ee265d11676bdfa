"""Agents with ScopedMemoryMiddleware on every kind of client."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_mem0_scoped import ScopedMemory, ScopeError
from tests.agents import ALLERGY, PEANUTS, SEAT, agent, ask, calls, human, remembered, system, transcript_texts
from tests.support import MODES, NOBODYS_ID, new_user


class Users(NamedTuple):
    alice: str
    bob: str


@pytest.fixture
def users(client: Any) -> Users:
    """Two users of this test, each with memories from an earlier session."""
    users = Users(new_user("alice"), new_user("bob"))
    for user, known in zip(users, ([PEANUTS, SEAT], ["I am allergic to bee stings"]), strict=True):
        ScopedMemory(user, client=client).add(known, session_id="earlier", infer=False)
    return users


@pytest.mark.parametrize("mode", MODES)
class TestAgents:
    async def test_recalls_into_the_system_message_by_the_last_human_message(
        self, client: Any, users: Users, mode: str
    ) -> None:
        one, model = agent(client, "peanuts", recall=1, system_prompt="Be brief.")
        await ask(mode, one, human(ALLERGY), context={"user_id": users.alice})
        assert system(model).startswith("Be brief.\n\n")
        assert f'"{PEANUTS}"' in system(model)
        assert SEAT not in system(model)
        assert [message.type for message in model.seen[0]] == ["system", "human"]

    async def test_user_id_may_come_from_a_function_of_the_context(self, client: Any, users: Users, mode: str) -> None:
        one, model = agent(client, "ok", user_id=lambda context: context["claims"]["sub"])
        await ask(mode, one, human(ALLERGY), context={"claims": {"sub": users.alice}, "user_id": users.bob})
        assert PEANUTS in system(model)

    async def test_user_named_in_state_message_or_config_is_ignored(self, client: Any, users: Users, mode: str) -> None:
        one, model = agent(client, "ok", "ok")
        forged: dict[str, Any] = {
            "user_id": users.bob,
            "context": {"user_id": users.bob},
            "messages": [HumanMessage(ALLERGY, name=users.bob, additional_kwargs={"user_id": users.bob})],
        }
        config = {
            "configurable": {"user_id": users.bob, "context": {"user_id": users.bob}},
            "metadata": {"user_id": users.bob},
        }
        await ask(mode, one, forged, config, context={"user_id": users.alice})
        assert "bee stings" not in repr(model.seen)
        assert ALLERGY not in remembered(client, users.bob)
        with pytest.raises(ScopeError):
            await ask(mode, one, forged, config)

    async def test_tools_use_the_memory_of_the_runs_user(self, client: Any, mode: str) -> None:
        carol = new_user("carol")
        one, model = agent(client, calls("remember", text="I moved to Porto"), "ok", tools=True)
        await ask(mode, one, human("remember that"), context={"user_id": carol})
        assert "I moved to Porto" in remembered(client, carol)
        assert len(model.offered) == 5
        for schema in model.offered.values():
            shown = json.dumps(convert_to_openai_tool(schema))
            assert "user_id" not in shown
            assert "runtime" not in shown

    async def test_forged_tool_arguments_are_ignored(self, client: Any, users: Users, mode: str) -> None:
        theirs = ScopedMemory(users.alice, client=client).get_all()[0]["id"]
        forged = {
            "user_id": users.alice,
            "runtime": {"context": {"user_id": users.alice}},
            "context": {"user_id": users.alice},
            "memory": users.alice,
            "config": {"configurable": {"user_id": users.alice}},
            "state": {"user_id": users.alice},
        }
        one, _ = agent(
            client,
            calls("search_memory", "c1", query=PEANUTS, **forged),
            calls("list_memories", "c2", **forged),
            calls("forget_memory", "c3", memory_id=theirs, **forged),
            calls("correct_memory", "c4", memory_id=theirs, text="nothing", **forged),
            calls("forget_memory", "c5", memory_id=NOBODYS_ID),
            calls("remember", "c6", text="I am Bob", **forged),
            "done",
            tools=True,
            remember=False,
        )
        answer = await ask(mode, one, human("go"), context={"user_id": users.bob})
        told = [message.text for message in answer["messages"] if message.type == "tool"]
        assert "peanuts" not in "".join(told)
        assert json.loads(told[1])[0]["memory"] == "I am allergic to bee stings"
        assert told[2] == told[3] == told[4] == "error: this user has no memory of that id"
        assert remembered(client, users.alice) == [PEANUTS, SEAT]
        assert remembered(client, users.bob) == ["I am allergic to bee stings", "I am Bob"]

    async def test_turns_of_a_thread_are_logged_and_remembered(self, client: Any, mode: str) -> None:
        carol, session = new_user("carol"), new_user("session")
        config = {"configurable": {"thread_id": session}}
        one, _ = agent(client, TimeoutError(), "In the drawer", recall=0)
        with pytest.raises(TimeoutError):
            await ask(mode, one, human("I lost my key"), config, context={"user_id": carol})
        assert transcript_texts(client, carol, session) == [("human", "I lost my key")]
        assert remembered(client, carol) == []
        await ask(mode, one, human("Where is it?"), config, context={"user_id": carol})
        said = ["I lost my key", "Where is it?", "In the drawer"]
        assert [text for _, text in transcript_texts(client, carol, session)] == said
        assert sorted(remembered(client, carol)) == sorted(said)
        ScopedMemory(carol, client=client).delete_all()
        assert transcript_texts(client, carol, session) == []

    async def test_two_users_at_once_on_one_agent_see_only_their_own(
        self, client: Any, users: Users, mode: str
    ) -> None:
        def by_turn(messages: list[BaseMessage]) -> AIMessage:
            last = messages[-1]
            return calls("list_memories") if last.type == "human" else AIMessage(f"known: {last.text}")

        one, _ = agent(client, *[by_turn] * 40, tools=True, remember=False)
        for _ in range(5):
            if mode == "async":
                both: Any = await asyncio.gather(
                    one.ainvoke(human(ALLERGY), context={"user_id": users.alice}),
                    one.ainvoke(human(ALLERGY), context={"user_id": users.bob}),
                )
            else:
                with ThreadPoolExecutor(2) as pool:
                    runs = [
                        pool.submit(one.invoke, human(ALLERGY), context={"user_id": user})
                        for user in (users.alice, users.bob)
                    ]
                    both = [run.result() for run in runs]
            assert "peanuts" in both[0]["messages"][-1].text
            assert "bee stings" not in repr(both[0])
            assert "bee stings" in both[1]["messages"][-1].text
            assert "peanuts" not in repr(both[1])
