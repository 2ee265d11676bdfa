"""Fork hooks: a fork during an import in another thread, hooks registered late, and hooks that fail."""

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

_MODULE = """
    import concurrent.futures.thread, logging, os, sys, threading, time, warnings
    calls = []
    def module():
        from langchain_mem0_scoped.fork import ForkHooks, register_fork_hooks
        names = ("before", "parent", "child")
        register_fork_hooks(ForkHooks(*(lambda name=name: calls.append(name) for name in names)))
"""


def run_without_output(code: str) -> None:
    # Python prints what a hook of a fork raises, and goes on.
    assert run_python(code) == ""


class TestForkHooks:
    def test_hooks_run_before_and_after_a_fork(self) -> None:
        run_without_output(
            _MODULE
            + "    module()\n"
            + _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        )

    def test_hooks_registered_while_a_fork_waits_run(self) -> None:
        # As in a first call: with the lock held, it imports a module and opens a file.
        code = """
    from langchain_mem0_scoped.fork import INIT_LOCK
    started = threading.Event()
    def first_call():
        with INIT_LOCK:
            started.set()
            time.sleep(0.2)
            module()
    threading.Thread(target=first_call).start()
    started.wait()
"""
        run_without_output(
            _MODULE + code + _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        )

    @pytest.mark.parametrize("loaded", ["package", "module alone"])
    def test_hooks_registered_too_late_do_not_run_after_the_fork(self, loaded: str) -> None:
        # Hooks before a fork run in reverse order of registration, so this one runs after those of fork.py, if loaded.
        first = "    import langchain_mem0_scoped.fork\n" if loaded == "module alone" else ""
        code = "    os.register_at_fork(before=lambda: calls or module())\n"
        run_without_output(_MODULE + code + first + _FORK_AND_COMPARE.format(child=[], parent=[]))

    def test_failing_hook_does_not_stop_the_others(self) -> None:
        code = """
    from langchain_mem0_scoped.fork import ForkHooks, register_fork_hooks
    import langchain_mem0_scoped.fork as fork
    def fail():
        raise ValueError
    module()
    register_fork_hooks(ForkHooks(lambda: None, fail, fail))
    register_fork_hooks(ForkHooks(lambda: None, fail, fail))
    sys.unraisablehook = lambda raised: None
"""
        after = """
    taken = []
    thread = threading.Thread(target=lambda: taken.append(fork.INIT_LOCK.acquire(timeout=5)))
    thread.start()
    thread.join()
    assert taken == [True] and not fork._active
"""
        fork = _FORK_AND_COMPARE.format(child=["before", "child"], parent=["before", "parent"])
        run_without_output(_MODULE + code + fork + after)

    def test_lock_is_free_in_parent_and_child(self) -> None:
        code = """
    from langchain_mem0_scoped.fork import INIT_LOCK
    def is_free():
        taken = []
        thread = threading.Thread(target=lambda: taken.append(INIT_LOCK.acquire(timeout=5)))
        thread.start()
        thread.join()
        return taken == [True]
    module()
    warnings.simplefilter("ignore", DeprecationWarning)
    if not (pid := os.fork()):
        os._exit(not is_free())
    assert os.waitpid(pid, 0)[1] == 0
    assert is_free()
"""
        run_without_output(_MODULE + code)
