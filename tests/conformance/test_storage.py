"""What engine/storage.py promises of users, rows, ids and errors, on every storage."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from langchain_mem0_scoped.engine.storage import NewRow, RowKind, Storage, Version
from langchain_mem0_scoped.errors import BackendError
from tests.storages import Connected, add, append, bodies_in, entity, erase, found, line, memory, row_id, snapshot_of

MANY = 1_201
"""More values than one statement of SQL lists."""


class TestUsers:
    def test_user_without_rows_has_no_partition(self, storage: Storage) -> None:
        add(storage, "u_bob", memory("bob's"))
        with storage.reading() as transaction:
            assert transaction.find("u_alice") is None
        assert storage.snapshot("u_alice", RowKind.MEMORY, None) is None
        assert storage.bodies("u_alice", RowKind.MEMORY, snapshot_of(storage, "u_bob").version, [0]) is None

    def test_partition_is_found_by_the_whole_id(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("hers"))
        for other in ("u_alic", "u_alice2", "U_ALICE", "u_alice ", "u_alice\0", "*", "u_%", ""):
            with storage.reading() as transaction:
                assert transaction.find(other) is None, other
            assert storage.snapshot(other, RowKind.MEMORY, None) is None

    @pytest.mark.parametrize("user_id", ["u", "u" * 256, "アリス", "ali'ce\"; --", "%", "a@b.example"])
    def test_any_id_names_a_user(self, storage: Storage, user_id: str) -> None:
        add(storage, user_id, memory("one"))
        add(storage, f"{user_id}x", memory("other"))
        assert bodies_in(storage, user_id) == [b"one"]

    def test_each_user_has_a_random_key(self, storage: Storage) -> None:
        keys = {add(storage, f"u_{number}", memory("x")).key for number in range(3)}
        assert len(keys) == 3
        assert {len(key) for key in keys} == {16}
        assert snapshot_of(storage, "u_0").key == found(storage, "u_0").key

    def test_user_is_created_once(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("one"))
        with pytest.raises(BackendError), storage.writing() as transaction:
            transaction.create("u_alice")
        assert bodies_in(storage, "u_alice") == [b"one"]

    def test_rows_of_one_user_are_not_read_through_another(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("hers"), entity("hers too"), line("said", parent=0))
        bob = add(storage, "u_bob", memory("his"), memory("his second"), line("heard", parent=0))
        with storage.reading() as transaction:
            assert [row.body for row in transaction.rows(alice, RowKind.MEMORY)] == [b"hers"]
            assert [row.body for row in transaction.rows(bob, RowKind.MEMORY, seqs=[0, 1, 2])] == [
                b"his",
                b"his second",
            ]
            assert [row.body for row in transaction.latest(bob, RowKind.MEMORY)] == [b"his second", b"his"]
            assert [transaction.count(one, RowKind.MEMORY) for one in (alice, bob)] == [1, 2]
            assert transaction.has_rows(alice, RowKind.ENTITY)
            assert not transaction.has_rows(bob, RowKind.ENTITY)
        # The place and the version of her rows do not open them to him.
        snapshot = snapshot_of(storage)
        assert storage.bodies("u_bob", RowKind.MEMORY, snapshot.version, snapshot.seqs) is None
        for user_id, bodies in {"u_alice": [b"hers"], "u_bob": [b"his", b"his second"]}.items():
            own = snapshot_of(storage, user_id)
            assert storage.bodies(user_id, RowKind.MEMORY, own.version, own.seqs) == bodies
        follow_up = snapshot_of(storage, "u_bob", cached=snapshot.version)
        assert follow_up.follows is None
        assert len(follow_up.ids) == 2

    def test_changes_of_one_user_leave_the_other_as_they_were(self, storage: Storage) -> None:
        bob = add(storage, "u_bob", memory("one", 1), memory("two", 2))
        before = snapshot_of(storage, "u_bob")
        add(storage, "u_alice", memory("hers", 1), memory("hers too", 2))
        with storage.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            transaction.rewrite(alice, 0, memory("changed", 1))
            transaction.remove(alice, RowKind.MEMORY, [1])
            transaction.bump_version(alice, searched=True, rewritten=True)
        erase(storage, "u_alice")
        assert found(storage, "u_bob") == bob
        assert snapshot_of(storage, "u_bob") == before
        assert bodies_in(storage, "u_bob") == [b"one", b"two"]


class TestRows:
    @pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 8_000, 8_158, 100_000])
    def test_row_comes_back_as_it_was_written(self, storage: Storage, size: int) -> None:
        body = random.Random(size).randbytes(max(size - 1, 0)) + b"."[:size]
        row = NewRow(RowKind.ENTITY, row_id(7), body, 0, b"\x01\0\0\0", b"\0terms\0", 3, 1.5)
        partition = add(storage, "u_alice", row)
        with storage.reading() as transaction:
            (stored,) = transaction.rows(partition, RowKind.ENTITY)
        assert (stored.seq, stored.id, stored.body, stored.vector) == (0, row.id, body, row.vector)
        snapshot = snapshot_of(storage, kind=RowKind.ENTITY)
        assert (snapshot.ids, snapshot.vectors, snapshot.terms, snapshot.lengths) == (
            [row.id],
            [row.vector],
            [row.terms],
            [3],
        )
        assert storage.bodies("u_alice", RowKind.ENTITY, snapshot.version, snapshot.seqs) == [body]

    def test_rows_come_in_the_order_they_were_written(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a"), line("x", 9), memory("b"), entity("e"))
        add(storage, "u_alice", memory("c"), line("y", 9), line("elsewhere", 8))
        with storage.reading() as transaction:
            assert [(row.seq, row.body) for row in transaction.rows(alice, RowKind.MEMORY)] == [
                (0, b"a"),
                (2, b"b"),
                (4, b"c"),
            ]
            assert [(row.seq, row.body) for row in transaction.rows(alice, RowKind.TRANSCRIPT, 9)] == [
                (1, b"x"),
                (5, b"y"),
            ]
            assert transaction.rows(alice, RowKind.TRANSCRIPT) == []

    def test_last_rows_are_the_last_in_the_same_order(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", *(line(str(number), 3) for number in range(5)))
        with storage.reading() as transaction:
            for last, expected in {0: [], 1: [4], 2: [3, 4], 5: [0, 1, 2, 3, 4], 9: [0, 1, 2, 3, 4]}.items():
                assert [row.seq for row in transaction.rows(alice, RowKind.TRANSCRIPT, 3, last=last)] == expected
            chosen = transaction.rows(alice, RowKind.TRANSCRIPT, 3, seqs=[4, 0, 2], last=2)
        assert [row.seq for row in chosen] == [2, 4]

    def test_rows_by_number_leave_out_numbers_without_a_row(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a"), entity("e"), memory("b"))
        with storage.reading() as transaction:
            chosen = transaction.rows(alice, RowKind.MEMORY, seqs=[2, 1, 99, 0, 2])
            assert [row.body for row in chosen] == [b"a", b"b"]
            assert transaction.rows(alice, RowKind.MEMORY, seqs=[]) == []

    def test_sequence_numbers_count_per_user(self, storage: Storage) -> None:
        for text in ("one", "two", "three"):
            for user_id in ("u_alice", "u_bob"):
                partition = add(storage, user_id, memory(text))
        assert partition.next_seq == 3
        for user_id in ("u_alice", "u_bob"):
            with storage.reading() as transaction:
                own = found(storage, user_id)
                assert [row.seq for row in transaction.rows(own, RowKind.MEMORY)] == [0, 1, 2]

    def test_insert_numbers_rows_from_next_seq_on(self, storage: Storage) -> None:
        with storage.writing() as transaction:
            partition = transaction.create("u_alice")
            assert partition.next_seq == 0
            partition = transaction.insert(partition, [memory("a"), line("b", 5), memory("c")])
            assert partition.next_seq == 3
            assert transaction.insert(partition, []) == partition
            partition = transaction.insert(partition, [memory("d")])
            assert [row.seq for row in transaction.rows(partition, RowKind.MEMORY)] == [0, 2, 3]
            transaction.bump_version(partition, searched=True, rewritten=False)
        assert found(storage, "u_alice").next_seq == 4

    def test_sequence_number_of_a_removed_row_is_not_used_again(self, connected: Connected) -> None:
        storage, other = connected
        add(storage, "u_alice", memory("a"), memory("b"))
        with storage.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            transaction.remove(alice, RowKind.MEMORY, [1])
            transaction.bump_version(alice, searched=True, rewritten=True)
        add(other, "u_alice", memory("c"))
        with storage.reading() as transaction:
            assert [(row.seq, row.body) for row in transaction.rows(alice, RowKind.MEMORY)] == [(0, b"a"), (2, b"c")]

    def test_latest_rows_come_by_when_they_were_said(self, storage: Storage) -> None:
        times = [5.0, 9.0, 5.0, -1.0, 0.0]
        rows = [memory(str(number), said_at=said_at) for number, said_at in enumerate(times)]
        alice = add(storage, "u_alice", *rows, entity("e"))
        with storage.reading() as transaction:
            latest = list(transaction.latest(alice, RowKind.MEMORY))
            # Of those said at once, the last written comes first.
            assert [row.body for row in latest] == [b"1", b"2", b"0", b"4", b"3"]
            assert [row.id for row in latest] == [rows[number].id for number in (1, 2, 0, 4, 3)]
            assert next(transaction.latest(alice, RowKind.MEMORY)).body == b"1"

    def test_many_rows_at_once(self, storage: Storage) -> None:
        rows = [memory(str(number), number) for number in range(MANY)]
        alice = add(storage, "u_alice", *rows)
        snapshot = snapshot_of(storage)
        assert snapshot.ids == [row.id for row in rows]
        backwards = snapshot.seqs[::-1]
        bodies = storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, backwards)
        assert bodies == [row.body for row in reversed(rows)]
        with storage.writing() as transaction:
            seqs = transaction.find_ids(alice, RowKind.MEMORY, [row.id for row in rows])
            assert seqs == {row.id: seq for seq, row in enumerate(rows)}
            assert len(transaction.rows(alice, RowKind.MEMORY, seqs=list(seqs.values()))) == MANY
            transaction.remove(alice, RowKind.MEMORY, list(range(1, MANY)))
            transaction.bump_version(alice, searched=True, rewritten=True)
        assert bodies_in(storage, "u_alice") == [b"0"]

    def test_count_and_has_rows_include_rows_below_others(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a"), line("x", 1), line("y", 2), line("z", 2))
        with storage.reading() as transaction:
            assert transaction.count(alice, RowKind.TRANSCRIPT) == 3
            assert transaction.has_rows(alice, RowKind.TRANSCRIPT)
            assert transaction.count(alice, RowKind.HISTORY) == 0
            assert not transaction.has_rows(alice, RowKind.HISTORY)


class TestIds:
    def test_two_users_may_have_rows_of_the_same_id(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", entity("before"), memory("hers", 7))
        bob = add(storage, "u_bob", memory("his", 7))
        with storage.reading() as transaction:
            assert transaction.find_ids(alice, RowKind.MEMORY, [row_id(7)]) == {row_id(7): 1}
            assert transaction.find_ids(bob, RowKind.MEMORY, [row_id(7)]) == {row_id(7): 0}
        erase(storage, "u_alice")
        with storage.reading() as transaction:
            assert transaction.find_ids(bob, RowKind.MEMORY, [row_id(7)]) == {row_id(7): 0}
        assert bodies_in(storage, "u_bob") == [b"his"]

    def test_id_of_another_user_is_missing(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("hers", 7))
        bob = add(storage, "u_bob", memory("his", 8))
        with storage.reading() as transaction:
            foreign = transaction.find_ids(bob, RowKind.MEMORY, [row_id(7)])
            missing = transaction.find_ids(bob, RowKind.MEMORY, [row_id(9)])
        assert foreign == missing == {}

    def test_ids_are_found_within_a_kind(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a", 1), line("b", 0, 1), line("c", 5, 2), line("d", 5))
        with storage.reading() as transaction:
            wanted = [row_id(2), row_id(1), row_id(3)]
            assert transaction.find_ids(alice, RowKind.MEMORY, wanted) == {row_id(1): 0}
            assert transaction.find_ids(alice, RowKind.TRANSCRIPT, wanted) == {row_id(1): 1, row_id(2): 2}
            assert transaction.find_ids(alice, RowKind.TRANSCRIPT, []) == {}
            assert transaction.find_ids(alice, RowKind.TRANSCRIPT, [b""]) == {}, "a row without id has none"

    def test_second_row_of_an_id_is_refused(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a secret", 7))
        for rows in ([memory("x"), memory("another secret", 7)], [memory("x", 8), memory("y", 8)]):
            with pytest.raises(BackendError) as caught:
                add(storage, "u_alice", *rows)
            assert "secret" not in str(caught.value)
        assert found(storage, "u_alice") == alice
        assert bodies_in(storage, "u_alice") == [b"a secret"]

    def test_id_of_a_removed_row_is_free(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a", 7))
        with storage.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            transaction.remove(alice, RowKind.MEMORY, [0])
            assert transaction.find_ids(alice, RowKind.MEMORY, [row_id(7)]) == {}
            append(transaction, "u_alice", memory("b", 7))
        with storage.reading() as transaction:
            assert transaction.find_ids(alice, RowKind.MEMORY, [row_id(7)]) == {row_id(7): 1}


class TestRewriting:
    def test_rewritten_row_keeps_its_number_its_id_and_its_time(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a", 1, 5.0), memory("b", 2, 9.0), memory("c", 3, 1.0))
        with storage.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            transaction.rewrite(alice, 1, memory("new", 2, 0.0))
            transaction.bump_version(alice, searched=True, rewritten=True)
        snapshot = snapshot_of(storage)
        assert snapshot.ids == [row_id(1), row_id(2), row_id(3)]
        assert snapshot.vectors[1] == b"new "
        assert snapshot.lengths == [1, 3, 1]
        with storage.reading() as transaction:
            assert [row.body for row in transaction.latest(alice, RowKind.MEMORY)] == [b"new", b"a", b"c"]
            assert transaction.find_ids(alice, RowKind.MEMORY, [row_id(2)]) == {row_id(2): 1}
            assert [row.seq for row in transaction.rows(alice, RowKind.MEMORY)] == [0, 1, 2]

    def test_vector_is_kept_on_demand(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("old", 1))
        with storage.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            transaction.rewrite(alice, 0, memory("new", 1)._replace(vector=b"", terms=b"t"), keep_vector=True)
            transaction.bump_version(alice, searched=True, rewritten=True)
        snapshot = snapshot_of(storage)
        assert (snapshot.vectors, snapshot.terms) == ([b"old "], [b"t"])
        assert bodies_in(storage, "u_alice") == [b"new"]

    def test_rewriting_below_a_parent(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", line("a", 3), line("b", 4))
        with storage.writing() as transaction:
            transaction.rewrite(alice, 1, line("c", 4))
        assert bodies_in(storage, "u_alice", RowKind.TRANSCRIPT, 4) == [b"c"]
        assert bodies_in(storage, "u_alice", RowKind.TRANSCRIPT, 3) == [b"a"]

    @pytest.mark.parametrize("seq", [1, 2, 99])
    def test_rewriting_what_is_not_there_is_an_error(self, storage: Storage, seq: int) -> None:
        alice = add(storage, "u_alice", memory("a"), entity("e"))
        add(storage, "u_bob", *(memory(f"his {number}") for number in range(4)))
        with pytest.raises(BackendError), storage.writing() as transaction:
            transaction.rewrite(alice, seq, memory("new"))
        assert bodies_in(storage, "u_alice") == [b"a"]

    def test_removing_leaves_out_what_is_not_there(self, storage: Storage) -> None:
        alice = add(storage, "u_alice", memory("a"), entity("e"), line("x", 3), line("y", 4))
        add(storage, "u_bob", *(memory(f"his {number}") for number in range(4)))
        with storage.writing() as transaction:
            transaction.remove(alice, RowKind.MEMORY, [1, 2, 3, 99])
            transaction.remove(alice, RowKind.MEMORY, [])
            transaction.remove(alice, RowKind.TRANSCRIPT, [2, 3], 4)
        assert bodies_in(storage, "u_alice") == [b"a"]
        assert bodies_in(storage, "u_alice", RowKind.TRANSCRIPT, 3) == [b"x"]
        assert bodies_in(storage, "u_alice", RowKind.TRANSCRIPT, 4) == []
        assert len(bodies_in(storage, "u_bob")) == 4


class TestErrors:
    def test_dimensions_are_those_of_the_first_vector(self, connected: Connected) -> None:
        storage, other = connected
        with suppress(RuntimeError), storage.writing() as transaction:
            transaction.require_dimensions(3)
            raise RuntimeError
        with storage.writing() as transaction:
            transaction.require_dimensions(4)
            transaction.require_dimensions(4)
        with other.writing() as transaction:
            transaction.require_dimensions(4)

        def write() -> None:
            with other.writing() as transaction:
                append(transaction, "u_alice", memory("a"))
                transaction.require_dimensions(5)

        with pytest.raises(BackendError, match="5") as caught:
            write()
        assert "4" in str(caught.value)
        assert not caught.value.retryable
        assert bodies_in(storage, "u_alice") == []

    @pytest.mark.parametrize(
        "call",
        [
            lambda storage, version: storage.reading().__enter__(),
            lambda storage, version: storage.writing().__enter__(),
            lambda storage, version: storage.snapshot("u_alice", RowKind.MEMORY, None),
            lambda storage, version: storage.snapshot("u_alice", RowKind.MEMORY, version),
            lambda storage, version: storage.bodies("u_alice", RowKind.MEMORY, version, [0]),
        ],
        ids=["reading", "writing", "snapshot", "follow-up", "bodies"],
    )
    def test_closed_storage_refuses_calls(self, storage: Storage, call: Callable[[Storage, Version], Any]) -> None:
        add(storage, "u_alice", memory("a"))
        version = snapshot_of(storage).version
        storage.close()
        storage.close()
        with pytest.raises(BackendError, match="closed"):
            call(storage, version)

    def test_reprs_hold_neither_text_nor_key(self, storage: Storage) -> None:
        row = NewRow(RowKind.MEMORY, row_id(1), b"a secret", 0, b"secret v", b"secret t", 2)
        partition = add(storage, "u_alice", row)
        with storage.reading() as transaction:
            shown = [row, partition, *transaction.rows(partition, RowKind.MEMORY), snapshot_of(storage), storage]
        for one in shown:
            assert "secret" not in repr(one)
            assert repr(partition.key) not in repr(one)
            assert "u_alice" not in repr(one)
