"""What every transcript store and every turn does: the engine's own on each storage, SQL on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from sqlalchemy import create_engine, event, text

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.requests import ErasureToken, add_request
from langchain_mem0_scoped.scoped_client import ScopedClient
from langchain_mem0_scoped.transcripts.appending import as_unanswered
from langchain_mem0_scoped.transcripts.base import Turn
from langchain_mem0_scoped.transcripts.binding import bind
from langchain_mem0_scoped.transcripts.codec import dump_messages, load_messages
from langchain_mem0_scoped.transcripts.sql import SqlTranscripts, engine_for, parse_url
from tests import postgres
from tests.agents import FailingEmbeddings
from tests.chat import (
    MESSAGES,
    OpenStore,
    all_at_once,
    any_message,
    append_turns,
    assert_whole_turns,
    close_transcripts,
    code_to_open,
    exactly,
    turn,
)
from tests.faults import Child
from tests.memory_storage import MemoryStorage
from tests.models import extracting
from tests.support import new_user, texts_of
from tests.support import opened as opened_client
from tests.worlds import WordEmbeddings

needs_postgres = pytest.mark.skipif(postgres.binaries() is None, reason="there is no PostgreSQL server on this machine")

STORES = (
    "embedded",
    "memory",
    "sqlite",
    "sqlite wal",
    pytest.param("READ COMMITTED", marks=needs_postgres),
    pytest.param("SERIALIZABLE", marks=needs_postgres),
)


def do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def erasing(client: EngineMemory) -> Callable[[str], int]:
    return lambda user_id: client.backend.erase(user_id)["transcripts"]


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgres.cluster() as folder:
        yield folder


@pytest.fixture(scope="module", params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    """One store of each kind for the whole file; each test takes new users."""
    kind, folder = request.param, tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        if kind == "embedded":
            client = stack.enter_context(opened_client("embedded", folder))
            code = f"from langchain_mem0_scoped import *; store = local_memory({str(folder / 'm.db')!r}).transcripts"
            yield OpenStore(client.transcripts, code, erasing(client))
            return
        if kind == "memory":
            client = stack.enter_context(closing(EngineMemory(MemoryStorage(), WordEmbeddings())))
            yield OpenStore(client.transcripts, erase_user=erasing(client))
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
    @pytest.mark.parametrize("message_type", MESSAGES)
    def test_every_message_type_reads_back_exactly(self, opened: OpenStore, message_type: str) -> None:
        user = new_user()
        opened.append(user, "s1", [MESSAGES[message_type]])
        assert exactly(opened.read(user, "s1")) == exactly([MESSAGES[message_type]])

    def test_messages_of_every_type_fit_one_append(self, opened: OpenStore) -> None:
        user, messages = new_user(), list(MESSAGES.values())
        opened.append(user, "s1", messages)
        assert exactly(opened.read(user, "s1")) == exactly(messages)

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
    def test_the_last_turn_is_not_appended_again(self, opened: OpenStore) -> None:
        user = new_user()
        first, second, answer = HumanMessage("first", id="a"), HumanMessage("second", id="b"), AIMessage("yes", id="c")
        assert opened.append(user, "s1", [first]) == [0]
        assert opened.append(user, "s1", [first, second, HumanMessage("none")]) == [1, 2]
        assert opened.append(user, "s1", [second, answer]) == [1]
        assert opened.append(user, "s1", [first, answer]) == []
        assert opened.append(user, "s1", [HumanMessage("none"), HumanMessage("none")]) == [0, 1]
        assert opened.texts(user) == ["first", "second", "none", "yes", "none", "none"]

    def test_an_id_with_another_text_is_another_message(self, opened: OpenStore) -> None:
        user, said = new_user(), [HumanMessage("Lima", id="1"), HumanMessage("Quito", id="1")]
        for message in said:
            assert opened.append(user, "s1", [message, AIMessage("Noted", id="2")]) == [0, 1]
        assert opened.texts(user) == ["Lima", "Noted", "Quito", "Noted"]

    def test_an_id_and_text_of_an_older_turn_are_new(self, opened: OpenStore) -> None:
        user = new_user()
        for words in ("hello", "bye", "hello"):
            assert opened.append(user, "s1", [HumanMessage(words, id="1"), AIMessage("yes", id="2")]) == [0, 1]

    def test_what_a_turn_repeats_as_context_is_not_appended(self, opened: OpenStore) -> None:
        user = new_user()
        opened.append(user, "s1", turn("t", 40))
        whole = [*turn("t", 40), HumanMessage("new"), AIMessage("answer")]
        assert opened.append(user, "s1", whole) == [40, 41]
        assert opened.append(user, "s1", [*whole[-4:], HumanMessage("newer")]) == [4]
        assert opened.append(user, "s1", [*turn("other"), HumanMessage("newest")]) == [0, 1, 2]

    def test_answers_that_were_given_now_are_new(self, opened: OpenStore) -> None:
        user, said, answer = new_user(), HumanMessage("x", id="1"), AIMessage("yes", id="2")
        for expected in ([0, 1], [1], [1]):
            appended = opened.store.append(user, "s1", dump_messages([said]), answers=dump_messages([answer]))
            assert appended.new == expected
        assert opened.texts(user) == ["x", "yes", "yes", "yes"]

    def test_what_was_left_unanswered_comes_with_the_next_turn(self, opened: OpenStore) -> None:
        user = new_user()

        def append(*messages: BaseMessage, unanswered: bool = False) -> tuple[list[int], list[str]]:
            stored = dump_messages(messages)
            appended = opened.store.append(user, "s1", list(map(as_unanswered, stored)) if unanswered else stored)
            return appended.new, [message.text for message in load_messages(appended.unanswered)]

        assert append(*turn("t")) == ([0, 1], [])
        for number in range(20):
            assert append(HumanMessage(f"stopped {number}"), unanswered=True)[0] == [0]
        assert append(HumanMessage("stopped 19"), unanswered=True) == ([], [])
        assert append(HumanMessage("stopped 19"), AIMessage("yes")) == ([1], [f"stopped {n}" for n in range(20)])
        assert append(HumanMessage("stopped 19"), AIMessage("yes")) == ([0, 1], [])
        assert opened.texts(user)[-4:] == ["stopped 19", "yes", "stopped 19", "yes"]

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

    def test_a_turn_that_is_retried_at_once_is_stored_once(self, opened: OpenStore) -> None:
        user = new_user()
        opened.append(user, "s1", turn("before"))
        said = [HumanMessage("once", id="a"), HumanMessage("and this", id="b")]

        def retry(number: int) -> None:
            opened.store.append(user, "s1", dump_messages(said), answers=dump_messages([AIMessage(f"answer {number}")]))

        all_at_once([lambda number=number: retry(number) for number in range(6)])  # type: ignore[misc]
        texts = opened.texts(user)
        assert texts[:4] == ["before 0", "before 1", "once", "and this"]
        assert sorted(texts[4:]) == [f"answer {number}" for number in range(6)]

    def test_two_processes_append_to_one_session(self, opened: OpenStore) -> None:
        if not opened.code:
            pytest.skip("no other process can open this store")
        user = new_user()
        with Child(append_turns, opened.code, user, "a", 20), Child(append_turns, opened.code, user, "b", 20):
            pass  # each ends by itself
        assert_whole_turns(opened.texts(user), {f"{name}{number}": 3 for name in "ab" for number in range(20)})


CLIENTS = ("embedded", "embedded with a model", "memory", "separate")


def outcome_of(
    client: ScopedClient, block: Callable[[Turn], object], token: ErasureToken | None = None
) -> tuple[Turn, Exception | None]:
    """Run a turn of session s1; return it, and what it raised."""
    turns: list[Turn] = []
    try:
        with client.turn("s1", token) as one:
            turns.append(one)
            block(one)
    except Exception as error:
        return turns[0], error
    return turns[0], None


class TestTurn:
    """A turn through `ScopedClient.turn`: in one commit, in two where a model is asked, or in two stores."""

    @pytest.fixture
    def embeddings(self) -> FailingEmbeddings:
        return FailingEmbeddings()

    @pytest.fixture(params=CLIENTS)
    def client(
        self, request: pytest.FixtureRequest, tmp_path: Path, embeddings: FailingEmbeddings
    ) -> Iterator[EngineMemory]:
        if request.param == "memory":
            client = EngineMemory(MemoryStorage(), embeddings)
        else:
            llm = extracting() if request.param == "embedded with a model" else None
            client = local_memory(tmp_path / "m.db", embeddings=embeddings, llm=llm)
        with closing(client):
            if request.param == "separate":
                bind(client, f"sqlite:///{tmp_path / 'chats.db'}")
            yield client
            close_transcripts(client)

    @pytest.fixture
    def alice(self, client: EngineMemory) -> ScopedClient:
        return ScopedClient("alice", client=client)

    def stored(self, alice: ScopedClient) -> tuple[list[str], list[str]]:
        """The texts of alice's session, and those of her memories."""
        transcript = OpenStore(alice.transcript_store()).texts("alice")
        return transcript, sorted(texts_of(ScopedMemory("alice", client=alice.client).get_all()))

    def test_messages_are_appended_and_remembered(self, alice: ScopedClient) -> None:
        with alice.turn("s1", alice.erasure_token()) as one:
            assert not one.appended
            assert one.append(dump_messages(turn("t"))).new == [0, 1]
            one.remember(add_request("tea", session_id="s1"))
        assert one.appended
        assert self.stored(alice) == (["t 0", "t 1"], ["tea"])

    async def test_messages_are_remembered_async(self, alice: ScopedClient) -> None:
        with alice.turn("s1", None) as one:
            one.append(dump_messages(turn("t")))
            await one.aremember(add_request("tea", session_id="s1"))
        assert self.stored(alice) == (["t 0", "t 1"], ["tea"])

    def test_a_turn_need_not_remember_or_append(self, alice: ScopedClient) -> None:
        with alice.turn("s1", None):
            pass
        assert self.stored(alice) == ([], [])
        with alice.turn("s1", None) as one:
            one.append(dump_messages(turn("t")))
        assert self.stored(alice) == (["t 0", "t 1"], [])

    def test_append_returns_the_positions_of_new_messages(self, alice: ScopedClient) -> None:
        messages = [HumanMessage("x", id="a"), HumanMessage("y")]
        with alice.turn("s1", None) as one:
            assert one.append(dump_messages(messages)).new == [0, 1]
        with alice.turn("s1", None) as one:
            assert one.append(dump_messages(messages)).new == [1]
        assert self.stored(alice)[0] == ["x", "y", "y"]

    def test_a_turn_that_only_repeats_is_remembered_all_the_same(self, alice: ScopedClient) -> None:
        for fact in ("tea", "milk"):
            with alice.turn("s1", None) as one:
                one.append(dump_messages([HumanMessage("x", id="a")]))
                one.remember(add_request(fact, session_id="s1"))
        assert self.stored(alice) == (["x"], ["milk", "tea"])

    def test_messages_are_kept_where_the_block_raises(self, alice: ScopedClient) -> None:
        def block(one: Turn) -> None:
            one.append(dump_messages(turn("t")))
            raise RuntimeError("not remembered")

        one, error = outcome_of(alice, block)
        assert repr(error) == "RuntimeError('not remembered')"
        assert one.appended
        assert self.stored(alice) == (["t 0", "t 1"], [])

    def test_messages_are_kept_where_remembering_fails(
        self, embeddings: FailingEmbeddings, alice: ScopedClient
    ) -> None:
        def block(one: Turn) -> None:
            one.append(dump_messages(turn("t")))
            embeddings.fail_writing = embeddings.fail_searching = True
            one.remember(add_request("tea", session_id="s1"))

        one, error = outcome_of(alice, block)
        assert isinstance(error, BackendError)
        assert one.appended
        assert self.stored(alice) == (["t 0", "t 1"], [])

    def test_nothing_is_stored_where_the_block_raises_before_it_appends(self, alice: ScopedClient) -> None:
        def block(one: Turn) -> None:
            raise RuntimeError

        one, error = outcome_of(alice, block)
        assert isinstance(error, RuntimeError)
        assert not one.appended
        assert self.stored(alice) == ([], [])

    @pytest.mark.parametrize("known", [True, False])
    def test_nothing_is_stored_for_a_user_who_was_erased_since_the_token(
        self, client: EngineMemory, alice: ScopedClient, known: bool
    ) -> None:
        memory = ScopedMemory("alice", client=client)
        if known:
            memory.add("old")
        token = alice.erasure_token()
        memory.delete_all()
        one, error = outcome_of(alice, lambda one: one.append(dump_messages(turn("t"))), token)
        assert isinstance(error, BackendError)
        assert "erased" in str(error)
        assert error.retryable
        assert not one.appended
        assert self.stored(alice) == ([], [])

    @pytest.mark.parametrize("has_token", [True, False])
    def test_an_erasure_after_append_leaves_nothing(
        self, client: EngineMemory, alice: ScopedClient, has_token: bool
    ) -> None:
        token = alice.erasure_token()

        def block(one: Turn) -> None:
            one.append(dump_messages(turn("t")))
            ScopedMemory("alice", client=client).delete_all()
            one.remember(add_request("tea", session_id="s1", erasure_token=token))

        _, error = outcome_of(alice, block, token if has_token else None)
        assert isinstance(error, BackendError)
        assert "erased" in str(error)
        assert self.stored(alice) == ([], [])

    def test_others_can_write_while_the_block_runs(self, client: EngineMemory, alice: ScopedClient) -> None:
        bob = ScopedMemory("bob", client=client)
        with alice.turn("s1", None) as one:
            one.append(dump_messages(turn("t")))
            bob.add("here")
            all_at_once([lambda: bob.add("in another thread"), lambda: bob.chat_history("s1").add_messages(turn("b"))])
            OpenStore(alice.transcript_store()).append("alice", "s2", turn("other session"))
            one.remember(add_request("tea", session_id="s1"))
        assert self.stored(alice) == (["t 0", "t 1"], ["tea"])
        assert sorted(texts_of(bob.get_all())) == ["b 0", "b 1", "here", "in another thread"]
        assert OpenStore(alice.transcript_store()).texts("alice", "s2") == ["other session 0", "other session 1"]
