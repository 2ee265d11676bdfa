"""Ranking of one user's memories: exact search and statistics over that user's rows. Pure, no I/O."""

from .index import (
    EMPTY_PACKED_ROW,
    Rows,
    build_rows,
    concat_rows,
    pack_row,
    packed_row,
    session_hash,
    unix_seconds,
)
from .scoring import DEFAULT_THRESHOLD, Ranking, SearchIndex, build_index, rank, top
from .tokenizer import hash_terms, tokenize
from .vectors import cosine, unit_vector
from .weights import WEIGHTS, Weights

__all__ = [
    "DEFAULT_THRESHOLD",
    "EMPTY_PACKED_ROW",
    "WEIGHTS",
    "Ranking",
    "Rows",
    "SearchIndex",
    "Weights",
    "build_index",
    "build_rows",
    "concat_rows",
    "cosine",
    "hash_terms",
    "pack_row",
    "packed_row",
    "rank",
    "session_hash",
    "tokenize",
    "top",
    "unit_vector",
    "unix_seconds",
]
