"""Run other projects' chat history tests against our history: `make upstream`.

It downloads their source distributions into a temporary directory, extracts a few test files, and runs these with our
history under the names of theirs (`substitutes.py`). `excluded.py` lists the cases that do not apply, with the reason.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import postgres

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """Some test files of one project.

    Attributes:
        project: Its name on the package index.
        version: Which version; None for the installed one.
        tests: Files and folders to run.
        beside: Files that the tests import.
        needs_postgres: Whether they need a PostgreSQL server.
    """

    project: str
    version: str | None
    tests: tuple[str, ...]
    beside: tuple[str, ...] = ()
    needs_postgres: bool = False


SUITES: Final = (
    Suite(
        "langchain-core",
        None,
        ("tests/unit_tests/runnables/test_history.py", "tests/unit_tests/chat_history/test_chat_history.py"),
        ("tests/__init__.py", "tests/unit_tests/__init__.py", "tests/unit_tests/pydantic_utils.py"),
    ),
    Suite(
        "langchain-community",
        "0.4.2",
        (
            "tests/unit_tests/chat_message_histories/test_file_chat_message_history.py",
            "tests/unit_tests/chat_message_histories/test_sql.py",
            "tests/integration_tests/chat_message_histories/test_tidb.py",
        ),
    ),
    Suite(
        "langchain-postgres",
        "0.0.19",
        ("tests/unit_tests/v1/test_chat_histories.py",),
        ("tests/__init__.py", "tests/utils.py"),
        needs_postgres=True,
    ),
)


def main() -> int:
    """Run every suite; return how many failed."""
    failed = [suite.project for suite in SUITES if not passes(suite)]
    print(f"upstream suites that failed: {', '.join(failed)}" if failed else "all upstream suites pass")
    return len(failed)


def passes(suite: Suite) -> bool:
    """Fetch and run one suite."""
    version = suite.version or importlib.metadata.version(suite.project)
    print(f"\n== {suite.project} {version}", flush=True)
    if suite.needs_postgres and postgres.binaries() is None:
        # In CI this is a failure; elsewhere the other suites still run.
        print("NOT RUN: there is no PostgreSQL server on this machine (Debian and Ubuntu: apt-get install postgresql)")
        return "CI" not in os.environ
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upstream-")))
        extract(fetch(suite.project, version, folder), (*suite.tests, *suite.beside), folder / "suite")
        environment = stack.enter_context(servers(suite, folder))
        return pytest(suite, folder / "suite", environment)


def fetch(project: str, version: str, folder: Path) -> Path:
    """Download a source distribution with pip."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", project]
    subprocess.run([*pip, "--dest", str(folder), f"{project}=={version}"], check=True, timeout=150)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def extract(archive: Path, names: tuple[str, ...], target: Path) -> None:
    """Extract a few files of an archive."""
    with tarfile.open(archive) as tar:
        root = tar.getnames()[0].partition("/")[0]
        for name in names:
            file = tar.extractfile(f"{root}/{name}")
            assert file is not None, name
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


@contextmanager
def servers(suite: Suite, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment variables a suite reads: TiDB's tests read a URL, langchain-postgres's its parts."""
    if not suite.needs_postgres:
        yield {"TEST_TiDB_CHAT_URL": f"sqlite:///{folder / 'tidb.db'}"}
        return
    with postgres.cluster() as socket:
        yield {
            "POSTGRES_USER": postgres.USER,
            "POSTGRES_DB": postgres.DATABASE,
            # A socket's directory, as libpq takes it in a URL.
            "POSTGRES_HOST": str(socket).replace("/", "%2F"),
        }


def pytest(suite: Suite, folder: Path, environment: dict[str, str]) -> bool:
    """Run a suite in its own process, without network, in which `tests` is their package."""
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\ntimeout = 60\n"
        "addopts = -v -rxX -p substitutes -p no:cacheprovider --strict-markers --disable-socket --allow-unix-socket\n"
    )
    paths = os.pathsep.join([str(folder), str(HERE), str(HERE.parents[1])])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "pytest.ini", "--rootdir", str(folder), *suite.tests],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "UPSTREAM_PROJECT": suite.project, "HOME": str(folder)} | environment,
        check=False,
        timeout=170,
    )
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
