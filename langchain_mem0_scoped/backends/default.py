"""The client of a scope that names none: made once per process, from the environment."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import BackendError
from ..fork import INIT_LOCK

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
    """Return the process's client; None if it has not been made yet."""
    try:
        return _clients.get(_target())
    except (OSError, RuntimeError):
        return None


def default_client() -> Client:
    """Return the process's client: the hosted platform's if $MEM0_API_KEY is set, else the embedded store's.

    Raises:
        BackendError: The platform cannot be reached or refuses the key, or the file cannot be used.
    """
    if (client := opened()) is not None:
        return client
    path = None if asks_for_platform() else _prepare_path()
    with INIT_LOCK:
        target = _target()
        if target not in _clients:
            _clients[target] = _open_platform(*target) if path is None else _open_embedded(path)
        return _clients[target]


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
