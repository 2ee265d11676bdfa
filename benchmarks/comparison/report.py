"""What was answered, as comparison.json, COMPARISON.md and the README's table."""

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
"""The README's table stands where this line does."""

Recorded = dict[str, dict[str, Any]]
"""What is known of each package, by its name."""

_STAND_IN: Final = "¹"


def recorded() -> Recorded:
    """Return what the last runs found out."""
    if not JSON.exists():
        return {}
    return dict(json.loads(JSON.read_text(encoding="utf-8"))["packages"])


def write(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what was found out now into both files; a package that was not asked this time stays as it was."""
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
    """Return the table for the README, with the line that explains its note."""
    return "\n".join([*_table(packages, [one for one in QUESTIONS if one.in_readme]), "", _note()])


def markdown(packages: Recorded) -> str:
    """Return COMPARISON.md."""
    return "\n".join([*_lines(packages), ""])


def _lines(packages: Recorded) -> Iterator[str]:
    yield "# Comparison"
    yield ""
    yield from _paragraph(
        "Written by `make compare` (`python -m benchmarks.comparison`); do not edit. Every cell is what a script of",
        "`benchmarks/comparison/probes` found by running the package, in an environment that holds only that package,",
        "without a key and with sockets closed but for the loopback. Alice's memory is",
        '"I keep the spare key under the blue flowerpot"; Bob is another user.',
    )
    yield from _paragraph(
        f'"{NOT_ASKED}" is a question that does not apply, or that could not be run; why stands below. A probe that',
        'crashes is a cell that says "failed".',
    )
    yield from _table(packages, QUESTIONS)
    yield ""
    yield _note()
    yield ""
    yield "## How it was set up"
    yield ""
    yield "| | versions | asked | |"
    yield "|---|---|---|---|"
    for package in _shown(packages):
        one = packages[package.name]
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        asked = f"{one['at']}, {one['system']}, Python {one['python']}, SQLite {one['sqlite']}"
        yield f"| {package.title} | {versions} | {asked} | {package.note} |"
    yield ""
    yield "## How each cell was found"
    for question in QUESTIONS:
        yield ""
        yield f"### {question.title}"
        yield ""
        yield from _paragraph(question.how)
        for package in _shown(packages):
            answer = packages[package.name]["answers"][question.name]
            yield from _item(f"{package.title}: **{answer['answer']}**: {_escaped(answer['seen'])}")
    yield ""
    yield "## Left out"
    yield ""
    for name, why in LEFT_OUT.items():
        yield from _item(f"{name}: {why}")
    yield ""
    yield from _paragraph(
        'To repeat: `make compare`, or `make compare ARGS="--only mem0 --cache DIR"`; with `--cache` the',
        "environments are made once. Versions stand in `benchmarks/comparison/packages.py`.",
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
        f"{_STAND_IN} Its server was not run: what its client sends to a stand-in. "
        f"{NOT_ASKED}: does not apply, or is up to that server."
    )


def _shown(packages: Recorded) -> list[Package]:
    return [package for package in PACKAGES if package.name in packages]


def _paragraph(*lines: str) -> Iterator[str]:
    yield from textwrap.wrap(" ".join(lines), 118, break_long_words=False, break_on_hyphens=False)
    yield ""


def _item(text: str) -> Iterator[str]:
    yield from textwrap.wrap(f"- {text}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _escaped(text: str) -> str:
    """Keep what a library says from being read as Markdown."""
    return text.replace("*", "\\*").replace("_", "\\_").replace("|", "\\|").replace("<", "&lt;")
