"""The kinds of clients that the conformance suite runs on. A new backend or storage is one entry in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.transcripts.binding import bind
from tests.chat import close_transcripts
from tests.memory_storage import MemoryStorage
from tests.platform.filters import Scoping
from tests.platform.rules import Extracted, Ids, Message
from tests.platform.server import Platform
from tests.support import opened

if TYPE_CHECKING:
    from langchain_mem0_scoped.backends import Client

Open: TypeAlias = Callable[[Path], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Kind:
    """One kind of client, and how its answers may differ.

    Attributes:
        name: The id of its test cases.
        open: Opens a client that keeps its files in a folder, and closes it.
        hosted: Whether it is reached over a loopback socket.
        keeps_roles: Whether reads return who said a memory; the hosted platform tells it only in the answer to an add.
        extracts: Whether a model extracts facts, unless text is to be kept as it is.
        exact_filters: Whether filters compare case and types as this package documents it.
        max_k: The largest k of a search, or None.
    """

    name: str
    open: Open
    hosted: bool = False
    keeps_roles: bool = True
    extracts: bool = False
    exact_filters: bool = True
    max_k: int | None = None

    def __str__(self) -> str:
        return self.name


def every_message(messages: list[Message], ids: Ids) -> list[Extracted]:
    """Take every message for a fact, the assistant's too: as clients without a model store them."""
    return [Extracted(message["content"], ids) for message in messages]


@contextmanager
def _qdrant(folder: Path) -> Iterator[Client]:
    with opened("qdrant", folder) as client, _transcripts_in(folder, client):
        yield client


@contextmanager
def _hosted(scoping: Scoping, folder: Path) -> Iterator[Client]:
    with Platform(scoping=scoping) as platform:
        platform.extract = every_message
        platform.event_seconds = 0  # done when first asked for: hundreds of tests would wait otherwise
        client = platform.client()
        with _transcripts_in(folder, client):
            yield client


@contextmanager
def _transcripts_in(folder: Path, client: Client) -> Iterator[None]:
    """Keep the transcripts of a client that has no place for them in SQLite."""
    bind(client, f"sqlite:///{folder / 'chats.db'}")
    try:
        yield
    finally:
        close_transcripts(client)


@contextmanager
def _in_memory(_: Path) -> Iterator[Client]:
    with closing(EngineMemory(MemoryStorage(), OfflineEmbeddings())) as client:
        yield client


KINDS: Final = (
    Kind("sqlite", partial(opened, "embedded")),
    Kind("memory", _in_memory),
    Kind("qdrant", _qdrant, exact_filters=False),
    *(
        Kind(
            f"hosted, {scoping.value}",
            partial(_hosted, scoping),
            hosted=True,
            keeps_roles=False,
            extracts=True,
            max_k=1_000,
        )
        for scoping in Scoping
    ),
)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind in turn."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def client(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One client of each kind for a whole file; tests keep apart by taking new users."""
    with kind.open(tmp_path_factory.mktemp("client")) as client:
        yield client
