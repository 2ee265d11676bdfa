"""A Python process that has imported what mem0 and LangChain import, and forks to run code without that second or two.

    with Interpreters() as interpreters:
        done = interpreters.run("print(1)", dict(os.environ))

Neither this package nor mem0 nor LangChain's agents are loaded in it: for them, each fork is a new interpreter.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

PRELOADED: Final = (
    "certifi",
    "httpx",
    "langchain_core.callbacks",
    "langchain_core.chat_history",
    "langchain_core.documents",
    "langchain_core.embeddings",
    "langchain_core.language_models",
    "langchain_core.messages",
    "langchain_core.prompts",
    "langchain_core.retrievers",
    "langchain_core.runnables",
    "langchain_core.tools",
    "numpy",
    "openai",
    "posthog",
    "pydantic",
    "qdrant_client",
    "sqlalchemy",
)
"""Modules of others only."""

_PATIENCE: Final = 120.0
_ROOT: Final = Path(__file__).parents[1]


class Interpreters:
    """The process. It starts with the first code to run, and ends with the block or with this process."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Interpreters:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            with self._server:
                self._server.kill()
            self._server = None

    def run(self, code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run code as `python -W error::ResourceWarning -c` does, in the folder of the repository.

        Raises:
            subprocess.TimeoutExpired: It takes more than two minutes.
        """
        if self._server is None:
            command = [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.interpreters"]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd=_ROOT)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "stdout"), Path(folder, "stderr")
            request = {"code": code, "environment": environment, "output": str(output), "errors": str(errors)}
            print(json.dumps(request), file=self._server.stdin)
            if not select.select([self._server.stdout], [], [], _PATIENCE)[0]:
                self.close()
                raise subprocess.TimeoutExpired("a piece of code", _PATIENCE)
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(
                ["python", "-c", code], status, output.read_text("utf-8"), errors.read_text("utf-8")
            )


def _serve() -> dict[str, Any]:
    """Fork for each request; return it in the fork. The server itself ends with its input."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if not (pid := os.fork()):
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit()


def _run(request: dict[str, Any]) -> int:
    """Run the code of a request as the main module; return the status to exit with."""
    names = _become(request)
    status = 0
    try:
        exec(compile(request["code"], "<string>", "exec"), names)
    except SystemExit as asked:
        if asked.code is not None and not isinstance(asked.code, int):
            print(asked.code, file=sys.stderr)
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    # The end of an interpreter, all but the removal of every module: that of the preloaded ones takes most of a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    names.clear()
    gc.collect()  # what was not closed warns
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _become(request: dict[str, Any]) -> dict[str, Any]:
    """Take the environment and the outputs of a request; return the names of an empty main module."""
    os.environ.clear()
    os.environ.update(request["environment"])
    new_file = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for number, path in enumerate((os.devnull, request["output"], request["errors"])):
        opened = os.open(path, new_file if number else os.O_RDONLY, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = ["-c"]
    return vars(main)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # no collection in a fork looks at these
    os._exit(_run(_serve()))
