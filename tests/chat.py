"""What the tests of transcripts and histories share: messages of every kind, and what every store promises."""

from __future__ import annotations

import string
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mem0
import pytest
from hypothesis import HealthCheck, given, settings
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

from langchain_mem0_scoped import local_memory
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from langchain_mem0_scoped.transcripts import sql as sql_transcripts
from langchain_mem0_scoped.transcripts.base import TranscriptStore, dump_messages, load_messages, store_of
from tests.support import close_plain, new_user, run_python

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
    """Messages in a form whose equality overlooks nothing: neither types, nor 1 for True, nor -0.0 for 0.0."""
    return [(type(message), repr(message.__dict__), message.model_extra) for message in messages]


def turn(name: str, length: int = 2) -> list[BaseMessage]:
    """A turn whose messages tell which it is, and their place in it."""
    return [(AIMessage if place % 2 else HumanMessage)(f"{name} {place}") for place in range(length)]


def assert_whole_turns(texts: Sequence[str], expected: dict[str, int]) -> None:
    """The transcript holds each of these turns once, none torn apart by another."""
    starts = [text.rpartition(" ")[0] for text in texts if text.endswith(" 0")]
    assert sorted(starts) == sorted(expected)
    assert list(texts) == [f"{name} {place}" for name in starts for place in range(expected[name])]


def all_at_once(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of these in threads that start together; an error in one is raised."""
    barrier = threading.Barrier(len(acts))

    def act(number: int) -> Any:
        barrier.wait(timeout=60)
        return acts[number]()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(act, range(len(acts))))


@contextmanager
def client_with_transcripts(kind: str, folder: Path, **options: Any) -> Iterator[tuple[mem0.Memory, str | None]]:
    """A client and where its transcripts lie: in itself, or in SQLite because it keeps none."""
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
    """Close the pool of a database that a client was bound to by URL."""
    store = store_of(client)
    if isinstance(store, sql_transcripts.SqlTranscripts):
        store._engine.dispose()


@dataclass(frozen=True)
class Place:
    """A transcript store, and the line of Python by which another process opens it as `store`."""

    store: TranscriptStore
    code: str
    erase_user: Callable[[str], int] | None = None

    def erase(self, user_id: str) -> int:
        """The embedded file's transcripts go with the user's partition; others are asked."""
        return (self.erase_user or self.store.erase)(user_id)

    def append(self, user_id: str, session_id: str, messages: Sequence[BaseMessage]) -> list[int]:
        return self.store.append(user_id, session_id, dump_messages(messages))

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[BaseMessage]:
        return load_messages(self.store.read(user_id, session_id, last))

    def texts(self, user_id: str, session_id: str = "s1") -> list[str]:
        return [message.text for message in self.read(user_id, session_id)]


def opening(url: str) -> str:
    """The `Place.code` of a database."""
    return (
        f"import {sql_transcripts.__name__} as sql; store = sql.SqlTranscripts(sql.engine_for(sql.place_of({url!r})))"
    )


class StoreContract:
    """What `TranscriptStore` promises, wherever transcripts lie. A subclass gives the fixture `place`."""

    @pytest.mark.parametrize("kind", MESSAGES)
    def test_any_message_comes_back_exactly(self, place: Place, kind: str) -> None:
        user = new_user()
        place.append(user, "s1", [MESSAGES[kind]])
        assert exactly(place.read(user, "s1")) == exactly([MESSAGES[kind]])

    def test_all_of_them_in_one_turn(self, place: Place) -> None:
        user, messages = new_user(), list(MESSAGES.values())
        wanted = [message for kind, message in MESSAGES.items() if kind != "remove"]  # its id is another message's
        place.append(user, "s1", messages)
        assert exactly(place.read(user, "s1")) == exactly(wanted)

    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(messages=st.lists(any_message(), max_size=4, unique_by=lambda message: message.id or object()))
    def test_any_content_comes_back_exactly(self, place: Place, messages: list[BaseMessage]) -> None:
        user = new_user()
        place.append(user, "s1", messages)
        assert exactly(place.read(user, "s1")) == exactly(messages)

    def test_messages_come_in_the_order_they_were_said(self, place: Place) -> None:
        user = new_user()
        for number in range(30):
            place.append(user, "s1", turn(f"t{number}"))
        assert place.texts(user) == [f"t{number} {part}" for number in range(30) for part in range(2)]

    @pytest.mark.parametrize(("last", "expected"), [(1, 1), (3, 3), (60, 60), (1000, 60), (None, 60)])
    def test_the_last_so_many(self, place: Place, last: int | None, expected: int) -> None:
        user = new_user()
        place.append(user, "s1", turn("t", 60))
        assert [message.text for message in place.read(user, "s1", last)] == [f"t {n}" for n in range(60)][-expected:]

    def test_there_is_nothing_before_anything_was_said(self, place: Place) -> None:
        user = new_user()
        assert place.read(user, "s1") == []
        place.store.clear(user, "s1")
        assert place.erase(user) == 0
        place.append(user, "s1", [])
        assert place.read(user, "s1") == []

    def test_a_message_id_counts_once_in_a_session(self, place: Place) -> None:
        user = new_user()
        first, second = HumanMessage("first", id="a"), HumanMessage("second", id="b")
        assert place.append(user, "s1", [first]) == [0]
        assert place.append(user, "s1", [first, second, first, HumanMessage("none"), HumanMessage("none")]) == [1, 3, 4]
        assert place.append(user, "s1", [second]) == []
        assert place.texts(user) == ["first", "second", "none", "none"]

    def test_ids_that_are_taken_are_known(self, place: Place) -> None:
        user = new_user()
        assert place.store.known(user, "s1", {"a"}) == set()
        place.append(user, "s1", [HumanMessage("x", id="a"), HumanMessage("y", id="A"), HumanMessage("none")])
        place.append(user, "s2", [HumanMessage("z", id="b")])
        assert place.store.known(user, "s1", {"a", "A", "á", "b", "a "}) == {"a", "A"}

    def test_a_turn_is_remembered_by_what_of_it_is_new(self, place: Place) -> None:
        user, calls = new_user(), list[Any]()
        turns = [[HumanMessage("x", id="a"), HumanMessage("y")], [HumanMessage("x", id="a"), HumanMessage("z")]]
        for messages in turns:
            new, failure = place.store.append_and(
                user, "s1", dump_messages(messages), None, lambda new: lambda: calls.append(new)
            )
            assert (calls[-1], failure) == (new, None)
        assert calls == [[0, 1], [1]]
        assert place.store.append_and(user, "s1", dump_messages(turns[0][:1]), None, lambda _: None) == ([], None)
        assert place.texts(user) == ["x", "y", "z"]

    @pytest.mark.parametrize("late", [True, False])
    def test_what_was_said_is_kept_whatever_becomes_of_the_remembering(self, place: Place, late: bool) -> None:
        user, error = new_user(), RuntimeError("no memory")

        def fail(*_: object) -> Any:
            raise error

        new, failure = place.store.append_and(
            user, "s1", dump_messages(turn("t")), None, (lambda _: fail) if late else fail
        )
        assert (new, failure) == ([0, 1], error)
        assert place.texts(user) == ["t 0", "t 1"]

    def test_a_message_id_is_told_from_others_by_every_character(self, place: Place) -> None:
        user = new_user()
        ids = ["a", "A", "á", "a ", " a", "a\x00", "%", "_", "0", "a" * 600, "a" * 601]
        place.append(user, "s1", [HumanMessage(repr(name), id=name) for name in ids])
        assert place.texts(user) == [repr(name) for name in ids]

    def test_the_same_id_in_another_session_or_of_another_user_is_another_message(self, place: Place) -> None:
        one, other = new_user(), new_user()
        for user, session in ((one, "s1"), (one, "s2"), (other, "s1")):
            assert place.append(user, session, [HumanMessage("hi", id="a")]) == [0]

    def test_an_empty_id_is_none(self, place: Place) -> None:
        user = new_user()
        assert place.append(user, "s1", [HumanMessage("x", id=""), HumanMessage("y", id="")]) == [0, 1]

    def test_users_and_sessions_that_look_alike_never_meet(self, place: Place) -> None:
        base = new_user("x").removesuffix("_x")
        users = [
            base + end for end in ("", "A", "a", "à", ".", "%", "_", "/", ":", ":s1", "-s1", "'--", "\\", "0", "00")
        ]
        sessions = ["s", "S", "s1", "s%", "s_", "s.", ":s1", "1", "01"]
        places = [(user, session) for user in users for session in sessions]
        for user, session in places:
            place.append(user, session, [HumanMessage(f"{user} in {session}")])
        for user, session in places:
            assert place.texts(user, session) == [f"{user} in {session}"]
        assert [place.store.sessions(user) for user in users] == [sessions] * len(users)
        place.store.clear(users[1], "s")
        assert place.erase(users[2]) == len(sessions)
        for user, session in places:
            gone = (user, session) == (users[1], "s") or user == users[2]
            assert place.texts(user, session) == ([] if gone else [f"{user} in {session}"])

    def test_sessions_are_those_with_messages_in_the_order_they_began(self, place: Place) -> None:
        user, other = new_user(), new_user()
        assert place.store.sessions(user) == []
        place.append(user, "empty", [])
        place.append(other, "theirs", turn("t"))
        assert place.store.sessions(user) == []
        for session in ("s2", "s1", "S1", "s2", "empty"):
            place.append(user, session, turn("t"))
        assert place.store.sessions(user) == ["s2", "s1", "S1", "empty"]
        place.store.clear(user, "s2")
        place.append(other, "s1", turn("t"))
        assert place.store.sessions(user) == ["s1", "S1", "empty"]
        place.append(user, "s2", turn("t"))
        assert place.store.sessions(user) == ["s1", "S1", "empty", "s2"]
        assert place.store.sessions(other) == ["theirs", "s1"]
        place.erase(user)
        assert place.store.sessions(user) == []
        assert place.store.sessions(other) == ["theirs", "s1"]

    def test_a_session_that_was_cleared_begins_anew(self, place: Place) -> None:
        user = new_user()
        place.append(user, "s1", [HumanMessage("old", id="a")])
        place.append(user, "s2", turn("kept"))
        place.store.clear(user, "s1")
        assert place.texts(user) == []
        assert place.append(user, "s1", [HumanMessage("new", id="a")]) == [0]
        assert place.texts(user) == ["new"]
        assert place.texts(user, "s2") == ["kept 0", "kept 1"]

    def test_turns_of_many_writers_stay_whole(self, place: Place) -> None:
        user, per_writer = new_user(), 6
        lengths = {f"w{writer}n{number}": 1 + number % 4 for writer in range(8) for number in range(per_writer)}

        def write(writer: int) -> None:
            for number in range(per_writer):
                name = f"w{writer}n{number}"
                assert place.append(user, "s1", turn(name, lengths[name])) == list(range(lengths[name]))

        all_at_once([lambda writer=writer: write(writer) for writer in range(8)])  # type: ignore[misc]
        texts = place.texts(user)
        assert_whole_turns(texts, lengths)
        for writer in range(8):
            own = [text for text in texts if text.startswith(f"w{writer}n")]
            assert own == sorted(own)

    def test_one_message_by_many_writers_is_one_message(self, place: Place) -> None:
        user = new_user()
        message = HumanMessage("once", id="a")
        new = all_at_once([lambda: place.append(user, "s1", [message, HumanMessage("each")])] * 8)
        assert sorted(map(len, new)) == [1] * 7 + [2]
        assert sorted(place.texts(user)) == ["each"] * 8 + ["once"]

    def test_two_processes_write_one_session(self, place: Place) -> None:
        user = new_user()

        def write(name: str) -> None:
            run_python(f"""
                from langchain_core.messages import HumanMessage
                from langchain_mem0_scoped.transcripts import logged
                {place.code}
                for number in range(20):
                    turn = [HumanMessage(f"{name}{{number}} {{place}}") for place in range(3)]
                    store.append({user!r}, "s1", logged(turn))
            """)

        all_at_once([lambda name=name: write(name) for name in string.ascii_lowercase[:2]])  # type: ignore[misc]
        assert_whole_turns(place.texts(user), {f"{name}{number}": 3 for name in "ab" for number in range(20)})
