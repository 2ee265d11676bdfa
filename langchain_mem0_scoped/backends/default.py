"""The client a scope gets when none is handed in: one in a process, whatever the number of scopes."""

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
"""The environment variable that moves the embedded store's file."""

KEY_VARIABLE: Final = "MEM0_API_KEY"
"""The environment variable that chooses mem0's hosted platform, and names its key."""

HOST_VARIABLE: Final = "MEM0_HOST"
"""The environment variable that moves the hosted platform's address."""

_clients: dict[tuple[str, str], Client] = {}


def default_path() -> Path:
    """Where the embedded store lies: $LANGCHAIN_MEM0_SCOPED_PATH, else ~/.langchain_mem0_scoped/memory.db."""
    chosen = os.environ.get(PATH_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".langchain_mem0_scoped" / "memory.db"


def asks_for_platform() -> bool:
    """Whether the environment chooses mem0's hosted platform."""
    return bool(os.environ.get(KEY_VARIABLE))


def _place() -> tuple[str, str]:
    """What the environment asks for: a host and a key, or a file."""
    if key := os.environ.get(KEY_VARIABLE):
        return os.environ.get(HOST_VARIABLE) or "", key
    return "file", str(default_path().absolute())


def opened() -> Client | None:
    """Return the process's client where it has been made already."""
    try:
        return _clients.get(_place())
    except (OSError, RuntimeError):
        return None


def default_client() -> Client:
    """Return the process's client: of the hosted platform where $MEM0_API_KEY is set, else of the embedded store.

    Raises:
        BackendError: The platform cannot be reached or refuses the key, or the file cannot be used.
    """
    if (client := opened()) is not None:
        return client
    path = None if asks_for_platform() else _made_ready()
    with INIT_LOCK:
        place = _place()
        if place not in _clients:
            _clients[place] = _hosted(*place) if path is None else _embedded(path)
        return _clients[place]


def _embedded(path: Path) -> mem0.Memory:
    from ..sqlite import local_memory

    client = local_memory(path)
    atexit.register(client.close)
    return client


def _hosted(host: str, key: str) -> mem0.MemoryClient:
    """One client and one ping for a process, whatever the number of scopes."""
    import httpx
    import mem0

    from .platform.transport import LIMITS, TIMEOUT

    if not (key.isascii() and key.isprintable()):
        # As part of a header it would be refused, and logged.
        raise BackendError(f"${KEY_VARIABLE} holds what no key does: the end of a line, perhaps")
    answers: list[int] = []
    connections = httpx.Client(timeout=TIMEOUT, limits=LIMITS)
    connections.event_hooks = {"response": [lambda answer: answers.append(answer.status_code)]}
    try:
        client = mem0.MemoryClient(api_key=key, host=host or None, client=connections)
    except httpx.InvalidURL:
        failure = BackendError(f"mem0's platform cannot be used: ${HOST_VARIABLE} is no address")
    except httpx.HTTPError as error:
        failure = BackendError(
            f"mem0's platform could not be reached ({type(error).__name__}): check the network, a proxy, and the host",
            retryable=True,
        )
    except (ValueError, TypeError, AttributeError):  # it takes whatever JSON comes for an object
        failure = _refused(answers[-1] if answers else 0)
    else:
        connections.event_hooks = {}
        atexit.register(connections.close)
        return client
    connections.close()
    raise failure


def _refused(status: int) -> BackendError:
    if status in (401, 403):
        return BackendError(f"mem0's platform refused the API key ({status}): check ${KEY_VARIABLE}")
    if status == 200:
        return BackendError(
            "mem0's platform answered with something else than JSON: is there a proxy or a login page in between? "
            f"check ${HOST_VARIABLE}"
        )
    return BackendError(f"mem0's platform cannot be used ({status})", retryable=status == 429 or status >= 500)


def _made_ready() -> Path:
    try:
        path = default_path().absolute()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
    else:
        return path
    raise BackendError(
        f"there is no directory for the embedded store ({reason}): set {PATH_VARIABLE} to a file that can be written"
    )
