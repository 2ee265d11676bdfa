"""What would be published: the wheel holds the package and nothing else, the sdist all it takes to work on it."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests import distribution
from tests.distribution import ROOT

PACKAGE = "langchain_mem0_scoped"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return distribution.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def metadata(archives: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(archives[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(wheel.read(name))


def sources(folder: str, pattern: str = "*.py") -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_holds_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        beside = {name.partition(".dist-info/")[2] for name in wheel.namelist() if ".dist-info/" in name}
    assert names == sources(PACKAGE) | {f"{PACKAGE}/py.typed"}
    assert beside == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_sdist_holds_all_it_takes_to_work_on_it(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = sources(PACKAGE) | sources("tests") | sources("benchmarks") | sources("notebooks", "*.ipynb")
    wanted |= {path.name for path in ROOT.glob("*.md")}
    wanted |= {"Makefile", "LICENSE", "constraints.txt", "pyproject.toml", ".ci/run", f"{PACKAGE}/py.typed"}
    wanted |= sources("tests", "*.json") | sources("docs", "*.svg") | sources("benchmarks", "*.svg")
    assert wanted - names == set()
    assert not [name for name in names if name.endswith((".db", ".pyc", ".env")) or ".venv" in name]


def test_its_metadata_say_what_it_is(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["Name"] == project["name"]
    assert metadata["Version"] == project["version"]
    assert metadata["Summary"] == project["description"]
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(str(metadata["Requires-Python"]).split(",")) == {">=3.11", "<3.14"}
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    versions = {line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line}
    assert versions == set(distribution.VERSIONS)


def test_what_needs_nothing_extra_stays_small(metadata: Message) -> None:
    core = [line.split(";")[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(core) == 6
    assert not [
        line for line in core if line.startswith(("pandas", "matplotlib", "ipykernel", "langchain<", "langchain>"))
    ]


def test_the_version_has_an_entry_in_the_changelog(metadata: Message) -> None:
    assert f"## {metadata['Version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
