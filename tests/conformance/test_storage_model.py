"""Any sequence of calls on a storage returns what the storage in memory returns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from langchain_mem0_scoped.engine.storage import NewRow, ReadTransaction, RowKind, Version, WriteTransaction
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.requests import ErasureToken
from tests.memory_storage import MemoryStorage
from tests.storages import STORAGES, Connected, erase, row_id

USERS = ("u_alice", "u_bob", "u_carol")
PARENTS = (0, 1)

_texts = st.binary(max_size=80).map(lambda raw: raw + b".")
_rows = st.builds(
    NewRow,
    kind=st.sampled_from(RowKind),
    id=st.one_of(st.just(b""), st.integers(0, 30).map(row_id)),
    body=_texts,
    parent=st.sampled_from(PARENTS),
    vector=st.binary(min_size=4, max_size=4),
    terms=st.binary(max_size=8),
    length=st.integers(0, 9),
    said_at=st.sampled_from([0.0, 1.0, 2.0]),
)
_changes = st.one_of(
    st.tuples(st.just("insert"), st.lists(_rows, max_size=4)),
    st.tuples(st.just("rewrite"), st.integers(0, 30), _rows, st.booleans()),
    st.tuples(
        st.just("remove"),
        st.sampled_from(RowKind),
        st.lists(st.integers(0, 30), max_size=4),
        st.sampled_from(PARENTS),
    ),
    st.tuples(st.just("erase")),
)


class _Stopped(Exception):
    """Ends a transaction on purpose."""


def _apply(transaction: WriteTransaction, user_id: str, changes: Sequence[Any]) -> list[Any]:
    """Make the changes; return what the storage returned."""
    returned: list[Any] = []
    searched = rewritten = False
    partition = transaction.find(user_id) or transaction.create(user_id)
    for name, *arguments in changes:
        if name == "erase":
            returned.append(transaction.erase(user_id))
            partition, searched, rewritten = transaction.create(user_id), False, False
        elif name == "insert":
            partition = transaction.insert(partition, arguments[0])
            returned.append(partition.next_seq)
            searched |= any(row.kind <= RowKind.ENTITY for row in arguments[0])
        elif name == "rewrite":
            seq, row, keep_vector = arguments
            transaction.rewrite(partition, seq, row, keep_vector=keep_vector)
            searched = rewritten = True
        else:
            kind, seqs, parent = arguments
            transaction.remove(partition, kind, seqs, parent)
            searched = rewritten = True
        returned.append(_seen(transaction, user_id))
    transaction.bump_version(partition, searched=searched, rewritten=rewritten)
    return returned


def _seen(transaction: ReadTransaction, user_id: str) -> Any:
    """Everything a transaction reads of a user."""
    partition = transaction.find(user_id)
    if partition is None:
        return None
    ids = [row_id(number) for number in range(31)]
    return [
        (
            transaction.find_ids(partition, kind, ids),
            transaction.count(partition, kind),
            transaction.has_rows(partition, kind),
            [(row.seq, row.id, row.body) for row in transaction.latest(partition, kind)],
            [transaction.rows(partition, kind, parent) for parent in PARENTS],
            [transaction.rows(partition, kind, parent, seqs=[0, 3, 5, 7], last=2) for parent in PARENTS],
        )
        for kind in RowKind
    ]


def compared(open_storage: Callable[[Path], Connected]) -> type[RuleBasedStateMachine]:
    """A state machine that makes the same calls on a storage and on the one in memory."""

    class SameAsInMemory(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = tempfile.TemporaryDirectory()
            self.connected = open_storage(Path(self.folder.name))
            self.model = MemoryStorage()
            self.versions: list[tuple[tuple[str, RowKind], Version, Version]] = []
            self.tokens: list[tuple[str, ErasureToken, ErasureToken]] = []

        @initialize()
        def begin(self) -> None:
            self.take_tokens()

        @rule(
            user_id=st.sampled_from(USERS),
            changes=st.lists(_changes, min_size=1, max_size=4),
            stop=st.booleans(),
            which=st.integers(0, 1),
        )
        def write(self, user_id: str, changes: Sequence[Any], stop: bool, which: int) -> None:
            results: list[Any] = []
            for storage in (self.model, self.connected[which]):
                try:
                    with storage.writing() as transaction:
                        results.append(_apply(transaction, user_id, changes))
                        if stop:
                            raise _Stopped
                except BackendError:
                    results.append("refused")
                except _Stopped:
                    pass
            assert results[0] == results[1]

        @rule(user_id=st.sampled_from(USERS), which=st.integers(0, 1))
        def erase(self, user_id: str, which: int) -> None:
            assert erase(self.model, user_id) == erase(self.connected[which], user_id)

        @rule()
        def take_tokens(self) -> None:
            with self.model.reading() as expected, self.connected.storage.reading() as actual:
                self.tokens += [(one, expected.token(one), actual.token(one)) for one in USERS]

        @invariant()
        def same_rows(self) -> None:
            with self.model.reading() as expected, self.connected.other.reading() as actual:
                for user_id in USERS:
                    assert _seen(actual, user_id) == _seen(expected, user_id)
                for user_id, in_model, in_storage in self.tokens:
                    erased = expected.is_erased_since(user_id, in_model)
                    assert actual.is_erased_since(user_id, in_storage) is erased

        @invariant()
        def same_snapshots(self) -> None:
            for user_id in USERS:
                for kind in (RowKind.MEMORY, RowKind.ENTITY):
                    self.compare(user_id, kind, None, None)
                    for of, in_model, in_storage in self.versions:
                        if of == (user_id, kind):
                            self.compare(user_id, kind, in_model, in_storage)

        def compare(self, user_id: str, kind: RowKind, in_model: Version | None, in_storage: Version | None) -> None:
            expected = self.model.snapshot(user_id, kind, in_model)
            actual = self.connected.storage.snapshot(user_id, kind, in_storage)
            if expected is None or actual is None:
                assert actual is expected is None
                return
            assert (actual.follows == in_storage) is (expected.follows == in_model)
            assert (actual.ids, actual.vectors, actual.terms, actual.lengths) == (
                expected.ids,
                expected.vectors,
                expected.terms,
                expected.lengths,
            )
            seen = ((user_id, kind), expected.version, actual.version)
            if seen not in self.versions:
                self.versions.append(seen)
            if in_model is not None and in_storage is not None:
                of_then = self.model.bodies(user_id, kind, in_model, expected.seqs)
                assert self.connected.storage.bodies(user_id, kind, in_storage, actual.seqs) == of_then
            bodies = self.model.bodies(user_id, kind, expected.version, expected.seqs)
            assert self.connected.storage.bodies(user_id, kind, actual.version, actual.seqs) == bodies

        def teardown(self) -> None:
            self.connected.close()
            self.folder.cleanup()

    return SameAsInMemory


@pytest.mark.parametrize("name", [name for name in STORAGES if name != "memory"])
def test_any_calls_return_what_the_storage_in_memory_returns(name: str) -> None:
    run_state_machine_as_test(
        compared(STORAGES[name]), settings=settings(max_examples=60, stateful_step_count=15, deadline=None)
    )
