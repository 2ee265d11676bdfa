"""One session's rows: told apart by whole ids under the user's own key, appended in order, each id once."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped.engine import sessions
from langchain_mem0_scoped.engine.sessions import Message
from langchain_mem0_scoped.sqlite import partitions
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.partitions import Partition, RowKind

SALT = b"salt" * 4
LOOK_ALIKES = ["s", "S", "s1", "s ", "s\x00", "1s", "\u015b", "s\u0301"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Inside one write transaction."""
    database = Database(tmp_path / "memory.db", "tests")
    with database.writing() as connection:
        yield connection
    database.close()


@pytest.fixture
def alice(connection: sqlite3.Connection) -> Partition:
    return partitions.create(connection, "u_alice", SALT)


def append(
    connection: sqlite3.Connection, partition: Partition, session_id: str, messages: Sequence[Message]
) -> tuple[Partition, list[int]]:
    partition, items, new = sessions.items_for(connection, partition, session_id, messages)
    return partitions.insert(connection, partition, items), new


def said(*texts: str, ids: Sequence[str | None] = ()) -> list[Message]:
    given = [*ids, *[None] * (len(texts) - len(ids))]
    return [(one, f'{{"said":"{text}"}}', None) for one, text in zip(given, texts, strict=True)]


def read(connection: sqlite3.Connection, partition: Partition, session_id: str, last: int | None = None) -> list[Any]:
    return [body["said"] for body in sessions.read(connection, partition, session_id, last)]


def test_a_session_is_made_with_its_first_message_and_then_found(
    connection: sqlite3.Connection, alice: Partition
) -> None:
    assert sessions.find(connection, alice, "s1") is None
    alice, new = append(connection, alice, "s1", said("one", "two"))
    session = sessions.find(connection, alice, "s1")
    assert (new, read(connection, alice, "s1"), alice.next_seq) == ([0, 1], ["one", "two"], 3)
    alice, _ = append(connection, alice, "s1", said("three"))
    assert sessions.find(connection, alice, "s1") == session
    assert read(connection, alice, "s1") == ["one", "two", "three"]
    assert read(connection, alice, "s1", last=2) == ["two", "three"]


def test_sessions_that_look_alike_never_meet(connection: sqlite3.Connection, alice: Partition) -> None:
    for number, name in enumerate(LOOK_ALIKES):
        alice, _ = append(connection, alice, name, said(str(number)))
    assert [read(connection, alice, name) for name in LOOK_ALIKES] == [[str(n)] for n in range(len(LOOK_ALIKES))]


def test_a_session_of_one_name_is_another_for_another_user(connection: sqlite3.Connection, alice: Partition) -> None:
    bob = partitions.create(connection, "u_bob", SALT)
    alice, _ = append(connection, alice, "s1", said("hers", ids=["a"]))
    assert sessions.find(connection, bob, "s1") is None
    assert sessions.known(connection, bob, "s1", {"a"}) == set()
    bob, new = append(connection, bob, "s1", said("his", ids=["a"]))
    assert new == [0]
    assert (read(connection, alice, "s1"), read(connection, bob, "s1")) == (["hers"], ["his"])


@pytest.mark.parametrize("there", [True, False])
def test_what_is_new_is_foretold_as_it_is_appended(
    connection: sqlite3.Connection, alice: Partition, there: bool
) -> None:
    if there:
        alice, _ = append(connection, alice, "s1", said("before", ids=["a"]))
    turn = said("a", "b", "b again", "none", "none", ids=["a", "b", "b"])
    foretold = sessions.new_in(connection, alice, "s1", turn)
    alice, new = append(connection, alice, "s1", turn)
    assert foretold == new == ([1, 3, 4] if there else [0, 1, 3, 4])
    assert sessions.new_in(connection, alice, "s1", turn) == [3, 4]


def test_for_a_user_without_rows_everything_is_new(connection: sqlite3.Connection) -> None:
    assert sessions.new_in(connection, None, "s1", said("a", "a again", "none", ids=["a", "a"])) == [0, 2]
    assert sessions.known(connection, None, "s1", {"a"}) == set()
    assert sessions.read(connection, None, "s1", None) == []


def test_ids_are_known_in_their_session_only(connection: sqlite3.Connection, alice: Partition) -> None:
    alice, _ = append(connection, alice, "s1", said("x", "y", ids=["a", "A"]))
    alice, _ = append(connection, alice, "s2", said("x", ids=["b"]))
    assert sessions.known(connection, alice, "s1", {"a", "A", "á", "b", "a "}) == {"a", "A"}
    assert sessions.known(connection, alice, "s2", {"a", "b"}) == {"b"}


def test_what_people_chose_stands_in_no_id(connection: sqlite3.Connection, alice: Partition) -> None:
    append(connection, alice, "chosen-session", said("x", ids=["chosen-id"]))
    bob = partitions.create(connection, "u_bob", SALT)
    append(connection, bob, "chosen-session", said("x", ids=["chosen-id"]))
    ids = [row[0] for row in connection.execute("SELECT id FROM ids")]
    assert len(ids) == len(set(ids)) == 4  # Under another user's key a name is another id.
    assert not any(b"chosen" in one for one in ids)
    rows = partitions.rows_of(connection, bob.pid, RowKind.SESSION)
    assert [body for _, _, body in rows] == [{"session_id": "chosen-session"}]
