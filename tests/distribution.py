"""Build both archives, install each in an empty environment and run the demo there: `make dist`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
VERSIONS: Final = ("3.11", "3.12", "3.13")
"""The supported versions of Python, as in pyproject.toml."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist with the installed build tools; return both."""
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def run_demo(python: str, archive: Path) -> str:
    """Install only an archive with this Python, run its command, and return the last line of the output."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run(python, "-m", "venv", str(place / "venv"))
        bin_ = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        _run(str(bin_ / "python"), "-m", "pip", "install", "--quiet", str(archive))
        (place / "empty").mkdir()
        env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        env |= {"HOME": str(place), "MEM0_DIR": str(place / ".mem0")}
        env.pop("PYTHONPATH", None)
        output = _run(str(bin_ / "langchain-mem0-scoped"), cwd=place / "empty", env=env)
        left = os.listdir(place / "empty")
        assert not left, f"the demo left files in its working directory: {left}"
        return output.strip().splitlines()[-1]


def find_pythons(programs: Sequence[str]) -> dict[str, str]:
    """Return the Pythons to use, by version: this one, the programs given, and those on the PATH."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for program in (*programs, *filter(None, (shutil.which(f"python{version}") for version in VERSIONS))):
        # pyenv puts a program for every version on the PATH. It fails if that version is not active.
        if (version := _version(program)) in VERSIONS:
            found.setdefault(version, program)
    return found


def _version(program: str) -> str | None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"Python (\d+\.\d+)", done.stdout)
    return None if version is None else version.group(1)


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def main() -> int:
    """Build into dist/ and run the demo of both archives with every Python found, and those named as arguments.

    Returns:
        The exit status: 0 if the demo succeeded everywhere.
    """
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    archives = build(folder)
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, archives))
    found = find_pythons(sys.argv[1:])
    missing = ", ".join(version for version in VERSIONS if version not in found)
    print(f"With Python {', '.join(sorted(found))}" + (f"; not found: {missing}" if missing else ""), flush=True)
    failed = False
    for version, python in sorted(found.items()):
        for archive in archives:
            last = run_demo(python, archive)
            failed = failed or last != "Every claim held."
            print(f"Python {version}, {archive.name}: {last}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
