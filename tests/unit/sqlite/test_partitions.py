"""How one user's rows lie in the file: found by a hash and the whole id, overwritten where they are removed.

What every storage promises of rows, ids, erasures and tokens is tested in tests/conformance/test_storage*.py.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from langchain_mem0_scoped.engine.storage import NewRow, RowKind
from langchain_mem0_scoped.errors import BackendError, ErasureError
from langchain_mem0_scoped.sqlite import file_state, partitions
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.faults import assert_sound
from tests.storages import add, append, bodies_in, entity, erase, found, line, memory, row_id, snapshot_of
from tests.worlds import files_of, left_in

SALT = b"salt" * 4


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "memory.db", "tests")
    yield storage
    storage.close()


def rows_of(storage: SqliteStorage, table: str) -> list[tuple[object, ...]]:
    return storage.database.query(f"SELECT * FROM {table}", ())


def execute(storage: SqliteStorage, sql: str) -> None:
    with storage.database.writing() as connection:
        connection.execute(sql)


class TestUserHash:
    def test_users_of_one_hash_are_two_users(self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        """64 bits may collide; the whole id is compared."""
        for module in ("partitions", "storage"):
            monkeypatch.setattr(f"langchain_mem0_scoped.sqlite.{module}.user_hash", lambda user_id, salt: 7)
        alice, bob = add(storage, "u_alice", memory("hers", 1)), add(storage, "u_bob", memory("his", 1))
        assert alice.place != bob.place
        for user_id, own in {"u_alice": alice, "u_bob": bob}.items():
            assert found(storage, user_id) == own
        hers, his = snapshot_of(storage, "u_alice").version, snapshot_of(storage, "u_bob").version
        assert snapshot_of(storage, "u_bob", cached=hers).version == his
        assert storage.snapshot("u_carol", RowKind.MEMORY, hers) is None
        for user_id, other in {"u_alice": his, "u_bob": hers, "u_carol": hers}.items():
            assert storage.bodies(user_id, RowKind.MEMORY, other, [0]) is None
        assert storage.bodies("u_alice", RowKind.MEMORY, hers, [0]) == [b"hers"]
        erase(storage, "u_alice")
        with storage.reading() as transaction:
            assert transaction.find("u_alice") is None
        assert bodies_in(storage, "u_bob") == [b"his"]

    def test_hash_depends_on_the_file_and_fits_an_integer_of_sqlite(self) -> None:
        assert partitions.user_hash("u_alice", SALT) != partitions.user_hash("u_alice", b"tlas" * 4)
        assert all(-(2**63) <= partitions.user_hash(f"u_{number}", SALT) < 2**63 for number in range(200))

    def test_index_holds_no_user_id(self, storage: SqliteStorage) -> None:
        """Its pages may be copied by SQLite, and such copies are not overwritten."""
        add(storage, "u_zyzzogeton", memory("a"))
        for table in ("partitions", "items", "ids", "erasures", "state", "meta"):
            rows = storage.database.query(f"SELECT * FROM {table}", ())
            assert "zyzzogeton" not in repr(rows)


class TestRemovedText:
    @pytest.mark.parametrize("change", ["rewrite", "remove", "erase"])
    def test_removed_text_is_in_no_byte_of_the_file(self, storage: SqliteStorage, change: str) -> None:
        add(storage, "u_bob", memory("his wombat"))
        alice = add(
            storage, "u_alice", memory("first"), memory("a zyzzogeton"), line("zyzzogeton", 1, 5), memory("last")
        )
        with storage.writing() as transaction:
            if change == "rewrite":
                transaction.rewrite(alice, 1, memory("something new"))
                transaction.rewrite(alice, 2, line("said anew", 1))
            elif change == "remove":
                transaction.remove(alice, RowKind.MEMORY, [1])
                transaction.remove(alice, RowKind.TRANSCRIPT, [2], 1)
            else:
                transaction.erase("u_alice")
        storage.purge()
        expected = ["wombat"] if change == "erase" else ["wombat", "last"]
        assert left_in(storage.database.path, "zyzzogeton", "wombat", "last") == expected
        assert bodies_in(storage, "u_bob") == [b"his wombat"]
        assert_sound(storage.database.path)

    def test_erasure_removes_the_user_id(self, storage: SqliteStorage) -> None:
        add(storage, "u_zyzzogeton", memory("a"))
        assert left_in(storage.database.path, "u_zyzzogeton") == ["u_zyzzogeton"]
        erase(storage, "u_zyzzogeton")
        storage.purge()
        assert left_in(storage.database.path, "u_zyzzogeton") == []

    def test_bodies_are_stored_as_they_are(self, storage: SqliteStorage) -> None:
        """Or a scan for what was left behind would find nothing, whatever was left."""
        add(storage, "u_alice", memory("Grüße, 素食"))
        assert left_in(storage.database.path, "Grüße, 素食") == ["Grüße, 素食"]

    def test_every_row_leaves_with_its_erasure(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a", 1), entity("e"), line("x", 5, 2), NewRow(RowKind.SESSION, row_id(3), b"{}"))
        erase(storage, "u_alice")
        for table in ("items", "ids", "partitions"):
            assert storage.database.query(f"SELECT count(*) FROM {table}", ()) == [(0,)]
        (texts,) = storage.database.query("SELECT count(*), sum(body = zeroblob(length(body))) FROM texts", ())
        assert texts == (5, 5), "four rows and the user's name"

    @pytest.mark.parametrize("table", ["items", "ids", "partitions"])
    def test_erasure_that_leaves_something_is_undone(self, storage: SqliteStorage, table: str) -> None:
        before = add(storage, "u_alice", memory("a", 1))
        with storage.reading() as transaction:
            token = transaction.token("u_alice")
        execute(storage, f"CREATE TRIGGER keep BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END")
        with pytest.raises(ErasureError, match="nothing was removed") as caught:
            erase(storage, "u_alice")
        assert caught.value.kinds == ("memories",)
        execute(storage, "DROP TRIGGER keep")
        assert found(storage, "u_alice") == before
        assert bodies_in(storage, "u_alice") == [b"a"]
        with storage.reading() as transaction:
            assert not transaction.is_erased_since("u_alice", token)
            assert transaction.find_ids(before, RowKind.MEMORY, [row_id(1)]) == {row_id(1): 0}


class TestErasures:
    def test_key_detects_an_erasure_that_is_no_longer_listed(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a"))
        with storage.reading() as transaction:
            before = transaction.token("u_alice")
        erase(storage, "u_alice")
        execute(storage, "DELETE FROM erasures")
        for _ in range(2):
            with storage.reading() as transaction, pytest.raises(BackendError, match="erased"):
                transaction.find_unless_erased("u_alice", before)
            # Nor does a new partition hide it.
            add(storage, "u_alice", memory("b"))

    def test_partition_number_says_nothing(self, storage: SqliteStorage) -> None:
        """Numbers that count up would be given again after a backup was restored."""
        numbers = [int(add(storage, f"u_{number}", memory("a")).place) for number in range(8)]
        assert len(set(numbers)) == 8
        assert numbers != sorted(numbers)
        assert min(numbers) > 2**32

    def test_call_that_began_before_all_listed_erasures_is_stopped(
        self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_state, "ERASURES_KEPT", 3)
        tokens = []
        for number in range(5):
            with storage.reading() as transaction:
                tokens.append(transaction.token("u_alice"))
            erase(storage, f"u_{number}")
        assert storage.database.query("SELECT count(*) FROM erasures", ()) == [(3,)]
        with storage.reading() as transaction:
            assert [transaction.is_erased_since("u_alice", one) for one in tokens] == [True, True, False, False, False]

    def test_file_does_not_say_who_was_erased(self, storage: SqliteStorage) -> None:
        """Whoever holds the file and guesses a user id finds no tag that is made of it."""
        secrets = storage.database.query("SELECT secret FROM state", ())[0]
        erase(storage, "u_alice")
        storage.purge()
        (after,) = storage.database.query("SELECT secret FROM state", ())[0]
        values = [value for table in ("meta", "state", "erasures") for row in rows_of(storage, table) for value in row]
        keys = [value for value in values if isinstance(value, bytes) and 0 < len(value) <= 64]
        guesses = {
            hashlib.blake2b(b"u_alice", key=key, digest_size=size, person=person).digest()
            for key in keys
            for size in (8, 16)
            for person in (b"", b"erased user")
        }
        assert not guesses & set(keys)
        # The secret of the tag is overwritten, in the log as well.
        held = b"".join(path.read_bytes() for path in files_of(storage.database.path))
        assert (secrets[0] in held, after in held) == (False, True)

    def test_token_of_a_file_that_was_restored_is_not_taken(self, storage: SqliteStorage) -> None:
        erase(storage, "u_bob")
        with storage.reading() as transaction:
            later, other = transaction.token("u_alice"), [1, "00" * 16]
            assert not transaction.is_erased_since("u_alice", later)
            assert transaction.is_erased_since("u_alice", other)
            assert transaction.is_erased_since("u_alice", [2, later[1]])


class TestInsert:
    def test_rows_inserted_at_once_lie_as_if_one_by_one(self, storage: SqliteStorage) -> None:
        rows = [memory("a", 1), line("b", 7), memory("c", 2), line("d", 7, 3)]
        with storage.writing() as transaction:
            append(transaction, "u_alice", *rows)
            for row in rows:
                append(transaction, "u_bob", row)

        def stored(user_id: str) -> Sequence[tuple[object, ...]]:
            return storage.database.query(
                "SELECT kind, parent, items.seq, items.id, substr(body, 17), said_at, length, vector, terms, ids.seq "
                "FROM items JOIN texts USING (ref) LEFT JOIN ids USING (pid, kind, id) WHERE pid = ? "
                "ORDER BY items.seq",
                (found(storage, user_id).place,),
            )

        assert len(stored("u_alice")) == 4
        assert stored("u_alice") == stored("u_bob")
        assert_sound(storage.database.path)

    def test_error_of_a_second_row_of_an_id_names_no_table(self, storage: SqliteStorage) -> None:
        add(storage, "u_alice", memory("a", 1))
        with pytest.raises(BackendError, match="same kind and id") as caught:
            add(storage, "u_alice", memory("b", 1))
        assert not isinstance(caught.value.__cause__, sqlite3.Error)
        assert_sound(storage.database.path)
