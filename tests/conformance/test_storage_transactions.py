"""What engine/storage.py promises of transactions, threads and forks, on every storage."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_mem0_scoped.engine.storage import RowKind, Storage
from langchain_mem0_scoped.errors import BackendError
from tests.storages import STORAGES, Connected, add, append, bodies_in, erase, found, memory, row_id, snapshot_of
from tests.support import run_python


class TestTransactions:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, BackendError])
    def test_nothing_is_kept_of_what_raises(self, connected: Connected, error: type[BaseException]) -> None:
        storage, other = connected
        before = add(storage, "u_alice", memory("a", 1), memory("b", 2))
        tokens = {}
        with storage.reading() as reader:
            tokens = {user_id: reader.token(user_id) for user_id in ("u_alice", "u_carol", "u_dave")}

        def fail() -> None:
            with storage.writing() as transaction:
                append(transaction, "u_alice", memory("c", 3))
                append(transaction, "u_dave", memory("his"))
                transaction.rewrite(before, 0, memory("changed", 1))
                transaction.remove(before, RowKind.MEMORY, [1])
                transaction.bump_version(before, searched=True, rewritten=True)
                transaction.erase("u_carol")
                transaction.erase("u_alice")
                raise error("stop")

        with pytest.raises(error):
            fail()
        for one in (storage, other):
            assert found(one, "u_alice") == before
            assert bodies_in(one, "u_alice") == [b"a", b"b"]
            with one.reading() as transaction:
                assert transaction.find("u_dave") is None
                assert transaction.find_ids(before, RowKind.MEMORY, [row_id(number) for number in (1, 2, 3)]) == {
                    row_id(1): 0,
                    row_id(2): 1,
                }
                assert not any(transaction.is_erased_since(user_id, token) for user_id, token in tokens.items())
        add(storage, "u_alice", memory("later", 3))
        assert bodies_in(other, "u_alice") == [b"a", b"b", b"later"]

    def test_reader_sees_one_state(self, connected: Connected) -> None:
        storage, other = connected
        before = add(storage, "u_alice", memory("a", 1))
        with storage.reading() as reader:
            assert reader.find("u_alice") == before
            token = reader.token("u_carol")
            add(other, "u_alice", memory("b", 2))
            erase(storage, "u_carol")
            assert reader.find("u_alice") == before
            assert [row.body for row in reader.rows(before, RowKind.MEMORY)] == [b"a"]
            assert [row.body for row in reader.latest(before, RowKind.MEMORY)] == [b"a"]
            assert reader.count(before, RowKind.MEMORY) == 1
            assert reader.find_ids(before, RowKind.MEMORY, [row_id(2)]) == {}
            assert not reader.is_erased_since("u_carol", token)
            erase(other, "u_alice")
            assert [row.body for row in reader.rows(before, RowKind.MEMORY)] == [b"a"]
        with storage.reading() as reader:
            assert reader.find("u_alice") is None
            assert reader.is_erased_since("u_carol", token)

    def test_nobody_else_sees_what_is_not_committed(self, connected: Connected) -> None:
        storage, other = connected
        before = add(storage, "u_alice", memory("a"))
        snapshot = snapshot_of(storage)
        with storage.writing() as transaction:
            partition = append(transaction, "u_alice", memory("b"))
            append(transaction, "u_bob", memory("his"))
            assert [row.body for row in transaction.rows(partition, RowKind.MEMORY)] == [b"a", b"b"]
            for one in (storage, other):
                assert found(one, "u_alice") == before
                assert one.snapshot("u_bob", RowKind.MEMORY, None) is None
                assert one.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs) == [b"a"]
        for one in (storage, other):
            assert bodies_in(one, "u_alice") == [b"a", b"b"]

    def test_what_was_committed_is_there_for_others_at_once(self, connected: Connected) -> None:
        storage, other = connected
        for number in range(5):
            add(storage, "u_alice", memory(str(number)))
            assert len(bodies_in(other, "u_alice")) == number + 1

    def test_transactions_may_write_for_several_users(self, storage: Storage) -> None:
        with storage.writing() as transaction:
            append(transaction, "u_alice", memory("hers"))
            append(transaction, "u_bob", memory("his"))
            transaction.erase("u_alice")
            append(transaction, "u_alice", memory("hers again"))
        assert bodies_in(storage, "u_alice") == [b"hers again"]
        assert bodies_in(storage, "u_bob") == [b"his"]

    def test_concurrent_writers_lose_nothing(self, connected: Connected) -> None:
        threads, rounds = 6, 12

        def write(number: int) -> None:
            for turn in range(rounds):
                storage = connected[turn % 2]
                add(storage, "u_all", memory(f"{number}/{turn}a"), memory(f"{number}/{turn}b"))
                add(storage, f"u_{number}", memory(f"{turn}"))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, range(threads)))
        texts = [body.decode() for body in bodies_in(connected.storage, "u_all")]
        assert sorted(texts) == sorted(
            f"{number}/{turn}{half}" for number in range(threads) for turn in range(rounds) for half in "ab"
        )
        # A transaction's rows stand beside each other.
        assert all(first[:-1] == second[:-1] for first, second in zip(texts[::2], texts[1::2], strict=True))
        assert found(connected.storage, "u_all").next_seq == 2 * threads * rounds
        for number in range(threads):
            assert bodies_in(connected.other, f"u_{number}") == [str(turn).encode() for turn in range(rounds)]

    def test_readers_beside_a_writer_see_whole_transactions(self, connected: Connected) -> None:
        storage, other = connected
        add(storage, "u_alice", memory("0a"), memory("0b"))
        stop = threading.Event()

        def read() -> int:
            reads = 0
            while not stop.is_set() or not reads:
                with other.reading() as transaction:
                    partition = transaction.find("u_alice")
                    assert partition is not None
                    count = transaction.count(partition, RowKind.MEMORY)
                    assert count == partition.next_seq == len(transaction.rows(partition, RowKind.MEMORY))
                    assert count % 2 == 0
                snapshot = snapshot_of(other)
                bodies = other.bodies("u_alice", RowKind.MEMORY, snapshot.version, snapshot.seqs)
                assert bodies is None or len(bodies) == len(snapshot.ids)
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for number in range(1, 20):
                add(storage, "u_alice", memory(f"{number}a"), memory(f"{number}b"))
            stop.set()
            assert all(reader.result() for reader in readers)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.parametrize("name", STORAGES)
    def test_storage_works_after_a_fork(self, tmp_path: Path, name: str) -> None:
        """Also where another thread is in the middle of a transaction: in the child, it does not exist."""
        code = f"""
import os, threading, warnings
from pathlib import Path
from langchain_mem0_scoped.engine.storage import NewRow, RowKind
from tests.storages import STORAGES
warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, of any fork beside threads
connected = STORAGES[{name!r}](Path({str(tmp_path)!r}))
storage = connected.storage

def add(text):
    with storage.writing() as transaction:
        partition = transaction.find("u") or transaction.create("u")
        partition = transaction.insert(partition, [NewRow(RowKind.MEMORY, text.ljust(16), text)])
        transaction.bump_version(partition, searched=True, rewritten=False)
        if text == b"slow":
            inside.set()
            go_on.wait(0.5)

def texts():
    with storage.reading() as transaction:
        return [row.body for row in transaction.rows(transaction.find("u"), RowKind.MEMORY)]

add(b"first")
inside, go_on = threading.Event(), threading.Event()
thread = threading.Thread(target=add, args=[b"slow"])
thread.start()
inside.wait()
pid = os.fork()
if not pid:
    before = texts()
    add(b"child")
    os._exit(not (b"first" in before and texts()[-1] == b"child"))
go_on.set()
thread.join()
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
add(b"parent")
assert {{b"first", b"slow", b"parent"}} <= set(texts())
connected.close()
"""
        assert run_python(code) == ""
