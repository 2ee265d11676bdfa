"""Recall and save as runs of their own: counts and ids, and text only if it is asked for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import ALLERGY, PEANUTS, FailingEmbeddings, agent, ask, human, thread


class Runs(BaseCallbackHandler):
    """Records the runs of this package: their inputs, outputs and errors."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.shown: dict[str, list[Any]] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, name: str = "", **kwargs: Any) -> None:
        if name in ("recall", "save"):
            assert kwargs["parent_run_id"]
            self.names[run_id] = name
            self.shown[name] = [inputs]

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if run_id in self.names:
            self.shown[self.names[run_id]].append(outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if run_id in self.names:
            self.shown[self.names[run_id]].append(repr(error))


@pytest.fixture
def embeddings() -> FailingEmbeddings:
    return FailingEmbeddings()


@pytest.fixture
def client(client: EngineMemory) -> EngineMemory:
    ScopedMemory("alice", client=client).add(PEANUTS, infer=False)
    return client


async def test_runs_show_counts_and_ids(client: EngineMemory, mode: str) -> None:
    memory = ScopedMemory("alice", client=client)
    (known,) = memory.get_all()
    one, _ = agent(client, "Peanuts")
    runs = Runs()
    await ask(mode, one, human(ALLERGY), {**thread(), "callbacks": [runs]}, context={"user_id": "alice"})
    saved = {row["id"] for row in memory.get_all()} - {known["id"]}
    given, found = runs.shown["recall"]
    assert given == {"session_id": "t1", "k": 5}
    assert found == {"count": 1, "ids": [known["id"]]}
    given, stored = runs.shown["save"]
    assert set(stored.pop("ids")) == saved
    assert given == {"session_id": "t1", "said": 1, "answers": 1}
    assert stored == {"in_transcript": True, "remembered": True, "error": None}
    assert "allergic" not in repr(runs.shown)
    assert "alice" not in repr(runs.shown)


async def test_text_is_shown_if_it_is_asked_for(client: EngineMemory, mode: str) -> None:
    one, _ = agent(client, "Peanuts", trace_text=True)
    runs = Runs()
    await ask(mode, one, human(ALLERGY), {"callbacks": [runs]}, context={"user_id": "alice"})
    given, found = runs.shown["recall"]
    assert (given["query"], found["memories"]) == (ALLERGY, [PEANUTS])


async def test_failures_show_their_type(client: EngineMemory, embeddings: FailingEmbeddings, mode: str) -> None:
    one, _ = agent(client, "ok", "ok")
    runs = Runs()
    embeddings.fail_writing = True
    await ask(mode, one, human(ALLERGY), {**thread(), "callbacks": [runs]}, context={"user_id": "alice"})
    assert runs.shown["save"][1]["error"] == "BackendError"
    assert runs.shown["save"][1]["in_transcript"] is True
    assert runs.shown["save"][1]["remembered"] is False
    embeddings.fail_searching = True
    with pytest.raises(Exception, match="search"):
        await ask(mode, one, human("Who am I?"), {**thread(), "callbacks": [runs]}, context={"user_id": "alice"})
    assert runs.shown["recall"][1] == "ScopedMemoryError('BackendError')"
    assert "allergic" not in repr(runs.shown)


async def test_events_of_a_stream_show_them(client: EngineMemory) -> None:
    one, _ = agent(client, "ok")
    names = [
        event["name"]
        async for event in one.astream_events(human(ALLERGY), thread(), context={"user_id": "alice"}, version="v2")
        if event["name"] in ("recall", "save")
    ]
    assert names == ["recall"] * 2 + ["save"] * 2
