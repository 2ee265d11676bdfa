"""Which backend serves a client. Only the modules of this package, the engine and sqlite call mem0."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import mem0_compat
from ..errors import InputError
from ..fork import INIT_LOCK
from . import default, mem0_memory
from .base import Backend

if TYPE_CHECKING:
    from .base import Client as Client

_backends: WeakKeyDictionary[Any, Backend] = WeakKeyDictionary()


def check_client(client: object) -> None:
    """Refuse what is not a client, without importing mem0: a caller that has a client has imported it.

    Args:
        client: None for the process's default, or a client.

    Raises:
        InputError: It is neither None, a mem0.Memory nor a mem0.MemoryClient.
    """
    if client is None or _is_instance(client, "mem0.memory.main", "Memory") or _is_hosted(client):
        return
    kind, hint = type(client), ""
    if isinstance(client, type):
        kind, hint = client, ", the class instead of an instance of it"
    if kind.__name__.startswith("Async"):
        hint = "; pass its sync counterpart, which serves async calls too"
    elif isinstance(client, (str, os.PathLike)):
        hint = "; local_memory(path) opens a file"
    raise InputError(
        "client must be a mem0.Memory, the result of local_memory(), a mem0.MemoryClient, or None, "
        f"got {kind.__module__}.{kind.__name__}{hint}"
    )


def _is_hosted(client: object) -> bool:
    return _is_instance(client, "mem0.client.main", "MemoryClient")


def _is_instance(client: object, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(client, kind)


def resolve(client: Client | None) -> Client:
    """Return the client itself; for None the process's default client, which the first call makes."""
    mem0_compat.load_mem0()
    return default.default_client() if client is None else client


def backend_for(client: Client) -> Backend:
    """Return a client's backend, always the same one.

    Args:
        client: A client that provides its own backend (see `ProvidesBackend`), or any other mem0 client.
    """
    if (own := _own_backend(client)) is not None:
        return own
    backend = _backends.get(client)
    if backend is None:
        with INIT_LOCK:
            if (backend := _backends.get(client)) is None:
                backend = _backends[client] = _make_backend(client)
    return backend


def _own_backend(client: object) -> Backend | None:
    # Not isinstance(client, ProvidesBackend): checking a protocol takes longer than a read of the file.
    own = getattr(client, "backend", None)
    return own if isinstance(own, Backend) else None


def _make_backend(client: Any) -> Backend:
    if not _is_hosted(client):
        return mem0_memory.Mem0Backend(client)
    # Imported only for those who use it: httpx and tenacity take a while.
    from .platform.backend import PlatformBackend

    return PlatformBackend(client)


def is_open(client: Client | None) -> bool:
    """Return whether a client has a backend already, so that the next call opens nothing."""
    known = default.opened() if client is None else client
    return known is not None and (known in _backends or _own_backend(known) is not None)
