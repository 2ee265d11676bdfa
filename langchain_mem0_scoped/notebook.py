"""How a ScopedMemory displays itself in Jupyter: a table of the latest memories."""

from __future__ import annotations

from html import escape

from .errors import ScopedMemoryError
from .records import memory_table
from .requests import list_request
from .scoped_client import HasScopedClient
from .tables import MAX_ROWS, pluralize_memories


def mimebundle(memory: HasScopedClient) -> dict[str, str]:
    """Return what a notebook displays of one user, by MIME type.

    This reads memories. `repr` and `str` do not, because they reach logs and tracebacks; a display is only made for
    somebody who evaluates the object in a cell. An error is displayed instead of raised.

    Args:
        memory: The object to display.

    Returns:
        "text/html" and "text/plain": a table of at most `MAX_ROWS` memories, the latest first.
    """
    client = memory.scoped_client
    try:
        latest = client.list(list_request(limit=MAX_ROWS + 1))
        more = len(latest) > MAX_ROWS
        count = f"more than {MAX_ROWS} memories, the latest of them" if more else pluralize_memories(len(latest))
        table = memory_table(latest[:MAX_ROWS], f"{client.user_id}: {count}")
        return {"text/html": table.html(), "text/plain": str(table) if latest else table.caption}
    except ScopedMemoryError as error:
        # The package's own errors quote no memory, query or key.
        return _failure(memory, f"{type(error).__name__}: {error}")
    except Exception as error:
        return _failure(memory, type(error).__name__)


def _failure(memory: HasScopedClient, reason: str) -> dict[str, str]:
    text = f"{memory!r}: its memories cannot be read. {reason}"
    return {"text/html": f"<p>{escape(text)}</p>", "text/plain": text}
