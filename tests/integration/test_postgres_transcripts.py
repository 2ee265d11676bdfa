"""Transcripts and histories on a real PostgreSQL, through psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import create_engine, text

from langchain_mem0_scoped import BackendError, ScopedChatMessageHistory, ScopedMemory, local_memory
from langchain_mem0_scoped.transcripts.base import dump_messages
from langchain_mem0_scoped.transcripts.sql import TABLE, SqlTranscripts, engine_for, parse_url
from tests import postgres
from tests.chat import (
    HARD_TEXT,
    Place,
    StoreContract,
    all_at_once,
    assert_whole_turns,
    close_transcripts,
    opening,
    turn,
)
from tests.support import new_user
from tests.worlds import WordEmbeddings

pytestmark = pytest.mark.skipif(postgres.binaries() is None, reason="there is no PostgreSQL server on this machine")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgres.cluster() as folder:
        yield folder


@pytest.fixture(scope="module", params=["READ COMMITTED", "SERIALIZABLE"])
def place(server: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    url = postgres.url_of(server)
    engine = create_engine(url, isolation_level=request.param, pool_size=8)
    yield Place(SqlTranscripts(engine), opening(url))
    engine.dispose()


class TestStore(StoreContract):
    """As PostgreSQL comes, and where transactions may fail for others' sake."""


class TestServer:
    def test_many_may_make_the_table_at_once(self, server: Path) -> None:
        with create_engine(postgres.url_of(server), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("CREATE DATABASE fresh"))
        connection.engine.dispose()
        engines = [engine_for(parse_url(postgres.url_of(server, "fresh"))) for _ in range(8)]
        stores = [Place(SqlTranscripts(engine), "") for engine in engines]
        all_at_once([lambda store=store: store.append("u", "s1", turn("t")) for store in stores])  # type: ignore[misc]
        assert len(stores[0].texts("u")) == 16
        for engine in engines:
            engine.dispose()

    def test_a_lock_of_somebody_else_is_waited_for(self, place: Place, server: Path) -> None:
        user = new_user()
        place.append(user, "s1", turn("first"))
        engine = create_engine(postgres.url_of(server))
        with engine.connect() as connection:
            connection.execute(text(f"LOCK TABLE {TABLE}"))
            all_at_once([lambda: place.append(user, "s1", turn("second")), connection.commit])
        engine.dispose()
        assert place.texts(user) == ["first 0", "first 1", "second 0", "second 1"]

    def test_a_server_that_goes_away_is_a_clean_retryable_error(self) -> None:
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

    def test_rows_can_be_read_by_people(self, place: Place, server: Path) -> None:
        user = new_user()
        place.append(user, "s1", [HumanMessage("Grüße")])
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

    def test_sessions_recall_each_other_and_users_do_not(self, bound: dict[str, Any]) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        ScopedChatMessageHistory(alice, "s1", **bound).add_messages([HumanMessage("I am vegetarian " + HARD_TEXT)])
        again = ScopedChatMessageHistory(alice, "s1", **bound, recall=0)
        assert [message.text for message in again.messages] == ["I am vegetarian " + HARD_TEXT]
        (recalled,) = ScopedChatMessageHistory(alice, "s2", **bound).messages
        assert "vegetarian" in recalled.text
        for session in ("s1", "s2"):
            assert ScopedChatMessageHistory(bob, session, **bound).messages == []

    def test_erasing_counts_the_rows(self, bound: dict[str, Any]) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        for user in (alice, bob):
            for session in ("s1", "s2"):
                ScopedChatMessageHistory(user, session, **bound).add_messages(turn("t", 3))
        assert ScopedMemory(alice, client=bound["client"]).delete_all().transcripts == 6
        assert ScopedMemory(alice, client=bound["client"]).delete_all().transcripts == 0
        assert len(ScopedChatMessageHistory(bob, "s1", **bound, recall=0).messages) == 3

    async def test_async_turns_at_once(self, bound: dict[str, Any]) -> None:
        user = new_user()
        histories = [ScopedChatMessageHistory(user, "s1", **bound, recall=0, remember=False) for _ in range(16)]
        await asyncio.gather(*(history.aadd_messages(turn(f"t{n}", 3)) for n, history in enumerate(histories)))
        messages = await ScopedChatMessageHistory(user, "s1", **bound, recall=0).aget_messages()
        assert_whole_turns([message.text for message in messages], {f"t{n}": 3 for n in range(16)})
        await histories[0].aclear()
        assert await ScopedChatMessageHistory(user, "s1", **bound, recall=0).aget_messages() == []
