"""The memory tools: no schema names a user, and forged arguments are ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import mem0
import pytest
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ValidationError

from langchain_mem0_scoped import (
    BackendError,
    InputError,
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopeError,
    create_memory_tools,
    local_memory,
)
from tests.agents import FailingEmbeddings, ask
from tests.models import constant
from tests.support import MODES, NOBODYS_ID, Spy, label, new_user, texts_of

NAMES = ["search_memory", "remember", "list_memories", "correct_memory", "forget_memory"]
ARGUMENTS = {
    "search_memory": {"query", "k"},
    "remember": {"text"},
    "list_memories": {"limit"},
    "correct_memory": {"memory_id", "text"},
    "forget_memory": {"memory_id"},
}
NO_SUCH = "error: this user has no memory of that id"
MALFORMED = ("", "7", "*", "..", "u_bob", "/", NOBODYS_ID[:-1], f"{NOBODYS_ID}\n", NOBODYS_ID.replace("-", ""), "%")


@pytest.fixture
def alice(client: mem0.Memory) -> ScopedMemory:
    return ScopedMemory(new_user("alice"), client=client)


@pytest.fixture
def bob(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user("bob"), client=client)
    memory.add("The safe opens with 4711", infer=False)
    return memory


def tools_of(memory: ScopedMemory) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in memory.tools()}


def memories_in(answer: str) -> list[str]:
    return [memory["memory"] for memory in json.loads(answer)]


class TestSchemas:
    def test_names(self) -> None:
        assert list(tools_of(ScopedMemory("u_alice"))) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_schema_has_no_user(self, name: str) -> None:
        tool = tools_of(ScopedMemory("u_secret_id"))[name]
        shown = convert_to_openai_tool(tool)
        assert shown["function"]["name"] == name
        assert shown["function"]["description"]
        assert set(shown["function"]["parameters"]["properties"]) == ARGUMENTS[name]
        assert isinstance(tool.tool_call_schema, type)
        assert issubclass(tool.tool_call_schema, BaseModel)
        schemas = [shown, tool.args, tool.get_input_jsonschema(), tool.tool_call_schema.model_json_schema()]
        text = json.dumps(schemas)
        for word in ("user_id", "u_secret_id", "session", "runtime", "client", "config", "kwargs", "arguments"):
            assert word not in text

    @pytest.mark.parametrize("name", NAMES)
    def test_every_argument_has_a_description(self, name: str) -> None:
        shown = convert_to_openai_tool(tools_of(ScopedMemory("u_alice"))[name])
        assert all(shape["description"] for shape in shown["function"]["parameters"]["properties"].values())

    @pytest.mark.parametrize("memory", [None, "u_alice", {"user_id": "u_alice"}, object(), ScopedMemory], ids=label)
    def test_object_without_a_scoped_client_raises(self, memory: Any) -> None:
        with pytest.raises(InputError, match=rf"takes a ScopedMemory, .* got {type(memory).__name__}$"):
            create_memory_tools(memory)

    def test_object_with_a_scoped_client_is_accepted(self, client: mem0.Memory) -> None:
        user = new_user()
        ScopedMemory(user, client=client).add("I live in Lisbon", infer=False)
        history = ScopedChatMessageHistory(user, "s1", client=client)
        for source in (history, ScopedMemory(user, client=client)):
            assert memories_in(
                {tool.name: tool for tool in create_memory_tools(source)}["list_memories"].invoke({})
            ) == ["I live in Lisbon"]

    def test_construction_does_no_io(self, client: mem0.Memory) -> None:
        with Spy(client) as spy:
            create_memory_tools(ScopedMemory("u_alice", client=client))
        assert spy.calls == []


@pytest.mark.parametrize("mode", MODES)
class TestForgedArguments:
    FORGED = ("user_id", "memory", "runtime", "session_id", "client", "filters", "self", "config", "run_id", "metadata")

    async def test_forged_arguments_are_ignored(self, alice: ScopedMemory, bob: ScopedMemory, mode: str) -> None:
        tools = tools_of(alice)
        forged: dict[str, Any] = dict.fromkeys(self.FORGED, bob.user_id)
        forged |= {"memory": bob, "filters": {"user_id": bob.user_id}, "metadata": {"user_id": bob.user_id}}
        assert memories_in(await ask(mode, tools["remember"], {"text": "I moved to Rome", **forged})) == [
            "I moved to Rome"
        ]
        found = memories_in(await ask(mode, tools["search_memory"], {"query": "the safe opens with 4711", **forged}))
        assert found in ([], ["I moved to Rome"])
        assert memories_in(await ask(mode, tools["list_memories"], forged)) == ["I moved to Rome"]
        theirs = bob.get_all()[0]["id"]
        change = {"memory_id": theirs, "text": "The safe opens with 0000", **forged}
        assert await ask(mode, tools["correct_memory"], change) == NO_SUCH
        assert await ask(mode, tools["forget_memory"], {"memory_id": theirs, **forged}) == NO_SUCH
        assert texts_of(bob.get_all()) == ["The safe opens with 4711"]
        assert texts_of(alice.get_all()) == ["I moved to Rome"]

    async def test_forged_tool_call_is_ignored(self, alice: ScopedMemory, bob: ScopedMemory, mode: str) -> None:
        call = {
            "name": "list_memories",
            "args": {"user_id": bob.user_id, "runtime": {"context": {"user_id": bob.user_id}}},
            "id": "c1",
            "type": "tool_call",
        }
        config = {"configurable": {"user_id": bob.user_id}}
        assert (await ask(mode, tools_of(alice)["list_memories"], call, config)).content == "[]"

    async def test_foreign_missing_and_malformed_ids_give_the_same_answer(
        self, alice: ScopedMemory, bob: ScopedMemory, mode: str
    ) -> None:
        theirs = bob.get_all()[0]["id"]
        gone = alice.add("soon gone", infer=False)[0]["id"]
        alice.delete(gone)
        tools = tools_of(alice)
        for memory_id in (theirs, theirs.upper(), gone, NOBODYS_ID, *MALFORMED):
            change = {"memory_id": memory_id, "text": "mine now"}
            assert await ask(mode, tools["correct_memory"], change) == NO_SUCH
            assert await ask(mode, tools["forget_memory"], {"memory_id": memory_id}) == NO_SUCH
        assert texts_of(bob.get_all()) == ["The safe opens with 4711"]

    async def test_id_of_another_type_finds_nothing(self, alice: ScopedMemory, mode: str) -> None:
        alice.add("I moved to Rome", infer=False)
        for memory_id in (7, None, [NOBODYS_ID], {"$ne": 1}, UUID(NOBODYS_ID)):
            answer = await ask(mode, tools_of(alice)["forget_memory"], {"memory_id": memory_id})
            assert answer == "error: memory_id must be a string that is not empty"
        assert texts_of(alice.get_all()) == ["I moved to Rome"]


@pytest.mark.parametrize("mode", MODES)
class TestFailures:
    async def test_failure_of_the_client_is_text_and_is_logged(
        self, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        embeddings = FailingEmbeddings()
        client = local_memory(tmp_path / "m.db", embeddings=embeddings)
        tools = tools_of(ScopedMemory("u_alice", client=client))
        await ask(mode, tools["remember"], {"text": "I live in Lisbon"})
        embeddings.fail_writing = embeddings.fail_searching = True
        for name, arguments in (("remember", {"text": "I moved"}), ("search_memory", {"query": "where"})):
            caplog.clear()
            answer = await ask(mode, tools[name], arguments)
            assert answer.startswith("error: the memory is unavailable at the moment; ")
            assert ("change" in answer) is (name == "remember")
            assert caplog.messages == [f"the memory tool {name} failed (BackendError)"]
            call = {"name": name, "args": arguments, "id": "c1", "type": "tool_call"}
            message = await ask(mode, tools[name], call)
            assert (message.content, message.status) == (answer, "error")
        client.close()
        for name, arguments in (
            ("list_memories", {}),
            ("correct_memory", {"memory_id": NOBODYS_ID, "text": "I moved"}),
            ("forget_memory", {"memory_id": NOBODYS_ID}),
        ):
            assert "unavailable" in await ask(mode, tools[name], arguments)

    async def test_log_has_the_status_and_the_code_of_the_provider(
        self, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = local_memory(tmp_path / "m.db")

        def fails(*_: Any) -> Any:
            raise BackendError("SECRET quota", status=429, code="insufficient_quota", retryable=True)

        monkeypatch.setattr(client.backend, "list", fails)
        answer = await ask(mode, tools_of(ScopedMemory("u_alice", client=client))["list_memories"], {})
        assert "SECRET" not in answer
        assert caplog.messages == [
            "the memory tool list_memories failed (BackendError, status 429, code insufficient_quota)"
        ]
        client.close()

    async def test_misconfigured_client_raises(self, tmp_path: Path, mode: str) -> None:
        client = local_memory(tmp_path / "m.db")
        for where in ("postgresql+asyncpg://localhost/x", "no url"):
            tools = tools_of(ScopedMemory("u_alice", client=client, transcripts=where))
            with pytest.raises(InputError):
                await ask(mode, tools["list_memories"], {})
        client.close()

    async def test_foreign_row_raises_and_is_not_reported_as_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        client = local_memory(tmp_path / "m.db")
        alice = ScopedMemory("u_alice", client=client)
        alice.add("I live in Lisbon")
        listed = client.backend.list
        # A store that returns another user's rows.
        monkeypatch.setattr(
            client.backend, "list", lambda request: [{**row, "user_id": "u_bob"} for row in listed(request)]
        )
        with pytest.raises(ScopeError):
            await ask(mode, tools_of(alice)["list_memories"], {})
        client.close()

    async def test_programming_error_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        """LangChain passes any validation error of a call to the tool, as if it were of the arguments."""
        client = local_memory(tmp_path / "m.db")

        class Elsewhere(BaseModel):
            number: int

        def fails(*_: Any) -> Any:
            return Elsewhere.model_validate({"number": "none"})

        monkeypatch.setattr(client.backend, "list", fails)
        monkeypatch.setattr(client.backend, "search", lambda _: [][0])
        tools = tools_of(ScopedMemory("u_alice", client=client))
        for name, arguments, error in (
            ("list_memories", {}, ValidationError),
            ("search_memory", {"query": "x"}, IndexError),
        ):
            with pytest.raises(error):
                await ask(mode, tools[name], arguments)
        client.close()

    async def test_remember_stores_the_text_without_extraction(self, tmp_path: Path, mode: str) -> None:
        model = constant('{"memory": [{"text": "something else"}]}')
        client = local_memory(tmp_path / "m.db", llm=model)
        tools = tools_of(ScopedMemory("u_alice", client=client))
        assert memories_in(await ask(mode, tools["remember"], {"text": "I live in Lisbon"})) == ["I live in Lisbon"]
        assert model.prompts == []
        client.close()
