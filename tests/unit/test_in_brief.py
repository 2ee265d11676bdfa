"""The README's figures and picture are those that were measured last."""

import re
from pathlib import Path

import pytest

from benchmarks import in_brief
from tests.support import ROOT


@pytest.mark.parametrize("number", [0, 1], ids=["speed", "recall"])
def test_the_tables_of_the_readme_are_those_of_the_last_run(number: int) -> None:
    assert in_brief.tables()[number] in (ROOT / "README.md").read_text(encoding="utf-8")


def texts(path: Path) -> list[str]:
    return re.findall("<text[^>]*>([^<]+)<", path.read_text(encoding="utf-8"))


def test_the_picture_of_the_readme_is_that_of_the_last_run(tmp_path: Path) -> None:
    in_brief.draw(tmp_path / "drawn.svg")
    drawn = texts(tmp_path / "drawn.svg")
    assert drawn == texts(ROOT / "benchmarks" / "measured.svg")
    for figures in in_brief.bars().values():
        assert {text for name, value in figures.items() for text in (name, in_brief.label(value))} <= set(drawn)
