"""FairLock: threads that search take turns, in the order in which they came.

SQLite and numpy release the interpreter's lock many times in one search. Threads that search at the same time then
spend more time on taking that lock from each other than on searching. So they wait once, before a search, instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakSet

from ..fork import ForkHooks, register_fork_hooks

T = TypeVar("T")


class FairLock:
    """Lets one thread at a time do its work, in the order in which they came. A forked child has a new one.

    With n threads that come again and again, each has its turn every n-th time. Waiting has no
    timeout, so only work that surely ends is done under it: no code of a user or of another library's model.

    Each thread holds a lock of its own, and waits for that of the thread before it. Python's own locks are released
    whenever an interrupt comes, and `run` has no other state: an interrupted thread leaves nobody waiting. One that is
    interrupted while it waits lets the next thread begin early, which costs time and nothing else.

    Attributes:
        arrivals: How many threads have come so far.
    """

    def __init__(self) -> None:
        self._reset()
        _locks.add(self)

    def _reset(self) -> None:
        self._guard = threading.Lock()
        self._last = threading.Lock()
        self._thread = threading.local()
        self.arrivals = 0

    def run(self, work: Callable[[], T]) -> T:
        """Do some work once every thread that came earlier is done.

        A thread that is in here already, such as one whose signal handler searches, does not wait for itself.
        """
        if getattr(self._thread, "is_inside", False):
            return work()
        own = threading.Lock()
        # All in one function: an interrupt may come between an `__enter__` or `__exit__` of ours and its block.
        with own:
            self._thread.is_inside = True
            try:
                with self._guard:
                    before, self._last = self._last, own
                    self.arrivals += 1
                with before:
                    pass
                return work()
            finally:
                self._thread.is_inside = False


_locks: Final[WeakSet[FairLock]] = WeakSet()


def _after_fork_in_child() -> None:
    # The threads that held it or waited for it do not exist in the child.
    for lock in list(_locks):
        lock._reset()


register_fork_hooks(ForkHooks(lambda: None, lambda: None, _after_fork_in_child))

SEARCHES: Final = FairLock()
"""By its turns the threads of this process search: one for all storages, as there is one interpreter."""
