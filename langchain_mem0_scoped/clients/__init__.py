"""Which client a scope speaks to; the rooms behind this door are the only ones that call mem0."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import InputError
from ..forks import MAKING
from . import default, oss, upstream

if TYPE_CHECKING:
    import mem0

    from .port import Port

_ports: WeakKeyDictionary[Any, Port] = WeakKeyDictionary()


def check_client(client: object) -> None:
    """Refuse what cannot be a client, without importing mem0: whoever holds one has imported it.

    Raises:
        InputError: It is neither None nor a mem0.Memory.
    """
    main = sys.modules.get("mem0.memory.main")
    if client is None or (main is not None and isinstance(client, main.Memory)):
        return
    kind = type(client)
    hint = (
        "; hand in its synchronous twin: async calls are made through it" if kind.__name__.startswith("Async") else ""
    )
    raise InputError(
        "client must be a mem0.Memory, the result of local_memory(), or None, "
        f"got {kind.__module__}.{kind.__name__}{hint}"
    )


def resolve(client: mem0.Memory | None) -> mem0.Memory:
    """Return the client itself, or for None the process's default, made on first use."""
    upstream.load_mem0()
    return default.default_client() if client is None else client


def port_for(client: mem0.Memory) -> Port:
    """Return the one port of a client."""
    port = _ports.get(client)
    if port is None:
        with MAKING:
            port = _ports.setdefault(client, oss.OssPort(client))
    return port


def is_open(client: mem0.Memory | None) -> bool:
    """Tell whether a client has been spoken to before, so that the next call opens nothing."""
    known = default.opened() if client is None else client
    return known is not None and known in _ports
