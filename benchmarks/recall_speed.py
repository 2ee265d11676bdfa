"""The time of a search in 600 memories, compared with plain cosine and BM25 on the same rows."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.locomo_data import Conversation
from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.cache import SearchRows
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.row_search import RowQuery
from langchain_mem0_scoped.ranking import top
from langchain_mem0_scoped.ranking.bm25 import bm25
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, tokenize
from langchain_mem0_scoped.ranking.vectors import cosine

from .measure import in_turn, pooled, ratio_of_medians
from .recall_scores import K

_MEMORIES: Final = 600
_BATCHES: Final = 9
_SEARCHES: Final = 60
_USER: Final = "user-with-600"


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians in ms, and ratios of medians.

    Attributes:
        search: `ScopedMemory.search`, the query's embedding included.
        plain_search: The same search, ranked only by the sum of cosine and BM25 after min-max scaling.
        plain: Only the embedding, these two scores and the sorting, without mem0 and the file.
        against_plain_search: `search` over `plain_search`.
        against_plain: `search` over `plain`.
    """

    search: float
    plain_search: float
    plain: float
    against_plain_search: float
    against_plain: float


def speed(conversations: Sequence[Conversation]) -> Speed:
    """Time the three alternately on one user's turns."""
    one = max(conversations, key=lambda conversation: len(conversation.turns))
    queries = [question.text for question in one.questions]
    with (
        tempfile.TemporaryDirectory() as folder,
        _filled(Path(folder) / "ours.db", one) as ours,
        _filled(Path(folder) / "plain.db", one) as plain,
    ):
        plain.memory_search.rows.rank = _plain_ranking  # type: ignore[method-assign]
        sides = [ScopedMemory(_USER, client=client) for client in (ours, plain)]
        bare = _bare(ours, sides[0])
        batches = []
        for batch in range(_BATCHES):
            asked = [queries[(batch * _SEARCHES + at) % len(queries)] for at in range(_SEARCHES + 2)]
            calls = [[partial(side.search, query, k=K) for query in asked] for side in sides]
            times = in_turn(*calls, [partial(bare, query) for query in asked])
            batches.append([of_side[2:] for of_side in times])
    search, plain_search, alone = (pooled([tuple(times) for times in batches], side) * 1e3 for side in range(3))
    return Speed(
        search,
        plain_search,
        alone,
        ratio_of_medians([(times[0], times[1]) for times in batches]),
        ratio_of_medians([(times[0], times[2]) for times in batches]),
    )


@contextmanager
def _filled(path: Path, one: Conversation) -> Iterator[EngineMemory]:
    client = local_memory(path)
    memory = ScopedMemory(_USER, client=client)
    for turn in one.turns[:_MEMORIES]:
        memory.add(turn.text, session_id=f"session-{turn.session}", at=turn.at)
    yield client
    client.close()


def _scaled(values: NDArray[Any]) -> NDArray[Any]:
    scaled: NDArray[Any] = (values - values.min()) / (np.ptp(values) or 1.0)
    return scaled


def _plain_ranking(rows: SearchRows, query: RowQuery) -> tuple[NDArray[np.floating], Callable[[int], float]]:
    words, _ = bm25(rows.rows, rows.index.terms, hash_terms(tokenize(query.text), rows.key))
    values = _scaled(cosine(rows.rows.vectors, query.vector)) + _scaled(words)
    return values, lambda row: float(values[row]) / 2


def _bare(client: EngineMemory, memory: ScopedMemory) -> Callable[[str], Any]:
    memory.search("hello")
    (found,) = client.cache.entries.values()
    embeddings = OfflineEmbeddings()

    def search(query: str) -> list[int]:
        values, _ = _plain_ranking(found, RowQuery(_USER, query, embeddings.embed_array(query), K, {}, False))
        return top(values, K)

    return search
