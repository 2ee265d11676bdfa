"""What callbacks and traces see of a wrapped chain: a run around a recall, the chain and a save, without text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import mem0
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory, with_scoped_memory
from langchain_mem0_scoped.tracing import atraced, traced
from tests.agents import WAYS, config_of, run
from tests.support import new_user

SECRET = "My cat is called Zephyrine"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("tracing") / "m.db")
    yield client
    client.close()


class RunRecorder(BaseCallbackHandler):
    """Records the runs of chains: [name, parent's name, inputs, outputs or error]."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: dict[UUID, list[Any]] = {}

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: Any = None, **run: Any
    ) -> None:
        parent = self.runs[parent_run_id][0] if parent_run_id else None
        self.runs[run_id] = [run["name"], parent, inputs, None]

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self.runs[run_id][3] = outputs

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.runs[run_id][3] = error

    def named(self, name: str) -> list[Any]:
        (found,) = (run for run in self.runs.values() if run[0] == name)
        return found


@pytest.mark.parametrize("way", WAYS)
async def test_a_recall_and_a_save_are_runs_with_counts_and_ids(client: mem0.Memory, way: str) -> None:
    user, recorder, run_id = new_user(), RunRecorder(), uuid4()
    memory = ScopedMemory(user, client=client)
    memory.add(SECRET, session_id="s0")
    chain = with_scoped_memory(RunnableLambda(lambda _: "Zephyrine"), client=client)
    alone: dict[str, Any] = {"run_id": run_id} if way not in ("batch", "abatch") else {}
    await run(way, chain, "What is my cat called?", config_of(user, callbacks=[recorder], run_name="talk", **alone))
    assert [one[:2] for one in recorder.runs.values()] == [
        ["talk", None],
        ["recall", "talk"],
        ["RunnableLambda", "talk"],
        ["save", "talk"],
    ]
    assert not alone or next(iter(recorder.runs)) == run_id
    (found,) = memory.get_all(session_id="s0")
    stored = {record["id"] for record in memory.get_all(session_id="s1")}
    _, _, inputs, outputs = recorder.named("recall")
    assert (inputs, outputs) == ({"session_id": "s1", "k": 5}, {"memories": 1, "memory_ids": [found["id"]]})
    _, _, inputs, outputs = recorder.named("save")
    assert inputs == {"session_id": "s1"}
    assert set(outputs.pop("memory_ids")) == stored
    assert outputs == {"messages": 2, "transcript": True, "memories": True}


@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_recall_is_a_failed_run(client: mem0.Memory, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    def fail(*_: Any) -> Any:
        raise BackendError("the store is gone")

    recorder = RunRecorder()
    monkeypatch.setattr("langchain_mem0_scoped.chain_run.recall_other_sessions", fail)
    chain = with_scoped_memory(RunnableLambda(lambda _: "ok"), client=client)
    with pytest.raises(BackendError):
        await run(way, chain, "hi", config_of(new_user(), callbacks=[recorder]))
    assert isinstance(recorder.named("recall")[3], BackendError)
    assert isinstance(recorder.named("ScopedMemory")[3], BackendError)


async def test_events_show_both_and_no_text(client: mem0.Memory) -> None:
    user = new_user()
    ScopedMemory(user, client=client).add(SECRET, session_id="s0")
    chain = with_scoped_memory(RunnableLambda(lambda _: "ok"), client=client)
    events = [event async for event in chain.astream_events("What is my cat called?", config_of(user), version="v2")]
    for name in ("recall", "save"):
        own = [event for event in events if event["name"] == name]
        assert [event["event"] for event in own] == ["on_chain_start", "on_chain_end"]
        assert "cat" not in repr([event["data"] for event in own])


async def test_async_callbacks_are_called_too(client: mem0.Memory) -> None:
    names: list[str] = []

    class Recorder(AsyncCallbackHandler):
        async def on_chain_start(self, *_: Any, **run: Any) -> None:
            names.append(run["name"])

    chain = with_scoped_memory(RunnableLambda(lambda _: "ok"), client=client)
    await chain.ainvoke("hi", config_of(new_user(), callbacks=[Recorder()]))
    assert names == ["ScopedMemory", "recall", "RunnableLambda", "save"]


async def test_without_callbacks_there_is_no_run() -> None:
    with traced("recall", {}, {}) as outputs:
        outputs["memories"] = 1
    async with atraced("recall", {}, {}) as outputs:
        outputs["memories"] = 1
    with pytest.raises(LookupError), traced("recall", {}, {}):
        raise LookupError
    with pytest.raises(LookupError):
        async with atraced("recall", {"callbacks": [RunRecorder()]}, {}):
            raise LookupError
