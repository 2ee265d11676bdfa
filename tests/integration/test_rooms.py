"""LangChain's rooms on clients that keep no conversations themselves: the tests of the embedded store, word for word.

mem0's local Qdrant, and the hosted platform under both of its scoping rules; the conversations lie in SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mem0
import pytest

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.transcripts.base import bind
from tests.agents import PEANUTS, SEAT
from tests.chat import close_transcripts
from tests.integration.conftest import every_message
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import MODES, new_user, opened, run_python
from tests.unit import test_chat_history as histories
from tests.unit import test_history_runnable as history_runnables
from tests.unit import test_middleware as agents
from tests.unit import test_retriever as retrievers
from tests.unit import test_chain as runnables
from tests.unit import test_tools as tools
from tests.unit.test_chat_history import talk  # noqa: F401
from tests.unit.test_retriever import alice, bob  # noqa: F401

CLIENTS = {"qdrant": None, **{f"hosted, {rule.value}": rule for rule in Scoping}}


@pytest.fixture(scope="module", params=[*CLIENTS.values()], ids=[*CLIENTS])
def bound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A client and where its conversations lie."""
    folder = tmp_path_factory.mktemp("rooms")
    with ExitStack() as stack:
        yield from _bound(request.param, folder, stack)


def _bound(rule: Scoping | None, folder: Path, stack: ExitStack) -> Iterator[dict[str, Any]]:
    if rule is None:
        client: Any = stack.enter_context(opened("qdrant", folder))
    else:
        platform = stack.enter_context(Platform(scoping=rule))
        platform.extract, platform.event_seconds = every_message, 0
        client = platform.client()
    url = f"sqlite:///{folder / 'chats.db'}"
    bind(client, url)
    yield {"client": client, "transcripts": url}
    close_transcripts(client)


@pytest.fixture(scope="module")
def client(bound: dict[str, Any]) -> mem0.Memory | mem0.MemoryClient:
    return bound["client"]


class TestRetriever:
    test_k_at_construction_and_at_invoke = retrievers.TestSearching.test_k_at_construction_and_at_invoke
    test_batches = retrievers.TestSearching.test_batches
    test_a_config_that_names_a_user = retrievers.TestTheUserStays.test_a_config_that_names_a_user_changes_nothing
    test_a_rag_chain = retrievers.TestInChains.test_a_rag_chain
    test_a_retriever_tool = retrievers.TestInChains.test_a_retriever_tool


class TestTools(tools.TestUsingThem):
    @pytest.fixture
    def alice(self, client: mem0.Memory) -> ScopedMemory:
        """Nothing is known of her yet."""
        return ScopedMemory(new_user("alice"), client=client)


class TestChatHistory:
    test_it_is_a_langchain_history = histories.TestTranscript.test_it_is_a_langchain_history
    test_one_message_with_what_other_sessions_told = histories.TestRecall.test_one_message_with_what_other_sessions_told


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("shape", ["history key"])
class TestHistoryRunnable:
    test_the_transcript = history_runnables.TestEveryShape.test_the_transcript_holds_each_turn_once_in_order
    test_what_the_model_sees = history_runnables.TestEveryShape.test_the_model_sees_recall_transcript_and_turn
    test_another_user_is_told_nothing = history_runnables.TestEveryShape.test_another_user_is_told_nothing


class TestWithScopedMemory(runnables.TestWhoseTurnItIs):
    test_a_rag_chain = runnables.TestEveryChainEveryWay.test_a_rag_chain
    test_a_batch_of_fifty_users_at_once = runnables.TestNestedAndSideBySide.test_a_batch_of_fifty_users_at_once


@pytest.mark.parametrize("mode", MODES)
class TestAgents:
    @pytest.fixture(params=[*CLIENTS.values()], ids=[*CLIENTS])
    def client(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        """One for each test, that knows something of both."""
        with ExitStack() as stack:
            for bound in _bound(request.param, tmp_path, stack):
                for user, known in (("alice", [PEANUTS, SEAT]), ("bob", ["I am allergic to bee stings"])):
                    ScopedMemory(user, client=bound["client"]).add(known, session_id="earlier", infer=False)
                yield bound["client"]

    test_recall = agents.TestRecall.test_by_the_last_human_message_in_the_requests_system_message
    test_whose_turn_it_is = agents.TestTheUser.test_may_be_read_otherwise
    test_in_state_message_or_config_changes_nothing = agents.TestTheUser.test_in_state_message_or_config_changes_nothing
    test_tools = agents.TestTools.test_work_on_the_memory_of_the_runs_user
    test_forged_arguments_change_nothing = agents.TestTools.test_forged_arguments_change_nothing
    test_two_users_at_once = agents.TestTools.test_two_users_at_once_on_one_agent


@pytest.mark.parametrize("platform", list(Scoping), indirect=True)
def test_the_walk_through(platform: Platform) -> None:
    # As `make demo` runs it, with two variables and nothing else.
    output = run_python(
        "from langchain_mem0_scoped.__main__ import main; assert main() == 0",
        MEM0_API_KEY=platform.key,
        MEM0_HOST=platform.url,
    )
    assert "Every claim held." in output
    assert "FAIL" not in output
    assert platform.rows() == []
