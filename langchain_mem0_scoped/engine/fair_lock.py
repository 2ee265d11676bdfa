"""FairLock: threads that search take turns, in the order in which they came.

SQLite and numpy release the interpreter's lock many times in one search. Threads that search at the same time then
spend more time on taking that lock from each other than on searching. So they wait once, before a search, instead.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final
from weakref import WeakSet

from ..fork import ForkHooks, register_fork_hooks


class FairLock:
    """A lock that is handed to the thread that has waited longest. It is not reentrant. A forked child has a new one.

    With n threads that take it again and again, each has it every n-th time: nobody overtakes. Waiting has no timeout,
    so it is held only for work that surely ends: no code of a user or of another library's model runs under it.
    """

    def __init__(self) -> None:
        self._reset()
        _locks.add(self)

    def _reset(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # KeyboardInterrupt
            self._withdraw(turn)
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                # It stays held: the thread that waited longest has it now.
                self._waiting.popleft().release()
            else:
                self._held = False

    def _withdraw(self, turn: threading.Lock) -> None:
        """Leave the queue, or pass on what has just been handed over."""
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self.__exit__()


_locks: Final[WeakSet[FairLock]] = WeakSet()


def _after_fork_in_child() -> None:
    # The threads that held it, or waited for it, do not exist here.
    for lock in list(_locks):
        lock._reset()


register_fork_hooks(ForkHooks(lambda: None, lambda: None, _after_fork_in_child))

SEARCHES: Final = FairLock()
"""Held by the one thread of this process that searches: one for all storages, as there is one interpreter."""
