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
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "langchain_mem0_scoped"
COPIED: Final = (PACKAGE, "tests", "benchmarks", "docs", "notebooks", "pyproject.toml", "Makefile", "*.md")


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


class Tree:
    """A copy of the repository in a temporary folder, and a worker that runs tests in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for pattern in COPIED:
            for path in ROOT.glob(pattern):
                if path.is_dir():
                    shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(path, folder / path.name)
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.worker"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the worker."""
        self._worker.communicate()

    def tests_pass(self, tests: Sequence[str]) -> bool:
        """Run tests up to the first failure.

        Raises:
            RuntimeError: pytest was called wrongly, or found no test.
        """
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        print(json.dumps(tests), file=self._worker.stdin, flush=True)
        code = int(self._worker.stdout.readline())
        if code in (4, 5):
            raise RuntimeError(f"pytest {' '.join(tests)}\n" + (self.folder / "pytest.log").read_text(errors="replace"))
        return code == 0

    def survives(self, mutant: Mutant) -> bool:
        """Apply a mutant, run its tests, and take it back."""
        path = self.folder / PACKAGE / mutant.file
        source = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied_to(source), encoding="utf-8")
        try:
            return self.tests_pass(mutant.tests)
        finally:
            path.write_text(source, encoding="utf-8")


@contextmanager
def trees(count: int) -> Iterator[SimpleQueue[Tree]]:
    """Copy the repository so many times; a thread takes a tree and puts it back."""
    with ExitStack() as stack:
        free: SimpleQueue[Tree] = SimpleQueue()
        for _ in range(count):
            tree = Tree(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-"))))
            stack.callback(tree.close)
            free.put(tree)
        yield free


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
    counted = [mutant for mutant in chosen if not mutant.equivalent]
    with trees(options.processes) as free, ThreadPoolExecutor(options.processes) as threads:

        def borrowed(act: Callable[[Tree], bool]) -> bool:
            tree = free.get()
            try:
                return act(tree)
            finally:
                free.put(tree)

        def judge(mutant: Mutant) -> bool:
            alive = borrowed(lambda tree: tree.survives(mutant))
            print(f"{'SURVIVED' if alive else 'killed  '} {mutant}", flush=True)
            return alive

        tests = sorted({test for mutant in counted for test in mutant.tests})
        passing = threads.map(lambda test: borrowed(lambda tree: tree.tests_pass([test])), tests)
        if failing := [test for test, passes in zip(tests, passing, strict=True) if not passes]:
            print(f"These fail without any change: {failing}")
            return 2
        alive = threads.map(judge, counted)
        return report(chosen, [mutant for mutant, survives in zip(counted, alive, strict=True) if survives])


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
