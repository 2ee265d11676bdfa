"""One user with many memories: the first search of a client, and the next ones."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings

from . import corpus, stores
from .measure import Result, Settings, in_turn, median, pooled, ratio_of_medians, seconds

_MEMORIES: Final = 10_000
_ADDED_AT_ONCE: Final = 1_000
_FIRSTS: Final = 25
_BATCHES: Final = 9
_SEARCHES: Final = 40
_USER: Final = "user-with-many"


def search(_: Settings) -> Iterator[Result]:
    """Time both. The first search reads the user's rows from a file in memory; later ones use the cached index."""
    texts = corpus.memories(0, _MEMORIES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        _add(path, texts)
        yield _first(path)
        yield _repeated(path, texts)


def _add(path: Path, texts: list[str]) -> None:
    client = local_memory(path)
    memory = ScopedMemory(_USER, client=client)
    for start in tqdm(range(0, len(texts), _ADDED_AT_ONCE), desc=f"adding {len(texts):,} memories", unit="batch"):
        memory.add(texts[start : start + _ADDED_AT_ONCE])
    # A row of another user, so that clients can be warmed up without reading this user's rows.
    ScopedMemory("somebody-else", client=client).add("I like tea")
    client.close()


def _first(path: Path) -> Result:
    times = []
    for query in tqdm(corpus.questions("first", _FIRSTS), desc="first search", unit="client"):
        # Before each search: some systems free memory within minutes if nobody reads it.
        stores.warm(path)
        client = local_memory(path)
        ScopedMemory("somebody-else", client=client).search(query)
        times.append(seconds(partial(ScopedMemory(_USER, client=client).search, query)))
        client.close()
    return Result(f"first search of a user with {_MEMORIES:,} memories, p50", median(times) * 1e3, "ms", 30)


def _repeated(path: Path, texts: list[str]) -> Result:
    embeddings = OfflineEmbeddings()
    matrix = np.array(embeddings.embed_documents(texts), dtype=np.float32)
    client = local_memory(path)
    memory = ScopedMemory(_USER, client=client)

    def product(query: str) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = matrix @ np.array(embeddings.embed_query(query), dtype=np.float32)
        return scores

    batches = []
    for batch in tqdm(range(_BATCHES), desc="repeated search", unit="batch"):
        queries = corpus.questions(f"repeated/{batch}", _SEARCHES + 2)
        timed = in_turn(
            [partial(memory.search, query) for query in queries], [partial(product, query) for query in queries]
        )
        batches.append((timed[0][2:], timed[1][2:]))
    client.close()
    detail = {"p50 search, ms": pooled(batches, 0) * 1e3, "p50 embedding and product, ms": pooled(batches, 1) * 1e3}
    title = f"repeated search of a user with {_MEMORIES:,} memories, compared with a query embedding and a product"
    return Result(title, ratio_of_medians(batches), "x", 10, detail=detail)
