"""Transcripts in a SQL database, here SQLite by URL and by Engine; PostgreSQL is in tests/integration."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import URL, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped import BackendError, InputError, ScopeError
from langchain_mem0_scoped.transcripts.base import dump_messages
from langchain_mem0_scoped.transcripts.sql import TABLE, SqlTranscripts, engine_for, parse_url
from tests.chat import Place, StoreContract, all_at_once, opening, turn
from tests.support import new_user

SECRET = "hunter2-s3cret"


def opened(url: str) -> SqlTranscripts:
    return SqlTranscripts(engine_for(parse_url(url)))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'chats.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def fresh(engine: Engine) -> Place:
    return Place(SqlTranscripts(engine), "")


@pytest.fixture(scope="module", params=["url", "engine", "wal"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For a whole file; tests keep apart by taking new users."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sql') / 'chats.db'}"
    engine = engine_for(parse_url(url)) if request.param == "url" else create_engine(url)
    if request.param == "wal":
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode=WAL"))
    yield Place(SqlTranscripts(engine), opening(url))
    engine.dispose()


class TestStore(StoreContract):
    """By URL, by Engine, and with SQLite's write-ahead log."""


class TestNaming:
    @pytest.mark.parametrize("where", [1, b"sqlite:///x", Path("chats.db"), object(), ["sqlite:///x"]])
    def test_it_is_a_url_or_an_engine(self, where: object) -> None:
        with pytest.raises(InputError, match="URL or Engine"):
            parse_url(where)

    @pytest.mark.parametrize("where", ["", "chats.db", f"postgresql+psycopg://u:{SECRET}@h:port/db"])
    def test_a_url_that_cannot_be_read(self, where: str) -> None:
        with pytest.raises(InputError, match="cannot be read") as raised:
            parse_url(where)
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None

    def test_a_url_object_and_its_text_are_one_place(self) -> None:
        url = URL.create("postgresql+psycopg", "u", SECRET, "h", database="d")
        assert parse_url(url) == parse_url(url.render_as_string(hide_password=False))

    @pytest.mark.parametrize(
        ("where", "hint"),
        [
            (f"nosuch+driver://u:{SECRET}@h/d", "NoSuchModuleError"),
            (f"mysql+mysqldb://u:{SECRET}@h/d", "pip install MySQLdb"),
            ("sqlite://", "in memory"),
            ("sqlite:///:memory:", "in memory"),
        ],
    )
    def test_a_database_that_cannot_be_used(self, where: str, hint: str) -> None:
        with pytest.raises(InputError, match=hint) as raised:
            engine_for(parse_url(where))
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None

    def test_an_asynchronous_engine_is_refused(self) -> None:
        with pytest.raises(InputError, match="synchronous"):
            engine_for(make_url("postgresql+psycopg_async://h/d"))

    def test_a_relative_file_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "one")
        engine = engine_for(make_url("sqlite:///chats.db"))
        monkeypatch.chdir(tmp_path / "two")
        Place(SqlTranscripts(engine), "").append("u", "s1", turn("t"))
        engine.dispose()
        assert [path.parent.name for path in tmp_path.glob("*/chats.db")] == ["one"]

    def test_building_one_connects_to_nothing(self, tmp_path: Path) -> None:
        SqlTranscripts(engine_for(make_url(f"sqlite:///{tmp_path / 'none' / 'chats.db'}")))
        assert list(tmp_path.iterdir()) == []


class TestTable:
    def test_it_is_made_on_first_use_and_found_afterwards(self, engine: Engine) -> None:
        Place(SqlTranscripts(engine), "").append("u", "s1", turn("t"))
        assert inspect(engine).get_table_names() == [TABLE]
        assert Place(SqlTranscripts(engine), "").texts("u") == ["t 0", "t 1"]

    def test_many_may_make_it_at_once(self, engine: Engine) -> None:
        stores = [Place(SqlTranscripts(engine), "") for _ in range(8)]
        all_at_once([lambda store=store: store.append("u", "s1", turn("t")) for store in stores])  # type: ignore[misc]
        assert len(stores[0].texts("u")) == 16

    def test_it_can_be_read_by_people(self, engine: Engine, fresh: Place) -> None:
        fresh.append("u", "s1", [HumanMessage("Grüße", id="h1")])
        with engine.connect() as connection:
            (row,) = connection.execute(text(f"SELECT user_id, session_id, position, body FROM {TABLE}")).all()
        assert row[:3] == ("u", "s1", 0)
        assert '"content":"Grüße"' in row.body

    def test_a_database_that_folds_case_takes_no_two_users_for_one(self, engine: Engine) -> None:
        """As MySQL's and SQL Server's do unless told otherwise; in SQLite by the table's own collation."""
        columns = ", ".join(
            f"{name} TEXT COLLATE NOCASE"
            for name in ("user_key", "session_key", "message_key", "user_id", "session_id")
        )
        unique = "UNIQUE (user_key, session_key, position), UNIQUE (user_key, session_key, message_key)"
        with engine.begin() as connection:
            connection.execute(
                text(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, position INTEGER, body TEXT, {columns}, {unique})")
            )
        place = Place(SqlTranscripts(engine), "")
        for user in ("alice", "Alice"):
            for session in ("s", "S"):
                place.append(user, session, [HumanMessage("x", id="a"), HumanMessage("X", id="A")])
        place.store.clear("alice", "s")
        assert place.store.erase("ALICE") == 0
        assert [len(place.read(user, session)) for user in ("alice", "Alice") for session in "sS"] == [0, 2, 2, 2]
        assert [place.store.sessions(user) for user in ("alice", "Alice", "ALICE")] == [["S"], ["s", "S"], []]

    def test_an_engine_with_a_json_of_its_own_changes_nothing(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'j.db'}", json_serializer=repr, json_deserializer=str)
        place = Place(SqlTranscripts(engine), "")
        place.append("u", "s1", turn("t"))
        assert place.texts("u") == ["t 0", "t 1"]
        engine.dispose()

    def test_an_engine_of_one_connection_in_memory_will_do(self) -> None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        place = Place(SqlTranscripts(engine_for(engine)), "")
        place.append("u", "s1", turn("t"))
        assert place.texts("u") == ["t 0", "t 1"]
        engine.dispose()


class TestFailures:
    def test_a_turn_is_stored_whole_or_not_at_all(self, engine: Engine, fresh: Place) -> None:
        fresh.append("u", "s1", turn("first"))

        def fail(*_: Any) -> None:
            raise RuntimeError(SECRET)

        event.listen(engine, "commit", fail)
        with pytest.raises(BackendError) as raised:
            fresh.append("u", "s1", turn("second"))
        event.remove(engine, "commit", fail)
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is raised.value.__cause__ is None
        assert fresh.texts("u") == ["first 0", "first 1"]

    @pytest.mark.parametrize(("column", "value"), [("user_id", "bob"), ("session_id", "secret")])
    def test_a_row_of_somebody_else_is_raised(self, engine: Engine, fresh: Place, column: str, value: str) -> None:
        """One that stands under the hashes of this user's ids: nobody's doing but the database's."""
        for session in ("s1", "s2"):
            fresh.append("alice", session, turn("t"))
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {TABLE} SET {column} = '{value}' WHERE id = 4"))
        for look in (lambda: fresh.store.sessions("alice"), lambda: fresh.read("alice", "s2")):
            with pytest.raises(ScopeError, match="outside this user's scope") as raised:
                look()
            assert value not in str(raised.value)
        assert fresh.texts("alice", "s1") == ["t 0", "t 1"]

    @pytest.mark.parametrize("verb", ["append", "read", "sessions", "clear", "erase"])
    def test_a_database_that_cannot_be_reached_is_a_clean_retryable_error(self, verb: str) -> None:
        pytest.importorskip("psycopg")
        store = opened(f"postgresql+psycopg://someone:{SECRET}@/none?host=/no/such/{SECRET}")
        arguments: dict[str, tuple[Any, ...]] = {
            "append": ("u", "s", dump_messages(turn("words-of-a-user"))),
            "read": ("u", "s"),
            "sessions": ("u",),
            "clear": ("u", "s"),
            "erase": ("u",),
        }
        with pytest.raises(BackendError) as raised:
            getattr(store, verb)(*arguments[verb])
        assert raised.value.retryable
        assert raised.value.__context__ is raised.value.__cause__ is None
        for hidden in (SECRET, "someone", "words-of-a-user"):
            assert hidden not in str(raised.value)

    def test_an_option_the_driver_does_not_know_is_a_clean_error(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}", connect_args={SECRET: SECRET})
        with pytest.raises(BackendError, match="TypeError") as raised:
            SqlTranscripts(engine).read("u", "s")
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None

    def test_a_table_of_another_shape_is_a_clean_error(self, engine: Engine, fresh: Place) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY)"))
        with pytest.raises(BackendError, match="OperationalError"):
            fresh.append("u", "s1", turn("t"))

    def test_a_write_lock_of_somebody_else_is_waited_for(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'chats.db'}", connect_args={"timeout": 0.01})
        place = Place(SqlTranscripts(engine), "")
        place.append("u", "s1", turn("first"))
        other = create_engine(f"sqlite:///{tmp_path / 'chats.db'}", connect_args={"check_same_thread": False})
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

            def release() -> None:
                connection.exec_driver_sql("COMMIT")

            all_at_once([lambda: place.append("u", "s1", turn("second")), release])
        assert place.texts("u") == ["first 0", "first 1", "second 0", "second 1"]
        engine.dispose()
        other.dispose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_the_child_opens_a_connection_of_its_own(tmp_path: Path) -> None:
    engine = engine_for(make_url(f"sqlite:///{tmp_path / 'chats.db'}"))
    place, user = Place(SqlTranscripts(engine), ""), new_user()
    place.append(user, "s1", turn("parent"))
    before = engine.pool.checkedin()  # type: ignore[attr-defined]

    def work(results: Any) -> None:
        inherited = engine.pool.checkedin()  # type: ignore[attr-defined]
        place.append(user, "s1", turn("child"))
        results.put((inherited, place.texts(user)))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=work, args=(results,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking beside other threads
        child.start()
    child.join(60)
    assert (before, child.exitcode) == (1, 0)
    assert results.get() == (0, ["parent 0", "parent 1", "child 0", "child 1"])
    assert place.texts(user) == ["parent 0", "parent 1", "child 0", "child 1"]
    engine.dispose()
