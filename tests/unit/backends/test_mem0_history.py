"""Mem0History: removes exactly the rows of one user or memory, and their bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mem0.memory.main import _build_session_scope
from mem0.memory.storage import SQLiteManager

from langchain_mem0_scoped.backends.mem0_history import Mem0History
from langchain_mem0_scoped.mem0_compat import parse_user_id

ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20) | st.text("a=&%25D6", min_size=1)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SQLiteManager]:
    manager = SQLiteManager(str(tmp_path / "history.db"))
    yield manager
    manager.close()


def add(manager: SQLiteManager, memory_id: str, *texts: str) -> None:
    for old, new in zip((None, *texts), texts, strict=False):
        manager.add_history(memory_id, old, new, "UPDATE" if old else "ADD", created_at="2026-01-01", role="user")


def save(manager: SQLiteManager, scope: str, *texts: str) -> None:
    manager.save_messages([{"role": "user", "content": text} for text in texts], scope)


def saved(manager: SQLiteManager, scope: str) -> list[str]:
    return [message["content"] for message in manager.get_last_messages(scope)]


class TestSessionScopes:
    @given(user=ids, agent=st.none() | ids, run=st.none() | ids)
    def test_the_user_is_parsed_from_what_mem0_builds(self, user: str, agent: str | None, run: str | None) -> None:
        scope = _build_session_scope({"user_id": user, "agent_id": agent, "run_id": run})
        assert parse_user_id(scope) == user

    @given(agent=ids, run=ids)
    def test_no_other_id_is_taken_for_a_user(self, agent: str, run: str) -> None:
        assert parse_user_id(_build_session_scope({"agent_id": agent, "run_id": run})) is None

    @pytest.mark.parametrize("scope", [None, "", "alice", "xuser_id=alice", "user_id.x=alice", "run_id=user_id"])
    def test_other_text_names_no_user(self, scope: str | None) -> None:
        assert parse_user_id(scope) is None

    def test_messages_of_one_user_are_removed_in_every_session(self, manager: SQLiteManager) -> None:
        scopes = {
            user: [
                _build_session_scope({"user_id": user} | extra) for extra in ({}, {"run_id": "r"}, {"agent_id": "a"})
            ]
            for user in ("a", "a&user_id=b", "b", "A", "a%", "%", "_", "user_id=a")
        }
        for user, theirs in scopes.items():
            for scope in theirs:
                save(manager, scope, f"of {user}", f"also of {user}")
        db = Mem0History(manager)
        for user in ("a&user_id=b", "%", "a"):
            assert db.left(user, [])["messages"] == 3
            assert db.forget_messages(user) == 6
            assert db.forget_messages(user) == 0
            assert db.left(user, []) == {"history": 0, "messages": 0}
            for scope in scopes.pop(user):
                assert saved(manager, scope) == []
            for other, theirs in scopes.items():
                for scope in theirs:
                    assert saved(manager, scope) == [f"of {other}", f"also of {other}"]


class TestHistory:
    def test_more_ids_than_parameters_of_a_statement(self, manager: SQLiteManager) -> None:
        mine = [str(uuid4()) for _ in range(1_201)]
        manager.batch_add_history([{"memory_id": id, "new_memory": "x", "event": "ADD"} for id in mine])
        add(manager, "other", "y")
        db = Mem0History(manager)
        assert db.left("nobody", mine)["history"] == 1_201
        assert db.forget(mine) == 1_201
        assert db.forget(mine) == db.forget([]) == 0
        assert db.left("nobody", [*mine, "other"])["history"] == 1
        assert [row["new_memory"] for row in manager.get_history("other")] == ["y"]

    def test_old_text_is_removed_and_events_stay(self, manager: SQLiteManager) -> None:
        add(manager, "mine", "first", "second", "third")
        add(manager, "other", "first", "second")
        Mem0History(manager).forget_old_text("mine")
        rows = manager.get_history("mine")
        assert [(row["event"], row["old_memory"], row["new_memory"]) for row in rows] == [
            ("ADD", None, None),
            ("UPDATE", None, None),
            ("UPDATE", None, "third"),
        ]
        assert {row["created_at"] for row in rows} == {"2026-01-01"}
        assert [row["old_memory"] for row in manager.get_history("other")] == [None, "first"]

    @pytest.mark.parametrize("how", ["forget", "forget_old_text", "forget_messages"])
    def test_bytes_are_overwritten(self, manager: SQLiteManager, how: str) -> None:
        # SQLite leaves deleted bytes in place by default, but Debian's build does not. One row only: copies that SQLite
        # makes when it moves rows between pages cannot be reached in mem0's file.
        manager.connection.execute("PRAGMA secure_delete=OFF")
        if how == "forget_messages":
            save(manager, "run_id=1&user_id=alice", "a secret")
        else:
            add(manager, "mine", "a secret", "what it says now")
        file = Path(manager.db_path)
        assert b"a secret" in file.read_bytes()
        db = Mem0History(manager)
        argument: Any = {"forget": ["mine"], "forget_old_text": "mine", "forget_messages": "alice"}[how]
        getattr(db, how)(argument)
        assert b"a secret" not in file.read_bytes()

    def test_a_failure_half_way_removes_nothing(self, manager: SQLiteManager) -> None:
        ids = [str(uuid4()) for _ in range(1_201)]
        manager.batch_add_history([{"memory_id": id, "new_memory": "x", "event": "ADD"} for id in ids])
        manager.connection.execute(
            "CREATE TRIGGER t BEFORE DELETE ON history "
            f"WHEN old.memory_id = '{ids[-1]}' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        db = Mem0History(manager)
        with pytest.raises(sqlite3.IntegrityError):
            db.forget(ids)
        assert db.left("nobody", ids)["history"] == 1_201


def test_a_failure_changes_nothing_and_leaves_the_connection_usable(manager: SQLiteManager) -> None:
    add(manager, "mine", "text")
    db = Mem0History(manager)
    manager.connection.execute("PRAGMA busy_timeout=10")
    other = sqlite3.connect(manager.db_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        db.forget(["mine"])
    other.execute("ROLLBACK")
    other.close()

    manager.connection.execute("CREATE TRIGGER t BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        db.forget(["mine"])
    manager.connection.execute("DROP TRIGGER t")

    add(manager, "mine", "more")
    assert db.forget(["mine"]) == 2


def test_files(manager: SQLiteManager) -> None:
    assert Mem0History(manager).files() == [Path(manager.db_path)]
    in_memory = SQLiteManager()
    assert Mem0History(in_memory).files() == []
    in_memory.close()
