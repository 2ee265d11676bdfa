"""Install what would be published into empty environments, and run the walk-through there: `make dist`."""

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
"""The versions of Python that pyproject.toml names."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist with what is installed here; return both."""
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def walk_through(python: str, archive: Path) -> str:
    """Install an archive and nothing else with this Python, run its command, and return the last line it prints."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run(python, "-m", "venv", str(place / "venv"))
        bin_ = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        _run(str(bin_ / "python"), "-m", "pip", "install", "--quiet", str(archive))
        (place / "empty").mkdir()
        env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        env |= {"HOME": str(place), "MEM0_DIR": str(place / ".mem0")}
        env.pop("PYTHONPATH", None)
        said = _run(str(bin_ / "langchain-mem0-scoped"), cwd=place / "empty", env=env)
        left = os.listdir(place / "empty")
        assert not left, f"the walk-through left files where it ran: {left}"
        return said.strip().splitlines()[-1]


def pythons(programs: Sequence[str]) -> dict[str, str]:
    """Pythons to try, by version: this one, those named, and those on the path."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for program in (*programs, *filter(None, (shutil.which(f"python{version}") for version in VERSIONS))):
        # pyenv puts a program of every version on the path, which fails where that version is not chosen.
        if (version := _version(program)) in VERSIONS:
            found.setdefault(version, program)
    return found


def _version(program: str) -> str | None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    said = re.match(r"Python (\d+\.\d+)", done.stdout)
    return None if said is None else said.group(1)


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def main() -> int:
    """Build into dist/, then try both archives with every Python of this machine, and those named as arguments.

    Returns:
        0 where every walk-through held: the exit status.
    """
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    archives = build(folder)
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, archives))
    found = pythons(sys.argv[1:])
    missing = ", ".join(version for version in VERSIONS if version not in found)
    print(f"With Python {', '.join(sorted(found))}" + (f"; not found: {missing}" if missing else ""), flush=True)
    failed = False
    for version, python in sorted(found.items()):
        for archive in archives:
            last = walk_through(python, archive)
            failed = failed or last != "Every claim held."
            print(f"Python {version}, {archive.name}: {last}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
