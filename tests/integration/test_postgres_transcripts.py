"""Transcripts and histories on a real PostgreSQL, through psycopg. What every store does is in conformance/."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import create_engine, event, text

from langchain_mem0_scoped import BackendError, ScopedChatMessageHistory, ScopedMemory, local_memory
from langchain_mem0_scoped.transcripts.codec import dump_messages
from langchain_mem0_scoped.transcripts.sql import TABLE, SqlTranscripts, engine_for, parse_url
from tests import postgres
from tests.chat import (
    HARD_TEXT,
    OpenStore,
    all_at_once,
    assert_whole_turns,
    close_transcripts,
    turn,
)
from tests.support import new_user
from tests.worlds import WordEmbeddings

pytestmark = pytest.mark.skipif(postgres.binaries() is None, reason="there is no PostgreSQL server on this machine")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgres.cluster() as folder:
        yield folder


@pytest.fixture
def opened(server: Path) -> Iterator[OpenStore]:
    engine = create_engine(postgres.url_of(server), pool_size=8)
    yield OpenStore(SqlTranscripts(engine))
    engine.dispose()


class TestServer:
    def test_stores_may_create_the_table_concurrently(self, server: Path) -> None:
        with create_engine(postgres.url_of(server), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("CREATE DATABASE fresh"))
        connection.engine.dispose()
        engines = [engine_for(parse_url(postgres.url_of(server, "fresh"))) for _ in range(8)]
        stores = [OpenStore(SqlTranscripts(engine)) for engine in engines]
        all_at_once([lambda store=store: store.append("u", "s1", turn("t")) for store in stores])  # type: ignore[misc]
        assert len(stores[0].texts("u")) == 16
        for engine in engines:
            engine.dispose()

    def test_an_append_waits_for_a_lock_held_elsewhere(self, opened: OpenStore, server: Path) -> None:
        user = new_user()
        opened.append(user, "s1", turn("first"))
        engine = create_engine(postgres.url_of(server))
        with engine.connect() as connection:
            connection.execute(text(f"LOCK TABLE {TABLE}"))
            all_at_once([lambda: opened.append(user, "s1", turn("second")), connection.commit])
        engine.dispose()
        assert opened.texts(user) == ["first 0", "first 1", "second 0", "second 1"]

    def test_a_turn_that_the_server_aborts_in_a_deadlock_is_stored_all_the_same(self, server: Path) -> None:
        user, url = new_user(), postgres.url_of(server)
        engine = create_engine(url, connect_args={"options": "-c deadlock_timeout=1s"})
        opened, states = OpenStore(SqlTranscripts(engine)), list[str | None]()
        opened.append(user, "s1", turn("first"))
        event.listen(engine, "handle_error", lambda context: states.append(context.original_exception.sqlstate))
        other = create_engine(url, connect_args={"options": "-c deadlock_timeout=1min"})
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        columns = "user_key, session_key, user_id, session_id, body"
        same_position = (
            f"INSERT INTO {TABLE} (position, {columns}) SELECT 2, {columns} FROM {TABLE} "
            "WHERE user_id = :user AND position = 0"
        )
        with other.connect() as connection, ThreadPoolExecutor(1) as pool:
            # The append waits for this row, and this connection for the append. The append looks for a deadlock first.
            connection.execute(text(same_position), {"user": user})
            appending = pool.submit(opened.append, user, "s1", turn("second"))
            while not connection.scalar(waiting):
                assert not appending.done()
            connection.execute(text(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"))
            connection.rollback()
            assert appending.result(60) == [0, 1]
        assert states == ["40P01"]
        assert opened.texts(user) == ["first 0", "first 1", "second 0", "second 1"]
        engine.dispose()
        other.dispose()

    def test_a_stopped_server_is_a_retryable_error_that_quotes_nothing(self) -> None:
        with postgres.cluster() as folder:
            engine = engine_for(parse_url(postgres.url_of(folder)))
            store = SqlTranscripts(engine)
            store.append("u", "s1", dump_messages(turn("t")))
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("append", ("u", "s1", dump_messages(turn("secret words")))),
            ("read", ("u", "s1")),
            ("erase", ("u",)),
        ]
        for verb, arguments in calls:
            with pytest.raises(BackendError) as raised:
                getattr(store, verb)(*arguments)
            assert raised.value.retryable
            assert raised.value.__context__ is raised.value.__cause__ is None
            assert "secret" not in str(raised.value)
        engine.dispose()

    def test_rows_are_readable_by_people(self, opened: OpenStore, server: Path) -> None:
        user = new_user()
        opened.append(user, "s1", [HumanMessage("Grüße")])
        engine = create_engine(postgres.url_of(server))
        query = text(f"SELECT session_id, body::json -> 'data' ->> 'content' FROM {TABLE} WHERE user_id = :user")
        with engine.connect() as connection:
            assert connection.execute(query, {"user": user}).all() == [("s1", "Grüße")]
        engine.dispose()


class TestHistory:
    @pytest.fixture
    def bound(self, server: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        yield {"client": client, "transcripts": postgres.url_of(server)}
        close_transcripts(client)
        client.close()

    def test_recall_reads_other_sessions_and_no_other_user(self, bound: dict[str, Any]) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        ScopedChatMessageHistory(alice, "s1", **bound).add_messages([HumanMessage("I am vegetarian " + HARD_TEXT)])
        again = ScopedChatMessageHistory(alice, "s1", **bound, recall=0)
        assert [message.text for message in again.messages] == ["I am vegetarian " + HARD_TEXT]
        (recalled,) = ScopedChatMessageHistory(alice, "s2", **bound).messages
        assert "vegetarian" in recalled.text
        for session in ("s1", "s2"):
            assert ScopedChatMessageHistory(bob, session, **bound).messages == []

    def test_an_erasure_counts_the_messages(self, bound: dict[str, Any]) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        for user in (alice, bob):
            for session in ("s1", "s2"):
                ScopedChatMessageHistory(user, session, **bound).add_messages(turn("t", 3))
        assert ScopedMemory(alice, client=bound["client"]).delete_all().transcripts == 6
        assert ScopedMemory(alice, client=bound["client"]).delete_all().transcripts == 0
        assert len(ScopedChatMessageHistory(bob, "s1", **bound, recall=0).messages) == 3

    async def test_concurrent_async_turns_stay_whole(self, bound: dict[str, Any]) -> None:
        user = new_user()
        histories = [ScopedChatMessageHistory(user, "s1", **bound, recall=0, remember=False) for _ in range(16)]
        await asyncio.gather(*(history.aadd_messages(turn(f"t{n}", 3)) for n, history in enumerate(histories)))
        messages = await ScopedChatMessageHistory(user, "s1", **bound, recall=0).aget_messages()
        assert_whole_turns([message.text for message in messages], {f"t{n}": 3 for n in range(16)})
        await histories[0].aclear()
        assert await ScopedChatMessageHistory(user, "s1", **bound, recall=0).aget_messages() == []
