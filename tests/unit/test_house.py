"""The conventions of the repository: a test file per module, short files, true documents, plain words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import ROOT

PACKAGE: Final = ROOT / "langchain_mem0_scoped"
TESTS: Final = ROOT / "tests"
CODE: Final = [
    path for folder in ("langchain_mem0_scoped", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
MODULES: Final = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
DOCUMENTS: Final = ("README.md", "CONTRIBUTING.md", "SECURITY.md")

ELSEWHERE: Final[dict[str, str]] = {
    "engine/__init__.py": "it loads mem0: test_mem0_compat.py",
    "engine/storage.py": "an interface: conformance/test_storage.py runs on every storage",
    "pending_turn.py": "what a chat history stores with: test_chat_history.py",
    "sqlite/__init__.py": "it names local_memory(): sqlite/test_client.py",
    "transcripts/base.py": "an interface: conformance/test_transcripts.py runs on every store",
    "transcripts/appending.py": "what every store appends by: conformance/test_transcripts.py",
}
"""Modules without a test file of their own: name -> where they are tested."""

LINES: Final = 550
"""About 500."""

DIALECT: Final = (
    r"rooms?|doors?|walls?|telling|told|whoever|(?:stands?|stood|standing)(?!-in|s? for)|lets? go(?: of)?"
    r"|by no more than|bites?|mends?|mended"
)
"""Words that this project once used in senses of its own."""

PLAIN_SENSES: Final = {
    "makes room for another": "space on a database page",
    "could stand for several": "an id that means several users",
}
"""Where one of these words is meant literally."""


def test_each_module_has_its_test_file() -> None:
    wanted = {
        module.with_name(f"test_{module.stem.strip('_')}.py"): str(module) for module in MODULES if _has_code(module)
    }
    missing = {module for path, module in wanted.items() if not (TESTS / "unit" / path).exists()}
    assert missing == ELSEWHERE.keys()


def _has_code(module: Path) -> bool:
    """Whether a module holds more than a docstring."""
    return len(ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body) > 1


def test_unit_tests_lie_in_the_folders_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS / "unit") for path in (TESTS / "unit").rglob("test_*.py")}
    assert {str(folder) for folder in folders if not (PACKAGE / folder).is_dir()} == set()


def test_no_test_imports_another_test() -> None:
    imports = re.compile(r"^\s*(?:from|import) tests\.(?:\w+\.)*test_\w+", re.MULTILINE)
    found = {str(path.relative_to(ROOT)) for path in TESTS.rglob("*.py") if imports.search(path.read_text("utf-8"))}
    assert found == set()


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.]+/)*\w+\.py)`", text))
    assert named
    there = [f"/{path.relative_to(ROOT)}" for path in CODE]
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in there)} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_and_links_of_a_document_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)} - {""}
    named = set(re.findall(r"`(?:make test ARGS=)?((?:tests|benchmarks|docs|notebooks|\.ci)/[\w./-]*)`", text))
    assert {path for path in linked | named if not (ROOT / path).exists()} == set()


def test_helper_modules_are_those_of_the_index() -> None:
    index = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Helper modules:")[2].partition("Rules:")[0]
    )
    listed = set(re.findall(r"^\| `(tests/[\w./]+)` \|", index, re.MULTILINE))
    helpers = {f"tests/{path.name}" for path in TESTS.glob("*.py")} - {"tests/__init__.py", "tests/conftest.py"}
    assert {name for name in listed if name.endswith(".py")} == helpers
    assert {name for name in listed if not name.endswith(".py")} == {"tests/platform/"}


def test_every_test_folder_is_in_the_index() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {name for name in folders if f"| `tests/{name}/` |" not in text} == set()


# -- plain words


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what people read: of a document all, of a module its comments and strings."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


def dialect_in(text: str) -> list[str]:
    """Dialect words of a text, those in their plain sense left out."""
    for sense in PLAIN_SENSES:
        text = text.replace(sense, "")
    return [found.group() for found in re.finditer(rf"\b(?:{DIALECT})\b", text, re.IGNORECASE)]


def test_words_are_plain() -> None:
    paths = [*(PACKAGE / module for module in MODULES), *(ROOT / name for name in DOCUMENTS)]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in paths
        for line, text in passages(path)
        for word in dialect_in(text)
    ]
    assert found == []


def test_plain_senses_occur() -> None:
    texts = " ".join(text for module in MODULES for _, text in passages(PACKAGE / module))
    assert {sense for sense in PLAIN_SENSES if sense not in texts} == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The only door to one user's memories.", ["door"]),
        ("Note where this user stands", ["stands"]),
        ("A model is told each text once", ["told"]),
        ("to whoever looks at it, it is the chain", ["whoever"]),
        ("A stand-in stands for the server, outdoors and in the classroom.", []),
        ("SQLite makes room for another", []),
    ],
)
def test_dialect_is_found(text: str, words: list[str]) -> None:
    assert dialect_in(text) == words
