"""The client a scope gets when none is handed in: one in a process, whatever the number of scopes."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import BackendError
from ..forks import MAKING

if TYPE_CHECKING:
    import mem0

PATH_VARIABLE: Final = "LANGCHAIN_MEM0_SCOPED_PATH"
"""The environment variable that moves the embedded store's file."""

_clients: dict[Path, mem0.Memory] = {}


def default_path() -> Path:
    """Where the embedded store lies: $LANGCHAIN_MEM0_SCOPED_PATH, else ~/.langchain_mem0_scoped/memory.db."""
    chosen = os.environ.get(PATH_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".langchain_mem0_scoped" / "memory.db"


def opened() -> mem0.Memory | None:
    """Return the process's client where it has been made already."""
    try:
        return _clients.get(default_path().absolute())
    except (OSError, RuntimeError):
        return None


def default_client() -> mem0.Memory:
    """Return the process's client of the embedded store.

    Raises:
        BackendError: MEM0_API_KEY asks for the hosted platform, which is not spoken to yet, or the file cannot be used.
    """
    if os.environ.get("MEM0_API_KEY"):
        raise BackendError(
            "MEM0_API_KEY is set, but this version does not speak to mem0's hosted platform yet; "
            "unset it to use the embedded store, or pass client=local_memory(path) or any mem0.Memory"
        )
    path = _made_ready()
    with MAKING:
        if path not in _clients:
            from ..local.memory import local_memory

            _clients[path] = client = local_memory(path)
            atexit.register(client.close)
        return _clients[path]


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
