"""Runs a probe: each question in its own folder, without a network, and the answers as JSON on stdout."""

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
    """One cell: a word or two, and the observation behind it."""

    answer: str
    seen: str


Probe = Callable[[Path], Answer]


def main(probes: Mapping[str, Probe]) -> None:
    """Run every probe in a subfolder of the folder that the command line names, and print the answers."""
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    stay_offline()
    # Output of a package must not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        answers = {name: ask(probe, folder / name)._asdict() for name, probe in probes.items()}
    print(json.dumps(answers, ensure_ascii=False, indent=1), flush=True)
    # Clients and stores may have threads that wait for a server that does not exist.
    os._exit(0)


def ask(probe: Probe, folder: Path) -> Answer:
    """Run one probe. If it crashes, the answer is "failed"."""
    folder.mkdir(parents=True)
    try:
        return probe(folder)
    except Exception as error:
        traceback.print_exc()
        return Answer(f"failed: {type(error).__name__}", str(error)[:300])


def not_asked(why: str) -> Probe:
    """Return a probe for a question that does not apply or cannot be run, with the reason."""
    return lambda folder: Answer(NOT_ASKED, why)


def stay_offline() -> None:
    """Allow connections to the loopback only: a package that needs a network fails, as it would without one."""
    for name, place in (("connect", 0), ("connect_ex", 0)):
        original = getattr(socket.socket, name)
        setattr(socket.socket, name, _only_loopback(original, place))
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in (None, *_LOOPBACK):
            raise OSError("the probe runs without a network")
        return resolve(host, *rest, **options)

    socket.getaddrinfo = resolve_here


def _only_loopback(original: Callable[..., Any], place: int) -> Callable[..., Any]:
    def call(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[place]
        if isinstance(address, tuple) and address[0] not in _LOOPBACK:
            raise OSError("the probe runs without a network")
        return original(self, *arguments)

    return call
