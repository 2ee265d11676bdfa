"""The clients that are open in this process, so that a scope without one can warn that there are others."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakValueDictionary

_open: Final[WeakValueDictionary[int, Any]] = WeakValueDictionary()
"""By their identity: clients may compare equal. A client that is freed is open no longer."""


def register(client: Any) -> None:
    """Record a client that was opened, or that a scope has called."""
    _open[id(client)] = client


def unregister(client: Any) -> None:
    """Record that a client was closed."""
    _open.pop(id(client), None)


def open_clients() -> list[Any]:
    """Return the clients that are open."""
    # A list of references, because other threads may open clients meanwhile.
    clients = [reference() for reference in _open.valuerefs()]
    return [client for client in clients if client is not None and not _is_closed(client)]


def _is_closed(client: Any) -> bool:
    # mem0.Memory.close() takes its history away; a mem0.MemoryClient has an httpx.Client.
    connections = getattr(client, "client", None)
    return getattr(client, "db", client) is None or getattr(connections, "is_closed", False) is True
