"""LangChain memory over mem0 that keeps each user's memories separate.

Build a `ScopedMemory` from a user id. Everything else is a view of it. Each part loads on first use: importing this
package imports neither mem0 nor an embedding.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .mem0_compat import disable_telemetry

if TYPE_CHECKING:
    from .backends import set_default_client
    from .backends.base import Client
    from .chain import with_scoped_memory
    from .chat_history import HISTORY_CONFIG, ScopedChatMessageHistory, history_factory
    from .embeddings import OfflineEmbeddings
    from .errors import BackendError, ErasureError, InputError, MemoryNotFoundError, ScopedMemoryError, ScopeError
    from .memory import ScopedMemory
    from .memory_filter import Remember
    from .messages import MessageLike
    from .middleware import ScopedMemoryMiddleware
    from .options import HistoryOptions
    from .pending_turn import TurnOutcome
    from .records import ErasureReceipt, MemoryList, MemoryRecord
    from .requests import ErasureToken
    from .retriever import ScopedMemoryRetriever
    from .scoped_client import HasScopedClient
    from .sqlite import local_memory
    from .tools import create_memory_tools
    from .transcripts.window import TokenCounter

__all__ = [
    "HISTORY_CONFIG",
    "BackendError",
    "Client",
    "ErasureError",
    "ErasureReceipt",
    "ErasureToken",
    "HasScopedClient",
    "HistoryOptions",
    "InputError",
    "MemoryList",
    "MemoryNotFoundError",
    "MemoryRecord",
    "MessageLike",
    "OfflineEmbeddings",
    "Remember",
    "ScopeError",
    "ScopedChatMessageHistory",
    "ScopedMemory",
    "ScopedMemoryError",
    "ScopedMemoryMiddleware",
    "ScopedMemoryRetriever",
    "TokenCounter",
    "TurnOutcome",
    "create_memory_tools",
    "history_factory",
    "local_memory",
    "set_default_client",
    "with_scoped_memory",
]

_MODULES = {
    "BackendError": "errors",
    "Client": "backends.base",
    "ErasureError": "errors",
    "ErasureReceipt": "records",
    "ErasureToken": "requests",
    "HISTORY_CONFIG": "chat_history",
    "HasScopedClient": "scoped_client",
    "HistoryOptions": "options",
    "InputError": "errors",
    "MemoryList": "records",
    "MemoryNotFoundError": "errors",
    "MemoryRecord": "records",
    "MessageLike": "messages",
    "OfflineEmbeddings": "embeddings",
    "Remember": "memory_filter",
    "ScopeError": "errors",
    "ScopedChatMessageHistory": "chat_history",
    "ScopedMemory": "memory",
    "ScopedMemoryError": "errors",
    "ScopedMemoryMiddleware": "middleware",
    "ScopedMemoryRetriever": "retriever",
    "TokenCounter": "transcripts.window",
    "TurnOutcome": "pending_turn",
    "create_memory_tools": "tools",
    "history_factory": "chat_history",
    "local_memory": "sqlite",
    "set_default_client": "backends",
    "with_scoped_memory": "chain",
}

# Before anything can import mem0, which reads its telemetry switch once, when it is imported.
disable_telemetry()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
