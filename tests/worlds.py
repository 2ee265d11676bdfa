"""Deterministic parts for tests of the embedded store: an embedding, mem0's prompt, entities, the file's bytes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_mem0_scoped.sqlite.database import Database

DIMS = 32
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"\b[A-Z]\w+")


@lru_cache(maxsize=100_000)
def _direction(word: str) -> NDArray[np.float64]:
    raw = blake2b(word.encode(), digest_size=DIMS).digest()
    return np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 127.5


class WordEmbeddings(Embeddings):
    """Sums a fixed vector for each word, so that texts with common words are close. No model, no randomness.

    Attributes:
        documents: The texts of each call of `embed_documents`.
        queries: The texts of the calls of `embed_query`.
        before: Called with the texts before they are embedded; a test may wait or fail in it.
    """

    fingerprint = "tests/words/32"

    def __init__(self, before: Callable[[list[str]], None] | None = None) -> None:
        self.documents: list[list[str]] = []
        self.queries: list[str] = []
        self.before = before

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents.append(list(texts))
        if self.before is not None:
            self.before(texts)
        return [vector_of(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        if self.before is not None:
            self.before([text])
        return vector_of(text)


def vector_of(text: str) -> list[float]:
    words = _WORD.findall(text.lower())
    # Sorted, so that no bit depends on the order of the words: texts with the same words have the same vector.
    total = sum((_direction(word) for word in sorted(words)), np.zeros(DIMS))
    norm = float(np.sqrt((total * total).sum()))
    vector: list[float] = (total / norm if norm else total).tolist()
    return vector


def new_messages_in(prompt: str) -> list[str]:
    """Return the texts of the new messages in mem0's extraction prompt, without their roles."""
    section = prompt.partition("## New Messages\n")[2].partition("\n\n## Observation Date")[0]
    return [line.partition(": ")[2] for line in section.splitlines() if ": " in line]


def facts_of(texts: list[str]) -> str:
    """Return the answer that mem0 expects from its model."""
    return json.dumps({"memory": [{"text": text} for text in texts]})


def names_in(text: str) -> list[tuple[str, str]]:
    """Return every capitalized word once. This replaces spaCy, whose model would have to be downloaded."""
    return [("PROPER", name) for name in dict.fromkeys(_NAME.findall(text))]


@contextmanager
def entities() -> Iterator[None]:
    """Make mem0 find entities by `names_in`. Linking, storing and boosting them is mem0's own code."""
    with pytest.MonkeyPatch.context() as patch:
        extract_entities(patch)
        yield


def extract_entities(patch: pytest.MonkeyPatch) -> None:
    """As `entities`, on the caller's MonkeyPatch."""
    patch.setattr("mem0.memory.main.extract_entities", names_in)
    patch.setattr("mem0.memory.main.extract_entities_batch", lambda texts, *_, **__: [names_in(text) for text in texts])


def unsynced(patch: pytest.MonkeyPatch) -> None:
    """Turn off fsync; `synced` is the way back."""
    connect = Database._connect

    @wraps(connect)
    def connected(self: Database) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    patch.setattr(Database, "_connect", connected)


def synced(patch: pytest.MonkeyPatch) -> None:
    """Connect as the package does, for a test of that."""
    patch.setattr(Database, "_connect", Database._connect.__wrapped__)  # type: ignore[attr-defined]


def files_of(path: Path) -> list[Path]:
    """Return a database file and the files that SQLite keeps beside it."""
    return sorted(path.parent.glob(f"{path.name}*"))


def bytes_of(*files: Path) -> bytes:
    """Return the contents of files, in lower case.

    Another process reads them: closing a descriptor of a file in this one would drop the locks that its SQLite
    connections hold on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    return subprocess.run(["cat", *map(str, files)], check=True, capture_output=True).stdout.lower()


def left_in(path: Path, *markers: str) -> list[str]:
    """Return the markers that are somewhere in a database's files, ignoring case."""
    return found_in(bytes_of(*files_of(path)), *markers)


def found_in(held: bytes, *markers: str) -> list[str]:
    """Return the markers that are in what `bytes_of` returned, ignoring case."""
    return [marker for marker in markers if marker.lower().encode() in held]
