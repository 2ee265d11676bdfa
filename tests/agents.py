"""Ways to run chains and agents, what a run stored, and a recorder of custom events."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import mem0
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool

from langchain_mem0_scoped import ScopedChatMessageHistory, ScopedMemory, ScopedMemoryMiddleware, local_memory
from tests.models import ScriptedModel, lines
from tests.support import texts_of
from tests.worlds import WordEmbeddings

WAYS: Final = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events")
"""Every way to run a runnable."""


def config_of(user_id: str, session_id: str = "s1", **more: Any) -> RunnableConfig:
    """Return the config that a server passes: the user and the session."""
    return {"configurable": {"user_id": user_id, "session_id": session_id}, **more}  # type: ignore[typeddict-item]


async def ask(mode: str, runnable: Runnable[Any, Any], given: Any, *args: Any, **kwargs: Any) -> Any:
    """Call invoke or ainvoke."""
    if mode == "async":
        return await runnable.ainvoke(given, *args, **kwargs)
    return runnable.invoke(given, *args, **kwargs)


def calls(name: str, call_id: str = "c1", **arguments: Any) -> AIMessage:
    """Return a model's message with one tool call."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": call_id, "type": "tool_call"}])


class FailingEmbeddings(WordEmbeddings):
    """Embeddings that fail on writing, on searching, or both, once the attributes say so."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_writing = self.fail_searching = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.fail_writing:
            raise ConnectionError(f"no embedding of {texts}")
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        if self.fail_searching:
            raise ConnectionError(f"no embedding of {text}")
        return super().embed_query(text)


class EventRecorder(BaseCallbackHandler):
    """Records the custom events that callbacks receive."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.events.append((name, data))


def not_saved(error: str, *, transcript: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the custom event of a turn that was not saved, or, with `transcript`, not remembered."""
    data = {"error": error, "transcript": transcript, "memories": False, "status": None, "code": None}
    return "scoped_memory_not_saved", data


class Together:
    """A barrier as a step of a chain: it waits until several threads have reached it."""

    def __init__(self, several: int) -> None:
        self._barrier = threading.Barrier(several)

    def __call__(self, given: Any) -> Any:
        self._barrier.wait(timeout=30)
        return given


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    """Return all chunks of an async stream."""
    return [part async for part in stream]


async def run(way: str, chain: Runnable[Any, Any], given: Any, config: Any) -> Any:
    """Run a chain in one of `WAYS`; chunks are added up."""
    if way in ("invoke", "ainvoke"):
        return await ask("async" if way == "ainvoke" else "sync", chain, given, config)
    if way == "batch":
        return chain.batch([given], config)[0]
    if way == "abatch":
        return (await chain.abatch([given], config))[0]
    if way == "stream":
        return summed(list(chain.stream(given, config)))
    if way == "astream":
        return summed(await collected(chain.astream(given, config)))
    events = [event async for event in chain.astream_events(given, config, version="v2")]
    streamed = ("on_chain_stream", "on_chat_model_stream")  # A wrapped chain has the events of the chain itself.
    return summed([event["data"]["chunk"] for event in events if event["event"] in streamed and root(event)])


def root(event: Any) -> bool:
    return not event["parent_ids"]


def summed(parts: list[Any]) -> Any:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def transcript(client: mem0.Memory, user_id: str, session_id: str = "s1") -> list[BaseMessage]:
    return ScopedChatMessageHistory(user_id, session_id, client=client, recall=0).messages


def transcript_texts(client: mem0.Memory, user_id: str, session_id: str = "s1") -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in transcript(client, user_id, session_id)]


def remembered(client: mem0.Memory, user_id: str) -> list[str]:
    """Return the texts of a user's memories, oldest first."""
    return texts_of(ScopedMemory(user_id, client=client).get_all())[::-1]


def text_of(answer: Any) -> str:
    return answer if isinstance(answer, str) else answer.text


# -- agents with the middleware

PEANUTS, SEAT = "I am allergic to peanuts", "I prefer a window seat"
ALLERGY = "What am I allergic to?"


@contextmanager
def alice_and_bob(folder: Path, embeddings: FailingEmbeddings) -> Iterator[mem0.Memory]:
    """Open a client with memories of both."""
    client = local_memory(folder / "m.db", embeddings=embeddings)
    ScopedMemory("alice", client=client).add([PEANUTS, SEAT], session_id="earlier", infer=False)
    ScopedMemory("bob", client=client).add("I am allergic to bee stings", session_id="earlier", infer=False)
    try:
        yield client
    finally:
        client.close()


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"looked in {where}"


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def thread(name: str = "t1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def agent(client: mem0.Memory, *script: Any, **options: Any) -> tuple[Any, ScriptedModel]:
    """Build an agent with the middleware and a scripted model; return both."""
    names = ("recall", "remember", "tools", "transcript", "transcripts", "subagent", "trace_text", "user_id")
    known = {name: options.pop(name) for name in names if name in options}
    model = ScriptedModel(says=lines(*script))
    middleware = [ScopedMemoryMiddleware(client=client, **known), *options.pop("more", [])]
    return create_agent(model, options.pop("offers", []), middleware=middleware, **options), model


def system(model: ScriptedModel, call: int = -1) -> str:
    """Return the text of a request's system messages; "" if there are none."""
    return "".join(message.text for message in model.seen[call] if isinstance(message, SystemMessage))
