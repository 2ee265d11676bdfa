"""The cost of a scope: its extra time over mem0's own search, and the time to build one."""

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from langchain_mem0_scoped import ScopedMemory, local_memory

from . import corpus, stores
from .measure import Result, Settings, in_turn, median, seconds

_USERS: Final = 50
_PAIRS: Final = 3_000
_THRESHOLD: Final = 0.0
"""Passed on both sides, whose defaults may differ, so that both find five memories."""
_BUILT_AT_ONCE: Final = 1_000
_IO_EVENTS: Final = ("open", "os.", "sqlite3.", "socket.", "subprocess.", "shutil.", "import")


def search(_: Settings) -> Iterator[Result]:
    """Time pairs of the same search, with and without the scope. The user's rows are in the cache for both."""
    random = Random(3)
    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "memory.db")
        scopes = [ScopedMemory(stores.user_name(user), client=client) for user in range(_USERS)]
        for user, scope in enumerate(scopes):
            scope.add(corpus.memories(user, stores.PER_USER))
            scope.search("anything")
        asked = [(random.choice(scopes), query) for query in corpus.questions("pairs", _PAIRS)]

        def direct(user_id: str, query: str) -> object:
            return client.search(query, filters={"user_id": user_id}, top_k=5, threshold=_THRESHOLD)

        scoped, bare = in_turn(
            [partial(scope.search, query, threshold=_THRESHOLD) for scope, query in asked],
            [partial(direct, scope.user_id, query) for scope, query in asked],
            block=1,
        )
        client.close()
    differences = [one - other for one, other in zip(scoped, bare, strict=True)]
    detail = {"p50 scoped, µs": median(scoped) * 1e6, "p50 direct, µs": median(bare) * 1e6}
    title = "extra time of ScopedMemory.search over mem0.Memory.search, in pairs"
    yield Result(title, median(differences) * 1e6, "µs", 30, detail=detail)


def build(_: Settings) -> Iterator[Result]:
    """Build scopes on an open client, while an audit hook counts uses of files, sockets and imports."""
    events: list[str] = []
    listening = False

    def hook(event: str, _: tuple[object, ...]) -> None:
        # A hook cannot be removed.
        if listening and event.startswith(_IO_EVENTS):
            events.append(event)

    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "memory.db")
        names = [stores.user_name(user) for user in range(_BUILT_AT_ONCE)]

        def build_all() -> None:
            for name in names:
                ScopedMemory(name, client=client)

        sys.addaudithook(hook)
        listening = True
        build_all()
        listening = False
        times = [seconds(build_all) / _BUILT_AT_ONCE for _ in range(15)]
        client.close()
    yield Result("building a ScopedMemory on a shared client", median(times) * 1e6, "µs", 20)
    yield Result("building a ScopedMemory: files, sockets, databases, imports", len(events) / _BUILT_AT_ONCE, "", 0)
