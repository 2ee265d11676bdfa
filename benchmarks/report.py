"""Writes the benchmark results to the terminal, results.json and RESULTS.md."""

import json
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from . import in_brief
from .measure import Result

_FOLDER: Final = Path(__file__).parent
_JSON: Final = _FOLDER / "results.json"
_HEAD: Final = ("measure", "result", "target", "met", "details")

Recorded = dict[str, list[dict[str, Any]]]
"""Result lines by their name for `--only`."""


def table(results: Sequence[Result]) -> str:
    """Format the results as columns for a terminal."""
    lines = [_cells(asdict(result), result.passed) for result in results]
    widths = [max(len(line[column]) for line in [_HEAD, *lines]) for column in range(len(_HEAD))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [_HEAD, *lines]]
    return "\n".join(row.rstrip() for row in rows)


def write(results: Mapping[str, Sequence[Result]]) -> None:
    """Write new results into both files; results that were not measured this time stay."""
    recorded: Recorded = json.loads(_JSON.read_text(encoding="utf-8"))["results"] if _JSON.exists() else {}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for name, measured in results.items():
        recorded[name] = [{**asdict(one), "passed": one.passed, "at": now} for one in measured]
    machine = _machine()
    text = json.dumps({"machine": machine, "results": recorded}, indent=2, ensure_ascii=False)
    _JSON.write_text(f"{text}\n", encoding="utf-8")
    (_FOLDER / "RESULTS.md").write_text(_markdown(machine, recorded), encoding="utf-8")
    in_brief.draw()


def _machine() -> dict[str, str | int | None]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}


def _cells(line: Mapping[str, Any], passed: bool) -> tuple[str, ...]:
    bound = "at most" if line["at_most"] else "at least"
    return (
        str(line["measure"]),
        _figure(line["value"], line["unit"]),
        f"{bound} {_figure(line['target'], line['unit'])}",
        "yes" if passed else "NO",
        "; ".join(f"{name}: {value:,.3g}" for name, value in line["detail"].items()),
    )


def _figure(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:#.3g}"
    return f"{digits} {unit}".strip()


def _markdown(machine: Mapping[str, Any], recorded: Recorded) -> str:
    lines = [
        "# Benchmarks",
        "",
        "`make bench` (`python -m benchmarks`) writes this file; do not edit it. Both sides of a ratio are timed in",
        "turn in one run, so that a busy machine slows both. Figures are medians. Ratios are medians over batches.",
        "",
        f"Machine: {machine['cpus']} CPUs, Python {machine['python']}, SQLite {machine['sqlite']}.",
        "",
        f"| {' | '.join(_HEAD)} | date |",
        "|---|---|---|---|---|---|",
    ]
    for measured in recorded.values():
        for line in measured:
            lines.append(f"| {' | '.join(_cells(line, line['passed']))} | {line['at']} |")
    lines += [
        "",
        'To repeat, run `make bench` or `make bench ARGS="--only search importing --cache DIR"`. The store of 100,000',
        "users takes about 15 minutes and 5 GB to build. With `--cache` it is built once. RECALL.md contains the",
        "recall on LoCoMo.",
        "",
    ]
    return "\n".join(lines)
