"""The same users, texts and queries on other stores: mem0's default (local Qdrant) and LangGraph's InMemoryStore."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

from langgraph.store.memory import InMemoryStore
from mem0 import Memory
from mem0.utils.lemmatization import lemmatize_for_bm25
from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from langchain_mem0_scoped.engine.memory import EngineMemory

from . import corpus, stores
from .measure import Result, Settings, in_turn, pooled, ratio_of_medians

_USERS: Final = 1_000
_K: Final = 5
_LOADED_AT_ONCE: Final = 500
_WARM_UP: Final = 10


def qdrant(settings: Settings) -> Iterator[Result]:
    """Compare with mem0 and its default store, local Qdrant."""
    ours = stores.store_of(_USERS, settings.cache)
    client = _loaded_qdrant(settings.cache / f"qdrant-{_USERS}")
    try:

        def search(user: int, query: str) -> object:
            return client.search(query, filters={"user_id": stores.user_name(user)}, top_k=_K)["results"]

        yield _compared(
            ours, "mem0's default store (local Qdrant)", search, batches=6, searches=20, often=20, target=800
        )
    finally:
        client.close()
        client.vector_store.client.close()


def in_memory_store(settings: Settings) -> Iterator[Result]:
    """Compare with LangGraph's InMemoryStore, with one namespace for each user."""
    ours = stores.store_of(_USERS, settings.cache)
    store = InMemoryStore(index={"dims": OfflineEmbeddings.dims, "embed": OfflineEmbeddings(), "fields": ["text"]})
    for user in tqdm(range(_USERS), desc="loading InMemoryStore", unit="user"):
        for text in corpus.memories(user, stores.PER_USER):
            store.put((stores.user_name(user), "memories"), str(uuid4()), {"text": text})

    def search(user: int, query: str) -> object:
        return store.search((stores.user_name(user), "memories"), query=query, limit=_K)

    yield _compared(ours, "LangGraph's InMemoryStore", search, batches=7, searches=200, often=1, target=3)


def _compared(
    path: Path,
    peer: str,
    search: Callable[[int, str], object],
    batches: int,
    searches: int,
    often: int,
    target: float,
) -> Result:
    """Run the same searches alternately: on the peer, on a client with every user in its cache, on a new client.

    Both peers keep all vectors in memory, so the ratio is that of the client with a full cache. The details also give
    the time of a user's first search in a new client.
    """
    random = Random(2)
    used = local_memory(path)
    for user in range(_USERS):
        ScopedMemory(stores.user_name(user), client=used).search("anything")
    timed = []
    found = [0, 0]
    for batch in tqdm(range(batches), desc=f"search, {peer}", unit="batch"):
        fresh = local_memory(path)
        several = (searches + _WARM_UP) * often
        users = random.sample(range(_USERS), several)
        asked = list(zip(users, corpus.questions(f"{peer}/{batch}", several), strict=True))
        sides = in_turn(
            [partial(search, user, query) for user, query in asked[::often]],
            [partial(_ours, used, user, query) for user, query in asked],
            [partial(_ours, fresh, user, query) for user, query in asked],
        )
        timed.append(tuple(side[_WARM_UP * len(side) // len(sides[0]) :] for side in sides))
        found[0] += sum(_length(search(user, query)) for user, query in asked[:3])
        found[1] += sum(_length(_ours(used, user, query)) for user, query in asked[:3])
        fresh.close()
    used.close()
    if not all(found):
        raise RuntimeError("a store that finds nothing cannot be compared with")
    titles = "p50 of the peer, ms", "p50 of this package, ms", "p50 of this package, first search of a user, ms"
    detail = {title: pooled(timed, side) * 1e3 for side, title in enumerate(titles)}
    ratio = ratio_of_medians([(batch[0], batch[1]) for batch in timed])
    title = f"search p50 at {_USERS:,} users, times faster than {peer}"
    return Result(title, ratio, "x", target, at_most=False, detail=detail)


def _ours(client: EngineMemory, user: int, query: str) -> object:
    return ScopedMemory(stores.user_name(user), client=client).search(query, k=_K)


def _length(rows: Any) -> int:
    return len(rows)


def _loaded_qdrant(folder: Path) -> Memory:
    """Open the cached store, or build it: 20,000 commits take minutes on some disks."""
    marker = folder / "complete"
    if not marker.exists() or marker.read_text() != str(corpus.VERSION):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        client = plain_memory(folder)
        _load_qdrant(client)
        marker.write_text(str(corpus.VERSION))
        return client
    return plain_memory(folder)


def _load_qdrant(client: Memory) -> None:
    """Insert in batches the rows that mem0.add would insert one by one, which takes an hour."""
    embeddings = OfflineEmbeddings()
    rows = [(user, text) for user in range(_USERS) for text in corpus.memories(user, stores.PER_USER)]
    for start in tqdm(range(0, len(rows), _LOADED_AT_ONCE), desc="loading Qdrant", unit="batch"):
        some = rows[start : start + _LOADED_AT_ONCE]
        client.vector_store.insert(
            vectors=embeddings.embed_documents([text for _, text in some]),
            payloads=[_payload(user, text) for user, text in some],
            ids=[str(uuid4()) for _ in some],
        )


def _payload(user: int, text: str) -> dict[str, str]:
    """Return the payload that mem0.memory.main.Memory._create_memory stores."""
    now = datetime.now(UTC).isoformat()
    return {
        "user_id": stores.user_name(user),
        "role": "user",
        "data": text,
        "hash": hashlib.md5(text.encode()).hexdigest(),
        "created_at": now,
        "updated_at": now,
        "text_lemmatized": lemmatize_for_bm25(text),
    }
