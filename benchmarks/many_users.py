"""Search and erasure in a store of many users, compared with a store of 1,000 users."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory

from . import corpus, stores
from .measure import Result, Settings, in_turn, pooled, ratio_of_medians

FEW: Final = 1_000
_BATCHES: Final = 7
_SEARCHES: Final = 300
_WARM_UP: Final = 30
_ERASED: Final = 20
"""Users erased per batch."""


def search(settings: Settings) -> Iterator[Result]:
    """Time searches. Each one is for another user, whose rows are not in the client's cache."""
    big, small = _stores(settings)
    random = Random(1)
    batches = []
    for batch in tqdm(range(_BATCHES), desc="search, many users", unit="batch"):
        clients = _opened(big), _opened(small)
        queries = corpus.questions(f"many/{batch}", _SEARCHES)
        sides = [
            [partial(_memory(client, user).search, query) for user, query in zip(chosen, queries, strict=True)]
            for client, chosen in (
                (clients[0], random.sample(range(settings.users), _SEARCHES)),
                (clients[1], random.sample(range(FEW), _SEARCHES)),
            )
        ]
        timed = in_turn(*sides)
        batches.append((timed[0][_WARM_UP:], timed[1][_WARM_UP:]))
        for client in clients:
            client.close()
    p50 = {
        f"p50 at {users:,} users, ms": pooled(batches, side) * 1e3 for side, users in enumerate((settings.users, FEW))
    }
    title = f"search p50, {settings.users:,} users of {stores.PER_USER} memories"
    yield Result(f"{title}, compared with {FEW:,} users", ratio_of_medians(batches), "x", 2.5, detail=p50)
    yield Result(title, pooled(batches, 0) * 1e3, "ms", 1.0)


def erase(settings: Settings) -> Iterator[Result]:
    """Time erasures of random users in both stores alternately. The users are added again afterwards."""
    paths = _stores(settings)
    random = Random()
    batches = []
    for _ in tqdm(range(_BATCHES), desc="delete_all, many users", unit="batch"):
        clients = _opened(paths[0]), _opened(paths[1])
        chosen = random.sample(range(settings.users), _ERASED), random.sample(range(FEW), _ERASED)
        try:
            timed = in_turn(*(list(_erasures(client, users)) for client, users in zip(clients, chosen, strict=True)))
        finally:
            for client, users in zip(clients, chosen, strict=True):
                for user in users:
                    if not _memory(client, user).count():
                        stores.add_user(client, user)
                # Otherwise the first erasure of the next batch would move the new pages into the file.
                client.purge()
                client.close()
        batches.append((timed[0], timed[1]))
    p50 = {
        f"p50 at {users:,} users, ms": pooled(batches, side) * 1e3 for side, users in enumerate((settings.users, FEW))
    }
    title = f"delete_all of one user, {settings.users:,} users compared with {FEW:,}"
    yield Result(title, ratio_of_medians(batches), "x", 2.5, detail=p50)


def _stores(settings: Settings) -> tuple[Path, Path]:
    return stores.store_of(settings.users, settings.cache), stores.store_of(FEW, settings.cache)


def _opened(path: Path) -> EngineMemory:
    # Before each batch: some systems free memory within minutes if nobody reads it.
    stores.warm(path)
    return local_memory(path)


def _memory(client: EngineMemory, user: int) -> ScopedMemory:
    return ScopedMemory(stores.user_name(user), client=client)


def _erasures(client: EngineMemory, users: list[int]) -> Iterator[Callable[[], object]]:
    for user in users:
        yield _memory(client, user).delete_all
