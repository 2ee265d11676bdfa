"""Reranker: a LangChain document compressor, such as a cross-encoder, chooses among the rows a search found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.documents import BaseDocumentCompressor, Document

from ..errors import BackendError
from ..provider_errors import describe

_CANDIDATES_PER_ROW: Final = 4
"""How many rows are passed to the compressor for each that is wanted; mem0 fetches as many to choose from."""
_MIN_CANDIDATES: Final = 20
"""How many are passed at least: of fewer there is little to choose."""
_ID_KEY: Final = "memory_id"
"""Where a document's metadata holds its memory's id: some compressors copy a document without its own."""


class Reranker:
    """Returns rows in a compressor's order, without those it leaves out.

    Args:
        compressor: Any LangChain document compressor. Only its choice and its order are used: a text that it changes
            is returned as it is stored.
    """

    def __init__(self, compressor: BaseDocumentCompressor) -> None:
        self._compressor = compressor

    def candidates(self, k: int) -> int:
        """Return how many rows to find for k to be returned."""
        return max(_CANDIDATES_PER_ROW * k, _MIN_CANDIDATES)

    def best(self, query: str, rows: Sequence[dict[str, Any]], k: int) -> list[dict[str, Any]]:
        """Return at most k rows.

        Args:
            query: What is asked.
            rows: What was found, in mem0's form, best first.
            k: Maximum number of rows.

        Returns:
            Rows with falling scores from 0 to 1: the compressor's own (`relevance_score`) if they are such scores, else
            the scores these rows had, sorted.

        Raises:
            BackendError: The compressor failed, or returned documents it had not been given.
        """
        if not rows:
            return []
        given = [Document(id=row["id"], page_content=row["memory"], metadata=_metadata(row)) for row in rows]
        failure, answer = None, []
        try:
            answer = list(self._compressor.compress_documents(given, query))
        except Exception as error:
            failure = describe(error)
        if failure is not None:
            # Raised here, where nothing of the error, which may quote a memory, is chained to it.
            raise failure.to_error(f"the reranker failed: {failure.summary}")
        by_id = {row["id"]: row for row in rows}
        chosen: dict[str, Document] = {}
        for document in answer:
            chosen.setdefault(_memory_id(document, by_id), document)
        best = list(chosen)[:k]
        scores = _scores([chosen[memory_id] for memory_id in best]) or sorted(
            (by_id[memory_id]["score"] for memory_id in best), reverse=True
        )
        return [{**by_id[memory_id], "score": score} for memory_id, score in zip(best, scores, strict=True)]


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    standard = {name: row.get(name) for name in ("score", "role", "created_at", "updated_at")}
    return {**(row.get("metadata") or {}), **standard, _ID_KEY: row["id"]}


def _memory_id(document: object, by_id: dict[str, dict[str, Any]]) -> str:
    """Return the id of the row a document was made of."""
    if isinstance(document, Document):
        memory_id = document.metadata.get(_ID_KEY) if document.id is None else document.id
        if isinstance(memory_id, str) and memory_id in by_id:
            return memory_id
    raise BackendError("the reranker returned a document it had not been given; nothing was returned")


def _scores(documents: Sequence[Document]) -> list[float] | None:
    """Return the compressor's own scores, if each document has one from 0 to 1 and none is above the one before."""
    try:
        scores = [float(document.metadata["relevance_score"]) for document in documents]
    except (KeyError, TypeError, ValueError):
        return None
    falling = all(0.0 <= score <= 1.0 for score in scores) and scores == sorted(scores, reverse=True)
    return scores if falling else None
