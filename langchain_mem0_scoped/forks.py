"""The one lock under which whatever a process shares is made, so that no fork catches it half made."""

from __future__ import annotations

# Hooks run before a fork in the reverse order of their registration. These two modules have hooks that take locks which
# an import under way may need, so theirs must come after ours: they are imported first.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
from typing import Final

MAKING: Final = threading.RLock()
"""Held while mem0 or a model is loaded, a client made, a file opened.

A fork waits for it: the child would inherit an import, or a client, that no thread of its own is going to finish. It is
one lock for all of these, since they are made within one another and two locks could wait for each other.
"""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=MAKING.acquire, after_in_parent=MAKING.release, after_in_child=MAKING.release)
