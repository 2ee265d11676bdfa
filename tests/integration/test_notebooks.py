"""The notebooks: each runs top to bottom without key or network, and shows what it is stored with."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests import notebooks

LARGEST = 150_000
"""Bytes of a notebook with all it shows."""


@pytest.fixture(params=notebooks.PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_five_notebooks() -> None:
    names = ["01-quickstart", "02-isolation", "03-rag-retriever", "04-agents", "05-your-data"]
    assert [path.stem for path in notebooks.PATHS] == names


def test_outputs_match_the_stored_ones(path: Path) -> None:
    stored = notebooks.read(path)
    assert notebooks.shown(notebooks.executed(stored)) == notebooks.shown(stored)


def test_stored_after_one_clean_run(path: Path) -> None:
    cells = code_cells(notebooks.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_is_small_and_has_no_machine_paths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)


def test_does_not_import_tests(path: Path) -> None:
    for cell in code_cells(notebooks.read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("tests", "benchmarks")]


def test_notebook_has_no_network_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    code = """
import os, socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except Exception as refused:
    print(type(refused).__name__, [name for name in os.environ if "KEY" in name])
"""
    asked = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert notebooks.shown(notebooks.executed(asked))[0][0] == ("stdout", "SocketConnectBlockedError []\n")


@pytest.mark.parametrize(
    ("text", "steady"),
    [
        ("id d3fabf33-f6c2-485d-9c81-21e3b22d021b", "id an id"),
        ("erased at 2026-11-21 02:49Z", "erased at a moment"),
        ("2026-03-02T09:00:00.123456+00:00", "a moment"),
        ("<A at 0x7f>", "<A at an address>"),
        ("2027, 0.287", "2027, 0.287"),
    ],
)
def test_varying_output_is_normalized(text: str, steady: str) -> None:
    assert notebooks._steady(text) == steady
