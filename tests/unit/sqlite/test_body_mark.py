"""Marks: a text is returned only as part of the row it was written with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.engine.storage import RowKind
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.sqlite.body_mark import (
    KEY_BYTES,
    MARK_BYTES,
    seal,
    seal_name,
    unseal_name,
    unsealer,
    user_of_name,
)
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.storages import add, append, bodies_in, found, line, memory, snapshot_of

KEY, OTHER = b"k" * KEY_BYTES, b"o" * KEY_BYTES
ROW = (KEY, 0, 0, 5, b"i" * 16)


def unseal(key: bytes, kind: int, parent: int, seq: int, row_id: bytes, stored: bytes | None) -> bytes:
    return unsealer(key, kind, parent)(seq, row_id, stored)


Row = tuple[bytes, int, int, int, bytes]

_rows = st.tuples(
    st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES),
    st.sampled_from(RowKind),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.sampled_from([b"", b"i" * 16, b"j" * 16]),
)
_bodies = st.binary(max_size=60).map(lambda body: body + b".")


@given(_rows, _rows, _bodies, st.integers(0, 40))
def test_only_the_row_itself_opens_it(row: Row, other: Row, body: bytes, pad: int) -> None:
    stored = seal(*row, body) + bytes(pad)
    assert unseal(*row, stored) == body
    if other != row:
        with pytest.raises(BackendError, match="mixed"):
            unseal(*other, stored)


@given(_bodies, st.data())
def test_a_changed_byte_is_noticed(body: bytes, data: st.DataObject) -> None:
    stored = bytearray(seal(*ROW, body))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BackendError, match="restore a backup"):
        unseal(*ROW, bytes(stored))


@pytest.mark.parametrize("stored", [None, b"", bytes(16), bytes(200), seal(*ROW, b"text")[:MARK_BYTES]])
def test_text_that_is_gone_is_noticed(stored: bytes | None) -> None:
    with pytest.raises(BackendError, match="damaged"):
        unseal(*ROW, stored)
    with pytest.raises(BackendError, match="damaged"):
        unseal_name(1, stored)


def test_name_belongs_to_its_partition() -> None:
    stored = seal_name(KEY, 7, "u_alice") + bytes(9)
    assert unseal_name(7, stored) == (KEY, b"u_alice")
    assert user_of_name(stored) == b"u_alice"
    for pid, spoilt in ((8, stored), (7, OTHER + stored[KEY_BYTES:]), (7, stored.replace(b"alice", b"bobby"))):
        with pytest.raises(BackendError, match="mixed"):
            unseal_name(pid, spoilt)


def test_error_quotes_nothing() -> None:
    with pytest.raises(BackendError) as caught:
        unseal(*ROW, seal(OTHER, 0, 0, 5, ROW[4], b"a secret"))
    assert "secret" not in str(caught.value)


class TestDamagedFile:
    """References that lead to another user's text, or to none: every read is an error, none shows it."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[SqliteStorage]:
        storage = SqliteStorage(tmp_path / "memory.db", "tests")
        add(storage, "u_alice", memory("hers", 1), line("she said", 7, 2))
        add(storage, "u_bob", memory("his", 1), line("he said", 7, 2))
        yield storage
        storage.close()

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE items SET ref = (SELECT max(ref) - ref + 2 FROM items)",
            "UPDATE items SET ref = 4711",
            "UPDATE texts SET body = zeroblob(length(body))",
            "UPDATE texts SET body = (SELECT body FROM texts AS other WHERE other.ref = 7 - texts.ref)",
            "UPDATE partitions SET name_ref = (SELECT sum(name_ref) FROM partitions) - name_ref",
            "UPDATE items SET id = randomblob(16) WHERE id <> x''",
            "UPDATE items SET seq = seq + 100",
        ],
    )
    def test_every_read_is_right_or_an_error(self, storage: SqliteStorage, damage: str) -> None:
        own = {"u_alice": {b"hers", b"she said"}, "u_bob": {b"his", b"he said"}}
        partitions = {user_id: found(storage, user_id) for user_id in own}
        snapshots = {user_id: snapshot_of(storage, user_id) for user_id in own}
        with storage.database.writing() as connection:
            connection.execute(damage)

        def listed(user_id: str) -> list[bytes]:
            with storage.reading() as transaction:
                return [row.body for row in transaction.latest(partitions[user_id], RowKind.MEMORY)]

        def searched(user_id: str) -> list[bytes]:
            snapshot = snapshots[user_id]
            return storage.bodies(user_id, RowKind.MEMORY, snapshot.version, snapshot.seqs) or []

        reads: list[Callable[[str], list[bytes]]] = [
            lambda user_id: bodies_in(storage, user_id),
            lambda user_id: bodies_in(storage, user_id, RowKind.TRANSCRIPT, 7),
            listed,
            searched,
        ]
        errors = 0
        for user_id, texts in own.items():
            for read in reads:
                try:
                    shown = set(read(user_id))
                except BackendError as error:
                    errors += "damaged" in str(error)
                else:
                    assert shown <= texts, damage
        assert errors >= 2, damage

    def test_rows_are_marked_again_where_they_are_rewritten(self, storage: SqliteStorage) -> None:
        with storage.writing() as transaction:
            alice = append(transaction, "u_alice", memory("more", 3))
            transaction.rewrite(alice, 0, memory("anew", 1))
            transaction.rewrite(alice, 1, line("said anew", 7, 2))
            transaction.bump_version(alice, searched=True, rewritten=True)
        assert bodies_in(storage, "u_alice") == [b"anew", b"more"]
        assert bodies_in(storage, "u_alice", RowKind.TRANSCRIPT, 7) == [b"said anew"]
