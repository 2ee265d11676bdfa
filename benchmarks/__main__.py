"""`python -m benchmarks [--only NAME ...] [--users 100000] [--cache DIR]`: progress on stderr, the table on stdout."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from . import adding, chains, event_loop, importing, many_users, one_user, overhead, peers, report, threads
from .measure import Result, Settings

_USERS: Final = 100_000

BENCHMARKS: Final[dict[str, Callable[[Settings], Iterator[Result]]]] = {
    "search": many_users.search,
    "qdrant": peers.qdrant,
    "inmemorystore": peers.in_memory_store,
    "overhead": overhead.search,
    "erase": many_users.erase,
    "one-user": one_user.search,
    "add": adding.add,
    "build": overhead.build,
    "importing": importing.imports,
    "turn": chains.turn,
    "transcript": chains.transcript,
    "event-loop": event_loop.hold,
    "threads": threads.threads,
}


def main() -> None:
    """Run the benchmarks and print the results; results at full size are also written to the files."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures the package against its targets."
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--users",
        type=int,
        default=_USERS,
        help="users of the big store, 1,000 or more (default: %(default)s); results of any other size are only printed",
    )
    parser.add_argument("--cache", type=Path, help="keep built stores here (default: a temporary directory)")
    options = parser.parse_args()
    if options.users < many_users.FEW:
        parser.error(f"--users must be {many_users.FEW} or more")
    results: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        cache = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache.mkdir(parents=True, exist_ok=True)
        settings = Settings(users=options.users, cache=cache)
        for name in options.only or BENCHMARKS:
            results[name] = list(BENCHMARKS[name](settings))
            print(report.table(results[name]), file=sys.stderr)
    if options.users == _USERS:
        report.write(results)
    print(report.table([result for several in results.values() for result in several]))


if __name__ == "__main__":
    main()
