"""How a probe runs: each question in a folder of its own, no network, and the answers as JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

NOT_ASKED: Final = "\N{EN DASH}"
"""The cell of a question that does not apply, or that could not be run."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Answer(NamedTuple):
    """One cell: a word or two, and what was seen that says so."""

    answer: str
    seen: str


Probe = Callable[[Path], Answer]


def main(probes: Mapping[str, Probe]) -> None:
    """Ask every question of the package below the folder that the command line names, and print what it answered."""
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    stay_offline()
    # Whatever a package prints must not come between the lines of the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        answers = {name: ask(probe, folder / name)._asdict() for name, probe in probes.items()}
    print(json.dumps(answers, ensure_ascii=False, indent=1), flush=True)
    # Clients and stores may have threads that wait for a server which is not there.
    os._exit(0)


def ask(probe: Probe, folder: Path) -> Answer:
    """Ask one question. A probe that crashes has not found anything out, and says so."""
    folder.mkdir(parents=True)
    try:
        return probe(folder)
    except Exception as error:
        traceback.print_exc()
        return Answer(f"failed: {type(error).__name__}", str(error)[:300])


def not_asked(why: str) -> Probe:
    """Leave a question open, and say why."""
    return lambda folder: Answer(NOT_ASKED, why)


def stay_offline() -> None:
    """From here on only the loopback can be reached: a package that needs more fails, as it would without a network."""
    for name, place in (("connect", 0), ("connect_ex", 0)):
        original = getattr(socket.socket, name)
        setattr(socket.socket, name, _guarded(original, place))
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in (None, *_LOOPBACK):
            raise OSError("the probe runs without a network")
        return resolve(host, *rest, **options)

    socket.getaddrinfo = resolve_here


def _guarded(original: Callable[..., Any], place: int) -> Callable[..., Any]:
    def call(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[place]
        if isinstance(address, tuple) and address[0] not in _LOOPBACK:
            raise OSError("the probe runs without a network")
        return original(self, *arguments)

    return call
