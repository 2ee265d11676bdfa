"""What happens around a fork: the one lock under which shared things are made, and who pauses for it."""

from __future__ import annotations

# Hooks run before a fork in the reverse order of their registration. These two modules have hooks that take locks which
# an import under way may need, so theirs must come after ours: they are imported first.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

INIT_LOCK: Final = threading.RLock()
"""Held while mem0 or a model is loaded, a client made, a file opened.

A fork waits for it: the child would inherit an import, or a client, that no thread of its own is going to finish. It is
one lock for all of these, since they are made within one another and two locks could wait for each other.
"""


class ForkHooks(NamedTuple):
    """What a room does around a fork, in the thread that forks and under `INIT_LOCK`."""

    before: Callable[[], None]
    after_in_parent: Callable[[], None]
    after_in_child: Callable[[], None]


_pauses: Final[list[ForkHooks]] = []
_paused: Final[list[ForkHooks]] = []
# Python looks up the hooks of each side of a fork as that side begins. One registered in between, by an import in
# another thread, would be called after a fork without having been called before it.
_forking: Final = threading.local()


def register_fork_hooks(pause: ForkHooks) -> None:
    """Have this done around every fork from now on.

    A room does not register hooks of its own: a fork under way, which waits for an import to end, would miss them.
    """
    _pauses.append(pause)


def _before() -> None:
    INIT_LOCK.acquire()
    _forking.here = True
    for pause in _pauses:
        pause.before()
        _paused.append(pause)


def _after_in_parent() -> None:
    if getattr(_forking, "here", False):
        _resume("after_in_parent")


def _after_in_child() -> None:
    if getattr(_forking, "here", False):
        _resume("after_in_child")


def _resume(side: Literal["after_in_parent", "after_in_child"]) -> None:
    try:
        while _paused:
            getattr(_paused.pop(), side)()
    finally:
        # Python only prints what a hook raises, and goes on.
        if _paused:
            _resume(side)
        else:
            _forking.here = False
            INIT_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
