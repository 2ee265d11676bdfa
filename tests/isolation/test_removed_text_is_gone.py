"""Update, delete and erasure leave nothing of the removed text in any table of the embedded store or of plain mem0."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import mem0
import pytest

from langchain_mem0_scoped import ErasureReceipt, MemoryNotFoundError, ScopedMemory
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.clients import KINDS, Kind
from tests.support import MODES, TEXTS, Call, Spy, close_plain, database_of, new_user, opened, texts_of

# The tests open mem0's entity store themselves, on a local Qdrant that then warns of an index it has no use for.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

NEW = "There is no spare key any more"


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind.name in ("sqlite", "qdrant")], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Those whose tables can be looked at."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def memory(client: mem0.Memory) -> ScopedMemory:
    return ScopedMemory(new_user(), client=client)


@pytest.fixture
def old() -> str:
    """A text nobody else has written: the tests of a file share its store."""
    return f"The spare key {uuid4().hex} lies under the blue flowerpot"


def tables(client: mem0.Memory) -> str:
    """Every row of the SQLite file beneath a client, mem0's history.db or the embedded store's own."""
    path = database_of(client).path if isinstance(client, EngineMemory) else client.db.db_path
    connection = sqlite3.connect(path)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in names for row in connection.execute(f"SELECT * FROM {name}")]
    finally:
        connection.close()
    return "\n".join(str(tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in r)) for r in rows)


def changes_of(client: mem0.Memory, user_id: str, memory_id: str) -> list[Any]:
    """The history the client itself holds of a memory."""
    found: list[Any] = client.history(memory_id, **({"user_id": user_id} if isinstance(client, EngineMemory) else {}))
    return found


def said(client: mem0.Memory, user_id: str, text: str, **ids: str) -> None:
    """Keep a message for the next extraction prompt, as mem0's add with a model does."""
    from mem0.memory.main import _build_session_scope

    scope = _build_session_scope({"user_id": user_id, **ids})
    client.db.save_messages([{"role": "user", "content": text}], scope)


def kept(client: mem0.Memory, user_id: str, **ids: str) -> list[str]:
    from mem0.memory.main import _build_session_scope

    scope = _build_session_scope({"user_id": user_id, **ids})
    return [message["content"] for message in client.db.get_last_messages(scope)]


def link(client: mem0.Memory, user_id: str, name: str, *memory_ids: str) -> None:
    """Know a name, as mem0's extraction does where spaCy is installed."""
    client.entity_store.insert(
        vectors=[client.embedding_model.embed(name, "add")],
        payloads=[{"data": name, "entity_type": "PERSON", "user_id": user_id, "linked_memory_ids": [*memory_ids]}],
        ids=[str(uuid4())],
    )


def linked(client: mem0.Memory, user_id: str) -> dict[str, list[str]]:
    """Names and the memories they are linked to."""
    listed = client.entity_store.list(filters={"user_id": user_id}, top_k=100)[0]
    return {row.payload["data"]: row.payload["linked_memory_ids"] for row in listed}


class TestUpdate:
    def test_leaves_no_old_text_in_any_table(
        self, memory: ScopedMemory, call: Call, client: mem0.Memory, old: str
    ) -> None:
        other = ScopedMemory(new_user("other"), client=client)
        other.add(TEXTS[0])
        said(client, other.user_id, TEXTS[0])
        memory_id = memory.add(old)[0]["id"]
        said(client, memory.user_id, old)
        assert old in tables(client)  # so that its absence below means something
        call(memory, "update", memory_id, "in between")
        call(memory, "update", memory_id, NEW)
        assert old not in tables(client)
        assert "in between" not in tables(client)
        assert kept(client, memory.user_id) == []
        assert kept(client, other.user_id) == [TEXTS[0]]
        history = call(memory, "history", memory_id)
        assert [event["event"] for event in history] == ["ADD", "UPDATE", "UPDATE"]
        assert [event["new_memory"] for event in history] == [None, None, NEW]
        assert [event["old_memory"] for event in history] == [None, None, None]
        assert all(event["created_at"] for event in history)

    def test_unlinks_names_of_the_old_text(self, memory: ScopedMemory, call: Call, client: mem0.Memory) -> None:
        first, second = (record["id"] for record in memory.add(["Frieda plays", "Frieda sings with Otto"]))
        link(client, memory.user_id, "Frieda", first, second)
        link(client, memory.user_id, "Otto", second)
        call(memory, "update", second, "nobody sings")
        names = linked(client, memory.user_id)
        assert names.pop("Frieda") == [first]
        assert "Otto" not in names


class TestDelete:
    def test_removes_text_history_messages_and_links(
        self, memory: ScopedMemory, call: Call, client: mem0.Memory, old: str
    ) -> None:
        memory_id, stays = (record["id"] for record in memory.add([old, TEXTS[0]]))
        link(client, memory.user_id, "Frieda", memory_id, stays)
        link(client, memory.user_id, "Otto", memory_id)
        said(client, memory.user_id, old)
        said(client, memory.user_id, old, run_id="r")
        assert call(memory, "delete", memory_id) is None
        assert texts_of(call(memory, "get_all")) == texts_of(call(memory, "search", TEXTS[0])) == [TEXTS[0]]
        assert old not in tables(client)
        assert changes_of(client, memory.user_id, memory_id) == []
        assert kept(client, memory.user_id) == kept(client, memory.user_id, run_id="r") == []
        assert linked(client, memory.user_id) == {"Frieda": [stays]}
        assert [event["new_memory"] for event in call(memory, "history", stays)] == [TEXTS[0]]

    @pytest.mark.parametrize("verb", ["delete", "update"])
    def test_row_deleted_by_another_caller_meanwhile_is_missing(
        self, memory: ScopedMemory, call: Call, client: mem0.Memory, kind: Kind, old: str, verb: str
    ) -> None:
        # Somebody else deletes it between the check of its owner and the act.
        memory_id = memory.add(old)[0]["id"]

        def late(memory_id: str, *rest: Any, **options: Any) -> Any:
            delattr(client, verb)  # from here on the client is itself again
            if kind.name == "qdrant":
                client.delete(memory_id)
            else:  # another caller, in a transaction of its own
                threads.submit(memory.delete, memory_id).result()
            return getattr(client, verb)(memory_id, *rest, **options)

        with ThreadPoolExecutor(1) as threads:
            setattr(client, verb, late)
            # Plain mem0's own delete leaves the history behind, which is then deleted after all.
            with (
                suppress(MemoryNotFoundError)
                if (kind.name, verb) == ("qdrant", "delete")
                else pytest.raises(MemoryNotFoundError)
            ):
                call(memory, verb, memory_id, *(("x",) if verb == "update" else ()))
        assert old not in tables(client) or verb == "update"
        assert memory.get_all() == []


class TestDeleteAll:
    def test_receipt_counts_what_was_there(self, memory: ScopedMemory, call: Call, client: mem0.Memory) -> None:
        other = ScopedMemory(new_user("other"), client=client)
        for one in (memory, other):
            ids = [record["id"] for record in one.add(TEXTS)]
            one.update(ids[0], "corrected")
            link(client, one.user_id, "Frieda", ids[2])
            link(client, one.user_id, "Köln", ids[5])
            said(client, one.user_id, "to be remembered")
            said(client, one.user_id, "to be remembered", run_id="r", agent_id="a")
        before = other.get_all(), linked(client, other.user_id), kept(client, other.user_id)

        receipt = call(memory, "delete_all")
        assert type(receipt) is ErasureReceipt
        assert (receipt.user_id, receipt.memories, receipt.entities) == (memory.user_id, len(TEXTS), 2)
        assert (receipt.history, receipt.messages, receipt.transcripts) == (len(TEXTS) + 1, 2, 0)
        assert call(memory, "get_all") == call(memory, "search", TEXTS[0], threshold=0) == []
        assert linked(client, memory.user_id) == {}
        assert kept(client, memory.user_id) == kept(client, memory.user_id, run_id="r", agent_id="a") == []
        assert memory.user_id not in tables(client)

        assert (other.get_all(), linked(client, other.user_id), kept(client, other.user_id)) == before
        again = call(memory, "delete_all")
        assert (again.memories, again.history, again.messages, again.entities, again.transcripts) == (0, 0, 0, 0, 0)
        assert again.erased_at >= receipt.erased_at

    def test_removes_one_user_whatever_characters_the_id_has(self, client: mem0.Memory, call: Call) -> None:
        # mem0 keeps messages under run_id=…&user_id=…; neither a LIKE nor a cut at the wrong "=" may hit a neighbour.
        odds = [
            "a&user_id=b",
            "a=b",
            "50%",
            "%",
            "_",
            "a%26b",
            "run_id=x&user_id=a",
            "a,b",
            "u';--",
            "a%",
            "u_al_ce",
            'q"',
            "[a]",
        ]
        neighbours = ["a", "b", "x", "5", "50", "a&b", "u_alice", "abc", "%%", "__", "a%25", "user_id"]
        for user_id in neighbours:
            ScopedMemory(user_id, client=client).add(f"said by {user_id}")
            said(client, user_id, f"message of {user_id}")
            for odd in odds:
                said(client, user_id, f"message of {user_id}", run_id=f"r&user_id={odd}")
        try:
            for odd in odds:
                ScopedMemory(odd, client=client).add(f"said by {odd}")
                said(client, odd, f"message of {odd}")
                said(client, odd, f"message of {odd}", run_id=f"r&user_id={odd}")
                receipt = call(ScopedMemory(odd, client=client), "delete_all")
                assert (receipt.memories, receipt.messages) == (1, 2), odd
                assert kept(client, odd) == [], odd
                for user_id in neighbours:
                    assert kept(client, user_id) == [f"message of {user_id}"], odd
                    assert kept(client, user_id, run_id=f"r&user_id={odd}") == [f"message of {user_id}"], odd
                    assert texts_of(ScopedMemory(user_id, client=client).get_all()) == [f"said by {user_id}"], odd
        finally:
            receipts = [ScopedMemory(user_id, client=client).delete_all() for user_id in neighbours]
        assert [(receipt.memories, receipt.messages) for receipt in receipts] == [(1, 1 + len(odds))] * len(neighbours)


@pytest.mark.parametrize("mode", MODES)
def test_removes_names_mem0_has_not_opened(tmp_path: Path, mode: str, old: str) -> None:
    with opened("qdrant", tmp_path) as client:
        alice, bob = (ScopedMemory(user_id, client=client) for user_id in ("u_alice", "u_bob"))
        for memory in (alice, bob):
            first, second = (record["id"] for record in memory.add([old, NEW]))
            link(client, memory.user_id, "Frieda", first, second)
            link(client, memory.user_id, "Otto", first)

    with opened("qdrant", tmp_path) as client:
        assert client._entity_store is None
        alice, bob = (ScopedMemory(user_id, client=client) for user_id in ("u_alice", "u_bob"))
        # A single deletion cleans its links as well.
        (memory_id,) = (record["id"] for record in bob.get_all() if record["memory"] == old)
        Call(mode)(bob, "delete", memory_id)
        assert Call(mode)(alice, "delete_all").entities == 2

    client = plain_memory(tmp_path)
    try:
        assert linked(client, "u_alice") == {}
        assert list(linked(client, "u_bob")) == ["Frieda"]
        assert old not in tables(client)
    finally:
        close_plain(client)


def test_mem0_leaves_text_history_messages_and_names(tmp_path: Path, old: str) -> None:
    # The control: what the tests above look for is really there when mem0 erases by itself.
    with opened("qdrant", tmp_path) as client:
        memory_id = client.add(old, user_id="u_alice", infer=False)["results"][0]["id"]
        link(client, "u_alice", "Frieda", memory_id)
        said(client, "u_alice", old)
    with opened("qdrant", tmp_path) as client:
        client.delete_all(user_id="u_alice")
        assert client.history(memory_id)
        assert kept(client, "u_alice") == [old]
        assert old in tables(client)
        assert linked(client, "u_alice") == {"Frieda": [memory_id]}


def test_erasure_calls_no_model(memory: ScopedMemory, call: Call, client: mem0.Memory) -> None:
    memory.add(TEXTS)
    with Spy(client) as spy:
        call(memory, "delete_all")
    assert not [name for name in spy.calls if name.startswith("embedding_model")]
