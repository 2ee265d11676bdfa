"""Deterministic parts for tests of the embedded store: an embedding, mem0's prompt, entities, the file's bytes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
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
    """The sum of a fixed direction for each word: texts that share words are near each other. No model, no randomness.

    Attributes:
        documents: What `embed_documents` was given, call by call.
        queries: What `embed_query` was given.
        before: Called with the texts before anything is embedded: where a test waits, or fails.
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
    # Sorted, so that the last bit does not depend on the order of the words: copies that differ in case are exact ties.
    total = sum((_direction(word) for word in sorted(words)), np.zeros(DIMS))
    norm = float(np.sqrt((total * total).sum()))
    vector: list[float] = (total / norm if norm else total).tolist()
    return vector


def new_messages_in(prompt: str) -> list[str]:
    """The texts of the messages a prompt asks about, without who said them."""
    section = prompt.partition("## New Messages\n")[2].partition("\n\n## Observation Date")[0]
    return [line.partition(": ")[2] for line in section.splitlines() if ": " in line]


def facts_of(texts: list[str]) -> str:
    """The answer mem0 expects of its model."""
    return json.dumps({"memory": [{"text": text} for text in texts]})


def names_in(text: str) -> list[tuple[str, str]]:
    """Every capitalised word once: what stands in for spaCy, whose model cannot be installed without a download."""
    return [("PROPER", name) for name in dict.fromkeys(_NAME.findall(text))]


@contextmanager
def entities() -> Iterator[None]:
    """Let mem0 find entities. Entity linking itself, the store and the boosts are mem0's own code."""
    with pytest.MonkeyPatch.context() as patch:
        extract_entities(patch)
        yield


def extract_entities(patch: pytest.MonkeyPatch) -> None:
    """As `entities`, for a test that holds a MonkeyPatch."""
    patch.setattr("mem0.memory.main.extract_entities", names_in)
    patch.setattr("mem0.memory.main.extract_entities_batch", lambda texts, *_, **__: [names_in(text) for text in texts])


def unsynced(patch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: for tests of which bytes are written, not of what survives a power cut."""
    connect = Database._connect

    def connected(self: Database) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    patch.setattr(Database, "_connect", connected)


def files_of(path: Path) -> list[Path]:
    """A database and whatever SQLite keeps beside it."""
    return sorted(path.parent.glob(f"{path.name}*"))


def bytes_of(*files: Path) -> bytes:
    """What the files hold, in lower case.

    Another process reads them: closing a descriptor of a file in this one would drop the locks that its SQLite
    connections hold on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    return subprocess.run(["cat", *map(str, files)], check=True, capture_output=True).stdout.lower()


def left_in(path: Path, *markers: str) -> list[str]:
    """Those of the markers that still stand somewhere in a database's files, case ignored."""
    held = bytes_of(*files_of(path))
    return [marker for marker in markers if marker.lower().encode() in held]
