"""The view of a mem0.Memory for one extraction: expired rows are not seen, and an unreadable answer is an error."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_mem0_scoped.backends.mem0_extraction import for_extraction
from langchain_mem0_scoped.extraction import UnreadableAnswer

TODAY = date(2026, 3, 1)


class Store:
    """Returns the best rows by their place; every second one has expired."""

    def __init__(self, rows: int) -> None:
        self.name = "a store's own attribute"
        self.sizes: list[int] = []
        days = ["2026-02-01" if place % 2 == 0 else None for place in range(rows)]
        self.rows = [SimpleNamespace(id=place, payload={"expiration_date": day}) for place, day in enumerate(days)]

    def search(self, *, top_k: int) -> list[Any]:
        self.sizes.append(top_k)
        return self.rows[:top_k]


def view_of(store: Store, answer: str = "") -> Any:
    model = SimpleNamespace(generate_response=lambda messages, response_format=None: answer)
    return for_extraction(SimpleNamespace(vector_store=store, llm=model), TODAY)


def test_search_goes_on_until_enough_rows_have_not_expired() -> None:
    store = Store(40)
    assert [row.id for row in view_of(store).vector_store.search(top_k=5)] == [1, 3, 5, 7, 9]
    assert store.sizes == [5, 20]


def test_search_ends_with_the_rows_there_are() -> None:
    store = Store(8)
    assert [row.id for row in view_of(store).vector_store.search(top_k=5)] == [1, 3, 5, 7]


def test_client_itself_is_not_changed() -> None:
    store = Store(4)
    client: Any = SimpleNamespace(vector_store=store, llm=None)
    view = for_extraction(client, TODAY)
    assert view.vector_store is not store
    assert view.vector_store.name == "a store's own attribute"
    assert client.vector_store is store


def test_answer_in_json_holds_only_facts_that_can_be_stored() -> None:
    answer = view_of(Store(0), '{"memory": [{"text": "likes tea"}, {"text": " "}, {"text": null}]}')
    read = answer.llm.generate_response(messages=[], response_format={"type": "json_object"})
    assert read == '{"memory": [{"text": "likes tea"}]}'


def test_unreadable_answer_is_an_error_and_other_answers_pass() -> None:
    view = view_of(Store(0), "I could not find any facts.")
    assert view.llm.generate_response(messages=[]) == "I could not find any facts."
    with pytest.raises(UnreadableAnswer):
        view.llm.generate_response(messages=[], response_format={"type": "json_object"})
