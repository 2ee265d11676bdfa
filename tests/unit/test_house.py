"""How the house is kept: a test file for each module, no long file, and documents that name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "langchain_mem0_scoped"
CODE: Final = [
    path for folder in ("langchain_mem0_scoped", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
MODULES: Final = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]

ELSEWHERE: Final = {
    "clients/__init__.py": "test_memory.py says which clients are taken, clients/test_oss.py that each has one port",
    "local/__init__.py": "it loads mem0, and clients/test_upstream.py says how that is done",
    "local/weights.py": "six numbers: local/test_ranking.py and test_surroundings.py say what each does",
}
"""Modules without a test file of their own, and where their tests are."""

LINES: Final = 550
"""About 500."""


def test_each_module_has_its_test_file() -> None:
    wanted = {module.with_name(f"test_{module.stem.strip('_')}.py") for module in MODULES}
    missing = {path for path in wanted if not (ROOT / "tests" / "unit" / path).exists()}
    told = {Path(module).with_name(f"test_{Path(module).stem.strip('_')}.py") for module in ELSEWHERE}
    assert missing == told


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_code_a_document_names_is_there(document: str) -> None:
    named = set(re.findall(r"`((?:[\w.]+/)*\w+\.py)`", (ROOT / document).read_text(encoding="utf-8")))
    assert named
    there = [f"/{path.relative_to(ROOT)}" for path in CODE]
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in there)} == set()
