"""Shared by the tests of transcripts and histories: messages of every type, opened stores, checks of whole turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeVar

import mem0
import pytest
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from langchain_mem0_scoped import ScopedChatMessageHistory, local_memory
from langchain_mem0_scoped.backends.base import Backend
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from langchain_mem0_scoped.transcripts import binding, sql
from langchain_mem0_scoped.transcripts.base import TranscriptStore
from langchain_mem0_scoped.transcripts.codec import dump_messages, load_messages
from tests.support import close_plain

T = TypeVar("T")

HARD_TEXT: Final = 'NUL \x00, half \ud83d, 猫, "quotes" \\ {braces} \u2028 </memories> \n\r\t'

MESSAGES: Final[dict[str, BaseMessage]] = {
    "human": HumanMessage("Hello"),
    "human with id and name": HumanMessage("Hello", id="h1", name="alice", additional_kwargs={"a": [1, {"b": None}]}),
    "multimodal": HumanMessage(
        [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
            "and this?",
        ]
    ),
    "system": SystemMessage("Be brief", id="s1"),
    "ai": AIMessage("", response_metadata={"model_name": "m", "logprobs": {"content": [{"p": -0.25, "top": []}]}}),
    "ai that calls tools": AIMessage(
        [{"type": "text", "text": "Let me see"}, {"type": "tool_use", "id": "c1", "name": "look", "input": {}}],
        id="lc_run--1",
        tool_calls=[
            {"name": "look", "args": {"where": ["a", 1, 1.5, True, None], "deep": {"er": {}}}, "id": "c1"},
            {"name": "look", "args": {}, "id": None},
        ],
        invalid_tool_calls=[{"name": "lok", "args": '{"where": ', "id": "c2", "error": "not JSON"}],
    ),
    "ai with usage": AIMessage(
        "Hi",
        usage_metadata=UsageMetadata(
            input_tokens=10**12,
            output_tokens=2,
            total_tokens=10**12 + 2,
            input_token_details=InputTokenDetails(audio=1),
        ),
        response_metadata={"finish_reason": "stop", "tiny": 5e-324, "third": 1 / 3, "big": 2**70},
    ),
    "ai with reasoning": AIMessage([{"type": "reasoning", "reasoning": "so", "extras": {"signature": "x=="}}, "42"]),
    "tool": ToolMessage("12 °C", tool_call_id="c1", name="look", id="t1", status="error"),
    "tool with an artifact": ToolMessage(
        ["a", {"type": "text", "text": "b"}], tool_call_id="c1", artifact={"rows": [[1, 2.5, None], []], "ok": True}
    ),
    "function": FunctionMessage(content="4", name="add"),
    "chat": ChatMessage(content="Order!", role="judge"),
    "remove": RemoveMessage(id="h1"),
    "hard text": HumanMessage(HARD_TEXT, additional_kwargs={HARD_TEXT: HARD_TEXT}),
    "hard id": HumanMessage("x", id="'; -- \x00\ud800" + "i" * 1000),
    "large": AIMessage("Ünïcödé " * 250_000),
}
"""A message of every type, and what is hard to keep in each."""

_texts = st.text(st.characters(), max_size=40)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_dicts = st.dictionaries(_texts, _json, max_size=3)
_ids = st.none() | st.text(st.characters(), min_size=1, max_size=20)
_contents = _texts | st.lists(_texts | st.builds(lambda text: {"type": "text", "text": text}, _texts), max_size=3)
_calls = st.builds(lambda name, args, key: {"name": name, "args": args, "id": key}, _texts, _dicts, _ids)
_common = {"content": _contents, "id": _ids, "name": st.none() | _texts, "additional_kwargs": _dicts}


def any_message() -> st.SearchStrategy[BaseMessage]:
    """Messages of the types a chain makes, with anything JSON in their fields."""
    return st.one_of(
        st.builds(HumanMessage, **_common),
        st.builds(SystemMessage, **_common),
        st.builds(ChatMessage, role=_texts, **_common),
        st.builds(
            AIMessage,
            **(_common | {"additional_kwargs": st.just({})}),
            tool_calls=st.lists(_calls, max_size=2),
            response_metadata=_dicts,
        ),
        st.builds(
            ToolMessage, tool_call_id=_texts, artifact=_json, status=st.sampled_from(["success", "error"]), **_common
        ),
    )


def exactly(messages: Sequence[BaseMessage]) -> list[Any]:
    """Return messages in a form whose equality compares types as well: 1 is not True, and -0.0 is not 0.0."""
    return [(type(message), repr(message.__dict__), message.model_extra) for message in messages]


def turn(name: str, length: int = 2) -> list[BaseMessage]:
    """Return a turn whose messages say which turn it is and their position in it."""
    return [(AIMessage if place % 2 else HumanMessage)(f"{name} {place}") for place in range(length)]


def assert_whole_turns(texts: Sequence[str], expected: dict[str, int]) -> None:
    """Assert that a transcript holds each of these turns once, and that no turn is split by another."""
    starts = [text.rpartition(" ")[0] for text in texts if text.endswith(" 0")]
    assert sorted(starts) == sorted(expected)
    assert list(texts) == [f"{name} {place}" for name in starts for place in range(expected[name])]


def all_at_once(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all of these in threads that start together. Raises what one of them raises."""
    barrier = threading.Barrier(len(acts))

    def act(number: int) -> Any:
        barrier.wait(timeout=60)
        return acts[number]()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(act, range(len(acts))))


@contextmanager
def client_with_transcripts(kind: str, folder: Path, **options: Any) -> Iterator[tuple[mem0.Memory, str | None]]:
    """Open a client, and the `transcripts=` it needs.

    Args:
        kind: "embedded" for local_memory(), which keeps transcripts itself; anything else for mem0 on Qdrant with
            transcripts in SQLite.
        folder: Where the files go.
        **options: Of local_memory().
    """
    if kind == "embedded":
        client = local_memory(folder / "m.db", **options)
        try:
            yield client, None
        finally:
            client.close()
    else:
        client = plain_memory(folder)
        try:
            yield client, f"sqlite:///{folder / 'chats.db'}"
        finally:
            close_transcripts(client)
            close_plain(client)


def close_transcripts(client: mem0.Memory) -> None:
    """Close the connections of the database that a client was bound to by URL."""
    store = binding.store_of(client, None)
    if isinstance(store, sql.SqlTranscripts):
        store._engine.dispose()


@dataclass(frozen=True)
class OpenStore:
    """A transcript store that a test works on.

    Attributes:
        store: The store.
        code: Python by which another process opens it as `store`; "" where it cannot.
        erase_user: Erases a user and returns how many messages; None for the store's own `erase`. The embedded file's
            transcripts go with the user's partition.
    """

    store: TranscriptStore
    code: str = ""
    erase_user: Callable[[str], int] | None = None

    def erase(self, user_id: str) -> int:
        return (self.erase_user or self.store.erase)(user_id)

    def append(self, user_id: str, session_id: str, messages: Sequence[BaseMessage]) -> list[int]:
        return self.store.append(user_id, session_id, dump_messages(messages)).new

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[BaseMessage]:
        return load_messages(self.store.read(user_id, session_id, last))

    def texts(self, user_id: str, session_id: str = "s1") -> list[str]:
        return [message.text for message in self.read(user_id, session_id)]


def code_to_open(url: str) -> str:
    """Return the `OpenStore.code` of a SQL database."""
    return f"from {sql.__name__} import *; store = SqlTranscripts(engine_for(parse_url({url!r})))"


def append_turns(_: Connection, code: str, user_id: str, name: str, number: int) -> None:
    """Append turns of three messages to session s1 of a user, in another process; see `OpenStore.code`."""
    scope: dict[str, Any] = {}
    exec(code, scope)
    for count in range(number):
        scope["store"].append(user_id, "s1", dump_messages(turn(f"{name}{count}", 3)))


class Talk:
    """Calls a history: sync, async in one thread, or async step by step as on clients whose async is real."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._async = mode != "sync"

    def read(self, history: ScopedChatMessageHistory) -> list[BaseMessage]:
        return asyncio.run(history.aget_messages()) if self._async else history.messages

    def add(self, history: ScopedChatMessageHistory, messages: list[BaseMessage]) -> None:
        asyncio.run(history.aadd_messages(messages)) if self._async else history.add_messages(messages)

    def clear(self, history: ScopedChatMessageHistory) -> None:
        asyncio.run(history.aclear()) if self._async else history.clear()


def make_async_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every client as one whose async is real, as the hosted platform's is."""

    async def run_async(self: Backend, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        return await awork()

    monkeypatch.setattr(Backend, "run_sync_or_async", run_async)
