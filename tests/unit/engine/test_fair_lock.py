"""FairLock: one thread at a time, in the order of arrival, none forgotten; and where searches hold it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine.fair_lock import SEARCHES, FairLock
from tests.support import run_python
from tests.worlds import WordEmbeddings

_PATIENCE = 20.0


def start(*works: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive(), "a thread was never woken"


def wait_for(count: int, lock: FairLock) -> None:
    deadline = time.monotonic() + _PATIENCE
    while lock.waiting < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def take(lock: FairLock) -> None:
    with lock:
        pass


@pytest.mark.parametrize("seed", range(5))
def test_one_thread_at_a_time_holds_it_and_each_gets_it(seed: int) -> None:
    lock, holders, most, done = FairLock(), [0], [0], [0]

    def work(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in range(200):
            with lock:
                holders[0] += 1
                most[0] = max(most[0], holders[0])
                if chance.random() < 0.3:
                    time.sleep(0)
                done[0] += 1
                holders[0] -= 1

    join(start(*(partial(work, number) for number in range(8))))
    assert (most, done, lock.waiting) == ([1], [1_600], 0)


def test_it_is_handed_over_in_the_order_of_arrival() -> None:
    lock, order = FairLock(), []

    def arrive(number: int) -> None:
        with lock:
            order.append(number)

    threads = []
    with lock:
        for number in range(5):
            threads += start(partial(arrive, number))
            wait_for(number + 1, lock)
    # It was handed over already, so this thread is the last.
    with lock:
        assert order == [0, 1, 2, 3, 4]
    join(threads)


def test_a_thread_that_takes_it_again_and_again_overtakes_nobody() -> None:
    lock, counts, stop = FairLock(), [0] * 4, threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            with lock:
                counts[number] += 1
                time.sleep(0.001)

    threads = start(*(partial(work, number) for number in range(4)))
    time.sleep(0.4)
    stop.set()
    join(threads)
    assert min(counts) >= 0.8 * max(counts) > 0


def test_a_block_that_fails_releases_it() -> None:
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    join(start(partial(take, lock)))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_an_interrupted_thread_leaves_the_queue() -> None:
    lock, leave, held = FairLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            leave.wait(_PATIENCE)

    def interrupt() -> None:
        wait_for(1, lock)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threads = start(hold)
    held.wait(_PATIENCE)
    threads += start(interrupt)
    with pytest.raises(KeyboardInterrupt):
        take(lock)
    assert lock.waiting == 0
    leave.set()
    join(threads)
    take(lock)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_lock_of_its_own() -> None:
    code = """
    import os, threading, time, warnings
    from langchain_mem0_scoped.engine.fair_lock import FairLock
    warnings.simplefilter("ignore", DeprecationWarning)
    lock, held = FairLock(), threading.Event()
    def take(seconds):
        with lock:
            held.set()
            time.sleep(seconds)
    threading.Thread(target=take, args=[1]).start()
    held.wait()
    threading.Thread(target=take, args=[0]).start()
    while not lock.waiting:
        time.sleep(0.001)
    if not (pid := os.fork()):
        thread = threading.Thread(target=take, args=[0], daemon=True)
        thread.start()
        thread.join(5)
        os._exit(thread.is_alive() or lock.waiting)
    assert os.waitpid(pid, 0)[1] == 0
    """
    assert run_python(code) == ""


class TestSearches:
    """A search holds it while it ranks and reads. No code of the caller's runs meanwhile."""

    def test_a_search_waits_for_the_search_that_runs(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "m.db")
        memory, found = ScopedMemory("u_alice", client=client), []
        memory.add("I am vegetarian")
        with SEARCHES:
            threads = start(lambda: found.append(memory.search("vegetarian")))
            wait_for(1, SEARCHES)
            assert found == []
        join(threads)
        assert len(found[0]) == 1
        client.close()

    def test_a_failed_search_releases_it(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "m.db")
        ScopedMemory("u_alice", client=client).add("I am vegetarian")
        client.close()
        with pytest.raises(Exception, match="closed"):
            ScopedMemory("u_alice", client=client).search("vegetarian")
        join(start(partial(take, SEARCHES)))

    def test_a_model_of_the_callers_own_may_search_as_well(self, tmp_path: Path) -> None:
        held: list[str] = []

        def search_too(name: str) -> None:
            held.append(name)
            # It would wait here forever if this thread held the lock.
            join(start(partial(take, SEARCHES)))

        class Reranker(BaseDocumentCompressor):
            def compress_documents(
                self, documents: Sequence[Document], query: str, callbacks: Callbacks = None
            ) -> Sequence[Document]:
                search_too("reranker")
                return documents

        embeddings = WordEmbeddings()
        client = local_memory(tmp_path / "m.db", embeddings=embeddings, reranker=Reranker())
        memory = ScopedMemory("u_alice", client=client)
        memory.add("I am vegetarian")
        embeddings.before = lambda _: search_too("embeddings")
        assert len(memory.search("vegetarian")) == 1
        assert held == ["embeddings", "reranker"]
        client.close()
