"""What forks.py promises of a fork that meets an import or a room just being made in another thread."""

import os

import pytest

from ..support import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

_FORK_AND_COMPARE = """
    warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, of any fork beside threads
    if not (pid := os.fork()):
        print(calls, file=sys.stderr) if calls != {child} else None
        os._exit(calls != {child})
    assert os.waitpid(pid, 0)[1] == 0, "the child saw something else"
    assert calls == {parent}, calls
"""

_ROOM = """
    import concurrent.futures.thread, logging, os, sys, threading, time, warnings
    calls = []
    def room():
        from langchain_mem0_scoped.fork import ForkHooks, register_fork_hooks
        register_fork_hooks(ForkHooks(*(lambda name=name: calls.append(name) for name in ("before", "parent", "child"))))
"""


def run_and_hear_nothing(code: str) -> None:
    # Python only prints what a hook of a fork raises.
    assert run_python(code) == ""


class TestAround:
    def test_a_room_is_told_of_every_side_of_a_fork(self) -> None:
        run_and_hear_nothing(
            _ROOM + "    room()\n" + _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        )

    def test_a_room_made_while_a_fork_waits_is_paused_for_it(self) -> None:
        # What a first call does: it holds the lock, imports a room, and opens a file in it.
        code = """
    from langchain_mem0_scoped.fork import INIT_LOCK
    begun = threading.Event()
    def first_call():
        with INIT_LOCK:
            begun.set()
            time.sleep(0.2)
            room()
    threading.Thread(target=first_call).start()
    begun.wait()
"""
        run_and_hear_nothing(
            _ROOM + code + _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        )

    @pytest.mark.parametrize("loaded", ["the package too", "the room alone"])
    def test_a_room_made_too_late_to_be_paused_is_not_resumed(self, loaded: str) -> None:
        # Hooks before a fork run last registered first, so this one runs after those of forks.py, if that is there yet.
        first = "    import langchain_mem0_scoped.fork\n" if loaded == "the room alone" else ""
        code = "    os.register_at_fork(before=lambda: calls or room())\n"
        run_and_hear_nothing(_ROOM + code + first + _FORK_AND_COMPARE.format(child=[], parent=[]))

    def test_a_room_that_fails_keeps_no_other_from_going_on(self) -> None:
        code = """
    from langchain_mem0_scoped.fork import ForkHooks, register_fork_hooks
    import langchain_mem0_scoped.fork as forks
    def fail():
        raise ValueError
    room()
    register_fork_hooks(ForkHooks(lambda: None, fail, fail))
    register_fork_hooks(ForkHooks(lambda: None, fail, fail))
    sys.unraisablehook = lambda raised: None
"""
        after = """
    taken = []
    thread = threading.Thread(target=lambda: taken.append(forks.INIT_LOCK.acquire(timeout=5)))
    thread.start()
    thread.join()
    assert taken == [True] and not forks._paused
"""
        fork = _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        run_and_hear_nothing(_ROOM + code + fork + after)

    def test_the_lock_is_free_on_both_sides(self) -> None:
        code = """
    from langchain_mem0_scoped.fork import INIT_LOCK
    def is_free():
        taken = []
        thread = threading.Thread(target=lambda: taken.append(INIT_LOCK.acquire(timeout=5)))
        thread.start()
        thread.join()
        return taken == [True]
    room()
    warnings.simplefilter("ignore", DeprecationWarning)
    if not (pid := os.fork()):
        os._exit(not is_free())
    assert os.waitpid(pid, 0)[1] == 0
    assert is_free()
"""
        run_and_hear_nothing(_ROOM + code)
