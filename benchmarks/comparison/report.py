"""Writes the answers to comparison.json, COMPARISON.md and the README's table."""

from __future__ import annotations

import json
import platform
import sqlite3
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from .packages import LEFT_OUT, PACKAGES, Package
from .probes.asking import NOT_ASKED
from .questions import QUESTIONS, Question

JSON: Final = Path(__file__).parents[1] / "comparison.json"
MARKDOWN: Final = JSON.with_name("COMPARISON.md")
MARKER: Final = "<!-- comparison -->"
"""Marks the place of the README's table."""

Recorded = dict[str, dict[str, Any]]
"""The recorded answers of each package, by its name."""

_STAND_IN: Final = "¹"


def recorded() -> Recorded:
    """Return the results of the last runs."""
    if not JSON.exists():
        return {}
    return dict(json.loads(JSON.read_text(encoding="utf-8"))["packages"])


def write(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write new results into both files; packages that did not run keep their recorded results."""
    everything = recorded()
    machine = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "system": platform.system()}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for name, one in found.items():
        everything[name] = {"at": now, **machine, **one}
    ordered = {package.name: everything[package.name] for package in PACKAGES if package.name in everything}
    text = json.dumps({"packages": ordered}, indent=2, ensure_ascii=False)
    JSON.write_text(f"{text}\n", encoding="utf-8")
    MARKDOWN.write_text(markdown(ordered), encoding="utf-8")


def readme_table(packages: Recorded) -> str:
    """Return the table for the README, with its footnote."""
    return "\n".join([*_table(packages, [one for one in QUESTIONS if one.in_readme]), "", _note()])


def markdown(packages: Recorded) -> str:
    """Return COMPARISON.md."""
    return "\n".join([*_lines(packages), ""])


def _lines(packages: Recorded) -> Iterator[str]:
    yield "# Comparison"
    yield ""
    yield from _paragraph(
        "`make compare` (`python -m benchmarks.comparison`) writes this file; do not edit it. A script in",
        "`benchmarks/comparison/probes` (a *probe*) runs each package and finds each cell. Each package runs in its",
        "own environment, without a key, and with no sockets except loopback. Alice's memory is",
        '"I keep the spare key under the blue flowerpot". Bob is another user.',
    )
    yield from _paragraph(
        f'"{NOT_ASKED}" means that the question does not apply or could not be run; the reason is below. If a probe',
        'crashes, its cell says "failed".',
    )
    yield from _table(packages, QUESTIONS)
    yield ""
    yield _note()
    yield ""
    yield "## Setup"
    yield ""
    yield "| | versions | run | setup |"
    yield "|---|---|---|---|"
    for package in _shown(packages):
        one = packages[package.name]
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        asked = f"{one['at']}, {one['system']}, Python {one['python']}, SQLite {one['sqlite']}"
        yield f"| {package.title} | {versions} | {asked} | {package.note} |"
    yield ""
    yield "## Method for each cell"
    for question in QUESTIONS:
        yield ""
        yield f"### {question.title}"
        yield ""
        yield from _paragraph(question.how)
        for package in _shown(packages):
            answer = packages[package.name]["answers"][question.name]
            yield from _item(f"{package.title}: **{answer['answer']}**: {_escaped(answer['seen'])}")
    yield ""
    yield "## Packages left out"
    yield ""
    for name, why in LEFT_OUT.items():
        yield from _item(f"{name}: {why}")
    yield ""
    yield from _paragraph(
        'To repeat, run `make compare` or `make compare ARGS="--only mem0 --cache DIR"`. With `--cache` the',
        "environments are built once. `benchmarks/comparison/packages.py` contains the versions.",
    )


def _table(packages: Recorded, questions: Sequence[Question]) -> Iterator[str]:
    shown = _shown(packages)
    heads = [package.title + (_STAND_IN if package.stand_in else "") for package in shown]
    yield f"| | {' | '.join(heads)} |"
    yield f"|---|{'---|' * len(shown)}"
    for question in questions:
        cells = [packages[package.name]["answers"][question.name]["answer"] for package in shown]
        yield f"| {question.title} | {' | '.join(cells)} |"


def _note() -> str:
    return (
        f"{_STAND_IN} Its server was not run; a stand-in recorded what its client sends. "
        f"{NOT_ASKED}: does not apply, or that server decides."
    )


def _shown(packages: Recorded) -> list[Package]:
    return [package for package in PACKAGES if package.name in packages]


def _paragraph(*lines: str) -> Iterator[str]:
    yield from textwrap.wrap(" ".join(lines), 118, break_long_words=False, break_on_hyphens=False)
    yield ""


def _item(text: str) -> Iterator[str]:
    yield from textwrap.wrap(f"- {text}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _escaped(text: str) -> str:
    """Escape Markdown in the text of a library."""
    return text.replace("*", "\\*").replace("_", "\\_").replace("|", "\\|").replace("<", "&lt;")
