"""No object's repr has the text it holds: tracebacks and error trackers record reprs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped.backends.platform import requests
from langchain_mem0_scoped.engine.cache import SearchRows
from langchain_mem0_scoped.engine.memory_search import MemoryQuery
from langchain_mem0_scoped.engine.row_search import Hit, RowQuery
from langchain_mem0_scoped.engine.storage import NewRow, Partition, RowKind, Snapshot, StoredRow
from langchain_mem0_scoped.engine.unit_of_work import PendingRow, SessionAppend, UnitOfWork
from langchain_mem0_scoped.export.html import Conversation, PageMemory
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.ranking.index import Rows
from langchain_mem0_scoped.records import MemoryList, MemoryRecord, memory_table, record_from
from langchain_mem0_scoped.requests import AddRequest, ListRequest, SearchRequest, UpdateRequest
from langchain_mem0_scoped.tables import Table
from langchain_mem0_scoped.tools import ACTIONS
from langchain_mem0_scoped.transcripts.codec import StoredMessage

TEXT = "zebra text"
BYTES = TEXT.encode()
DATA: dict[str, Any] = {"data": TEXT}
ID = "00000000-0000-4000-8000-000000000000"
VERSION = (1, 1, 1)


def memory() -> MemoryRecord:
    return record_from({"id": ID, "user_id": "u", "memory": TEXT, "metadata": {"topic": TEXT}})


def add() -> AddRequest:
    return AddRequest([TextMessage("user", TEXT, TEXT)], DATA, infer=False)


def search() -> SearchRequest:
    return SearchRequest(TEXT, {"user_id": "u", "topic": TEXT}, 5, None)


def rows() -> Rows:
    none = np.zeros(0)
    return Rows(
        np.zeros((1, 4), np.float32), none.astype(np.uint64), none.astype(np.intp), none, none.astype(np.uint64)
    )


def stored_message() -> StoredMessage:
    return StoredMessage(None, TEXT, HumanMessage(TEXT))


def unit() -> UnitOfWork:
    return UnitOfWork(
        "u",
        [1],
        rows={RowKind.MEMORY: {ID: StoredRow(1, b"id", BYTES, b"")}, RowKind.ENTITY: {}},
        entity_rows=search_rows(),
        changes={RowKind.MEMORY: {ID: PendingRow(DATA, BYTES, is_new=True)}, RowKind.ENTITY: {}},
        history=[(ID, DATA)],
        kept_messages=[("s1", DATA)],
        append=SessionAppend("s1", [stored_message()]),
    )


def search_rows() -> SearchRows:
    return SearchRows(VERSION, BYTES, [b"id"], [1], rows(), {0: DATA}, [BYTES])


HOLDERS: dict[str, Any] = {
    "memories": MemoryList([memory()]),
    "table of memories": memory_table(MemoryList([memory()]), TEXT),
    "table": Table((TEXT,), [(TEXT,)], TEXT),
    "text message": TextMessage("user", TEXT, TEXT),
    "add request": add(),
    "search request": search(),
    "list request": ListRequest({"topic": TEXT}),
    "update request": UpdateRequest(ID, TEXT, DATA),
    "HTTP request to add": requests.add("u", add(), "dedup"),
    "HTTP request to search": requests.search(search(), 5),
    "HTTP request to update": requests.update(ID, TEXT, DATA),
    "query of memories": MemoryQuery(TEXT, {"topic": TEXT}, 5),
    "query of rows": RowQuery("u", TEXT, np.zeros(4), 5, {"topic": TEXT}, show_expired=False),
    "found row": Hit(ID, DATA, 0.5),
    "partition": Partition(1, 1, BYTES),
    "row to be written": NewRow(RowKind.MEMORY, b"id", BYTES),
    "stored row": StoredRow(1, b"id", BYTES, BYTES),
    "snapshot": Snapshot(VERSION, BYTES, None, [b"id"], [1], [BYTES], [BYTES], [1]),
    "rows for a search": search_rows(),
    "pending row": PendingRow(DATA, BYTES, is_new=True),
    "pending transcript": SessionAppend("s1", [stored_message()]),
    "unit of work": unit(),
    "message of a transcript": stored_message(),
    "memory on a page": PageMemory(memory()),
    "conversation on a page": Conversation("s", [HumanMessage(TEXT)]),
} | {f"tool call: {action.name}": action.arguments.model_construct(text=TEXT, query=TEXT) for action in ACTIONS}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_repr_leaves_out_texts(holder: object) -> None:
    for text in (repr(holder), repr([holder]), f"{holder!r}"):
        assert "zebra" not in text
        assert type(holder).__name__ in text


def test_repr_identifies_the_object() -> None:
    assert repr(requests.update(ID, TEXT, DATA)).startswith(
        "Request(operation='update', method='PUT', path='/v1/memories/0000"
    )
    assert "k=5" in repr(search())
    assert ID in repr(Hit(ID, DATA))
    assert repr(Table(("memory",), [(TEXT,)])) == "<Table of 1: print() shows it>"
    assert str(Table(("memory",), [(TEXT,)])).splitlines() == ["memory", TEXT]
