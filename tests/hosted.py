"""Helpers for the tests of the hosted client."""

from __future__ import annotations

import traceback
from fnmatch import fnmatchcase
from typing import Any

from langchain_mem0_scoped import ScopedMemory
from tests.platform.server import Platform

ADD = "/v3/memories/add/"
SEARCH = "/v3/memories/search/"
LIST = "/v3/memories/"
EVENT = "/v1/event/"
ONE = "/v1/memories/"
ENTITY = "/v2/entities/"


def memory_of(platform: Platform, user_id: str = "alice", **options: Any) -> ScopedMemory:
    """Build a user's memory on the platform, with a client of its own."""
    return ScopedMemory(user_id, client=platform.client(**options))


def sent(platform: Platform, method: str, path: str) -> int:
    """Count the requests that arrived. The path may have wildcards (*)."""
    return sum(request.method == method and fnmatchcase(request.path, path) for request in platform.requests)


def everything_in(error: BaseException) -> str:
    """Return everything that a log or an error tracker can show of an error: chain, notes, attributes, traceback."""
    chain: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and one not in chain:
            chain.append(one)
            todo += [one.__cause__, one.__context__]
    shown = [f"{one!r} {one!s} {one.args} {vars(one)} {getattr(one, '__notes__', '')}" for one in chain]
    return "\n".join([*shown, *traceback.format_exception(error)])
