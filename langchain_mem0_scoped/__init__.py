"""LangChain memory over mem0 in which every user's memory is theirs alone.

Build a `ScopedMemory` from a user id; everything else is a view over it. Parts load on first use: importing this
package imports neither mem0 nor an embedding.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .clients.upstream import keep_quiet

if TYPE_CHECKING:
    from .errors import BackendError, ErasureError, InputError, MemoryNotFoundError, ScopedMemoryError, ScopeError
    from .local.memory import local_memory
    from .memory import ScopedMemory
    from .records import ErasureReceipt, MemoryList, MemoryRecord
    from .retriever import ScopedMemoryRetriever

__all__ = [
    "BackendError",
    "ErasureError",
    "ErasureReceipt",
    "InputError",
    "MemoryList",
    "MemoryNotFoundError",
    "MemoryRecord",
    "ScopeError",
    "ScopedMemory",
    "ScopedMemoryError",
    "ScopedMemoryRetriever",
    "local_memory",
]

_ROOMS = {
    "BackendError": "errors",
    "ErasureError": "errors",
    "ErasureReceipt": "records",
    "InputError": "errors",
    "MemoryList": "records",
    "MemoryNotFoundError": "errors",
    "MemoryRecord": "records",
    "ScopeError": "errors",
    "ScopedMemory": "memory",
    "ScopedMemoryError": "errors",
    "ScopedMemoryRetriever": "retriever",
    "local_memory": "local.memory",
}

# Before anything can import mem0, which reads its telemetry switch then and never again.
keep_quiet()


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
