"""The comparison with other memories: what is written of it is what was found, and our own cells still hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.comparison import report
from benchmarks.comparison.packages import LEFT_OUT, OURS, PACKAGES
from benchmarks.comparison.probes import asking, material
from benchmarks.comparison.questions import QUESTIONS

README = Path(__file__).parents[2] / "README.md"
PROBES = Path(report.__file__).parent / "probes"


def test_every_package_answered_every_question() -> None:
    recorded = report.recorded()
    assert list(recorded) == [package.name for package in PACKAGES]
    for package in PACKAGES:
        one = recorded[package.name]
        assert set(one) == {"at", "python", "sqlite", "system", "versions", "answers"}
        assert set(one["versions"]) == set(package.distributions)
        assert list(one["answers"]) == [question.name for question in QUESTIONS]
        for cell in one["answers"].values():
            assert set(cell) == {"answer", "seen"}
            assert cell["answer"]
            assert cell["seen"]
            assert not cell["answer"].startswith("failed")


def test_versions_are_those_that_are_installed() -> None:
    for package in PACKAGES:
        if package.name != OURS:
            asked = {one.partition("[")[0].partition("=")[0]: one.rpartition("=")[2] for one in package.install}
            assert report.recorded()[package.name]["versions"] == asked


def test_the_page_says_what_was_recorded() -> None:
    assert report.MARKDOWN.read_text(encoding="utf-8") == report.markdown(report.recorded())


def test_the_readme_shows_the_same_table() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme.count(report.MARKER) == 1
    assert report.readme_table(report.recorded()) in readme.partition(report.MARKER)[2]


def test_the_readme_table_has_no_more_than_six_columns_of_answers() -> None:
    head, *_ = report.readme_table(report.recorded()).splitlines()
    assert head.count("|") - 2 <= 6
    assert not {package.title for package in PACKAGES} & set(LEFT_OUT)


@pytest.mark.parametrize("question", [one.name for one in QUESTIONS if one.live])
def test_our_own_cell_still_holds(question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain.agents")
    from benchmarks.comparison.probes import ours

    # A probe may name the file of the default store: it is this test's alone.
    monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / "default.db"))
    found = asking.ask(ours.PROBES[question], tmp_path / question)
    assert found.answer == report.recorded()[OURS]["answers"][question]["answer"], found.seen


def test_a_probe_that_crashes_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def crashing(folder: Path) -> asking.Answer:
        raise RuntimeError("no such store")

    assert asking.ask(crashing, tmp_path / "asked") == ("failed: RuntimeError", "no such store")
    assert "RuntimeError" in capsys.readouterr().err


def test_what_is_left_is_found_in_whatever_file_it_lies(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "old.db").write_bytes(b"\0zq001alice\0zq002alice")
    words = [word for word, _ in material.marked("u_alice")]
    assert material.left_in(tmp_path, words) == {str(Path("below", "old.db")): 2}


def test_a_lost_field_of_a_message_is_named() -> None:
    given = material.messages()
    assert material.compared(given, material.messages())[0]
    given[3].artifact = None
    assert material.compared(material.messages(), given) == (False, "changed or lost: artifact")


def test_attempts_report_which_of_them_read_another_users_memory() -> None:
    def refused() -> str:
        raise ValueError

    tried = material.attempted({"a": lambda: "hers", "b": lambda: "his", "c": refused}, lambda result: result == "hers")
    assert tried == ("yes: a", "a: hers; b: not hers; c: ValueError")


def test_each_probe_answers_for_one_package() -> None:
    assert all((PROBES / f"{package.probe}.py").is_file() for package in PACKAGES)
