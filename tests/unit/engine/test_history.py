"""What mem0 calls `db`: events and kept messages, each in the partition of its user."""

from uuid import uuid4

import pytest
from mem0.memory.main import _build_session_scope
from mem0.memory.storage import SQLiteManager

from langchain_mem0_scoped import ScopedMemory, ScopeError
from langchain_mem0_scoped.engine.history import EngineHistory
from langchain_mem0_scoped.engine.memory import EngineMemory

_MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(extractor: EngineMemory) -> EngineMemory:
    return extractor


@pytest.fixture
def db(client: EngineMemory) -> EngineHistory:
    db: EngineHistory = client.db
    return db


def test_has_what_mem0_calls() -> None:
    called = {"add_history", "batch_add_history", "get_history", "save_messages", "get_last_messages", "reset", "close"}
    assert called <= set(dir(SQLiteManager))
    assert called <= set(dir(EngineHistory))


def test_events_come_oldest_first_in_the_words_of_mem0(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with client.for_user("u_alice"):
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
    with client.for_user("u_alice"):
        db.add_history(row["id"], "an old zyzzogeton", "new", "UPDATE")
        events = db.get_history(row["id"])
    assert [event["event"] for event in events] == ["ADD", "UPDATE"]
    assert "zyzzogeton" not in str(events)


def test_events_of_no_memory_are_not_kept(client: EngineMemory, db: EngineHistory) -> None:
    for user_id in ("u_alice", "u_nobody"):
        with client.for_user(user_id):
            db.add_history(_MISSING, None, "text of nobody", "ADD")
            db.add_history(_MISSING, None, "text of nobody", "UPDATE")
            db.add_history("not a uuid", None, "text of nobody", "ADD")
            db.batch_add_history([{"memory_id": _MISSING, "new_memory": "text of nobody", "event": "UPDATE"}])
            assert db.get_history(_MISSING) == []
        ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    assert client.erase("u_alice")["history"] == 2, "that two memories were added"
    assert client.erase("u_nobody")["history"] == 0


def test_the_event_of_a_deletion_is_not_kept(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with client.for_user("u_alice"):
        db.add_history(row["id"], "I like tea", None, "DELETE", is_deleted=1)
        assert [event["event"] for event in db.get_history(row["id"])] == ["ADD"]


@pytest.mark.parametrize("memory_id", ["", "*", "not a uuid", "%", _MISSING])
def test_an_id_that_names_no_memory_has_no_history(client: EngineMemory, db: EngineHistory, memory_id: str) -> None:
    ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with client.for_user("u_alice"):
        assert db.get_history(memory_id) == []


def test_another_users_memory_has_no_history(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    ScopedMemory("u_bob", client=client).add("I like juice", infer=False)
    with client.for_user("u_bob"):
        db.add_history(row["id"], None, "of bob", "UPDATE")
        assert db.get_history(row["id"]) == []
    with client.for_user("u_alice"):
        assert [event["event"] for event in db.get_history(row["id"])] == ["ADD"]


def test_the_user_must_be_named(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with pytest.raises(ScopeError, match="name the user"):
        db.get_history(row["id"])
    with pytest.raises(ScopeError, match="name the user"):
        db.add_history(row["id"], None, "coffee", "UPDATE")


def test_an_entity_has_no_history(client: EngineMemory, db: EngineHistory) -> None:
    entity = str(uuid4())
    client.entity_store.insert([[1.0] * 32], [{"user_id": "u_alice", "data": "Berlin"}], [entity])
    with client.for_user("u_alice"):
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
def test_rejects_a_scope_without_a_user(db: EngineHistory, scope: str) -> None:
    with pytest.raises(ScopeError):
        db.save_messages([{"role": "user", "content": "whose?"}], scope)
    with pytest.raises(ScopeError):
        db.get_last_messages(scope)


def test_rejects_reset(client: EngineMemory, db: EngineHistory) -> None:
    (row,) = ScopedMemory("u_alice", client=client).add("I like tea", infer=False)
    with pytest.raises(ScopeError):
        db.reset()
    db.close()
    with client.for_user("u_alice"):
        assert db.get_history(row["id"])
