"""mem0 as this package loads it: on first use, no telemetry, no download, no memory text in its log lines."""

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
    """Turn mem0's telemetry off unless the user has set MEM0_TELEMETRY. mem0 reads that when it is imported."""
    if "MEM0_TELEMETRY" in os.environ:
        return
    os.environ["MEM0_TELEMETRY"] = "false"
    if (telemetry := sys.modules.get("mem0.memory.telemetry")) is not None:
        telemetry.MEM0_TELEMETRY = False  # type: ignore[attr-defined]
        telemetry.client_telemetry.close()
        if (main := sys.modules.get("mem0.memory.main")) is not None:
            main.MEM0_TELEMETRY = False  # type: ignore[attr-defined]


def load_mem0() -> ModuleType:
    """Import mem0 (about a second, the first time) and return it.

    Raises:
        BackendError: mem0 cannot be imported, most often because it cannot create its own directory.
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
            _withhold_text_from_logs()
            _never_download_models()
            module: ModuleType = mem0
            _loaded = module
            return module
    raise BackendError(f"mem0 could not be imported ({reason}): it needs a directory it can write; set MEM0_DIR to one")


class _TextWithheld(logging.Handler):
    """Takes the text out of mem0's log records, which print memories: their level and place go on to other handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg = "%s:%d (text withheld: mem0's log lines quote memories)"
        record.args = (record.filename, record.lineno)
        record.exc_info = record.exc_text = record.stack_info = None


def _withhold_text_from_logs() -> None:
    logger = logging.getLogger("mem0")
    if not any(isinstance(handler, _TextWithheld) for handler in logger.handlers):
        # First of all handlers, since records are cleaned in place.
        logger.handlers.insert(0, _TextWithheld())


def _never_download_models() -> None:
    """With spaCy but without its English model, mem0 would fetch one in the middle of a search."""
    if importlib.util.find_spec("en_core_web_sm") is None:
        from mem0.utils import spacy_models

        spacy_models._load_failed_full = spacy_models._load_failed_lemma = True
