"""What mem0 calls `db`: events and kept messages, each in the partition of its user."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from mem0.memory.main import _build_session_scope
from mem0.memory.storage import SQLiteManager

from langchain_mem0_scoped import ScopedMemory, ScopeError, local_memory
from langchain_mem0_scoped.engine.history import EngineHistory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.models import extracting
from tests.worlds import WordEmbeddings

_MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(), llm=extracting())
    yield client
    client.close()


@pytest.fixture
def db(client: EngineMemory) -> EngineHistory:
    db: EngineHistory = client.db
    return db


def test_it_has_what_mem0_calls() -> None:
    called = {"add_history", "batch_add_history", "get_history", "save_messages", "get_last_messages", "reset", "close"}
    assert called <= set(dir(SQLiteManager))
    assert called <= set(dir(EngineHistory))


def test_events_come_oldest_first_in_the_words_of_mem0(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    db.add_history(
        row["id"], "I like tea", "I like coffee", "UPDATE", created_at="2020", updated_at="2021", role="user"
    )
    first, second = db.get_history(row["id"])
    assert (first["event"], second["event"]) == ("ADD", "UPDATE")
    assert second["new_memory"] == "I like coffee"
    assert (second["created_at"], second["updated_at"], second["role"]) == ("2020", "2021", "user")
    assert second["memory_id"] == first["memory_id"] == row["id"]
    dates = {"created_at", "updated_at"}
    texts = {"old_memory", "new_memory"}
    assert set(first) == {"id", "memory_id", "event", "is_deleted", "actor_id", "role"} | dates | texts


def test_old_text_is_never_kept(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    db.add_history(row["id"], "an old zyzzogeton", "new", "UPDATE")
    assert "zyzzogeton" not in str(db.get_history(row["id"]))


def test_events_of_no_memory_are_not_kept(client: EngineMemory, db: EngineHistory) -> None:
    db.add_history(_MISSING, None, "text of nobody", "ADD")
    db.add_history("not a uuid", None, "text of nobody", "ADD")
    db.batch_add_history([{"memory_id": _MISSING, "new_memory": "text of nobody", "event": "ADD"}])
    assert db.get_history(_MISSING) == []
    with client._database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_the_event_of_a_deletion_is_not_kept(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    db.add_history(row["id"], "I like tea", None, "DELETE", is_deleted=1)
    assert [event["event"] for event in db.get_history(row["id"])] == ["ADD"]


@pytest.mark.parametrize("memory_id", ["", "*", "not a uuid", "%", _MISSING])
def test_an_id_that_names_no_memory_has_no_history(db: EngineHistory, memory_id: str) -> None:
    assert db.get_history(memory_id) == []


def test_an_entity_has_no_history(client: EngineMemory, db: EngineHistory) -> None:
    entity = str(uuid4())
    client.entity_store.insert([[1.0] * 32], [{"user_id": "u_alice", "data": "Berlin"}], [entity])
    assert db.get_history(entity) == []


_IDS = ["a", "ab", "a%", "a_", "a&b", "a=b", "a%26b", "a%25", "user_id=a", "b&user_id=a", "%", "日本", "a+b"]


@pytest.mark.parametrize("user_id", _IDS)
def test_messages_are_kept_for_the_user_mem0_means(db: EngineHistory, user_id: str) -> None:
    for other in _IDS:
        scope = _build_session_scope({"user_id": other})
        db.save_messages([{"role": "user", "content": f"said by {other}"}], scope)
    (message,) = db.get_last_messages(_build_session_scope({"user_id": user_id}))
    assert message["content"] == f"said by {user_id}"
    assert (message["role"], message["name"]) == ("user", None)


def test_sessions_of_a_user_keep_their_own_messages_and_all_go_with_the_user(
    client: EngineMemory, db: EngineHistory
) -> None:
    scopes = [
        _build_session_scope({"user_id": "a", **more})
        for more in ({}, {"run_id": "r&user_id=b"}, {"agent_id": "user_id=b"}, {"run_id": "r", "agent_id": "x"})
    ]
    for scope in scopes:
        db.save_messages([{"role": "user", "content": scope}], scope)
    for scope in scopes:
        assert [message["content"] for message in db.get_last_messages(scope)] == [scope]
    assert db.get_last_messages("user_id=b") == []
    assert client.erase("a")["messages"] == len(scopes)
    assert [db.get_last_messages(scope) for scope in scopes] == [[]] * len(scopes)


def test_the_last_messages_come_oldest_first_and_no_more_than_asked(db: EngineHistory) -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(14)]
    for start in range(0, 14, 7):
        db.save_messages(messages[start : start + 7], "user_id=a")
    assert [message["content"] for message in db.get_last_messages("user_id=a")] == [str(n) for n in range(4, 14)]
    assert [message["content"] for message in db.get_last_messages("user_id=a", limit=2)] == ["12", "13"]


@pytest.mark.parametrize("scope", ["", "run_id=r", "agent_id=user_id%3Da", "xuser_id=a"])
def test_a_scope_without_a_user_is_refused(db: EngineHistory, scope: str) -> None:
    with pytest.raises(ScopeError):
        db.save_messages([{"role": "user", "content": "whose?"}], scope)
    with pytest.raises(ScopeError):
        db.get_last_messages(scope)


def test_a_reset_is_refused(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with pytest.raises(ScopeError):
        db.reset()
    db.close()
    assert db.get_history(row["id"])
