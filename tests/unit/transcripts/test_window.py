"""TranscriptWindow: how much of a transcript's end is read, and how it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped.transcripts.codec import StoredMessage
from langchain_mem0_scoped.transcripts.sql import SqlTranscripts
from langchain_mem0_scoped.transcripts.window import TranscriptWindow
from tests.chat import turn


class RecordingStore(SqlTranscripts):
    """Records how many messages each read asks for."""

    reads: list[int | None]

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        self.reads.append(last)
        return super().read(user_id, session_id, last)


@pytest.fixture(scope="module")
def long_store() -> Iterator[RecordingStore]:
    """A session of 2,000 messages "m 0" to "m 1999"."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    store = RecordingStore(engine)
    bodies = (json.dumps({"type": "human", "data": {"content": f"m {number}"}}) for number in range(2_000))
    store.append("u", "s", [StoredMessage(None, body, HumanMessage("")) for body in bodies])
    yield store
    engine.dispose()


@pytest.fixture
def store(long_store: RecordingStore) -> RecordingStore:
    long_store.reads = []
    return long_store


class TestRead:
    @pytest.mark.parametrize(
        ("window", "reads", "read"),
        [
            ({}, [None], 2_000),
            ({"max_messages": 7}, [7], 7),
            ({"max_tokens": 50}, [100], 100),
            ({"max_tokens": 100}, [100, 400], 400),
            ({"max_tokens": 399}, [100, 400], 400),
            ({"max_tokens": 401}, [100, 400, 1_600], 1_600),
            ({"max_tokens": 1_700}, [100, 400, 1_600, 6_400], 2_000),
            ({"max_tokens": 9_000}, [100, 400, 1_600, 6_400], 2_000),
            ({"max_tokens": 9_000, "max_messages": 30}, [30], 30),
            ({"max_tokens": 9_000, "max_messages": 500}, [100, 400, 500], 500),
            ({"max_tokens": 60, "max_messages": 500}, [100], 100),
        ],
        ids=str,
    )
    def test_reads_further_back_until_the_window_is_full(
        self, store: RecordingStore, window: dict[str, int], reads: list[int | None], read: int
    ) -> None:
        token, messages = TranscriptWindow(**window, token_counter=len).read(store, "u", "s")
        assert token is None
        assert store.reads == reads
        assert [message.text for message in messages] == [f"m {number}" for number in range(2_000 - read, 2_000)]

    def test_an_empty_session_is_read_once(self, store: RecordingStore) -> None:
        assert TranscriptWindow(max_tokens=9).read(store, "u", "empty") == (None, [])
        assert store.reads == [100]

    @pytest.mark.parametrize("tokens", [350, 401, 1_999, 2_500])
    def test_what_is_cut_from_what_is_read_fills_the_window(self, store: RecordingStore, tokens: int) -> None:
        window = TranscriptWindow(max_tokens=tokens, token_counter=len)
        assert len(window.cut(window.read(store, "u", "s")[1])) == min(tokens, 2_000)


class TestCut:
    def test_without_caps_everything_stays(self) -> None:
        messages: list[BaseMessage] = [ToolMessage("x", tool_call_id="c"), *turn("t")]
        assert TranscriptWindow().cut(messages) == messages

    @pytest.mark.parametrize("window", [{"max_messages": 2}, {"max_tokens": 2}])
    def test_a_tool_message_is_cut_with_its_call(self, window: dict[str, int]) -> None:
        call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])
        messages = [HumanMessage("q"), call, ToolMessage("a", tool_call_id="c"), AIMessage("said")]
        assert TranscriptWindow(**window, token_counter=len).cut(messages) == messages[-1:]

    def test_the_messages_are_not_changed(self) -> None:
        messages = turn("t", 5)
        TranscriptWindow(max_messages=1).cut(messages)
        assert len(messages) == 5
