"""Faults from outside: processes killed while they write, many at once on one file, a disk that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from langchain_mem0_scoped import ScopedMemory
from tests import children
from tests.children import PARTS
from tests.faults import Child, assert_sound, store
from tests.support import ROOT, run_fresh_python, run_python


class TestKilled:
    def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(self, tmp_path: Path) -> None:
        path, random = tmp_path / "m.db", Random(1)
        added: dict[int, list[str]] = {}
        begun: set[int] = set()
        deleted: set[str] = set()
        perhaps_deleted: set[str] = set()
        for life in range(24):
            with Child(children.add_until_killed, path, life * 1000) as child:
                received = [child.receive() for _ in range(random.randint(1, 16))]
                # Not to wait for anything: the moment is to be any.
                time.sleep(random.uniform(0, 0.008))
                child.kill()
                received += child.receive_all()
            for what, number, detail in received:
                match what:
                    case "adding":
                        begun.add(number)
                    case "added":
                        added[number] = detail
                    case "deleting":
                        perhaps_deleted.add(detail)
                    case "deleted":
                        deleted.add(detail)
            self._check(path, begun, added, deleted, perhaps_deleted)
        assert len(added) >= 24, "killed before anything was written: nothing was tested"
        assert len(begun) > len(added), "never killed in the middle of an add: nothing was tested"
        assert deleted

    @staticmethod
    def _check(
        path: Path, begun: set[int], added: dict[int, list[str]], deleted: set[str], perhaps_deleted: set[str]
    ) -> None:
        with store(path) as client:
            memory = ScopedMemory("u_alice", client=client)
            records = memory.get_all()
            assert_sound(path)
            there = {record["id"] for record in records}
            assert len(there) == len(records)
            assert deleted.isdisjoint(there)
            by_number: dict[int, set[str]] = {}
            for record in records:
                number = int(str(record["session_id"])[1:])
                assert record["memory"].startswith(f"note {number} part ")
                by_number.setdefault(number, set()).add(record["memory"])
            assert sum(map(len, by_number.values())) == len(records), "something is there twice"
            assert set(by_number) <= begun
            for number, ids in added.items():
                assert set(ids) - perhaps_deleted <= there, f"add {number} was acknowledged and is not there"
            for number, texts in by_number.items():
                gone = len(perhaps_deleted.intersection(added.get(number, ())) - there)
                assert len(texts) == PARTS - gone, f"add {number} is there in part"
            found = {record["memory"] for record in memory.search("note part", k=1000)}
            assert found == {record["memory"] for record in records}
            # And it goes on working.
            memory.delete(memory.add("after the crash")[0]["id"])
            assert memory.count() == len(records)

    def test_a_file_that_was_being_made_can_still_be_used(self, tmp_path: Path) -> None:
        random = Random(2)
        for life in range(8):
            folder = tmp_path / str(life)
            folder.mkdir()
            with Child(children.create_until_killed, folder) as child:
                paths = [child.receive()]
                time.sleep(random.uniform(0, 0.05))
                child.kill()
                paths += child.receive_all()
            for path in paths:
                with store(path) as client:
                    memory = ScopedMemory("u_alice", client=client)
                    before = memory.count()
                    assert before == 1 if path != paths[-1] else before in (0, 1)
                    memory.add("I like tea")
                    assert memory.count() == before + 1
                    assert_sound(path)


class TestManyAtOnce:
    def test_two_processes_store_one_fact_once(self, tmp_path: Path) -> None:
        # Both have looked for what is known before either stores its fact.
        arguments = (children.extract_together, tmp_path / "m.db", "u_alice", "Likes tea", 2)
        with Child(*arguments) as left, Child(*arguments) as right:
            for child in (left, right):
                assert child.receive() == "ready"
            for child in (left, right):
                child.send("go")
        with store(tmp_path / "m.db") as client:
            assert [record["memory"] for record in ScopedMemory("u_alice", client=client).get_all()] == ["Likes tea"]

    def test_threads_and_processes_on_one_file(self, tmp_path: Path) -> None:
        path, threads, rounds = tmp_path / "m.db", 8, 4
        with (
            Child(children.mix, path, "left", threads, rounds) as left,
            Child(children.mix, path, "right", threads, rounds) as right,
        ):
            for child in (left, right):
                child.receive()
            for child in (left, right):
                child.send("go")
            answers = [child.receive() for child in (left, right)]
        kept = Counter(item for kept, _ in answers for item in kept)
        gone = {memory_id for _, gone in answers for memory_id in gone}
        users = {user for user, _ in kept}
        assert len(users) == 2 * threads + 1
        assert set(kept.values()) == {1}
        assert_sound(path)
        with store(path) as client:
            for user in users:
                records = ScopedMemory(user, client=client).get_all()
                assert sorted(record["memory"] for record in records) == sorted(text for of, text in kept if of == user)
                assert gone.isdisjoint(record["id"] for record in records)
            assert ScopedMemory("shared", client=client).count() == 2 * threads * rounds * 2

    def test_two_processes_make_the_same_file_at_the_same_moment(self, tmp_path: Path) -> None:
        rounds = 40
        with (
            Child(children.create_together, tmp_path, rounds, "left") as left,
            Child(children.create_together, tmp_path, rounds, "right") as right,
        ):
            for _ in range(rounds):
                for child in (left, right):
                    assert child.receive() == "ready"
                for child in (left, right):
                    child.send("go")
            assert [left.receive(), right.receive()] == ["done", "done"]
        for number in range(rounds):
            path = tmp_path / f"{number}.db"
            with store(path) as client:
                for name in ("left", "right"):
                    records = ScopedMemory(f"u_{name}", client=client).get_all()
                    assert [record["memory"] for record in records] == [f"hello from {name}"]
            assert_sound(path)

    def test_several_clients_of_one_file_in_one_process(self, tmp_path: Path) -> None:
        path = tmp_path / "m.db"
        with store(path) as one, store(path) as two, store(str(path)) as three:
            memories = [ScopedMemory("u_alice", client=client) for client in (one, two, three)]
            for number, memory in enumerate(memories):
                memory.add(f"by client {number}")
            first = memories[2].get_all()[-1]
            memories[1].update(first["id"], "corrected by client 1")
            for memory in memories:
                assert {record["memory"] for record in memory.search("client", k=9)} == {
                    "corrected by client 1",
                    "by client 1",
                    "by client 2",
                }
            memories[0].delete_all()
            assert [memory.search("client") for memory in memories] == [[], [], []]
        assert_sound(path)

    def test_processes_outlive_the_pool_of_connections(self, tmp_path: Path) -> None:
        """More threads than connections are kept: the rest are closed, and the file stays whole."""
        path = tmp_path / "m.db"
        with Child(children.mix, path, "only", 40, 1) as child:
            child.receive()
            child.send("go")
            kept, _ = child.receive()
        with store(path) as client:
            assert ScopedMemory("shared", client=client).count() == 80
        assert len(kept) == 160
        assert_sound(path)


class TestFullDisk:
    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mount namespaces are Linux's")
    def test_a_disk_that_is_full(self, tmp_path: Path) -> None:
        mount = f"mount -t tmpfs -o size=2m tmpfs '{tmp_path}'"
        for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
            if shutil.which("unshare") and _succeeds([*unshare, "sh", "-c", mount]):
                break
        else:
            pytest.skip("this user may not mount a small disk; the next test fills a limit instead")
        code = f"from tests.children import fill_tmpfs; fill_tmpfs({str(tmp_path)!r})"
        command = [*unshare, "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
        assert done.stdout.splitlines()[-1:] == ["passed"], done.stdout + done.stderr

    def test_files_that_may_not_grow(self, tmp_path: Path) -> None:
        pytest.importorskip("resource", reason="no limits on this system")
        output = run_python(f"from tests.children import fill_limit; fill_limit({str(tmp_path)!r})")
        assert output == "passed\n"


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
class TestForks:
    @pytest.mark.parametrize("forkers", [1, 2], ids=["one thread forks", "two threads fork"])
    def test_forks_of_a_process_that_reads_and_writes(self, tmp_path: Path, forkers: int) -> None:
        path = tmp_path / "m.db"
        with Child(children.fork_while_busy, path, 20, forkers) as child:
            acknowledged = child.receive()
        assert_sound(path)
        with store(path) as client:
            by_user: dict[str, list[str]] = {}
            for user, text in acknowledged:
                by_user.setdefault(user, []).append(text)
            assert len(by_user) == 20 * forkers + 4
            for user, texts in by_user.items():
                records = ScopedMemory(user, client=client).get_all()
                assert sorted(record["memory"] for record in records) == sorted(texts)

    def test_a_fork_while_the_cache_is_in_use(self, tmp_path: Path) -> None:
        with Child(children.fork_while_cache_is_in_use, tmp_path / "m.db", 40) as child:
            assert child.receive() == "done"

    @pytest.mark.parametrize("attempt", range(4))  # it hung in one of five
    def test_a_fork_while_another_thread_opens_the_file(self, tmp_path: Path, attempt: int) -> None:
        path, other = tmp_path / "m.db", tmp_path / "other.db"
        with store(path) as client:
            ScopedMemory("u_alice", client=client).add("before")
        with (
            Child(children.lock, path, "EXCLUSIVE") as locker,
            Child(children.fork_while_opening, path, other) as child,
        ):
            locker.receive()
            child.send("go")
            assert child.receive() == "forking"
            locker.send("unlock")
            assert child.receive() == {"carried": 0, "count": 1}
        with store(path) as client:
            assert ScopedMemory("u_alice", client=client).count() == 21

    def test_a_fork_during_the_first_call_of_all(self, tmp_path: Path) -> None:
        # It imports mem0 and opens the file, about a second, and must leave no lock taken in the child.
        code = """
            import faulthandler, os, sys, threading
            from langchain_mem0_scoped import ScopedMemory

            thread = threading.Thread(target=lambda: ScopedMemory("u_thread").add("thread"), daemon=True)
            thread.start()
            while "mem0" not in sys.modules:
                assert thread.is_alive()
            if not (pid := os.fork()):
                faulthandler.dump_traceback_later(40, exit=True)
                try:
                    memory = ScopedMemory("u_child")
                    memory.add("child")
                    os._exit(memory.count() - 1)
                finally:
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0, "the forked child hangs or fails"
            thread.join()
            assert ScopedMemory("u_thread").count() == ScopedMemory("u_child").count() == 1
            """
        run_fresh_python(code, LANGCHAIN_MEM0_SCOPED_PATH=str(tmp_path / "m.db"))

    @pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
    def test_worker_processes(self, tmp_path: Path, start_method: str) -> None:
        path = tmp_path / "m.db"
        with Child(children.use_multiprocessing, path, start_method) as child:
            assert child.receive() == [(0, 1), (1, 1)]
        assert_sound(path)
        with store(path) as client:
            assert ScopedMemory("u_parent", client=client).count() == 2

    @pytest.mark.parametrize("before", ["nothing", "used", "used by a thread"])
    def test_the_default_client_right_after_a_fork(self, tmp_path: Path, before: str) -> None:
        path = tmp_path / "m.db"
        # Not a Child: this is of a process that has not been forked since it loaded the package.
        code = f"""
            from pathlib import Path
            from tests.children import fork_with_default_client

            class Pipe:
                send = staticmethod(print)

            fork_with_default_client(Pipe, Path({str(path)!r}), {before!r})
            """
        assert run_python(code) == "{'parent': ['parent'], 'child': ['child'], 'carried': 0}\n"
        assert_sound(path)
