"""Asking a LangChain document compressor, such as a cross-encoder, for a better order of the rows a search found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.documents import BaseDocumentCompressor, Document

from ..errors import BackendError

_TIMES: Final = 4
"""So many rows are handed over for each that is wanted: as many as mem0 asks of a store to choose from."""
_FEWEST: Final = 20
"""And at least so many: of fewer there is little to choose."""
_ID: Final = "memory_id"
"""Where a document's metadata hold its memory's id: some compressors copy a document without its own."""


class Reranker:
    """Puts what was found in a compressor's order and leaves out what it leaves out.

    Args:
        compressor: Any LangChain document compressor; it may select, and its order counts. What it makes of a text is
            not shown: a memory stays as it was said.
    """

    def __init__(self, compressor: BaseDocumentCompressor) -> None:
        self._compressor = compressor

    def candidates(self, k: int) -> int:
        """How many rows to hand over for k to be shown."""
        return max(_TIMES * k, _FEWEST)

    def best(self, query: str, rows: Sequence[dict[str, Any]], k: int) -> list[dict[str, Any]]:
        """Return at most k rows.

        Args:
            query: What is asked.
            rows: What was found, as mem0 shows it, best first.
            k: At most so many.

        Returns:
            Rows with falling scores from 0 to 1: the compressor's own (`relevance_score`) where they are such, else
            those of the rows shown, put in the new order.

        Raises:
            BackendError: It failed, or it returned documents it had not been given.
        """
        if not rows:
            return []
        given = [Document(id=row["id"], page_content=row["memory"], metadata=_metadata(row)) for row in rows]
        failure, answer = "", []
        try:
            answer = list(self._compressor.compress_documents(given, query))
        except Exception as error:
            failure, retryable = type(error).__name__, isinstance(error, (ConnectionError, TimeoutError))
        if failure:
            # Raised here, where nothing of the error, which may quote a memory, is chained to it.
            raise BackendError(f"the reranker failed: {failure}", retryable=retryable)
        by_id = {row["id"]: row for row in rows}
        chosen: dict[str, Document] = {}
        for document in answer:
            chosen.setdefault(_known(document, by_id), document)
        shown = list(chosen)[:k]
        scores = _scores([chosen[memory_id] for memory_id in shown]) or sorted(
            (by_id[memory_id]["score"] for memory_id in shown), reverse=True
        )
        return [{**by_id[memory_id], "score": score} for memory_id, score in zip(shown, scores, strict=True)]


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: row.get(name) for name in ("score", "role", "created_at", "updated_at")}
    return {**(row.get("metadata") or {}), **told, _ID: row["id"]}


def _known(document: object, by_id: dict[str, dict[str, Any]]) -> str:
    """The id of the row a document stands for."""
    if isinstance(document, Document):
        memory_id = document.metadata.get(_ID) if document.id is None else document.id
        if isinstance(memory_id, str) and memory_id in by_id:
            return memory_id
    raise BackendError("the reranker returned a document it had not been given; nothing was returned")


def _scores(documents: Sequence[Document]) -> list[float] | None:
    """The compressor's own scores, where all have one from 0 to 1 and none rises."""
    try:
        scores = [float(document.metadata["relevance_score"]) for document in documents]
    except (KeyError, TypeError, ValueError):
        return None
    falling = all(0.0 <= score <= 1.0 for score in scores) and scores == sorted(scores, reverse=True)
    return scores if falling else None
