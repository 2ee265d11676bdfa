"""Run tests in forks of a process that has the third-party packages imported already.

Reads one JSON list of test paths a line from standard input, and answers each with the exit code of pytest. Starting a
fork takes no time; starting an interpreter and importing LangChain takes longer than most mutants need to be noticed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

SECONDS: Final = 300
"""After which a run ends as failed."""

PRELOADED: Final = (
    "hypothesis.stateful",
    "langchain.agents.middleware",
    "langchain_core.language_models",
    "langchain_core.prompts",
    "langchain_core.runnables.history",
    "langchain_core.tools",
    "langchain_openai",
    "langgraph.checkpoint.memory",
    "numpy",
    "openai",
    "posthog",
    "qdrant_client",
    "Stemmer",
    "sqlalchemy",
    "uvicorn",
    "wordllama",
)
"""What most tests import: nothing of this package, which a mutant changes, and not mem0, which the tests load."""


def run(tests: list[str]) -> int:
    """Run tests in a fork, up to the first failure; return pytest's exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 3
    try:
        signal.alarm(SECONDS)
        with Path("pytest.log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        import pytest

        # A package with a pytest plugin is imported already.
        ignored = "ignore::pytest.PytestAssertRewriteWarning"
        code = int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-W", ignored, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until standard input ends."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
