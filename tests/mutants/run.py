"""Run the list of one-line code changes that tests must notice: `make mutants`.

Each area has a TOML file beside this one:

    tests = ["tests/unit/test_scope.py"]      # what runs for a mutant that names no tests of its own

    [[mutant]]
    file = "scope.py"                         # below langchain_mem0_scoped/
    after = 'def owns('                       # optional: look for `old` behind this text
    old = 'return user_id == self.user_id'    # part of one line, or a whole one
    new = 'return True'
    tests = ["tests/isolation"]               # optional
    equivalent = "why no test can notice"     # optional: not run, not counted
    survives = "why no test notices"          # optional: run and counted, and expected to survive

A mutant is killed if a test fails or runs for too long. `tests/unit/test_mutants.py` checks the list itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "langchain_mem0_scoped"
COPIED: Final = (PACKAGE, "tests", "benchmarks", "docs", "notebooks", "pyproject.toml", "Makefile", "*.md")
SECONDS: Final = 300
"""After which a test run counts as failed."""


@dataclass(frozen=True)
class Mutant:
    """One change of one line, and the tests that must notice it."""

    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    after: str = ""
    equivalent: str = ""
    survives: str = ""

    def __str__(self) -> str:
        place = f" after {self.after!r}" if self.after else ""
        return f"{self.area}: {self.file}{place}: {self.old!r} -> {self.new!r}"

    def applied_to(self, source: str) -> str:
        """Return the mutated source.

        Raises:
            ValueError: `after` or `old` is not in the source, or `old` is in it several times without an `after`.
        """
        start = source.find(self.after)
        found = source.count(self.old, start) if start >= 0 else 0
        if not found or (found > 1 and not self.after):
            raise ValueError(f"{self}: found {found} times")
        place = source.index(self.old, start)
        return source[:place] + self.new + source[place + len(self.old) :]


def mutants_in(path: Path) -> list[Mutant]:
    """The mutants of an area."""
    listed: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    default = listed["tests"]
    return [Mutant(path.stem, **{**one, "tests": tuple(one.get("tests", default))}) for one in listed.get("mutant", [])]


def all_mutants() -> list[Mutant]:
    """The mutants of every area."""
    return [mutant for path in sorted(FOLDER.glob("*.toml")) for mutant in mutants_in(path)]


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Copy what the tests need to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for pattern in COPIED:
            for path in ROOT.glob(pattern):
                target = folder / path.name
                if path.is_dir():
                    shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(path, target)
        yield folder


def tests_pass(folder: Path, tests: Sequence[str]) -> bool:
    """Run tests against the package in a folder, up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode in (4, 5):  # pytest was called wrongly, or found no test
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout.decode()}\n{done.stderr.decode()}")
    return done.returncode == 0


def survives(folder: Path, mutant: Mutant) -> bool:
    """Apply one mutant in a copied tree, run its tests, and take it back."""
    path = folder / PACKAGE / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied_to(source), encoding="utf-8")
    try:
        return tests_pass(folder, mutant.tests)
    finally:
        path.write_text(source, encoding="utf-8")


def main() -> int:
    """Run the mutants of all areas, or of those named.

    Returns:
        0 where those that survive are those expected to: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("areas", nargs="*", help="only these areas")
    parser.add_argument("--matching", default="", help="only mutants whose description contains this text")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in all_mutants()
        if (not options.areas or mutant.area in options.areas) and options.matching in str(mutant)
    ]
    run = [mutant for mutant in chosen if not mutant.equivalent]
    survived: list[Mutant] = []
    with ThreadPoolExecutor(options.processes) as pool:
        folders: SimpleQueue[Path] = SimpleQueue()

        def judge(mutant: Mutant) -> bool:
            folder = folders.get()
            try:
                alive = survives(folder, mutant)
            finally:
                folders.put(folder)
            print(f"{'SURVIVED' if alive else 'killed  '} {mutant}", flush=True)
            return alive

        def unchanged(tests: tuple[str, ...]) -> bool:
            folder = folders.get()
            try:
                return tests_pass(folder, tests)
            finally:
                folders.put(folder)

        trees = [copied_tree() for _ in range(options.processes)]
        try:
            for tree in trees:
                folders.put(tree.__enter__())
            sets = sorted({mutant.tests for mutant in run})
            failing = [tests for tests, passes in zip(sets, pool.map(unchanged, sets), strict=True) if not passes]
            if failing:
                print(f"These fail without any change: {failing}")
                return 2
            survived = [mutant for mutant, alive in zip(run, pool.map(judge, run), strict=True) if alive]
        finally:
            for tree in trees:
                tree.__exit__(None, None, None)
    return report(chosen, survived)


def report(chosen: Sequence[Mutant], survived: Sequence[Mutant]) -> int:
    """Print the result of each area, and what survived."""
    alive = Counter(mutant.area for mutant in survived)
    for area in sorted({mutant.area for mutant in chosen}):
        own = [mutant for mutant in chosen if mutant.area == area]
        counted = sum(not mutant.equivalent for mutant in own)
        killed = counted - alive[area]
        share = f"{killed / counted:.0%}" if counted else "-"
        print(f"{area:12} {killed:3} of {counted:3} killed, {share}; {len(own) - counted} equivalent")
    counted = sum(not mutant.equivalent for mutant in chosen)
    if counted:
        print(f"{'all':12} {counted - len(survived):3} of {counted:3} killed, {1 - len(survived) / counted:.0%}")
    for mutant in survived:
        print(f"survived: {mutant}" + (f" ({mutant.survives})" if mutant.survives else ""))
    return int(any(not mutant.survives for mutant in survived))


if __name__ == "__main__":
    sys.exit(main())
