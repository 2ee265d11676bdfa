"""How a ScopedMemory shows itself in a notebook: it reads the latest of what is known, and never raises."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .errors import ScopedMemoryError
from .tables import MAX_ROWS, pluralize_memories

if TYPE_CHECKING:
    from .memory import ScopedMemory


def shown(memory: ScopedMemory) -> dict[str, str]:
    """What a notebook displays of one user: the latest memories as a table, by MIME type.

    This reads, unlike `repr` and `str`, which reach logs and tracebacks: a display is asked for by whoever types the
    name into a cell. Where it fails, the display says so instead of raising.

    Args:
        memory: Whose.

    Returns:
        "text/html" and "text/plain".
    """
    try:
        latest = memory.get_all(limit=MAX_ROWS + 1)
        more = len(latest) > MAX_ROWS
        count = f"more than {MAX_ROWS} memories, the latest of them" if more else pluralize_memories(len(latest))
        table = latest[:MAX_ROWS]._table(f"{memory.user_id}: {count}")
        return {"text/html": table.html(), "text/plain": str(table) if latest else table.caption}
    except ScopedMemoryError as error:
        # Errors of ours quote nothing.
        return _failed(memory, f"{type(error).__name__}: {error}")
    except Exception as error:
        return _failed(memory, type(error).__name__)


def _failed(memory: ScopedMemory, reason: str) -> dict[str, str]:
    text = f"{memory!r}, which cannot be read now. {reason}"
    return {"text/html": f"<p>{escape(text)}</p>", "text/plain": text}
