"""Fork safety: the lock for one-time initialisation, and hooks that run before and after a fork."""

from __future__ import annotations

# Before a fork, hooks run in reverse order of registration. The hooks of these two modules take locks that a running
# import may need, so they must run after ours. Importing the modules first registers their hooks first.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

INIT_LOCK: Final = threading.RLock()
"""Held while mem0 or a model is imported, a client is created or a file is opened.

A fork waits for this lock. Otherwise the child could inherit a half-finished import or client that none of its threads
completes. It is a single lock because these initialisations nest, and two locks could deadlock.
"""


class ForkHooks(NamedTuple):
    """Functions of one module to call around a fork, in the forking thread, with `INIT_LOCK` held.

    Attributes:
        before: Called before the fork; takes the module's locks.
        after_in_parent: Called in the parent afterwards; releases them.
        after_in_child: Called in the child afterwards; replaces or releases them.
    """

    before: Callable[[], None]
    after_in_parent: Callable[[], None]
    after_in_child: Callable[[], None]


_hooks: Final[list[ForkHooks]] = []
_active: Final[list[ForkHooks]] = []
# Python looks up the hooks of each phase of a fork when that phase starts. Hooks registered in between, by an import in
# another thread, would be called after the fork without having been called before it.
_forking: Final = threading.local()


def register_fork_hooks(hooks: ForkHooks) -> None:
    """Register functions to call around every fork from now on.

    Modules use this instead of `os.register_at_fork`: a fork that waits for an import to end would miss hooks that the
    import registers.

    Args:
        hooks: Called in order of registration before a fork, and in reverse order after it.
    """
    _hooks.append(hooks)


def _before() -> None:
    INIT_LOCK.acquire()
    _forking.active = True
    for hooks in _hooks:
        hooks.before()
        _active.append(hooks)


def _after_in_parent() -> None:
    if getattr(_forking, "active", False):
        _resume("after_in_parent")


def _after_in_child() -> None:
    if getattr(_forking, "active", False):
        _resume("after_in_child")


def _resume(phase: Literal["after_in_parent", "after_in_child"]) -> None:
    try:
        while _active:
            getattr(_active.pop(), phase)()
    finally:
        # Python prints what a hook raises and goes on, so the other hooks run too.
        if _active:
            _resume(phase)
        else:
            _forking.active = False
            INIT_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
