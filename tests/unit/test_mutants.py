"""The list of mutants fits the code: each changes one place, and names tests that exist. `make mutants` runs them."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.mutants.run import FOLDER, PACKAGE, Mutant, all_mutants
from tests.support import ROOT

AREAS: Final = {"scope", "ownership", "erasure", "engine", "turns", "middleware", "storage", "ranking"}
MUTANTS: Final = all_mutants()


def test_every_area_has_enough() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == AREAS
    counts = Counter(mutant.area for mutant in MUTANTS)
    assert {area: count for area, count in counts.items() if count < 25} == {}


def test_each_changes_one_place_and_still_parses() -> None:
    @cache
    def source_of(file: str) -> tuple[str, str]:
        source = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
        return source, ast.dump(ast.parse(source))

    for mutant in MUTANTS:
        source, tree = source_of(mutant.file)
        changed = mutant.applied_to(source)
        assert ast.dump(ast.parse(changed)) != tree, str(mutant)
        assert len(changed.splitlines()) - len(source.splitlines()) in (0, -1), str(mutant)


def test_no_two_are_the_same() -> None:
    assert {str(mutant): count for mutant, count in Counter(MUTANTS).items() if count > 1} == {}


def test_the_tests_they_name_exist() -> None:
    named = {test.partition("::")[0] for mutant in MUTANTS for test in mutant.tests}
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize(
    ("mutant", "problem"),
    [
        (Mutant("a", "f", "c", "d", ()), "found 0 times"),
        (Mutant("a", "f", "b", "d", ()), "found 2 times"),
        (Mutant("a", "f", "a", "d", (), after="b"), "found 0 times"),
        (Mutant("a", "f", "a", "d", (), after="x"), "found 0 times"),
    ],
)
def test_one_that_fits_no_single_place_is_rejected(mutant: Mutant, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        mutant.applied_to("a b b")


def test_after_chooses_the_place(tmp_path: Path) -> None:
    assert Mutant("a", "f", "b", "d", (), after="b b").applied_to("a b b b") == "a d b b"
