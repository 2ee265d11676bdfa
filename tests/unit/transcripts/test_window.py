"""TranscriptWindow: how much of a transcript's end is read, and how it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped.transcripts.codec import StoredMessage, dump_messages
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
        token, messages, unanswered, is_whole = TranscriptWindow(**window, token_counter=len).read(store, "u", "s")
        assert (token, unanswered, is_whole) == (None, 0, not window or read == 2_000)
        assert store.reads == reads
        assert [message.text for message in messages] == [f"m {number}" for number in range(2_000 - read, 2_000)]

    def test_an_empty_session_is_read_once(self, store: RecordingStore) -> None:
        assert TranscriptWindow(max_tokens=9).read(store, "u", "empty") == (None, [], 0, True)
        assert store.reads == [100]

    @pytest.mark.parametrize(
        ("window", "reads"), [({"max_messages": 3}, [3, 100, 400]), ({"max_tokens": 1}, [100, 400])]
    )
    def test_reads_back_to_the_beginning_of_the_last_turn(
        self, store: RecordingStore, window: dict[str, int], reads: list[int]
    ) -> None:
        long = [HumanMessage("before"), AIMessage("x"), HumanMessage("q"), *[AIMessage("step")] * 150]
        store.append("u", f"long {window}", dump_messages(long))
        opened = TranscriptWindow(**window, token_counter=len)
        assert opened.cut(opened.read(store, "u", f"long {window}").messages) == long[2:]
        assert store.reads == reads

    @pytest.mark.parametrize("tokens", [350, 401, 1_999, 2_500])
    def test_what_is_cut_from_what_is_read_fills_the_window(self, store: RecordingStore, tokens: int) -> None:
        window = TranscriptWindow(max_tokens=tokens, token_counter=len)
        assert len(window.cut(window.read(store, "u", "s")[1])) == min(tokens, 2_000)


class TestCut:
    def test_without_caps_everything_stays(self) -> None:
        messages: list[BaseMessage] = [ToolMessage("x", tool_call_id="c"), *turn("t")]
        assert TranscriptWindow().cut(messages) == messages

    @pytest.mark.parametrize("cap", ["max_messages", "max_tokens"])
    def test_it_begins_with_a_human_message_whatever_the_cap(self, cap: str) -> None:
        call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])
        step: list[BaseMessage] = [call, ToolMessage("a", tool_call_id="c")]
        turns = [
            [HumanMessage("q"), *step, AIMessage("said")],
            [HumanMessage("one"), HumanMessage("two"), AIMessage("said")],
            [HumanMessage("long"), *step * 3, AIMessage("said")],
        ]
        for last in range(3):
            messages = [AIMessage("Welcome"), *(message for one in turns[: last + 1] for message in one)]
            for limit in range(1, len(messages) + 2):
                window = TranscriptWindow(**{cap: limit}, token_counter=len).cut(messages)
                assert window == messages[len(messages) - len(window) :]
                assert window[0].type == "human"
                # The last turn is whole, even where it is longer than the cap; otherwise the cap is kept.
                assert len(window) >= len(turns[last]) or window[0] is turns[last][1]
                assert len(window) <= max(limit, len(turns[last]))

    def test_what_no_human_has_said_is_left_out(self) -> None:
        assert TranscriptWindow(max_messages=5).cut([AIMessage("Welcome")]) == []

    def test_the_messages_are_not_changed(self) -> None:
        messages = turn("t", 5)
        TranscriptWindow(max_messages=2).cut(messages)
        assert len(messages) == 5
