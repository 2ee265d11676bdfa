"""FairLock: one thread at a time, in the order of arrival, none forgotten; and what of a search is done under it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


def wait_for(arrivals: int, lock: FairLock) -> None:
    """Wait until so many threads have come."""
    deadline = time.monotonic() + _PATIENCE
    while lock.arrivals < arrivals:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def take(lock: FairLock) -> None:
    lock.run(lambda: None)


@contextmanager
def held(lock: FairLock) -> Iterator[None]:
    """Have another thread work under the lock until the block ends."""
    begun, leave = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert leave.wait(_PATIENCE)

    threads = start(partial(lock.run, hold))
    assert begun.wait(_PATIENCE)
    try:
        yield
    finally:
        leave.set()
        join(threads)


@pytest.mark.parametrize("seed", range(5))
def test_one_thread_at_a_time_works_and_each_has_its_turn(seed: int) -> None:
    lock, workers, most, done = FairLock(), [0], [0], [0]

    def work(chance: random.Random) -> None:
        workers[0] += 1
        most[0] = max(most[0], workers[0])
        if chance.random() < 0.3:
            time.sleep(0)
        done[0] += 1
        workers[0] -= 1

    def come_again(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in range(200):
            lock.run(partial(work, chance))

    join(start(*(partial(come_again, number) for number in range(8))))
    assert (most, done, lock.arrivals) == ([1], [1_600], 1_600)


def test_threads_have_their_turns_in_the_order_of_arrival() -> None:
    lock = FairLock()
    order: list[int] = []
    threads = []
    with held(lock):
        for number in range(5):
            threads += start(partial(lock.run, partial(order.append, number)))
            wait_for(number + 2, lock)
        assert order == []
    # They have come already, so this thread is the last.
    lock.run(lambda: order.append(5))
    assert order == [0, 1, 2, 3, 4, 5]
    join(threads)


def test_a_thread_that_comes_again_and_again_overtakes_nobody() -> None:
    lock, counts, stop = FairLock(), [0] * 4, threading.Event()

    def work(number: int) -> None:
        counts[number] += 1
        time.sleep(0.001)

    def come_again(number: int) -> None:
        while not stop.is_set():
            lock.run(partial(work, number))

    threads = start(*(partial(come_again, number) for number in range(4)))
    time.sleep(0.4)
    stop.set()
    join(threads)
    assert min(counts) >= 0.8 * max(counts) > 0


def test_it_returns_what_the_work_returns() -> None:
    assert FairLock().run(lambda: "found") == "found"


def test_work_that_fails_lets_the_next_thread_go_on() -> None:
    lock = FairLock()
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 // 0)
    join(start(partial(take, lock)))


def test_work_within_work_does_not_wait_for_itself() -> None:
    """As that of a signal handler that searches while its thread does."""
    lock, inner = FairLock(), []
    join(start(lambda: lock.run(lambda: inner.append(lock.run(lambda: "done")))))
    assert inner == ["done"]
    with held(lock):
        threads = start(partial(take, lock))
        wait_for(3, lock)
        assert threads[0].is_alive()
    join(threads)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_a_thread_that_is_interrupted_while_it_waits_leaves_nobody_waiting() -> None:
    lock = FairLock()

    def interrupt() -> None:
        wait_for(2, lock)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # A shell starts processes in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with held(lock):
            threads = start(interrupt)
            with pytest.raises(KeyboardInterrupt):
                take(lock)
    finally:
        signal.signal(signal.SIGINT, before)
    join(threads)
    join(start(partial(take, lock)))
    take(lock)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_an_interrupt_at_any_moment_leaves_nobody_waiting() -> None:
    """As of a notebook whose user stops a search: if its turn never ended, no search of the process would either."""
    code = """
    import faulthandler, random, signal, threading
    from langchain_mem0_scoped.engine.fair_lock import FairLock

    class Interrupt(BaseException): pass
    armed = False
    def interrupt(*_):
        global armed
        if armed:
            armed = False
            raise Interrupt
    signal.signal(signal.SIGALRM, interrupt)
    lock, chance, interrupts = FairLock(), random.Random(1), 0
    faulthandler.dump_traceback_later(60, exit=True)
    while interrupts < 500:
        armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0001))
            # Python only prints what is raised in a callback of its own: then the loop ends without it.
            while armed:
                lock.run(int)
        except Interrupt:
            interrupts += 1
        thread = threading.Thread(target=lock.run, args=[int], daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), interrupts
    """
    assert run_python(code) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_lock_of_its_own() -> None:
    code = """
    import os, threading, time, warnings
    from langchain_mem0_scoped.engine.fair_lock import FairLock
    warnings.simplefilter("ignore", DeprecationWarning)
    lock, held = FairLock(), threading.Event()
    def hold():
        held.set()
        time.sleep(1)
    threading.Thread(target=lock.run, args=[hold]).start()
    held.wait()
    threading.Thread(target=lock.run, args=[int]).start()
    while lock.arrivals < 2:
        time.sleep(0.001)
    if not (pid := os.fork()):
        thread = threading.Thread(target=lock.run, args=[int], daemon=True)
        thread.start()
        thread.join(5)
        os._exit(thread.is_alive() or lock.arrivals != 1)
    assert os.waitpid(pid, 0)[1] == 0
    """
    assert run_python(code) == ""


class TestSearches:
    """A search holds it while it ranks and reads. No code of the caller's runs meanwhile."""

    def test_a_search_waits_for_the_search_that_runs(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "m.db")
        memory, found = ScopedMemory("u_alice", client=client), []
        memory.add("I am vegetarian")
        with held(SEARCHES):
            arrivals = SEARCHES.arrivals
            threads = start(lambda: found.append(memory.search("vegetarian")))
            wait_for(arrivals + 1, SEARCHES)
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
        asked: list[str] = []

        def search_too(name: str) -> None:
            asked.append(name)
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
        assert asked == ["embeddings", "reranker"]
        client.close()
