"""LangChain's own standard tests for what this package offers under its interfaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import mem0
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.integration_tests import ToolsIntegrationTests as ToolsIntegration
from langchain_tests.unit_tests import EmbeddingsUnitTests
from langchain_tests.unit_tests import ToolsUnitTests as ToolsUnit

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryRetriever, create_memory_tools
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from tests.support import TEXTS, new_user, opened


@pytest.fixture(autouse=True)
def _memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """What the suites' properties build on: a user with some memories, beside one with others."""
    if request.cls is None or not hasattr(request.cls, "client_kind"):
        yield
        return
    with opened(request.cls.client_kind, tmp_path) as client:
        request.instance.client = client
        request.instance.user_id = new_user("alice")
        request.instance.added = ScopedMemory(request.instance.user_id, client=client).add(list(TEXTS), infer=False)
        ScopedMemory(new_user("bob"), client=client).add("A foreign fact about food", infer=False)
        yield


class _WithMemories:
    client_kind = "embedded"
    client: mem0.Memory
    user_id: str
    added: Any


class TestRetriever(_WithMemories, RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return ScopedMemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "client": self.client}

    @property
    def retriever_query_example(self) -> str:
        return "what does the user eat, and where do they live?"


class TestRetrieverOnQdrant(TestRetriever):
    client_kind = "qdrant"

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        # mem0's own default threshold of 0.1 leaves fewer than the three documents that the suite asks for.
        return {"user_id": self.user_id, "client": self.client, "threshold": 0.0}


class _Tool(_WithMemories):
    EXAMPLES: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
        "search_memory": lambda _: {"query": "food", "k": 3},
        "remember": lambda _: {"text": "I moved to Porto"},
        "list_memories": lambda _: {"limit": 2},
        "correct_memory": lambda memory_id: {"memory_id": memory_id, "text": "I eat fish on Fridays"},
        "forget_memory": lambda memory_id: {"memory_id": memory_id},
    }

    @pytest.fixture(autouse=True, params=EXAMPLES)
    def _each_tool(self, request: pytest.FixtureRequest) -> None:
        self.name: str = request.param

    @property
    def tool_constructor(self) -> BaseTool:
        tools = {tool.name: tool for tool in create_memory_tools(ScopedMemory(self.user_id, client=self.client))}
        return tools[self.name]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.EXAMPLES[self.name](self.added[0]["id"])


class TestToolsUnit(_Tool, ToolsUnit):
    pass


class TestTools(_Tool, ToolsIntegration):
    pass


class TestOfflineEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OfflineEmbeddings


class TestOfflineEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OfflineEmbeddings
