"""Which backend serves a client. Only the modules of this package, the engine and sqlite call mem0."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import mem0_compat
from ..errors import InputError
from ..fork import INIT_LOCK
from ..open_clients import register
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


def set_default_client(client: Client | None) -> None:
    """Set the client that every scope of this process uses which names none.

    Call it once, where your program starts. A scope that has made a call before keeps its client.

    Args:
        client: As in `ScopedMemory`; None for the built-in default: the hosted platform if $MEM0_API_KEY is set, else
            the embedded store. The client is kept open: close it yourself, after unsetting it.

    Raises:
        InputError: It is not a client.

    Example:
        >>> import tempfile
        >>> from langchain_mem0_scoped import ScopedMemory, local_memory, set_default_client
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     client = local_memory(f"{folder}/memory.db")
        ...     set_default_client(client)
        ...     added = ScopedMemory("u_alice").add("I am vegetarian")  # in that file
        ...     set_default_client(None)
        ...     client.close()
        >>> added[0]["memory"]
        'I am vegetarian'
    """
    check_client(client)
    default.set_client(client)


def check_names_store(client: Client) -> None:
    """Refuse an erasure that may look for the user in the wrong store.

    Args:
        client: The client of a scope that names none.

    Raises:
        InputError: It is the built-in default, and another client is open in this process.
    """
    if default.has_rival(client):
        raise InputError(
            "this scope names no client, and another one is open in this process: to erase the user, pass the client "
            "that holds the data, or call set_default_client(client); nothing was erased"
        )


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
                register(client)
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
