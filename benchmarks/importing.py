"""The time to import the package, compared with the two classes of langchain-core that it extends."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tqdm import tqdm

import langchain_mem0_scoped as package

from .measure import Result, Settings, median

_PAIRS: Final = 25
_NAMES: Final = ("ScopedMemory", "ScopedChatMessageHistory", "ScopedMemoryRetriever")
_CORE: Final = (
    "from langchain_core.retrievers import BaseRetriever\n"
    "from langchain_core.chat_history import BaseChatMessageHistory\n"
)
# Only the import is timed. The start of the interpreter would bring every ratio nearer to 1.
_TIMED: Final = (
    "import sys, time\nstart = time.perf_counter()\n{imports}\nspent = time.perf_counter() - start\n"
    "print(spent, 'mem0' in sys.modules)"
)


def imports(_: Settings) -> Iterator[Result]:
    """Time both imports alternately, each in a new process."""
    exported = [name for name in _NAMES if name in package.__all__]
    ours = f"from langchain_mem0_scoped import {', '.join(exported)}"
    batches: list[tuple[float, float]] = []
    with_mem0 = 0
    with tempfile.TemporaryDirectory() as folder:
        for pair in tqdm(range(_PAIRS + 1), desc="importing", unit="pair"):
            own, loaded = _import(ours, folder)
            core, _loaded = _import(_CORE, folder)
            with_mem0 += loaded
            # The first pair compiles the modules.
            if pair:
                batches.append((own, core))
    own_p50, core_p50 = (median([batch[side] for batch in batches]) for side in (0, 1))
    yield Result(
        f"importing {', '.join(exported)}, compared with BaseRetriever and BaseChatMessageHistory",
        median([own / core for own, core in batches]),
        "x",
        1.3,
        detail={"p50 of this package, ms": own_p50 * 1e3, "p50 of langchain-core, ms": core_p50 * 1e3},
    )
    yield Result("importing them: times mem0 was loaded", with_mem0, "", 0)


def _import(imports: str, folder: str) -> tuple[float, bool]:
    # Compiled files are kept, as for an installed package, whatever the environment says.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    spent, loaded = subprocess.run(
        [sys.executable, "-c", _TIMED.format(imports=imports)],
        env=environment,
        cwd=Path(package.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return float(spent), loaded == "True"
