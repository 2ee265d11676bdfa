"""Builds a separate virtual environment for each package and runs its probe there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .packages import CONSTRAINTS, ROOT, Package

_VERSIONS: Final = (
    "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
)
_TIME: Final = 900


def installed(package: Package, cache: Path) -> Path:
    """Return the Python of a package's environment; build the environment if none matches."""
    folder = cache / package.name
    python, marker = folder / "bin" / "python", folder / "complete.json"
    wanted = {"install": package.install, "python": sys.version, "constraints": CONSTRAINTS.read_text(encoding="utf-8")}
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == json.loads(json.dumps(wanted)):
        return python
    venv.create(folder, clear=True, with_pip=True)
    # All environments use the versions of this project's dependencies.
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--quiet",
        "--constraint",
        str(CONSTRAINTS),
        *package.install,
    ]
    subprocess.run(pip, check=True, timeout=_TIME)
    marker.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def versions(package: Package, python: Path) -> dict[str, str]:
    """Return the installed versions of the package's distributions."""
    return dict(json.loads(_output([str(python), "-c", _VERSIONS, *package.distributions], ROOT, {})))


def probed(probe: str, python: Path) -> dict[str, dict[str, str]]:
    """Run a probe in an empty folder, with an environment that contains no key."""
    with tempfile.TemporaryDirectory(prefix="comparison-") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        # The probes come from the working tree; the environment contains only its one package.
        bare = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "MEM0_DIR": str(home / "mem0"),
            "MEM0_TELEMETRY": "false",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        module = f"{__package__}.probes.{probe}"
        return dict(json.loads(_output([str(python), "-m", module, str(folder / "asked")], folder, bare)))


def _output(command: list[str], folder: Path, environment: Mapping[str, str]) -> Any:
    run = subprocess.run(
        command, cwd=folder, env=dict(environment) or None, capture_output=True, text=True, timeout=_TIME, check=False
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {run.returncode}: {run.stderr[-2000:]}")
    return run.stdout
