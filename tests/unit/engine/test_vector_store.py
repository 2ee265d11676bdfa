"""mem0's vector store interface: exact, one user at a time, and by id only for a named user."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mem0.vector_stores.base import VectorStoreBase

from langchain_mem0_scoped import BackendError, ScopeError
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.vector_store import EngineVectorStore
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.worlds import WordEmbeddings, left_in, vector_of

_ALICE, _BOB = {"user_id": "u_alice"}, {"user_id": "u_bob"}
_NOBODY: list[Any] = [None, {}, {"user_id": None}, {"user_id": ""}, {"user_id": "*"}, {"run_id": "r"}, {"user_id": 1},
    {"user_id": ["u_alice"]}, {"user_id": {"in": ["u_alice", "u_bob"]}}, {"OR": [_ALICE, _BOB]}]  # fmt: skip


@pytest.fixture(params=["memories", "entities"])
def store(request: pytest.FixtureRequest, client: EngineMemory) -> EngineVectorStore:
    store: EngineVectorStore = client.vector_store if request.param == "memories" else client.entity_store
    return store


_LINKED = {"linked_memory_ids": ["00000000-0000-4000-8000-000000000000"]}


def insert(store: EngineVectorStore, user_id: str, text: str, **more: Any) -> str:
    """Add a row; linked to some memory, for an entity that is linked to none does not live."""
    row_id = str(uuid4())
    store.insert([vector_of(text)], [{"user_id": user_id, "data": text, **_LINKED, **more}], [row_id])
    return row_id


def texts_of(hits: list[Any]) -> list[str]:
    return [hit.payload["data"] for hit in hits]


def search(store: EngineVectorStore, query: str, top_k: int = 10, filters: dict[str, Any] | None = None) -> list[Any]:
    return store.search(query, vector_of(query), top_k, {**_ALICE, **(filters or {})})


def test_implements_mem0s_interface(store: EngineVectorStore) -> None:
    assert isinstance(store, VectorStoreBase)
    assert store.keyword_search("query", 5, _ALICE) is None
    store.create_col("any", 8, "cosine")
    assert len(store.list_cols()) == 1
    assert store.col_info()["name"] == store.list_cols()[0]


def test_a_user_finds_only_own_rows(store: EngineVectorStore) -> None:
    insert(store, "u_alice", "tea in the garden")
    for number in range(30):
        insert(store, "u_bob", f"tea {number}")
    assert texts_of(search(store, "tea")) == ["tea in the garden"]
    assert texts_of(store.list(_ALICE)[0]) == ["tea in the garden"]
    assert len(store.list(_BOB)[0]) == 30
    assert store.list({"user_id": "u_nobody"}) == [[]]
    assert store.search("tea", vector_of("tea"), 5, {"user_id": "u_nobody"}) == []


@pytest.mark.parametrize("filters", _NOBODY)
def test_rejects_a_call_that_does_not_name_one_user(store: EngineVectorStore, filters: Any) -> None:
    insert(store, "u_alice", "tea")
    with pytest.raises(ScopeError):
        store.search("tea", vector_of("tea"), 5, filters)
    with pytest.raises(ScopeError):
        store.list(filters)
    for payload in [filters or {}, {**(filters or {}), "data": "x"}]:
        with pytest.raises(ScopeError):
            store.insert([vector_of("x")], [payload], [str(uuid4())])


@pytest.mark.parametrize("logic", ["AND", "OR", "NOT", "$or"])
def test_logic_in_a_filter_never_leaves_the_user(store: EngineVectorStore, logic: str) -> None:
    insert(store, "u_alice", "tea")
    insert(store, "u_bob", "tea of bob")
    for hits in (search(store, "tea", 10, {logic: [_BOB]}), store.list({**_ALICE, logic: [_BOB]})[0]):
        assert "tea of bob" not in texts_of(hits)


def test_filters_apply_before_the_top_k(client: EngineMemory) -> None:
    """300 rows that match better do not crowd out the one that meets the filter."""
    store = client.vector_store
    wanted = insert(store, "u_alice", "some tea, and so on and on", topic="drinks")
    vectors, payloads = [vector_of("tea")] * 300, [{**_ALICE, "data": "tea", "topic": "food"}] * 300
    store.insert(vectors, payloads, [str(uuid4()) for _ in range(300)])
    assert [hit.id for hit in search(store, "tea", 1, {"topic": "drinks"})] == [wanted]
    assert len(search(store, "tea", 1_000, {"topic": "food"})) == 300
    assert [hit.id for hit in store.list({**_ALICE, "topic": "drinks"}, 5)[0]] == [wanted]


def test_best_first_and_ties_in_the_order_of_writing(store: EngineVectorStore) -> None:
    # Two names that are not the same, but of the same words.
    near, first, second = (insert(store, "u_alice", text) for text in ["green tea please", "tea", "TEA!"])
    hits = search(store, "tea")
    assert [hit.id for hit in hits] == [first, second, near]
    assert hits[0].score == hits[1].score > hits[2].score > 0
    assert [hit.id for hit in search(store, "tea", 1)] == [first]
    assert hits[0].score <= 1


def test_memories_are_ranked_by_words_too(client: EngineMemory) -> None:
    store = client.vector_store
    insert(store, "u_alice", "the zyzzogeton is a leafhopper")
    insert(store, "u_alice", "something else")
    # A vector that knows nothing of it: only the words do.
    hits = store.search("zyzzogeton", [0.0] * 32, 5, _ALICE)
    assert hits[0].payload["data"] == "the zyzzogeton is a leafhopper"


@pytest.mark.parametrize("query_vector", [[float("nan")] * 32, [0.0] * 32, [float("inf")] * 32])
def test_a_query_without_a_direction_is_answered_by_words(client: EngineMemory, query_vector: list[float]) -> None:
    insert(client.vector_store, "u_alice", "green tea")
    (hit,) = client.vector_store.search("tea", query_vector, 5, _ALICE)
    assert 0 < hit.score <= 1


def test_a_row_is_read_replaced_and_removed_by_its_id(client: EngineMemory, store: EngineVectorStore) -> None:
    row_id = insert(store, "u_alice", "tea", topic="drinks")
    with client.for_user("u_alice"):
        hit = store.get(row_id)
        assert hit is not None
        assert hit.payload == {**_ALICE, **_LINKED, "data": "tea", "topic": "drinks"}
        store.update(row_id, None, {**hit.payload, "linked_memory_ids": [row_id]})
        assert [hit.payload["linked_memory_ids"] for hit in search(store, "tea")] == [[row_id]]
        assert store.get(row_id.upper()) == store.get(row_id)
        store.delete(row_id)
        assert store.get(row_id) is None
        assert store.list(_ALICE) == [[]]
        with pytest.raises(ValueError, match="no row of that id"):
            store.update(row_id, None, {"data": "x"})
        with pytest.raises(ValueError, match="no row of that id"):
            store.delete(row_id)


def test_calls_by_id_must_name_the_user(store: EngineVectorStore) -> None:
    row_id = insert(store, "u_alice", "tea")
    acts: list[Callable[[], object]] = [
        lambda: store.get(row_id),
        lambda: store.update(row_id, None, {**_ALICE, "data": "x"}),
        lambda: store.delete(row_id),
    ]
    for act in acts:
        with pytest.raises(ScopeError, match="name the user"):
            act()
    assert texts_of(store.list(_ALICE)[0]) == ["tea"]


def test_another_users_row_is_like_a_missing_one(client: EngineMemory, store: EngineVectorStore) -> None:
    row_id = insert(store, "u_alice", "tea")
    insert(store, "u_bob", "juice")
    for user_id in ("u_bob", "u_nobody"):
        with client.for_user(user_id):
            assert store.get(row_id) is None
            with pytest.raises(ValueError, match="no row of that id"):
                store.update(row_id, None, {"data": "x"})
            with pytest.raises(ValueError, match="no row of that id"):
                store.delete(row_id)
    assert texts_of(store.list(_ALICE)[0]) == ["tea"]


def test_two_users_may_have_rows_of_one_id(client: EngineMemory, store: EngineVectorStore) -> None:
    row_id = str(uuid4())
    for user_id in ("u_alice", "u_bob"):
        store.insert([vector_of(user_id)], [{"user_id": user_id, "data": user_id, **_LINKED}], [row_id])
    with client.for_user("u_bob"):
        store.delete(row_id)
    with client.for_user("u_alice"):
        hit = store.get(row_id)
    assert hit is not None
    assert hit.payload["data"] == "u_alice"


def test_a_memory_is_found_by_its_new_text_and_in_its_old_place(client: EngineMemory) -> None:
    store = client.vector_store
    row_id = insert(store, "u_alice", "tea")
    insert(store, "u_alice", "juice")
    with client.for_user("u_alice"):
        store.update(row_id, vector_of("juice"), {**_ALICE, "data": "juice"})
    for query in ("juice", "tea"):
        first, second = search(store, query)
        assert first.id == row_id
        assert first.score == second.score, "neither vector nor words are those of the old text"


@pytest.mark.parametrize("row_id", ["", "*", "x", "..", "0" * 31, "0" * 33, "00000000-0000-4000-8000-000000000001"])
def test_an_id_that_names_nothing_finds_nothing(client: EngineMemory, store: EngineVectorStore, row_id: str) -> None:
    insert(store, "u_alice", "tea")
    with client.for_user("u_alice"):
        assert store.get(row_id) is None


def test_memories_and_entities_do_not_see_each_other(client: EngineMemory) -> None:
    memory, entity = insert(client.vector_store, "u_alice", "tea"), insert(client.entity_store, "u_alice", "Assam")
    with client.for_user("u_alice"):
        assert client.vector_store.get(entity) is None
        assert client.entity_store.get(memory) is None
    assert texts_of(client.vector_store.list(_ALICE)[0]) == ["tea"]
    assert texts_of(client.entity_store.list(_ALICE)[0]) == ["Assam"]


def test_a_row_cannot_be_moved_to_another_user(client: EngineMemory, store: EngineVectorStore) -> None:
    row_id = insert(store, "u_alice", "tea")
    with client.for_user("u_alice"), pytest.raises(ScopeError, match="moved"):
        store.update(row_id, None, {"user_id": "u_bob", "data": "tea"})
    assert texts_of(store.list(_ALICE)[0]) == ["tea"]
    assert store.list(_BOB) == [[]]


def test_nothing_is_stored_twice(tmp_path: Path) -> None:
    """mem0's lemmatised copy of the text, and the user in every row, would be more to erase."""
    client = EngineMemory(SqliteStorage(tmp_path / "twice.db", "tests"), WordEmbeddings())
    insert(client.vector_store, "u_alice", "tea", text_lemmatized="a zyzzogeton")
    assert left_in(tmp_path / "twice.db", "zyzzogeton") == []
    client.close()


@pytest.mark.parametrize("vector", [[float("nan")] * 32, [float("inf")] * 32, [], [[1.0] * 32], [1.0] * 8])
def test_rejects_a_vector_that_cannot_be_searched(store: EngineVectorStore, vector: Any) -> None:
    insert(store, "u_alice", "tea")
    with pytest.raises(BackendError):
        store.insert([vector], [{**_ALICE, "data": "x"}], [str(uuid4())])
    assert texts_of(store.list(_ALICE)[0]) == ["tea"]


def test_a_query_of_other_dimensions_is_an_error_that_names_both(store: EngineVectorStore) -> None:
    insert(store, "u_alice", "tea")
    with pytest.raises(BackendError, match=r"8 dimensions.*32"):
        store.search("tea", [1.0] * 8, 5, _ALICE)


def test_a_first_call_that_fails_does_not_decide_the_dimensions(client: EngineMemory, store: EngineVectorStore) -> None:
    def fails() -> None:
        with client.units.unit("u_alice"):
            store.insert([[1.0] * 8, [float("nan")] * 8], [{**_ALICE, "data": "x"}] * 2, [str(uuid4()), str(uuid4())])

    with pytest.raises(BackendError):
        fails()
    assert store.list(_ALICE) == [[]], "neither of the two"
    insert(store, "u_alice", "tea")
    assert texts_of(search(store, "tea")) == ["tea"]


def test_list_returns_at_most_top_k_rows(store: EngineVectorStore) -> None:
    for number in range(5):
        insert(store, "u_alice", f"tea {number}", created_at=f"2023-01-0{number + 1}T00:00:00+00:00")
    assert texts_of(store.list(_ALICE, 2)[0]) == ["tea 4", "tea 3"]
    assert len(store.list(_ALICE)[0]) == len(store.list(_ALICE, 99)[0]) == 5
    assert store.list(_ALICE, 0) == [[]]


def test_rejects_reset(store: EngineVectorStore) -> None:
    insert(store, "u_alice", "tea")
    for act in (store.reset, store.delete_col):
        with pytest.raises(ScopeError):
            act()
    assert len(store.list(_ALICE)[0]) == 1


def test_insert_requires_payloads_and_ids(store: EngineVectorStore) -> None:
    for given in [{"payloads": None, "ids": ["x"]}, {"payloads": [_ALICE], "ids": None}, {"payloads": [], "ids": []}]:
        with pytest.raises(ValueError, match=r"payload|zip"):
            store.insert([vector_of("x")], **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("within_a_unit", [False, True])
def test_what_a_caller_does_to_a_payload_changes_nothing(
    client: EngineMemory, store: EngineVectorStore, within_a_unit: bool
) -> None:
    row_id = insert(store, "u_alice", "tea")
    with client.units.unit("u_alice") if within_a_unit else client.for_user("u_alice"):
        for hit in (store.get(row_id), search(store, "tea")[0], store.list(_ALICE)[0][0]):
            assert hit is not None
            hit.payload["data"] = "changed"
            hit.payload["user_id"] = "u_bob"
        again = store.get(row_id)
    assert again is not None
    assert again.payload == {**_ALICE, **_LINKED, "data": "tea"}
