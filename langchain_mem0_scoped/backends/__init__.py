"""Which client a scope speaks to; the rooms behind this door are the only ones that call mem0."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from .. import mem0_compat as upstream
from ..errors import InputError
from ..fork import INIT_LOCK
from . import default
from . import mem0_memory as oss

if TYPE_CHECKING:
    import mem0

    from .base import Backend

    Client: TypeAlias = mem0.Memory | mem0.MemoryClient

_backends: WeakKeyDictionary[Any, Backend] = WeakKeyDictionary()


def check_client(client: object) -> None:
    """Refuse what cannot be a client, without importing mem0: whoever holds one has imported it.

    Raises:
        InputError: It is neither None, a mem0.Memory nor a mem0.MemoryClient.
    """
    if client is None or _is_a(client, "mem0.memory.main", "Memory") or _is_hosted(client):
        return
    kind, hint = type(client), ""
    if isinstance(client, type):
        kind, hint = client, ", the class and not an instance of it"
    if kind.__name__.startswith("Async"):
        hint = "; hand in its synchronous twin: async calls are made through it"
    elif isinstance(client, (str, os.PathLike)):
        hint = "; local_memory(path) opens a file"
    raise InputError(
        "client must be a mem0.Memory, the result of local_memory(), a mem0.MemoryClient, or None, "
        f"got {kind.__module__}.{kind.__name__}{hint}"
    )


def _is_hosted(client: object) -> bool:
    return _is_a(client, "mem0.client.main", "MemoryClient")


def _is_a(client: object, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(client, kind)


def resolve(client: Client | None) -> Client:
    """Return the client itself, or for None the process's default, made on first use."""
    upstream.load_mem0()
    return default.default_client() if client is None else client


def backend_for(client: Client) -> Backend:
    """Return the one port of a client."""
    port = _backends.get(client)
    if port is None:
        with INIT_LOCK:
            port = _backends.setdefault(
                client, _platform_backend(client) if _is_hosted(client) else oss.Mem0Backend(client)
            )
    return port


def _platform_backend(client: Any) -> Backend:
    # Only for those who use it: httpx and tenacity take their time to import.
    from .platform.backend import PlatformBackend

    return PlatformBackend(client)


def is_open(client: Client | None) -> bool:
    """Tell whether a client has been spoken to before, so that the next call opens nothing."""
    known = default.opened() if client is None else client
    return known is not None and known in _backends
