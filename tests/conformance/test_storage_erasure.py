"""What engine/storage.py promises of an erasure, on every storage."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from langchain_mem0_scoped.engine.storage import NewRow, RowKind, Storage
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.requests import ErasureToken
from tests.storages import Connected, add, bodies_in, erase, line, memory
from tests.worlds import bytes_of, files_of


class TestErasure:
    def test_erasure_counts_the_rows_of_each_kind(self, storage: Storage) -> None:
        kinds = {
            RowKind.MEMORY: 2,
            RowKind.ENTITY: 1,
            RowKind.HISTORY: 3,
            RowKind.MESSAGE: 4,
            RowKind.SESSION: 1,
            RowKind.TRANSCRIPT: 5,
        }
        rows = [
            NewRow(kind, random.randbytes(16), b"x", parent)
            for kind, count in kinds.items()
            for parent in ([0] * count if kind in (RowKind.MEMORY, RowKind.ENTITY) else range(count))
        ]
        add(storage, "u_alice", *rows)
        add(storage, "u_bob", memory("his"), line("his", 1))
        assert erase(storage, "u_alice") == kinds
        assert erase(storage, "u_alice") == dict.fromkeys(RowKind, 0)
        assert erase(storage, "u_nobody") == dict.fromkeys(RowKind, 0)
        assert bodies_in(storage, "u_bob") == [b"his"]
        assert bodies_in(storage, "u_bob", RowKind.TRANSCRIPT, 1) == [b"his"]

    @pytest.mark.parametrize("rows", [0, 1])
    @pytest.mark.parametrize("create_again", [False, True])
    def test_token_detects_an_erasure_by_another_connection(
        self, connected: Connected, rows: int, create_again: bool
    ) -> None:
        storage, other = connected
        if rows:
            add(storage, "u_alice", memory("a"))
        with storage.reading() as transaction:
            token = transaction.token("u_alice")
            assert not transaction.is_erased_since("u_alice", token)
            transaction.find_unless_erased("u_alice", token)
        erase(other, "u_alice")
        if create_again:
            add(other, "u_alice", memory("b"))
        for opened in (storage.reading(), storage.writing()):
            with opened as transaction:
                assert transaction.is_erased_since("u_alice", token)
                with pytest.raises(BackendError, match="erased") as caught:
                    transaction.find_unless_erased("u_alice", token)
                assert caught.value.retryable
                # A call that begins now goes on.
                assert (transaction.find_unless_erased("u_alice", None) is not None) is create_again
                assert not transaction.is_erased_since("u_alice", transaction.token("u_alice"))

    @pytest.mark.parametrize("rows", [0, 1])
    def test_token_does_not_change_when_others_are_erased(self, connected: Connected, rows: int) -> None:
        storage, other = connected
        if rows:
            add(storage, "u_alice", memory("a"))
        add(storage, "u_bob", memory("his"))
        with storage.reading() as transaction:
            token = transaction.token("u_alice")
        erase(storage, "u_bob")
        erase(other, "u_nobody")
        erase(other, "u_bob")
        with storage.reading() as transaction:
            assert not transaction.is_erased_since("u_alice", token)

    @pytest.mark.parametrize("others", [0, 1])
    def test_token_of_a_user_without_rows_outlives_their_first_rows(self, storage: Storage, others: int) -> None:
        with storage.reading() as transaction:
            token = transaction.token("u_alice")
        add(storage, "u_alice", memory("a"))
        with storage.reading() as transaction:
            assert not transaction.is_erased_since("u_alice", token)
        erase(storage, "u_alice")
        for number in range(others):
            erase(storage, f"u_{number}")
        with storage.reading() as transaction:
            assert transaction.is_erased_since("u_alice", token)
            assert not transaction.is_erased_since("u_bob", token)

    @pytest.mark.parametrize("rows", [0, 1])
    def test_token_may_be_kept_as_json(self, storage: Storage, rows: int) -> None:
        if rows:
            add(storage, "u_alice", memory("a"))
        with storage.reading() as transaction:
            token = json.loads(json.dumps(list(transaction.token("u_alice"))))
            assert not transaction.is_erased_since("u_alice", token)
        erase(storage, "u_alice")
        with storage.reading() as transaction:
            assert transaction.is_erased_since("u_alice", token)

    def test_token_changes_with_each_erasure(self, storage: Storage) -> None:
        tokens: list[ErasureToken] = []
        for _ in range(3):
            with storage.reading() as transaction:
                tokens.append(list(transaction.token("u_alice")))
            add(storage, "u_alice", memory("a"))
            with storage.reading() as transaction:
                tokens.append(list(transaction.token("u_alice")))
            erase(storage, "u_alice")
        assert all(tokens.count(token) == 1 for token in tokens)
        with storage.reading() as transaction:
            assert all(transaction.is_erased_since("u_alice", token) for token in tokens)

    def test_purge_leaves_nothing_in_the_files(self, connected: Connected, tmp_path: Path) -> None:
        storage, _ = connected
        add(storage, "u_alice", memory("a zyzzogeton"), line("zyzzogeton said", 1))
        alice = add(storage, "u_bob", memory("his quagga"), memory("his okapi"))
        with storage.writing() as transaction:
            transaction.rewrite(alice, 0, memory("another"))
            transaction.remove(alice, RowKind.MEMORY, [1])
            transaction.erase("u_alice")
        storage.purge()
        held = b"".join(bytes_of(*files_of(path)) for path in storage.files())
        assert not [word for word in (b"zyzzogeton", b"quagga", b"okapi") if word in held]
        assert bodies_in(storage, "u_bob") == [b"another"]

    def test_files_are_those_that_are_written(self, connected: Connected, tmp_path: Path) -> None:
        add(connected.storage, "u_alice", memory("a"))
        written = [path for path in tmp_path.iterdir() if path.suffix not in (".db-wal", ".db-shm")]
        assert connected.storage.files() == written
