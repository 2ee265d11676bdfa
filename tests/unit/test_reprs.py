"""Whatever of ours holds what was said tells none of it by its repr, which tracebacks and error trackers take along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped.backends.base import AddRequest, SearchRequest
from langchain_mem0_scoped.backends.platform import requests
from langchain_mem0_scoped.engine.cache import Snapshot
from langchain_mem0_scoped.engine.unit_of_work import Pending, Said, UnitOfWork
from langchain_mem0_scoped.engine.vector_store import Hit
from langchain_mem0_scoped.export.html import Conversation, PageMemory
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.ranking.index import Rows
from langchain_mem0_scoped.records import MemoryList, MemoryRecord, record_from
from langchain_mem0_scoped.sqlite.partitions import ErasureToken, NewRow, RowKind
from langchain_mem0_scoped.tables import Table
from langchain_mem0_scoped.tools import ACTIONS
from langchain_mem0_scoped.transcripts.base import StoredMessage

TEXT = "zebra text"
SAID = [{"role": "user", "content": TEXT}]
DATA: dict[str, Any] = {"data": TEXT}
ID = "00000000-0000-4000-8000-000000000000"


def memory() -> MemoryRecord:
    return record_from({"id": ID, "user_id": "u", "memory": TEXT, "metadata": {"topic": TEXT}})


def batch() -> AddRequest:
    return AddRequest(SAID, DATA, infer=False, said_at=None, expires_on=None, wait=True, speakers=[TEXT])


def question() -> SearchRequest:
    return SearchRequest(TEXT, {"user_id": "u", "topic": TEXT}, 5, None)


def rows() -> Rows:
    none = np.zeros(0)
    return Rows(
        np.zeros((1, 4), np.float32), none.astype(np.uint64), none.astype(np.intp), none, none.astype(np.uint64)
    )


def unit() -> UnitOfWork:
    return UnitOfWork(
        "u",
        ErasureToken(None, 0),
        items={RowKind.MEMORY: {ID: Pending(DATA, TEXT.encode(), fresh=True)}},
        bodies={ID: TEXT.encode()},
        history=[(ID, DATA)],
        messages=[("s1", DATA)],
        said=Said("s1", [(None, TEXT, TEXT)]),
    )


HOLDERS: dict[str, Any] = {
    "memories": MemoryList([memory()]),
    "a table": MemoryList([memory()])._table(TEXT),
    "a table by itself": Table((TEXT,), [(TEXT,)], TEXT),
    "what was said": TextMessage("user", TEXT, TEXT),
    "an add": batch(),
    "a search": question(),
    "a request to add": requests.add("u", batch(), "mark"),
    "a request to search": requests.search(question(), 5),
    "a request to correct": requests.update(ID, TEXT, DATA),
    "a row that is read": Hit(ID, DATA, 0.5),
    "a row that is written": NewRow(RowKind.MEMORY, b"id", TEXT.encode()),
    "rows that are searched": Snapshot([b"id"], [1], rows(), {0: DATA}),
    "a transaction": unit(),
    "a message of a transcript": StoredMessage(None, TEXT, HumanMessage(TEXT)),
    "a memory on a page": PageMemory(memory()),
    "a conversation on a page": Conversation("s", [HumanMessage(TEXT)]),
} | {f"a tool call: {action.name}": action.arguments.model_construct(text=TEXT, query=TEXT) for action in ACTIONS}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_repr_leaves_out_texts(holder: object) -> None:
    for shown in (repr(holder), repr([holder]), f"{holder!r}"):
        assert "zebra" not in shown
        assert type(holder).__name__ in shown


def test_repr_identifies_the_object() -> None:
    assert repr(requests.update(ID, TEXT, DATA)).startswith(
        "Request(doing='update', method='PUT', path='/v1/memories/0000"
    )
    assert "k=5" in repr(question())
    assert ID in repr(Hit(ID, DATA))
    assert repr(Table(("memory",), [(TEXT,)])) == "<Table of 1: print() shows it>"
    assert str(Table(("memory",), [(TEXT,)])).splitlines() == ["memory", TEXT]
