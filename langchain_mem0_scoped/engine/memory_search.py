"""MemorySearch: embeds a query, weighs its entities, ranks memories, and lets a reranker choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from mem0.memory import main

from ..ranking import DEFAULT_THRESHOLD
from .fair_lock import SEARCHES
from .mem0_models import Embedder
from .payloads import format_row, split_filters
from .reranking import Reranker
from .row_search import RowQuery, RowSearch

EntityBoosts = Callable[[Sequence[tuple[str, str]], dict[str, Any]], dict[str, float]]
"""mem0's Memory._compute_entity_boosts: of a query's entities and the filters, each memory's boost by its id."""

_BOOSTED_POOL: Final = 60
"""How many rows entities choose from at least; mem0's own number."""


class MemoryQuery(NamedTuple):
    """One search. Its `repr` leaves out the query.

    Attributes:
        text: The query.
        filters: The user, and conditions on the memories' payloads.
        k: Maximum number of memories.
        threshold: The lowest score; None for the best k if the best one has `DEFAULT_THRESHOLD`, else nothing.
        explain: Whether each row says how its score came about ("score_details").
        show_expired: Whether expired memories are returned.
    """

    text: str
    filters: Mapping[str, Any]
    k: int
    threshold: float | None = None
    explain: bool = False
    show_expired: bool = False

    def __repr__(self) -> str:
        return f"MemoryQuery(k={self.k}, threshold={self.threshold})"


class MemorySearch:
    """Searches one user's memories.

    Args:
        embedder: Embeds queries.
        rows: Ranks memories.
        entity_boosts: Weighs a query's entities.
        reranker: Chooses among the best rows; None for none.
    """

    def __init__(
        self, embedder: Embedder, rows: RowSearch, entity_boosts: EntityBoosts, reranker: Reranker | None
    ) -> None:
        self._embedder = embedder
        self.rows = rows
        self._entity_boosts = entity_boosts
        self._reranker = reranker

    def find(self, query: MemoryQuery) -> list[dict[str, Any]]:
        """Return the best memories as mem0 returns them, best first.

        Raises:
            ScopeError: The filters do not name exactly one user.
            BackendError: The embedding, the storage or the reranker failed.
        """
        if self._reranker is None:
            return self._rank(query)
        found = self._rank(query._replace(k=self._reranker.candidates(query.k)))
        return self._reranker.best(query.text, found, query.k)

    def _rank(self, query: MemoryQuery) -> list[dict[str, Any]]:
        """Return the best rows by this package's ranking.

        mem0's own search fetches four times what it returns, weighs words and entities afterwards, and drops expired
        rows then. This one ranks by words already and knows what has expired, so only entities need more rows.
        """
        user_id, conditions = split_filters(query.filters)
        # Looked up in mem0's module at each call, as mem0 does.
        entities = main.extract_entities(query.text)
        boosts = self._entity_boosts(entities, dict(query.filters)) if entities else {}
        # A model of the caller's is asked before this thread has its turn.
        vector = None if self._embedder.is_offline else self._embedder.embed_query(user_id, query.text)

        def ranked() -> list[dict[str, Any]]:
            embedded = self._embedder.embed_query(user_id, query.text) if vector is None else vector
            return self._find_rows(query, user_id, conditions, embedded, boosts)

        # A large user's rows take long to read; other threads search meanwhile.
        if self.rows.load(user_id):
            return SEARCHES.run(ranked)
        if vector is None:
            # It is kept for the case that the same text is remembered next.
            self._embedder.embed_query(user_id, query.text)
        return []

    def _find_rows(
        self, query: MemoryQuery, user_id: str, conditions: dict[str, Any], vector: Any, boosts: dict[str, float]
    ) -> list[dict[str, Any]]:
        min_score, min_top_score = (0.0, DEFAULT_THRESHOLD) if query.threshold is None else (query.threshold, 0.0)
        hits = self.rows.find(
            RowQuery(
                user_id,
                query.text,
                np.asarray(vector),
                max(query.k * 4, _BOOSTED_POOL) if boosts else query.k,
                conditions,
                query.show_expired,
                min_score,
                0.0 if boosts else min_top_score,
            )
        )
        if not boosts and not query.explain:
            return [format_row(hit.id, hit.payload, hit.score) for hit in hits]
        candidates = [{"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in hits]
        best = main.score_and_rank(candidates, {}, boosts, min_score, query.k, query.explain)
        if best and best[0]["score"] < min_top_score:
            return []
        return [
            format_row(row["id"], row["payload"], row["score"])
            | ({"score_details": row["score_details"]} if query.explain else {})
            for row in best
        ]
