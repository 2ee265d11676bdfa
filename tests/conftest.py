"""What holds for every test: no telemetry, no keys, no socket, nothing written outside a temporary directory."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import langchain_core  # noqa: F401  # puts warning filters of its own first; imported here, pytest's come before them
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import mem0

    from tests.support import Call

# Imports and collection leave no garbage worth looking for; pytest_collection_finish turns it on again.
gc.disable()

# mem0 reads these at import and creates its directory there, so they are set before any test module is imported.
_HOME = tempfile.mkdtemp(prefix="langchain-mem0-scoped-")
os.environ["HOME"] = _HOME
os.environ["MEM0_DIR"] = str(Path(_HOME, ".mem0"))
os.environ["MEM0_TELEMETRY"] = "false"
# No test uses TLS. Without this, each HTTP client would spend 20 to 40 ms to read every certificate authority.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = tempfile.mkdtemp(dir=_HOME)

# ci: the same examples on every run and machine. dev: fresh ones, to go looking for new failures.
# No deadline in either: a commit waits for the disk.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", max_examples=500, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# What needs a browser is a group of its own: make browser.
collect_ignore = [] if importlib.util.find_spec("playwright") else ["browser"]


_numbers = count()


def pytest_collection_finish() -> None:
    """Keep what is imported and collected out of every later garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests in integration/, and those of a hosted client, talk to servers on this machine and to nothing else."""
    integration = Path(__file__).parent / "integration"
    for item in items:
        kind = (
            item.callspec.params.get("kind")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if item.path.is_relative_to(integration) or getattr(kind, "hosted", False):
            item.add_marker(pytest.mark.allow_hosts(["localhost", "127.0.0.1", "::1"]))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key chooses a client unseen, and the embedded default is a file of this test alone."""
    monkeypatch.delenv("MEM0_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # Clients of other tests are not this test's, and a warning is an error here.
    monkeypatch.setattr("langchain_mem0_scoped.open_clients._open", WeakValueDictionary())
    monkeypatch.setattr("langchain_mem0_scoped.backends.default._warned", True)
    # Not in tmp_path, which would make two directories for each test, thousands of which have no file.
    monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(Path(_HOME, "default", str(next(_numbers)), "memory.db")))


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """No commit of the embedded store waits for the disk: no test sees what survives a power cut."""
    from tests.worlds import unsynced

    with pytest.MonkeyPatch.context() as patch:
        unsynced(patch)
        yield


@pytest.fixture(scope="module", params=["embedded", "qdrant"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    """One client of each kind for a whole file; tests keep apart by taking new users."""
    from tests.support import opened

    with opened(request.param, tmp_path_factory.mktemp(request.param)) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """`call(memory, "search", "tea")`: as it is, or through the async twin."""
    from tests.support import Call

    return Call(request.param)
