"""The client of a scope that names none: the one that was set, else a built-in one, made from the environment."""

from __future__ import annotations

import atexit
import inspect
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import BackendError
from ..fork import INIT_LOCK
from ..open_clients import open_clients, register

if TYPE_CHECKING:
    import mem0

    from .base import Client

PATH_VARIABLE: Final = "LANGCHAIN_MEM0_SCOPED_PATH"
"""The environment variable that sets the embedded store's file."""

KEY_VARIABLE: Final = "MEM0_API_KEY"
"""The environment variable that holds the key of mem0's hosted platform, and so selects the platform."""

HOST_VARIABLE: Final = "MEM0_HOST"
"""The environment variable that sets the hosted platform's address."""

_clients: dict[tuple[str, str], Client] = {}
"""By what the environment asks for; see `_target`."""


_set: list[Client] = []
"""The client that was set, if any."""

_warned = False


def set_client(client: Client | None) -> None:
    """Set the process's client; None for the built-in one."""
    _set[:] = [] if client is None else [client]
    if client is not None:
        register(client)


def default_path() -> Path:
    """Return the embedded store's file: $LANGCHAIN_MEM0_SCOPED_PATH, else ~/.langchain_mem0_scoped/memory.db."""
    path = os.environ.get(PATH_VARIABLE)
    return Path(path).expanduser() if path else Path.home() / ".langchain_mem0_scoped" / "memory.db"


def asks_for_platform() -> bool:
    """Return whether the environment selects mem0's hosted platform."""
    return bool(os.environ.get(KEY_VARIABLE))


def _target() -> tuple[str, str]:
    """Return what the environment asks for: a host and a key, or "file" and a path."""
    if key := os.environ.get(KEY_VARIABLE):
        return os.environ.get(HOST_VARIABLE) or "", key
    return "file", str(default_path().absolute())


def opened() -> Client | None:
    """Return the process's client; None if none was set and the built-in one has not been made yet."""
    if _set:
        return _set[0]
    try:
        return _clients.get(_target())
    except (OSError, RuntimeError):
        return None


def default_client() -> Client:
    """Return the process's client: the one that was set, else a built-in one, which the first call makes.

    The built-in one is the hosted platform's if $MEM0_API_KEY is set, else the embedded store's. While another client
    is open in this process, it warns once.

    Raises:
        BackendError: The platform cannot be reached or refuses the key, or the file cannot be used.
    """
    client = opened()
    if client is None:
        client = _make()
    _warn_of_others(client)
    return client


def _make() -> Client:
    path = None if asks_for_platform() else _prepare_path()
    with INIT_LOCK:
        target = _target()
        if target not in _clients:
            _clients[target] = _open_platform(*target) if path is None else _open_embedded(path)
        return _clients[target]


def has_rival(client: Client) -> bool:
    """Return whether a client is a built-in one that was not set, while another client is open in this process."""
    built_in = list(_clients.values())
    if any(client is one for one in _set) or not any(client is one for one in built_in):
        return False
    return any(all(other is not one for one in built_in) for other in open_clients())


def _warn_of_others(client: Client) -> None:
    global _warned
    if _warned or not has_rival(client):
        return
    _warned = True
    warnings.warn(
        "a scope that names no client uses the built-in default store, while another client is open in this process: "
        "pass client= to the scope, or call set_default_client(client) once",
        stacklevel=_stacklevel(),
    )


def _stacklevel() -> int:
    """Return the level of the first caller outside this package, for a warning of this function's caller."""
    frame, level = inspect.currentframe(), 0
    package = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _open_embedded(path: Path) -> mem0.Memory:
    from ..sqlite import local_memory

    client = local_memory(path)
    atexit.register(client.close)
    return client


def _open_platform(host: str, key: str) -> mem0.MemoryClient:
    import httpx
    import mem0

    from .platform.transport import LIMITS, TIMEOUT

    if not (key.isascii() and key.isprintable()):
        # httpx would refuse it as a header, and mem0 would log it.
        raise BackendError(f"${KEY_VARIABLE} must hold printable ASCII characters only; check its end for a line break")
    statuses: list[int] = []
    connections = httpx.Client(timeout=TIMEOUT, limits=LIMITS)
    connections.event_hooks = {"response": [lambda answer: statuses.append(answer.status_code)]}
    try:
        client = mem0.MemoryClient(api_key=key, host=host or None, client=connections)
    except httpx.InvalidURL:
        failure = BackendError(
            f"mem0's platform cannot be used: ${HOST_VARIABLE} must be an address such as https://api.mem0.ai"
        )
    except httpx.HTTPError as error:
        failure = BackendError(
            f"mem0's platform could not be reached ({type(error).__name__}): check the network, a proxy and the host",
            retryable=True,
        )
    except (ValueError, TypeError, AttributeError):  # mem0 does not check that the answer is a JSON object
        failure = _status_error(statuses[-1] if statuses else 0)
    else:
        connections.event_hooks = {}
        atexit.register(connections.close)
        return client
    connections.close()
    raise failure


def _status_error(status: int) -> BackendError:
    if status in (401, 403):
        return BackendError(f"mem0's platform refused the API key ({status}): check ${KEY_VARIABLE}")
    if status == 200:
        return BackendError(
            f"mem0's platform did not answer with JSON: check ${HOST_VARIABLE}, and whether a proxy or a login page "
            "answers in its place"
        )
    return BackendError(
        f"mem0's platform cannot be used (status {status}): check ${HOST_VARIABLE}, or try again later",
        retryable=status == 429 or status >= 500,
    )


def _prepare_path() -> Path:
    """Return the embedded store's file, with its directory made."""
    try:
        path = default_path().absolute()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
    else:
        return path
    raise BackendError(
        f"the embedded store's directory cannot be made ({reason}): set ${PATH_VARIABLE} to a file that can be written"
    )
