"""What engine/storage.py promises of the two reads of a search, on every storage."""

from __future__ import annotations

import pytest

from langchain_mem0_scoped.engine.storage import NewRow, RowKind, Snapshot, Storage
from tests.storages import Connected, add, append, entity, erase, line, memory, row_id, snapshot_of

MANY = 1_201
"""More values than one statement of SQL lists."""


class TestSnapshots:
    def test_unchanged_snapshot_has_no_rows(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a"), memory("b"))
        first = snapshot_of(storage)
        assert first.follows is None
        again = snapshot_of(storage, cached=first.version)
        assert again == Snapshot(first.version, first.key, first.version, [], [], [], [], [])

    def test_rows_that_were_added_follow(self, connected: Connected) -> None:
        storage, other = connected
        add(storage, "u_alice", memory("a", 1), memory("b", 2))
        first = snapshot_of(storage)
        add(other, "u_alice", memory("c", 3))
        second = snapshot_of(storage, cached=first.version)
        add(other, "u_alice", memory("d", 4), memory("e", 5))
        third = snapshot_of(storage, cached=second.version)
        assert (second.follows, second.ids) == (first.version, [row_id(3)])
        assert (third.follows, third.ids) == (second.version, [row_id(4), row_id(5)])
        both = snapshot_of(storage, cached=first.version)
        assert (both.follows, both.ids) == (first.version, second.ids + third.ids)
        whole = snapshot_of(storage)
        assert whole.ids == first.ids + both.ids
        assert whole.version == both.version == third.version
        seqs = first.seqs + second.seqs + third.seqs
        assert whole.seqs == seqs
        assert storage.bodies("u_alice", RowKind.MEMORY, third.version, seqs) == [b"a", b"b", b"c", b"d", b"e"]

    def test_rows_of_another_kind_follow_as_none(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a"))
        first = snapshot_of(storage)
        add(storage, "u_alice", entity("e"))
        second = snapshot_of(storage, cached=first.version)
        assert (second.follows, second.ids) == (first.version, [])
        assert second.version != first.version

    def test_rows_that_are_not_searched_leave_the_version(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a"))
        first = snapshot_of(storage).version
        partition = add(storage, "u_alice", line("x", 1), NewRow(RowKind.HISTORY, b"", b"{}", 0))
        assert snapshot_of(storage).version == first
        assert partition.next_seq == 3
        add(storage, "u_alice", memory("b", 7))
        follow_up = snapshot_of(storage, cached=first)
        assert (follow_up.follows, follow_up.ids) == (first, [row_id(7)])

    @pytest.mark.parametrize("change", ["rewrite", "remove", "rewrite and add", "remove the last"])
    def test_rewritten_rows_come_whole(self, connected: Connected, change: str) -> None:
        storage, other = connected
        add(storage, "u_alice", memory("a", 1), memory("b", 2))
        first = snapshot_of(storage)
        with other.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            if change.startswith("rewrite"):
                transaction.rewrite(alice, 0, memory("changed", 1))
            else:
                transaction.remove(alice, RowKind.MEMORY, [1 if change.endswith("last") else 0])
            if change.endswith("add"):
                alice = transaction.insert(alice, [memory("c", 3)])
            transaction.bump_version(alice, searched=True, rewritten=True)
        second = snapshot_of(storage, cached=first.version)
        expected = {
            "rewrite": [1, 2],
            "remove": [2],
            "rewrite and add": [1, 2, 3],
            "remove the last": [1],
        }
        assert second.follows is None
        assert second.ids == [row_id(number) for number in expected[change]]
        assert second.version != first.version
        assert storage.bodies("u_alice", RowKind.MEMORY, first.version, first.seqs) is None
        # A version of the past is not followed either.
        add(storage, "u_alice", memory("d", 4))
        assert snapshot_of(storage, cached=first.version).follows is None
        assert snapshot_of(storage, cached=second.version).ids == [row_id(4)]

    def test_partition_that_was_erased_and_created_again_is_another(self, connected: Connected) -> None:
        storage, other = connected
        rows = [memory("a", 1), memory("b", 2)]
        before = add(storage, "u_alice", *rows)
        first = snapshot_of(storage)
        erase(other, "u_alice")
        assert storage.snapshot("u_alice", RowKind.MEMORY, first.version) is None
        assert storage.bodies("u_alice", RowKind.MEMORY, first.version, first.seqs) is None
        after = add(other, "u_alice", *rows)
        assert snapshot_of(storage).version != first.version
        assert after.key != before.key
        second = snapshot_of(storage, cached=first.version)
        assert (second.follows, second.ids) == (None, first.ids)
        assert storage.bodies("u_alice", RowKind.MEMORY, first.version, first.seqs) is None
        assert storage.bodies("u_alice", RowKind.MEMORY, second.version, second.seqs) == [b"a", b"b"]

    def test_erased_and_created_again_within_one_transaction_is_another(self, storage: Storage) -> None:
        before = add(storage, "u_alice", memory("a", 1))
        first = snapshot_of(storage)
        with storage.writing() as transaction:
            token = transaction.token("u_alice")
            transaction.erase("u_alice")
            after = append(transaction, "u_alice", memory("b", 1))
            assert transaction.is_erased_since("u_alice", token)
        assert snapshot_of(storage, cached=first.version).follows is None
        assert snapshot_of(storage).version != first.version
        assert after.key != before.key


class TestBodies:
    def test_bodies_come_in_the_order_asked_for(self, storage: Storage) -> None:
        add(storage, "u_alice", *(memory(text) for text in "abcde"))
        snapshot = snapshot_of(storage)
        chosen = [snapshot.seqs[index] for index in (3, 0, 4, 0)]
        assert storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, chosen) == [b"d", b"a", b"e", b"a"]
        assert storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, []) == []

    def test_bodies_of_another_kind_are_others(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a"), entity("e"))
        memories, entities = snapshot_of(storage), snapshot_of(storage, kind=RowKind.ENTITY)
        assert storage.bodies("u_alice", RowKind.MEMORY, memories.version, memories.seqs) == [b"a"]
        assert storage.bodies("u_alice", RowKind.ENTITY, entities.version, entities.seqs) == [b"e"]

    @pytest.mark.parametrize("change", ["add", "add entity", "rewrite", "remove", "erase", "create again"])
    @pytest.mark.parametrize("wanted", [0, 2, MANY])
    def test_no_bodies_after_any_change(self, connected: Connected, change: str, wanted: int) -> None:
        storage, other = connected
        add(storage, "u_alice", *(memory(str(number)) for number in range(max(wanted, 2))))
        snapshot = snapshot_of(storage)
        with other.writing() as transaction:
            alice = transaction.find("u_alice")
            assert alice is not None
            if change in ("add", "add entity"):
                append(transaction, "u_alice", memory("c") if change == "add" else entity("e"))
            elif change in ("erase", "create again"):
                transaction.erase("u_alice")
                if change == "create again":
                    append(transaction, "u_alice", *(memory(str(number)) for number in range(max(wanted, 2))))
            else:
                if change == "rewrite":
                    transaction.rewrite(alice, 1, memory("new"))
                else:
                    transaction.remove(alice, RowKind.MEMORY, [1])
                transaction.bump_version(alice, searched=True, rewritten=True)
        assert storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs[:wanted]) is None

    def test_changes_of_others_do_not_matter(self, storage: Storage) -> None:
        add(storage, "u_alice", memory("a"))
        snapshot = snapshot_of(storage)
        add(storage, "u_bob", memory("his"))
        erase(storage, "u_bob")
        add(storage, "u_alice", line("x", 1))
        assert storage.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs) == [b"a"]
