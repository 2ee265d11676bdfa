"""The README's streaming endpoint, its very lines: errors before the response begins, and what a stream logs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from langchain_core.runnables import RunnableGenerator

from langchain_mem0_scoped import ScopedMemory, local_memory, with_scoped_memory
from tests.agents import transcript_texts
from tests.documents import blocks
from tests.worlds import WordEmbeddings


class Server:
    """The endpoint over a chain whose model fails before or after its first chunk."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = ""
        self.client = local_memory(folder / "m.db", embeddings=WordEmbeddings())
        readme = ModuleType("readme_streaming")  # FastAPI looks for the module in which a function is defined.
        monkeypatch.setitem(sys.modules, readme.__name__, readme)
        chain = with_scoped_memory(RunnableGenerator(self.answer), client=self.client)
        readme.__dict__.update(ScopedMemory=ScopedMemory, client=self.client, chain=chain)
        for line in ("app = FastAPI()", "StreamingResponse(body()"):
            (block,) = [block for block in blocks() if line in block]
            exec(compile(block, "README.md", "exec"), readme.__dict__)
        self.http = TestClient(readme.__dict__["app"], raise_server_exceptions=False)

    async def answer(self, given: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in given:
            pass
        if self.fails == "before":
            raise ConnectionError
        yield "Black "
        if self.fails == "after":
            raise ConnectionError
        yield "tea"

    def ask(self, session_id: str = "s1", text: str = "What do I drink?", token: str = "token-1") -> Any:
        headers = {"authorization": f"Bearer {token}"}
        return self.http.post(f"/chat/{session_id}", json={"text": text}, headers=headers)

    def logged(self) -> list[str]:
        return [text for _, text in transcript_texts(self.client, "u_alice")]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path, monkeypatch)
    yield server
    server.client.close()


def test_an_answer_is_streamed_and_saved(server: Server) -> None:
    answer = server.ask()
    assert (answer.status_code, answer.text) == (200, "Black tea")
    assert server.logged() == ["What do I drink?", "Black tea"]


def test_invalid_ids_and_callers_are_errors_of_their_own(server: Server) -> None:
    assert server.ask(session_id="a b").status_code == 422
    assert "session_id" in server.ask(session_id="*").json()["detail"]
    assert server.ask(token="stolen").status_code == 401
    assert server.logged() == []


def test_a_store_that_fails_is_an_error_of_its_own(server: Server) -> None:
    server.client.close()
    answer = server.ask()
    assert (answer.status_code, answer.json()) == (503, {"detail": "try again later"})


def test_a_model_that_fails_leaves_what_the_user_said(server: Server) -> None:
    server.fails = "before"
    assert server.ask().status_code == 500
    assert server.logged() == ["What do I drink?"]
    server.fails = "after"
    assert server.ask(text="And now?").text in ("", "Black ")
    assert server.logged() == ["What do I drink?", "And now?"]
    server.fails = ""
    assert server.ask(text="And now?").text == "Black tea"
    assert server.logged() == ["What do I drink?", "And now?", "Black tea"]
