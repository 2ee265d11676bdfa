"""`python -m benchmarks.comparison [--only NAME ...] [--cache DIR]`: progress on stderr, the table on stdout."""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import environments, report
from .packages import PACKAGES


def main() -> None:
    """Install each package, run its probe and record the answers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description="Compares memory packages.")
    names = [package.name for package in PACKAGES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--cache", type=Path, help="keep the environments here for the next run (default: a temporary directory)"
    )
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        temporary = arguments.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comparison-")))
        cache = temporary.resolve()
        cache.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            if package.name not in arguments.only:
                continue
            print(f"installing {package.title}", file=sys.stderr)
            python = environments.installed(package, cache)
            print(f"probing {package.title}", file=sys.stderr)
            answers = environments.probed(package.probe, python)
            found[package.name] = {"versions": environments.versions(package, python), "answers": answers}
    report.write(found)
    print(report.readme_table(report.recorded()))


if __name__ == "__main__":
    main()
