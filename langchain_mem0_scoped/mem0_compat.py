"""What mem0 needs: an import without telemetry, downloads or text in its logs; and its format of session scopes."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from types import ModuleType

from .errors import BackendError
from .fork import INIT_LOCK

_loaded: ModuleType | None = None


def disable_telemetry() -> None:
    """Turn mem0's telemetry off, unless MEM0_TELEMETRY is set. mem0 reads the variable when it is imported."""
    if "MEM0_TELEMETRY" in os.environ:
        return
    os.environ["MEM0_TELEMETRY"] = "false"
    if (telemetry := sys.modules.get("mem0.memory.telemetry")) is not None:
        telemetry.MEM0_TELEMETRY = False  # type: ignore[attr-defined]
        telemetry.client_telemetry.close()
        if (main := sys.modules.get("mem0.memory.main")) is not None:
            main.MEM0_TELEMETRY = False  # type: ignore[attr-defined]


def load_mem0() -> ModuleType:
    """Import mem0 and return it. The first import takes about a second.

    Returns:
        The module.

    Raises:
        BackendError: mem0 cannot be imported, usually because it cannot create its directory.
    """
    global _loaded
    if _loaded is not None:
        return _loaded
    with INIT_LOCK:
        disable_telemetry()
        try:
            import mem0
        except OSError as error:
            reason = type(error).__name__
        else:
            _redact_logs()
            _disable_model_download()
            module: ModuleType = mem0
            _loaded = module
            return module
    raise BackendError(f"mem0 could not be imported ({reason}): it needs a writable directory; set MEM0_DIR to one")


def parse_user_id(session_scope: str | None) -> str | None:
    """Parse the user id out of mem0's session scope.

    Args:
        session_scope: Such as `run_id=s%261&user_id=alice`, with escaped values. The format is that of
            mem0.memory.main._build_session_scope.

    Returns:
        The user id, or None if the scope names none.
    """
    for part in (session_scope or "").split("&"):
        name, _, value = part.partition("=")
        if name == "user_id":
            return value.replace("%3D", "=").replace("%26", "&").replace("%25", "%")
    return None


class _RedactingHandler(logging.Handler):
    """Removes the text of mem0's log records, which may quote memories. Keeps level and line for other handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg = "%s:%d (text withheld: mem0's log lines quote memories)"
        record.args = (record.filename, record.lineno)
        record.exc_info = record.exc_text = record.stack_info = None


def _redact_logs() -> None:
    logger = logging.getLogger("mem0")
    if not any(isinstance(handler, _RedactingHandler) for handler in logger.handlers):
        # The first of all handlers, because records are changed in place.
        logger.handlers.insert(0, _RedactingHandler())


def _disable_model_download() -> None:
    """Keep mem0 from downloading spaCy's English model during a search, if spaCy is installed without it."""
    if importlib.util.find_spec("en_core_web_sm") is None:
        from mem0.utils import spacy_models

        spacy_models._load_failed_full = spacy_models._load_failed_lemma = True
