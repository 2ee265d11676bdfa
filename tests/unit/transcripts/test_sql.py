"""SqlTranscripts on SQLite: URLs and Engines, the table, failures, forks. What every store does is in conformance/."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped import BackendError, InputError, ScopeError
from langchain_mem0_scoped.transcripts import sql
from langchain_mem0_scoped.transcripts.codec import dump_messages
from langchain_mem0_scoped.transcripts.sql import TABLE, SqlTranscripts, engine_for, parse_url
from tests.chat import OpenStore, all_at_once, turn
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
def fresh(engine: Engine) -> OpenStore:
    return OpenStore(SqlTranscripts(engine))


class TestNaming:
    @pytest.mark.parametrize("where", [1, b"sqlite:///x", Path("chats.db"), object(), ["sqlite:///x"]])
    def test_what_is_not_a_url_or_an_engine_is_refused(self, where: object) -> None:
        with pytest.raises(InputError, match="URL or Engine"):
            parse_url(where)

    @pytest.mark.parametrize("where", ["", "chats.db", f"postgresql+psycopg://u:{SECRET}@h:port/db"])
    def test_a_url_that_cannot_be_parsed_is_refused_without_quoting_it(self, where: str) -> None:
        with pytest.raises(InputError, match="cannot be parsed") as raised:
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
    def test_a_database_that_cannot_be_used_is_refused_without_quoting_it(self, where: str, hint: str) -> None:
        with pytest.raises(InputError, match=hint) as raised:
            engine_for(parse_url(where))
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None

    def test_an_async_engine_is_refused(self) -> None:
        with pytest.raises(InputError, match="synchronous"):
            engine_for(make_url("postgresql+psycopg_async://h/d"))

    def test_a_relative_file_is_relative_to_where_it_was_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "one")
        engine = engine_for(make_url("sqlite:///chats.db"))
        monkeypatch.chdir(tmp_path / "two")
        OpenStore(SqlTranscripts(engine)).append("u", "s1", turn("t"))
        engine.dispose()
        assert [path.parent.name for path in tmp_path.glob("*/chats.db")] == ["one"]

    def test_building_a_store_does_not_connect(self, tmp_path: Path) -> None:
        SqlTranscripts(engine_for(make_url(f"sqlite:///{tmp_path / 'none' / 'chats.db'}")))
        assert list(tmp_path.iterdir()) == []


class TestTable:
    def test_the_table_is_created_on_first_use_and_found_afterwards(self, engine: Engine) -> None:
        OpenStore(SqlTranscripts(engine)).append("u", "s1", turn("t"))
        assert inspect(engine).get_table_names() == [TABLE]
        assert OpenStore(SqlTranscripts(engine)).texts("u") == ["t 0", "t 1"]

    def test_stores_may_create_the_table_concurrently(self, engine: Engine) -> None:
        stores = [OpenStore(SqlTranscripts(engine)) for _ in range(8)]
        all_at_once([lambda store=store: store.append("u", "s1", turn("t")) for store in stores])  # type: ignore[misc]
        assert len(stores[0].texts("u")) == 16

    def test_rows_are_readable_by_people(self, engine: Engine, fresh: OpenStore) -> None:
        fresh.append("u", "s1", [HumanMessage("Grüße", id="h1")])
        with engine.connect() as connection:
            (row,) = connection.execute(text(f"SELECT user_id, session_id, position, body FROM {TABLE}")).all()
        assert row[:3] == ("u", "s1", 0)
        assert '"content":"Grüße"' in row.body

    def test_users_are_separate_in_a_database_that_ignores_case(self, engine: Engine) -> None:
        """MySQL and SQL Server ignore case by default; here SQLite does, by the collation of the table."""
        columns = ", ".join(
            f"{name} TEXT COLLATE NOCASE" for name in ("user_key", "session_key", "user_id", "session_id")
        )
        unique = "UNIQUE (user_key, session_key, position)"
        with engine.begin() as connection:
            connection.execute(
                text(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, position INTEGER, body TEXT, {columns}, {unique})")
            )
        opened = OpenStore(SqlTranscripts(engine))
        for user in ("alice", "Alice"):
            for session in ("s", "S"):
                opened.append(user, session, [HumanMessage("x", id="a"), HumanMessage("X", id="A")])
        opened.store.clear("alice", "s")
        assert opened.store.erase("ALICE") == 0
        assert [len(opened.read(user, session)) for user in ("alice", "Alice") for session in "sS"] == [0, 2, 2, 2]
        assert [opened.store.sessions(user) for user in ("alice", "Alice", "ALICE")] == [["S"], ["s", "S"], []]

    def test_an_engine_with_its_own_json_serializer_works(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'j.db'}", json_serializer=repr, json_deserializer=str)
        opened = OpenStore(SqlTranscripts(engine))
        opened.append("u", "s1", turn("t"))
        assert opened.texts("u") == ["t 0", "t 1"]
        engine.dispose()

    def test_an_engine_with_one_connection_in_memory_works(self) -> None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        opened = OpenStore(SqlTranscripts(engine_for(engine)))
        opened.append("u", "s1", turn("t"))
        assert opened.texts("u") == ["t 0", "t 1"]
        engine.dispose()


class TestFailures:
    def test_an_append_is_stored_whole_or_not_at_all(self, engine: Engine, fresh: OpenStore) -> None:
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
    def test_a_row_of_another_user_or_session_raises(
        self, engine: Engine, fresh: OpenStore, column: str, value: str
    ) -> None:
        """A row under the hashes of this user's ids that names somebody else: only a broken database returns it."""
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
    def test_an_unreachable_database_is_a_retryable_error_that_quotes_nothing(self, verb: str) -> None:
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

    def test_a_driver_error_is_not_quoted(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}", connect_args={SECRET: SECRET})
        with pytest.raises(BackendError, match="TypeError") as raised:
            SqlTranscripts(engine).read("u", "s")
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None

    def test_a_table_with_other_columns_is_a_backend_error(self, engine: Engine, fresh: OpenStore) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY)"))
        with pytest.raises(BackendError, match="OperationalError"):
            fresh.append("u", "s1", turn("t"))

    def test_an_append_waits_for_a_lock_held_elsewhere(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'chats.db'}", connect_args={"timeout": 0.01})
        opened, refusals = OpenStore(SqlTranscripts(engine)), list[str]()
        opened.append("u", "s1", turn("first"))
        other = create_engine(f"sqlite:///{tmp_path / 'chats.db'}")
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

            def release(context: ExceptionContext) -> None:
                refusals.append(str(context.original_exception))
                if len(refusals) == 3:
                    connection.exec_driver_sql("COMMIT")

            event.listen(engine, "handle_error", release)
            assert opened.append("u", "s1", turn("second")) == [0, 1]
        assert refusals == ["database is locked"] * 3
        assert opened.texts("u") == ["first 0", "first 1", "second 0", "second 1"]
        engine.dispose()
        other.dispose()

    def test_a_lock_that_is_never_released_is_a_retryable_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql, "_RETRY_SECONDS", 0.05)
        engine = create_engine(f"sqlite:///{tmp_path / 'chats.db'}", connect_args={"timeout": 0.01})
        opened = OpenStore(SqlTranscripts(engine))
        opened.append("u", "s1", turn("first"))
        other = create_engine(f"sqlite:///{tmp_path / 'chats.db'}")
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(BackendError, match="stays locked") as raised:
                opened.append("u", "s1", turn("second"))
        assert raised.value.retryable
        engine.dispose()
        other.dispose()

    @pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
    def test_a_transaction_that_the_database_aborted_is_repeated(
        self, engine: Engine, fresh: OpenStore, sqlstate: str
    ) -> None:
        """PostgreSQL aborts one of two transactions that deadlock or cannot be serialized."""

        class Aborted(Exception):
            pass

        Aborted.sqlstate = sqlstate  # type: ignore[attr-defined]
        aborted: list[str] = []

        def abort_twice(*arguments: Any) -> None:
            if arguments[2].startswith("INSERT") and len(aborted) < 2:
                aborted.append(sqlstate)
                raise OperationalError("INSERT", {}, Aborted())

        event.listen(engine, "before_cursor_execute", abort_twice)
        assert fresh.append("u", "s1", turn("t")) == [0, 1]
        assert aborted == [sqlstate] * 2
        assert fresh.texts("u") == ["t 0", "t 1"]

    def test_another_database_error_is_not_repeated(self, engine: Engine, fresh: OpenStore) -> None:
        tried: list[str] = []

        def fail(*arguments: Any) -> None:
            if arguments[2].startswith("INSERT"):
                tried.append("INSERT")
                raise OperationalError("INSERT", {}, Exception("disk full"))

        event.listen(engine, "before_cursor_execute", fail)
        with pytest.raises(BackendError):
            fresh.append("u", "s1", turn("t"))
        assert tried == ["INSERT"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_opens_its_own_connection(tmp_path: Path) -> None:
    engine = engine_for(make_url(f"sqlite:///{tmp_path / 'chats.db'}"))
    opened, user = OpenStore(SqlTranscripts(engine)), new_user()
    opened.append(user, "s1", turn("parent"))
    before = engine.pool.checkedin()  # type: ignore[attr-defined]

    def work(results: Any) -> None:
        inherited = engine.pool.checkedin()  # type: ignore[attr-defined]
        opened.append(user, "s1", turn("child"))
        results.put((inherited, opened.texts(user)))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=work, args=(results,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking beside other threads
        child.start()
    child.join(60)
    assert (before, child.exitcode) == (1, 0)
    assert results.get() == (0, ["parent 0", "parent 1", "child 0", "child 1"])
    assert opened.texts(user) == ["parent 0", "parent 1", "child 0", "child 1"]
    engine.dispose()
