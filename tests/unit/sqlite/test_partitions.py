"""One user's place in the file: found by the whole id, in the order of writing, and gone as a whole."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.sqlite import partitions
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.partitions import NewRow, Partition, RowKind
from tests.worlds import left_in

SALT = b"salt" * 4


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "memory.db", "tests")
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[sqlite3.Connection]:
    """Inside one write transaction."""
    with database.writing() as connection:
        yield connection


def item(kind: RowKind = RowKind.MEMORY, text: str = "text", parent: int = 0, said: float = 0.0) -> NewRow:
    item_id = uuid4().bytes if kind is RowKind.MEMORY else b""
    return NewRow(kind, item_id, partitions.dump({"data": text}), parent, b"\0\0\x80?", b"", 1, said)


def filled(connection: sqlite3.Connection, user_id: str, *items: NewRow) -> Partition:
    partition = partitions.create(connection, user_id, SALT)
    for one in items:
        partition = partitions.insert(connection, partition, [one])
    partitions.close(connection, partition, searched=True)
    return partition


def test_a_partition_is_found_by_its_whole_id(connection: sqlite3.Connection) -> None:
    created = filled(connection, "u_alice")
    assert partitions.find(connection, "u_alice", SALT) == created._replace(version=1)
    for other in ["u_alic", "u_alice2", "U_ALICE", "u_alice ", "*", ""]:
        assert partitions.find(connection, other, SALT) is None


def test_two_ids_of_one_tag_are_two_users(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bits may collide; the id itself is what is compared."""
    monkeypatch.setattr(partitions, "user_hash", lambda user_id, salt: 7)
    alice, bob = filled(connection, "u_alice", item()), filled(connection, "u_bob", item())
    for user_id, created in {"u_alice": alice, "u_bob": bob}.items():
        found = partitions.find(connection, user_id, SALT)
        assert found is not None
        assert found.pid == created.pid
    partitions.erase(connection, "u_alice", SALT, alice)
    assert partitions.find(connection, "u_alice", SALT) is None
    assert len(partitions.rows_of(connection, bob.pid, RowKind.MEMORY)) == 1


def test_the_tag_depends_on_the_file_and_fits_an_integer_of_sqlite() -> None:
    assert partitions.user_hash("u_alice", SALT) != partitions.user_hash("u_alice", b"tlas" * 4)
    assert all(-(2**63) <= partitions.user_hash(f"u_{number}", SALT) < 2**63 for number in range(200))


def test_users_have_keys_of_their_own(connection: sqlite3.Connection) -> None:
    assert filled(connection, "u_alice").key != filled(connection, "u_bob").key


def test_rows_come_in_the_order_of_writing_and_the_latest_said_first(connection: sqlite3.Connection) -> None:
    rows = [item(text=str(number), said=said) for number, said in enumerate([5.0, 9.0, 5.0, 1.0])]
    partition = filled(connection, "u_alice", *rows, item(RowKind.ENTITY, "entity"))
    written = partitions.rows_of(connection, partition.pid, RowKind.MEMORY)
    assert [body["data"] for _, _, body in written] == ["0", "1", "2", "3"]
    assert [seq for seq, _, _ in written] == [0, 1, 2, 3]
    last = partitions.rows_of(connection, partition.pid, RowKind.MEMORY, last=2)
    assert [body["data"] for _, _, body in last] == ["2", "3"]
    latest = partitions.latest_rows(connection, partition.pid, RowKind.MEMORY)
    # Of what was said at once, the last that was written comes first.
    assert [body["data"] for _, body in latest] == ["1", "2", "0", "3"]


def test_sequences_count_per_user(connection: sqlite3.Connection) -> None:
    alice, bob = partitions.create(connection, "u_alice", SALT), partitions.create(connection, "u_bob", SALT)
    for _ in range(3):
        alice, bob = partitions.insert(connection, alice, [item()]), partitions.insert(connection, bob, [item()])
    for partition in (alice, bob):
        assert [row[0] for row in partitions.rows_of(connection, partition.pid, RowKind.MEMORY)] == [0, 1, 2]


def test_rows_inserted_at_once_lie_as_if_one_by_one(connection: sqlite3.Connection) -> None:
    rows = [
        item(text="a"),
        item(RowKind.TRANSCRIPT, "b", parent=7),
        item(text="c"),
        item(RowKind.TRANSCRIPT, "d", parent=7),
    ]
    one_by_one = filled(connection, "u_alice", *rows)
    rows = [row._replace(id=uuid4().bytes if row.id else b"") for row in rows]
    at_once = partitions.insert(connection, partitions.create(connection, "u_bob", SALT), rows)
    assert at_once.next_seq == one_by_one.next_seq == 4
    for kind, parent, expected in (
        (RowKind.MEMORY, 0, [(0, "a"), (2, "c")]),
        (RowKind.TRANSCRIPT, 7, [(1, "b"), (3, "d")]),
    ):
        for pid in (one_by_one.pid, at_once.pid):
            found = partitions.rows_of(connection, pid, kind, parent)
            assert [(seq, body["data"]) for seq, _, body in found] == expected
    assert [partitions.has_id(connection, row.id) for row in rows] == [True, False, True, False]
    assert partitions.insert(connection, at_once, []) == at_once


def test_a_rewritten_row_keeps_its_place_and_its_id(database: Database) -> None:
    old, new = item(text="an old zyzzogeton"), item(text="something new")
    with database.writing() as connection:
        partition = filled(connection, "u_alice", item(text="first"), old, item(text="last"))
    with database.writing() as connection:
        partitions.rewrite(connection, partition, 1, new._replace(id=old.id))
        rows = partitions.rows_of(connection, partition.pid, RowKind.MEMORY)
        assert [(seq, body["data"]) for seq, _, body in rows] == [(0, "first"), (1, "something new"), (2, "last")]
        assert rows[1][1] == old.id
    database.truncate()
    assert left_in(database.path, "zyzzogeton", "something new") == ["something new"]


def test_a_row_is_owned_by_whom_it_was_written_for(connection: sqlite3.Connection) -> None:
    mine, history = item(), item(RowKind.HISTORY)
    partition = filled(connection, "u_alice", mine, history)
    assert partitions.owner_of(connection, mine.id) == ("u_alice", partition.pid, RowKind.MEMORY, 0)
    assert partitions.owner_of(connection, history.id) is None, "history is not reached by ids"
    assert partitions.owner_of(connection, uuid4().bytes) is None
    partitions.remove(connection, partition, RowKind.MEMORY, 0, [0])
    assert partitions.owner_of(connection, mine.id) is None


def test_an_id_is_unique_in_the_file(connection: sqlite3.Connection) -> None:
    mine = item()
    filled(connection, "u_alice", mine)
    with pytest.raises(sqlite3.IntegrityError):
        filled(connection, "u_bob", mine)


def test_an_erasure_counts_by_kind_and_leaves_the_rest(database: Database) -> None:
    with database.writing() as connection:
        kinds = [
            RowKind.MEMORY,
            RowKind.MEMORY,
            RowKind.ENTITY,
            RowKind.HISTORY,
            RowKind.MESSAGE,
            RowKind.MESSAGE,
            RowKind.MESSAGE,
        ]
        alice = filled(connection, "u_alice", *(item(kind, "a zyzzogeton") for kind in kinds))
        bob = filled(connection, "u_bob", item(text="bob's"))
    with database.writing() as connection:
        counts = partitions.erase(connection, "u_alice", SALT, alice)
        expected = {
            "memories": 2,
            "entities": 1,
            "history": 1 + 2,
            "messages": 3,
        }  # each memory's row tells that it was added
        assert {name: count for name, count in counts.items() if count} == expected
        assert partitions.find(connection, "u_alice", SALT) is None
        assert [body["data"] for _, _, body in partitions.rows_of(connection, bob.pid, RowKind.MEMORY)] == ["bob's"]
        again = filled(connection, "u_alice")
        assert again.pid > alice.pid, "a number is never used again, so no cache can mistake one for the other"
        assert again.key != alice.key
    database.truncate()
    assert left_in(database.path, "zyzzogeton") == []


def test_an_erasure_is_remembered_for_its_user_alone(connection: sqlite3.Connection) -> None:
    before = {user: partitions.beginning(connection, user, SALT) for user in ("u_alice", "u_bob")}
    partitions.erase(connection, "u_alice", SALT, None)
    after = partitions.beginning(connection, "u_alice", SALT)
    with pytest.raises(BackendError, match="erased"):
        partitions.find_unless_erased(connection, "u_alice", SALT, before["u_alice"])
    assert partitions.find_unless_erased(connection, "u_alice", SALT, after) is None
    assert partitions.find_unless_erased(connection, "u_bob", SALT, before["u_bob"]) is None


def test_a_partition_tells_an_erasure_when_the_list_has_forgotten_it(connection: sqlite3.Connection) -> None:
    alice = partitions.create(connection, "u_alice", SALT)
    before = partitions.beginning(connection, "u_alice", SALT)
    partitions.erase(connection, "u_alice", SALT, alice)
    connection.execute("DELETE FROM erasures")
    with pytest.raises(BackendError, match="erased"):
        partitions.find_unless_erased(connection, "u_alice", SALT, before)
    # Nor does a new beginning hide it, for those who ask by when they began.
    again = partitions.create(connection, "u_alice", SALT)
    with pytest.raises(BackendError, match="erased"):
        partitions.find_unless_erased(connection, "u_alice", SALT, before)
    assert partitions.find_unless_erased(connection, "u_alice", SALT, None) == again


def test_old_erasures_are_forgotten_but_their_numbers_are_not_used_again(connection: sqlite3.Connection) -> None:
    partitions.erase(connection, "u_alice", SALT, None)
    first = partitions.beginning(connection, "u_bob", SALT)
    connection.execute("UPDATE erasures SET at = at - 4000")
    partitions.forget_old_erasures(connection)
    assert connection.execute("SELECT count(*) FROM erasures").fetchone() == (0,)
    partitions.erase(connection, "u_alice", SALT, None)
    assert partitions.beginning(connection, "u_bob", SALT).erasures > first.erasures


def test_bodies_are_stored_as_readable_text() -> None:
    body = {"data": "Grüße, 素食", "n": 1.5, "deep": {"list": [1, None, True]}}
    raw = partitions.dump(body)
    assert "Grüße, 素食".encode() in raw, "or a scan for what was left behind would see nothing"
    assert partitions.load(raw + b"\0" * 9) == body
