"""Execute the notebooks without a key or a network, and compare or store their output: `make notebooks`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER: Final = Path(__file__).parents[1] / "notebooks"
PATHS: Final = sorted(FOLDER.glob("*.ipynb"))

# The kernel uses unix sockets to reach its client. No host is allowed.
_OFFLINE: Final = "import pytest_socket; pytest_socket.socket_allow_hosts([], allow_unix_socket=True)"

_VOLATILE: Final = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "an id"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z|\+00:00)?"), "a moment"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "an address"),
)
"""Output that differs from run to run, and the text that replaces it before a comparison."""


def read(path: Path) -> Any:
    """Read a stored notebook."""
    return nbformat.read(path, as_version=4)


def executed(notebook: Any) -> Any:
    """Execute a copy of a notebook and return it with its output.

    It runs in an empty directory, with an empty home directory and no key in its environment.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
        AssertionError: It left a file in its directory.
    """
    fresh = nbformat.from_dict(notebook)
    kept = {"PATH", "LANG", "LC_ALL", "SYSTEMROOT"}
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as work:
        env = {name: value for name, value in os.environ.items() if name in kept}
        env |= {
            "HOME": home,
            "MEM0_DIR": f"{home}/.mem0",
            "IPYTHONDIR": f"{home}/.ipython",
            "PYTHONWARNINGS": "default",
        }
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": f"{home}/.mpl", "LANGSMITH_TRACING": "false"}
        client = NotebookClient(
            fresh,
            timeout=60,
            startup_timeout=30,
            shutdown_kernel="immediate",
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{home}/kernel"),
            record_timing=False,
            extra_arguments=[f"--IPKernelApp.exec_lines={_OFFLINE}"],
            resources={"metadata": {"path": work}},
        )
        client.execute(env=env, cleanup_kc=True)
        left = os.listdir(work)
    assert not left, f"the notebook left files in its directory: {left}"
    fresh.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return fresh


def shown(notebook: Any) -> list[Any]:
    """Return the output of each code cell, without what differs from run to run. A picture counts as "a picture"."""
    return [[_output(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]


def _output(output: Any) -> Any:
    if output.output_type == "stream":
        return output.name, _steady(output.text)
    if output.output_type == "error":
        return "error", output.ename
    return {
        kind: "a picture" if kind.startswith("image/") else _steady(str(value)) for kind, value in output.data.items()
    }


def _steady(text: str) -> str:
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text


def main() -> int:
    """Execute every notebook, and compare its output with the stored one or store it.

    Returns:
        The exit status: 0 if nothing differs.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks", description=__doc__)
    parser.add_argument("--update", action="store_true", help="store the new output")
    parser.add_argument("names", nargs="*", help="only those whose name contains one of these")
    options = parser.parse_args()
    differs = False
    for path in PATHS:
        if options.names and not any(name in path.name for name in options.names):
            continue
        stored = read(path)
        now = executed(stored)
        if options.update:
            nbformat.write(now, path)
            print(f"{path.name}: stored")
            continue
        numbers = [
            number
            for number, (was, is_) in enumerate(zip(shown(stored), shown(now), strict=True), start=1)
            if was != is_
        ]
        differs = differs or bool(numbers)
        print(f"{path.name}: " + (f"other output in code cells {numbers}" if numbers else "as stored"))
    if differs:
        print("Check the difference, then run: make notebooks ARGS=--update")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
