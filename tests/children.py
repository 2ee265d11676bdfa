"""What the child processes of the fault tests do. Each function gets a pipe to its test first."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import select
import signal
import sqlite3
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from langchain_mem0_scoped import ErasureReceipt, ScopedMemory, local_memory
from langchain_mem0_scoped.backends import default
from langchain_mem0_scoped.embeddings import _model
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.errors import BackendError, ScopedMemoryError
from tests.faults import PATIENCE, Child, open_files, store
from tests.models import extracting
from tests.worlds import WordEmbeddings, entities

_model()  # once in the server the children are forked from, not in each of them

PARTS = 3
"""Messages in one add: it is stored as a whole or not at all."""

_FORK_PATIENCE = 30
"""Seconds after which a forked child that hangs ends itself."""


# -- killed while writing


def add_until_killed(pipe: Connection, path: Path, first: int) -> None:
    """Add without end, acknowledging each add after it has returned; sometimes delete, which empties the log."""
    memory = ScopedMemory("u_alice", client=local_memory(path))
    number = first
    while True:
        pipe.send(("adding", number, None))
        added = memory.add([f"note {number} part {part}" for part in range(PARTS)], session_id=f"s{number}")
        pipe.send(("added", number, [record["id"] for record in added]))
        if number % 4 == 3:
            pipe.send(("deleting", number, added[0]["id"]))
            memory.delete(added[0]["id"])
            pipe.send(("deleted", number, added[0]["id"]))
        number += 1


def create_until_killed(pipe: Connection, folder: Path) -> None:
    """Make one new file after another."""
    for number in range(100_000):
        path = folder / f"{number}.db"
        pipe.send(path)
        with store(path) as client:
            ScopedMemory("u_alice", client=client).add("I am vegetarian")


# -- many at once


def mix(pipe: Connection, path: Path, process: str, threads: int, rounds: int) -> None:
    """Do everything at once in several threads, each for a user of its own and for one everybody shares."""
    with store(path) as client:
        pipe.send("ready")
        pipe.recv()
        kept: list[tuple[str, str]] = []
        gone: list[str] = []
        _together(*(lambda name=f"{process}{n}": _mix_one(client, name, rounds, kept, gone) for n in range(threads)))
    pipe.send((kept, gone))


def _mix_one(client: EngineMemory, name: str, rounds: int, kept: list[tuple[str, str]], gone: list[str]) -> None:
    own, shared = ScopedMemory(f"own_{name}", client=client), ScopedMemory("shared", client=client)
    for number in range(rounds):
        for memory, whose in ((own, f"own_{name}"), (shared, "shared")):
            stays, changes, goes = memory.add([f"{name} {what} {number}" for what in ("stays", "changes", "goes")])
            memory.update(changes["id"], f"{name} changed {number}")
            memory.delete(goes["id"])
            kept += [(whose, f"{name} stays {number}"), (whose, f"{name} changed {number}")]
            gone.append(goes["id"])
            for record in [*memory.search(f"{name} stays {number}", k=20), *memory.get_all()]:
                assert record["user_id"] == whose
                assert whose == "shared" or record["memory"].startswith(f"{name} ")
            assert memory.get(stays["id"])["memory"] == f"{name} stays {number}"
        assert own.count() == 2 * (number + 1)


def _together(*works: Callable[[], None]) -> None:
    """Run them in threads of their own; raise what any of them raised."""
    failures: list[str] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures, "\n".join(failures)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


def create_together(pipe: Connection, folder: Path, rounds: int, name: str) -> None:
    """Open each new file at the moment the test says so to every process."""
    for number in range(rounds):
        pipe.send("ready")
        pipe.recv()
        with store(folder / f"{number}.db") as client:
            ScopedMemory(f"u_{name}", client=client).add(f"hello from {name}")
    pipe.send("done")


def add_once(pipe: Connection, path: Path, user_id: str, text: str) -> None:
    """Open the file, add, close it."""
    with store(path) as client:
        pipe.send(ScopedMemory(user_id, client=client).add(text)[0]["id"])


def extract_together(pipe: Connection, path: Path, user_id: str, fact: str, threads: int) -> None:
    """Add one fact at once from several threads, each when its model and the other process are ready."""
    ready = threading.Barrier(threads)

    def wait(_: int) -> None:
        if ready.wait(PATIENCE) == 0:
            pipe.send("ready")
            pipe.recv()
        ready.wait(PATIENCE)

    with closing(local_memory(path, llm=extracting(wait))) as client:
        memory = ScopedMemory(user_id, client=client)

        def add() -> None:
            memory.add(fact)

        _together(*[add] * threads)


def read_all(pipe: Connection, path: Path, user_id: str) -> None:
    """Read a user's memories in a process that has never seen the file."""
    with store(path) as client:
        pipe.send(sorted(record["memory"] for record in ScopedMemory(user_id, client=client).get_all()))


def lock(pipe: Connection, path: Path, how: str) -> None:
    """Keep the file locked until told otherwise: "IMMEDIATE" for writers, "EXCLUSIVE" for everybody."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if how == "EXCLUSIVE":
            # In WAL mode readers are only kept out by a connection that will not share.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute(f"BEGIN {how}")
        pipe.send("locked")
        pipe.recv()
        connection.execute("ROLLBACK")
    pipe.send("unlocked")


# -- erasure in another process


def erase_in_another_process(path: Path, user_id: str) -> ErasureReceipt:
    """Erase a user in a process that has never opened the file."""
    with Child(erase_user, path, user_id) as child:
        receipt: ErasureReceipt = child.receive()
        return receipt


def erase_user(pipe: Connection, path: Path, user_id: str) -> None:
    """Open the file, erase a user, send the receipt."""
    with store(path, embeddings=WordEmbeddings()) as client:
        pipe.send(ScopedMemory(user_id, client=client).delete_all())


def erase_user_and_be_killed(pipe: Connection, path: Path, user_id: str) -> None:
    """Erase a user, and be killed once that is committed, before the log is emptied."""
    with store(path, embeddings=WordEmbeddings()) as client:
        client.storage.purge = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        pipe.send("erasing")
        ScopedMemory(user_id, client=client).delete_all()


def look_for_erased_user(pipe: Connection, path: Path, user_id: str, other_id: str) -> None:
    """Read everything of an erased user, then add; send the prompt that mem0 builds for that add."""
    model = extracting()
    with store(path, embeddings=WordEmbeddings(), llm=model) as client, entities():
        memory = ScopedMemory(user_id, client=client)
        assert memory.get_all() == []
        assert memory.count() == 0
        assert memory.search("anything at all", threshold=0) == []
        assert client.entity_store.list({"user_id": user_id}) == [[]]
        assert client.db.get_last_messages(f"user_id={user_id}") == []
        assert ScopedMemory(other_id, client=client).count() > 0
        memory.add("hello again", infer=True)
        pipe.send(model.prompts[-1])


# -- a disk that is full


def fill_disk(path: Path, fill: Callable[[], None], free: Callable[[], None], *, new_files: bool) -> None:
    """Run into a full disk with every verb that writes; what was acknowledged stays, and nothing is half there.

    Args:
        path: The store's file.
        fill: Takes the last of the space.
        free: Gives it back.
        new_files: Whether there is none left for another file either.
    """
    with store(path) as client:
        memory = ScopedMemory("u_alice", client=client)
        acknowledged = {memory.add(f"before {number}")[0]["id"]: f"before {number}" for number in range(5)}
        first = next(iter(acknowledged))
        fill()
        # What is already reserved in the log may still take some.
        failure: BackendError | None = None
        for number in range(500):
            try:
                for record in memory.add([f"full {number} {part} " + "x" * 20_000 for part in range(PARTS)]):
                    acknowledged[record["id"]] = record["memory"]
            except BackendError as error:
                failure = error
                break
        _assert_full(failure, path)
        assert _texts_by_id(memory) == acknowledged
        attempts: list[Callable[[], object]] = [
            lambda: memory.update(first, "y" * 50_000),
            lambda: ScopedMemory("u_new", client=client).add("z" * 50_000),
        ]
        if new_files:
            attempts.append(lambda: local_memory(path.with_name("other.db")).close())
        for attempt in attempts:
            _assert_full(_failure_of(attempt), path.parent)
            assert _texts_by_id(memory) == acknowledged
        assert ScopedMemory("u_new", client=client).get_all() == []
        assert [record["id"] for record in memory.search("before 0", k=1)] == [first]
        free()
        acknowledged[memory.add("after")[0]["id"]] = "after"
        acknowledged[memory.update(first, "corrected")["id"]] = "corrected"
        memory.delete(first)
        del acknowledged[first]
        assert _texts_by_id(memory) == acknowledged
    with store(path.with_name("other.db")) as client:
        ScopedMemory("u_alice", client=client).add("a file that could not be made can be made now")
    with store(path) as client:
        assert _texts_by_id(ScopedMemory("u_alice", client=client)) == acknowledged


def _texts_by_id(memory: ScopedMemory) -> dict[str, str]:
    return {record["id"]: record["memory"] for record in memory.get_all()}


def _failure_of(attempt: Callable[[], object]) -> BackendError | None:
    try:
        attempt()
    except BackendError as error:
        return error
    return None


def _assert_full(error: BackendError | None, place: Path) -> None:
    assert error is not None, "the disk is full and nothing said so"
    assert "full" in str(error), str(error)
    assert str(place) in str(error), str(error)
    assert "xxx" not in str(error)


def fill_tmpfs(folder: str) -> None:
    """In a mount namespace of its own: a disk of two megabytes."""
    path, filler = Path(folder, "m.db"), Path(folder, "filler")

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                return

    fill_disk(path, fill, filler.unlink, new_files=True)
    print("passed")


def fill_limit(folder: str) -> None:
    """Without a mount: no file of this process may grow."""
    import resource

    path = Path(folder, "m.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill() -> None:
        largest = max(file.stat().st_size for file in Path(folder).iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))

    fill_disk(path, fill, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)), new_files=False)
    print("passed")


# -- a file that may not be written


def open_read_only(pipe: Connection, path: Path, warm: Path) -> None:
    """Give up root's rights, which no permission binds, and try to use the file."""
    with store(warm) as client:  # everything that is imported late, while it still may be read
        ScopedMemory("u_alice", client=client).add("warm")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        with store(path) as client:
            ScopedMemory("u_alice", client=client).add("not to be stored")
    except ScopedMemoryError as error:
        pipe.send((type(error).__name__, str(error)))
    else:
        pipe.send(("stored", ""))


# -- forks


def in_fork(work: Callable[[], object]) -> Callable[[], Any]:
    """Fork; the child runs the work and is gone. Returns what waits for its result; a child that hangs is a failure."""
    out, into = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork of a process with threads: which is what is tested.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            # Should it hang, it says where, into the pipe its result would have come from, and is gone.
            faulthandler.dump_traceback_later(_FORK_PATIENCE, exit=True, file=into)
            os.close(out)
            try:
                said = json.dumps(["done", work()])
            except BaseException:
                said = json.dumps(["raised", traceback.format_exc()])
            faulthandler.cancel_dump_traceback_later()
            with os.fdopen(into, "w") as pipe:
                pipe.write(said)
        finally:
            os._exit(0)
    os.close(into)

    def result() -> Any:
        said = b""
        while select.select([out], [], [], PATIENCE)[0] and (some := os.read(out, 65536)):
            said += some
        os.close(out)
        os.waitpid(pid, 0)
        assert said.startswith(b"["), f"the forked child hangs: {said.decode()}"
        kind, value = json.loads(said)
        assert kind == "done", value
        return value

    return result


def fork_while_busy(pipe: Connection, path: Path, forks: int, forkers: int) -> None:
    """Fork again and again in some threads while others read and write; every child reads and writes too."""
    with store(path) as client:
        stop = threading.Event()
        under_way = threading.Barrier(4 + forkers)
        acknowledged: list[tuple[str, str]] = []

        def work(name: str) -> None:
            own, number = ScopedMemory(name, client=client), 0
            while not stop.is_set():
                text = f"{name} says {number}"
                (added,) = own.add(text)
                acknowledged.append((name, text))
                if not number:
                    under_way.wait(PATIENCE)
                # Whether it is found first is a matter of how many say nearly the same.
                assert own.get(added["id"])["memory"] == text
                assert all(hit["memory"].startswith(f"{name} says ") for hit in own.search(text, k=1, threshold=0))
                number += 1

        def child(name: str) -> dict[str, Any]:
            carried = open_files(path)
            own = ScopedMemory(name, client=client)
            own.add(f"{name} says 0")
            return {"carried": carried, "found": [record["memory"] for record in own.search(f"{name} says", k=5)]}

        def fork(forker: int) -> None:
            under_way.wait(PATIENCE)
            for number in range(forks):
                name = f"forked_{forker}_{number}"
                answer = in_fork(lambda name=name: child(name))()  # type: ignore[misc]
                assert answer == {"carried": 0, "found": [f"{name} says 0"]}
                acknowledged.append((name, f"{name} says 0"))

        def fork_all() -> None:
            try:
                _together(*(lambda forker=forker: fork(forker) for forker in range(forkers)))
            finally:
                stop.set()

        _together(fork_all, *(lambda name=f"thread_{n}": work(name) for n in range(4)))
        pipe.send(acknowledged)


def fork_while_cache_is_in_use(pipe: Connection, path: Path, forks: int) -> None:
    """Fork while a thread forgets what is cached, as erasures do after their commit; the child searches."""
    with store(path) as client:
        memory = ScopedMemory("u_alice", client=client)
        memory.add("I am vegetarian")
        stop = threading.Event()

        def forget() -> None:
            while not stop.is_set():
                client.cache.forget("u_nobody")

        thread = threading.Thread(target=forget, daemon=True)
        thread.start()
        try:
            for _ in range(forks):
                assert in_fork(lambda: len(memory.search("vegetarian")))() == 1
        finally:
            stop.set()
            thread.join()
        pipe.send("done")


def fork_while_opening(pipe: Connection, path: Path, other: Path) -> None:
    """Fork while a thread opens the default client: nothing of that may be carried over, and no lock left taken."""
    pipe.recv()
    os.environ[default.PATH_VARIABLE] = str(path)
    failures: list[BaseException] = []

    def use() -> None:
        try:
            # Once it is open it is used at once: the fork must find it at rest all the same.
            for number in range(20):
                ScopedMemory("u_alice").add(f"from the thread {number}")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    # The file is locked by another process, so the thread stays where it is, with the file open.
    while not open_files(path):
        assert thread.is_alive(), failures

    def child() -> dict[str, int]:
        carried = open_files(path)
        os.environ[default.PATH_VARIABLE] = str(other)
        memory = ScopedMemory("u_bob")
        memory.add("from the child")
        return {"carried": carried, "count": memory.count()}

    pipe.send("forking")  # a fork may well wait until the file is open
    answer = in_fork(child)()
    thread.join(PATIENCE)
    assert not failures, failures
    pipe.send(answer)


def fork_with_default_client(pipe: Connection, path: Path, before: str) -> None:
    """Fork a process that has done this much with the default client; both sides use it then."""
    os.environ[default.PATH_VARIABLE] = str(path)
    stop = threading.Event()
    ready = threading.Event()

    def read() -> None:
        while not stop.is_set():
            ScopedMemory("u_thread").get_all()
            ready.set()

    thread = threading.Thread(target=read, daemon=True)
    if before == "used":
        ScopedMemory("u_first").add("before the fork")
    elif before == "used by a thread":
        thread.start()
        assert ready.wait(PATIENCE)

    def child() -> tuple[int, list[str]]:
        carried = open_files(path)
        memory = ScopedMemory("u_child")
        memory.add("child")
        return carried, [record["memory"] for record in memory.search("child")]

    wait = in_fork(child)
    memory = ScopedMemory("u_parent")
    memory.add("parent")
    carried, found = wait()
    stop.set()
    if thread.ident is not None:
        thread.join(PATIENCE)
    pipe.send({"parent": [record["memory"] for record in memory.search("parent")], "child": found, "carried": carried})
    default.default_client().close()


def use_multiprocessing(pipe: Connection, path: Path, start_method: str) -> None:
    """Start worker processes as Python's own library does, while a thread writes."""
    context = multiprocessing.get_context(start_method)
    with store(path) as client:
        memory = ScopedMemory("u_parent", client=client)
        memory.add("before")
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                memory.search("before")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                queue = context.Queue()
                workers = [
                    context.Process(  # type: ignore[attr-defined]
                        target=_worker, args=(queue, path, n, client if start_method == "fork" else None)
                    )
                    for n in range(2)
                ]
                for worker in workers:
                    worker.start()
            for worker in workers:
                worker.join(PATIENCE)
            assert [worker.exitcode for worker in workers] == [0, 0]
            answers = sorted(queue.get(timeout=PATIENCE) for _ in workers)
        finally:
            stop.set()
            thread.join()
        memory.add("after")
    pipe.send(answers)


def _worker(queue: Any, path: Path, number: int, client: EngineMemory | None) -> None:
    faulthandler.dump_traceback_later(_FORK_PATIENCE, exit=True)
    with closing(client or local_memory(path)) as opened:
        memory = ScopedMemory(f"u_worker_{number}", client=opened)
        memory.add("from a worker")
        queue.put((number, memory.count()))
    queue.close()
    queue.join_thread()
