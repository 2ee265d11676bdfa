"""What every transcript store does: the engine's own on each storage, and SQL on SQLite and PostgreSQL."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import BaseMessage, HumanMessage
from sqlalchemy import create_engine, event, text

from langchain_mem0_scoped import BackendError, local_memory
from langchain_mem0_scoped.transcripts.base import dump_messages
from langchain_mem0_scoped.transcripts.sql import SqlTranscripts, engine_for, parse_url
from tests import postgres
from tests.chat import MESSAGES, OpenStore, all_at_once, any_message, assert_whole_turns, code_to_open, exactly, turn
from tests.support import new_user, run_python
from tests.worlds import WordEmbeddings

needs_postgres = pytest.mark.skipif(postgres.binaries() is None, reason="there is no PostgreSQL server on this machine")

KINDS = (
    "embedded",
    "sqlite",
    "sqlite wal",
    pytest.param("READ COMMITTED", marks=needs_postgres),
    pytest.param("SERIALIZABLE", marks=needs_postgres),
)


def do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgres.cluster() as folder:
        yield folder


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    """One store of each kind for the whole file; each test takes new users."""
    kind, folder = request.param, tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        if kind == "embedded":
            client = local_memory(folder / "m.db", embeddings=WordEmbeddings())
            stack.callback(client.close)
            imports = "import langchain_mem0_scoped as package, tests.worlds as worlds"
            path = str(folder / "m.db")
            code = f"{imports}; store = package.local_memory({path!r}, embeddings=worlds.WordEmbeddings()).transcripts"
            yield OpenStore(client.transcripts, code, lambda user_id: client.erase(user_id)["transcripts"])
            return
        if kind.startswith("sqlite"):
            url = f"sqlite:///{folder / 'chats.db'}"
            engine = engine_for(parse_url(url))
            event.listen(engine, "connect", do_not_wait_for_the_disk)
        else:
            url = postgres.url_of(request.getfixturevalue("server"))
            engine = create_engine(url, isolation_level=kind, pool_size=8)
        stack.callback(engine.dispose)
        if kind == "sqlite wal":
            with engine.connect() as connection:
                connection.execute(text("PRAGMA journal_mode=WAL"))
        yield OpenStore(SqlTranscripts(engine), code_to_open(url))


class TestMessages:
    @pytest.mark.parametrize("kind", MESSAGES)
    def test_every_message_type_reads_back_exactly(self, opened: OpenStore, kind: str) -> None:
        user = new_user()
        opened.append(user, "s1", [MESSAGES[kind]])
        assert exactly(opened.read(user, "s1")) == exactly([MESSAGES[kind]])

    def test_messages_of_every_type_fit_one_append(self, opened: OpenStore) -> None:
        user, messages = new_user(), list(MESSAGES.values())
        wanted = [message for kind, message in MESSAGES.items() if kind != "remove"]  # its id is another message's
        opened.append(user, "s1", messages)
        assert exactly(opened.read(user, "s1")) == exactly(wanted)

    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(messages=st.lists(any_message(), max_size=4, unique_by=lambda message: message.id or object()))
    def test_any_content_reads_back_exactly(self, opened: OpenStore, messages: list[BaseMessage]) -> None:
        user = new_user()
        opened.append(user, "s1", messages)
        assert exactly(opened.read(user, "s1")) == exactly(messages)

    def test_messages_read_back_in_order(self, opened: OpenStore) -> None:
        user = new_user()
        for number in range(30):
            opened.append(user, "s1", turn(f"t{number}"))
        assert opened.texts(user) == [f"t{number} {part}" for number in range(30) for part in range(2)]

    def test_read_with_token_reads_the_same(self, opened: OpenStore) -> None:
        user = new_user()
        opened.append(user, "s1", turn("t", 5))
        for last in (None, 2):
            token, bodies = opened.store.read_with_token(user, "s1", last)
            assert bodies == opened.store.read(user, "s1", last)
            assert (token is not None) == opened.store.detects_erasure

    @pytest.mark.parametrize("had_messages", [True, False])
    def test_a_store_that_detects_erasure_refuses_a_token_from_before_it(
        self, opened: OpenStore, had_messages: bool
    ) -> None:
        if not opened.store.detects_erasure:
            pytest.skip("this store does not detect erasure")
        user, other = new_user(), new_user()
        opened.append(user, "s1", turn("old") if had_messages else [])
        token, other_token = (opened.store.read_with_token(name, "s1")[0] for name in (user, other))
        opened.erase(user)
        with pytest.raises(BackendError, match="erased") as raised:
            opened.store.append(user, "s1", dump_messages(turn("t")), token)
        assert raised.value.retryable
        assert opened.texts(user) == []
        opened.store.append(other, "s1", dump_messages(turn("t")), other_token)
        opened.store.append(user, "s1", dump_messages(turn("new")), opened.store.read_with_token(user, "s1")[0])
        assert (opened.texts(other), opened.texts(user)) == (["t 0", "t 1"], ["new 0", "new 1"])

    @pytest.mark.parametrize(("last", "expected"), [(1, 1), (3, 3), (60, 60), (1000, 60), (None, 60)])
    def test_read_returns_the_last_messages(self, opened: OpenStore, last: int | None, expected: int) -> None:
        user = new_user()
        opened.append(user, "s1", turn("t", 60))
        assert [message.text for message in opened.read(user, "s1", last)] == [f"t {n}" for n in range(60)][-expected:]

    def test_an_empty_session_reads_clears_and_erases(self, opened: OpenStore) -> None:
        user = new_user()
        assert opened.read(user, "s1") == []
        opened.store.clear(user, "s1")
        assert opened.erase(user) == 0
        opened.append(user, "s1", [])
        assert opened.read(user, "s1") == []


class TestIds:
    def test_an_id_that_exists_is_not_appended_again(self, opened: OpenStore) -> None:
        user = new_user()
        first, second = HumanMessage("first", id="a"), HumanMessage("second", id="b")
        assert opened.append(user, "s1", [first]) == [0]
        assert opened.append(user, "s1", [first, second, first, HumanMessage("none"), HumanMessage("none")]) == [
            1,
            3,
            4,
        ]
        assert opened.append(user, "s1", [second]) == []
        assert opened.texts(user) == ["first", "second", "none", "none"]

    def test_existing_ids_are_those_of_this_session(self, opened: OpenStore) -> None:
        user = new_user()
        assert opened.store.existing_ids(user, "s1", {"a"}) == set()
        opened.append(user, "s1", [HumanMessage("x", id="a"), HumanMessage("y", id="A"), HumanMessage("none")])
        opened.append(user, "s2", [HumanMessage("z", id="b")])
        assert opened.store.existing_ids(user, "s1", {"a", "A", "á", "b", "a "}) == {"a", "A"}

    def test_ids_are_compared_by_every_character(self, opened: OpenStore) -> None:
        user = new_user()
        ids = ["a", "A", "á", "a ", " a", "a\x00", "%", "_", "0", "a" * 600, "a" * 601]
        opened.append(user, "s1", [HumanMessage(repr(name), id=name) for name in ids])
        assert opened.texts(user) == [repr(name) for name in ids]

    def test_the_same_id_in_another_session_or_of_another_user_is_new(self, opened: OpenStore) -> None:
        one, other = new_user(), new_user()
        for user, session in ((one, "s1"), (one, "s2"), (other, "s1")):
            assert opened.append(user, session, [HumanMessage("hi", id="a")]) == [0]

    def test_an_empty_id_is_no_id(self, opened: OpenStore) -> None:
        user = new_user()
        assert opened.append(user, "s1", [HumanMessage("x", id=""), HumanMessage("y", id="")]) == [0, 1]


class TestSessions:
    def test_users_and_sessions_with_similar_names_are_separate(self, opened: OpenStore) -> None:
        base = new_user("x").removesuffix("_x")
        users = [
            base + end for end in ("", "A", "a", "à", ".", "%", "_", "/", ":", ":s1", "-s1", "'--", "\\", "0", "00")
        ]
        sessions = ["s", "S", "s1", "s%", "s_", "s.", ":s1", "1", "01"]
        places = [(user, session) for user in users for session in sessions]
        for user, session in places:
            opened.append(user, session, [HumanMessage(f"{user} in {session}")])
        for user, session in places:
            assert opened.texts(user, session) == [f"{user} in {session}"]
        assert [opened.store.sessions(user) for user in users] == [sessions] * len(users)
        opened.store.clear(users[1], "s")
        assert opened.erase(users[2]) == len(sessions)
        for user, session in places:
            gone = (user, session) == (users[1], "s") or user == users[2]
            assert opened.texts(user, session) == ([] if gone else [f"{user} in {session}"])

    def test_sessions_are_listed_by_their_first_message(self, opened: OpenStore) -> None:
        user, other = new_user(), new_user()
        assert opened.store.sessions(user) == []
        opened.append(user, "empty", [])
        opened.append(other, "theirs", turn("t"))
        assert opened.store.sessions(user) == []
        for session in ("s2", "s1", "S1", "s2", "empty"):
            opened.append(user, session, turn("t"))
        assert opened.store.sessions(user) == ["s2", "s1", "S1", "empty"]
        opened.store.clear(user, "s2")
        opened.append(other, "s1", turn("t"))
        assert opened.store.sessions(user) == ["s1", "S1", "empty"]
        opened.append(user, "s2", turn("t"))
        assert opened.store.sessions(user) == ["s1", "S1", "empty", "s2"]
        assert opened.store.sessions(other) == ["theirs", "s1"]
        opened.erase(user)
        assert opened.store.sessions(user) == []
        assert opened.store.sessions(other) == ["theirs", "s1"]

    def test_a_cleared_session_starts_empty(self, opened: OpenStore) -> None:
        user = new_user()
        opened.append(user, "s1", [HumanMessage("old", id="a")])
        opened.append(user, "s2", turn("kept"))
        opened.store.clear(user, "s1")
        assert opened.texts(user) == []
        assert opened.append(user, "s1", [HumanMessage("new", id="a")]) == [0]
        assert opened.texts(user) == ["new"]
        assert opened.texts(user, "s2") == ["kept 0", "kept 1"]


class TestConcurrentWriters:
    def test_turns_of_concurrent_writers_stay_whole(self, opened: OpenStore) -> None:
        user, per_writer = new_user(), 6
        lengths = {f"w{writer}n{number}": 1 + number % 4 for writer in range(8) for number in range(per_writer)}

        def write(writer: int) -> None:
            for number in range(per_writer):
                name = f"w{writer}n{number}"
                assert opened.append(user, "s1", turn(name, lengths[name])) == list(range(lengths[name]))

        all_at_once([lambda writer=writer: write(writer) for writer in range(8)])  # type: ignore[misc]
        texts = opened.texts(user)
        assert_whole_turns(texts, lengths)
        for writer in range(8):
            own = [text for text in texts if text.startswith(f"w{writer}n")]
            assert own == sorted(own)

    def test_an_id_appended_by_concurrent_writers_is_stored_once(self, opened: OpenStore) -> None:
        user = new_user()
        message = HumanMessage("once", id="a")
        new = all_at_once([lambda: opened.append(user, "s1", [message, HumanMessage("each")])] * 8)
        assert sorted(map(len, new)) == [1] * 7 + [2]
        assert sorted(opened.texts(user)) == ["each"] * 8 + ["once"]

    def test_two_processes_append_to_one_session(self, opened: OpenStore) -> None:
        if not opened.code:
            pytest.skip("no other process can open this store")
        user = new_user()

        def write(name: str) -> None:
            run_python(f"""
                from langchain_core.messages import HumanMessage
                from langchain_mem0_scoped.transcripts.base import dump_messages
                {opened.code}
                for number in range(20):
                    turn = [HumanMessage(f"{name}{{number}} {{place}}") for place in range(3)]
                    store.append({user!r}, "s1", dump_messages(turn))
            """)

        all_at_once([lambda name=name: write(name) for name in string.ascii_lowercase[:2]])  # type: ignore[misc]
        assert_whole_turns(opened.texts(user), {f"{name}{number}": 3 for name in "ab" for number in range(20)})
