"""Rows as arrays, and the packed form of each row."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from langchain_mem0_scoped.ranking.index import (
    EMPTY_PACKED_ROW,
    build_rows,
    concat_rows,
    pack_row,
    packed_row,
    session_hash,
    speaker_hash,
    unix_seconds,
)
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, pack_terms, tokenize
from langchain_mem0_scoped.ranking.vectors import unit_vector
from tests.partitions import DIMS, KEY, OTHER_KEY, partition


def assert_same(one: Any, other: Any) -> None:
    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


class TestPackRow:
    def test_packs_header_then_terms(self) -> None:
        packed, length = pack_row({"data": "the dog and a cat, a dog"}, KEY)
        terms = pack_terms(tokenize("the dog and a cat, a dog"), KEY)
        assert np.frombuffer(packed, "<u8")[2:].tolist() == terms
        assert length == 3

    @pytest.mark.parametrize("key", [KEY, OTHER_KEY])
    def test_packed_row_holds_no_readable_text(self, key: bytes) -> None:
        payload = {"data": "peanut", "session_id": "session-1", "actor_id": "Annabel", "created_at": "2026-01-01"}
        packed, _ = pack_row(payload, key)
        for word in (b"peanut", b"session-1", b"Annabel", b"annabel"):
            assert word not in packed

    def test_packed_rows_of_two_users_share_no_word(self) -> None:
        payload = {"data": "peanut", "session_id": "s", "actor_id": "Ann"}
        one, other = (np.frombuffer(pack_row(payload, key)[0], "<u8") for key in (KEY, OTHER_KEY))
        assert not set(one.tolist()) & set(other.tolist())

    @pytest.mark.parametrize("session", [None, 1, ["s"]])
    def test_session_that_is_not_a_str_is_ignored(self, session: Any) -> None:
        assert partition([{"data": "dog", "session_id": session}]).sessions.tolist() == [0]

    def test_each_session_has_its_own_hash(self) -> None:
        rows = partition([{"data": "dog", "session_id": one} for one in ("s1", "s2", "s1", "dog")] + ["dog"])
        first, second, again, word, none = rows.sessions.tolist()
        assert first == again == int(session_hash("s1", KEY))
        assert len({first, second, word, none}) == 4
        assert none == 0
        assert word not in hash_terms(["dog"], KEY)

    @pytest.mark.parametrize(
        ("payload", "term"),
        [
            ({"data": "Anna: I went home"}, "anna"),
            ({"data": "[Anna] I went home"}, "anna"),
            ({"data": "I went home", "actor_id": "Anna"}, "anna"),
            ({"data": "Anna: I went home", "actor_id": "Rex"}, "rex"),
            ({"data": "I went home", "actor_id": "Anna Maria"}, "anna"),
            ({"data": "I went home", "actor_id": "?!"}, None),
            ({"data": "\u72ac: \u5bb6"}, "\u72ac"),
            ({"data": ""}, None),
        ],
    )
    def test_speaker_is_a_term_of_the_name_or_the_text(self, payload: dict[str, Any], term: str | None) -> None:
        assert partition([payload]).speakers.tolist() == ([speaker_hash(hash_terms([term], KEY)[0])] if term else [0])

    @pytest.mark.parametrize(
        "text", ["Why?", "\u306a\u305c\uff1f", "\u0644\u0645\u0627\u0630\u0627\u061f", "Why? Because."]
    )
    def test_question_marks_of_any_script_are_known(self, text: str) -> None:
        assert partition([text, "No."]).is_question.tolist() == [True, False]

    def test_timestamp_is_seconds_since_year_1(self) -> None:
        timestamps = ["2026-01-02T03:04:05+00:00", "1950-01-01T00:00:00+00:00", None, "yesterday"]
        rows = partition([{"data": "x", "created_at": timestamp} for timestamp in timestamps])
        year_1 = datetime(1, 1, 1, tzinfo=UTC).timestamp()
        assert rows.timestamps.tolist() == [1767323045 - year_1, -631152000 - year_1, 0, 0]
        edges = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
        first, last = partition([{"data": "x", "created_at": timestamp} for timestamp in edges]).timestamps.tolist()
        assert (first, last) == (0, 315_537_947_999)
        assert unix_seconds("1970-01-02T00:00:00+00:00") == 86_400


class TestBuildRows:
    def test_builds_arrays_from_stored_rows(self) -> None:
        vectors = np.arange(3 * DIMS, dtype=np.float32).reshape(3, DIMS)
        rows = partition(["dog cat", "", "dog"], vectors)
        assert rows.vectors.dtype == np.float32
        assert rows.terms.dtype == rows.headers.dtype == np.uint64
        assert rows.row_of_term.dtype == np.intp
        assert rows.lengths.dtype == np.float64
        assert rows.row_of_term.tolist() == [0, 0, 2]
        assert rows.lengths.tolist() == [2, 0, 1]
        assert rows.terms[2] in rows.terms[:2]
        np.testing.assert_array_equal(rows.vectors, np.stack([unit_vector(vector) for vector in vectors]))

    def test_rows_may_have_no_terms(self) -> None:
        rows = build_rows([bytes(4 * DIMS)] * 2, [b"", b""], [0, 0], DIMS)
        assert rows.headers.tolist() == [[0] * 2] * 2
        assert rows.terms.size == rows.row_of_term.size == 0

    def test_there_may_be_no_rows(self) -> None:
        assert build_rows([], [], [], DIMS).vectors.shape == (0, DIMS)

    @pytest.mark.parametrize(
        ("vectors", "terms", "lengths"),
        [
            ([bytes(4 * DIMS)], [], [0]),
            ([bytes(4 * DIMS)], [EMPTY_PACKED_ROW], [0, 0]),
            ([bytes(4 * DIMS - 4)], [EMPTY_PACKED_ROW], [0]),
            ([bytes(4 * DIMS)] * 2, [EMPTY_PACKED_ROW, b""], [0, 0]),
        ],
    )
    def test_rejects_parts_of_different_lengths(
        self, vectors: list[bytes], terms: list[bytes], lengths: list[int]
    ) -> None:
        with pytest.raises(ValueError, match="expected"):
            build_rows(vectors, terms, lengths, DIMS)

    def test_concatenated_rows_equal_rows_built_together(self) -> None:
        documents: list[Any] = ["dog cat?", {"data": "", "session_id": "s"}, {"data": "dog", "actor_id": "Rex"}]
        vectors = np.eye(3, DIMS)
        whole = partition(documents, vectors)
        for at in (1, 2):
            parts = concat_rows(partition(documents[:at], vectors[:at]), partition(documents[at:], vectors[at:]))
            for one, other in zip(parts, whole, strict=True):
                assert_same(one, other)

    def test_packed_row_restores_the_stored_form(self) -> None:
        payload = {"data": "dog cat?", "session_id": "s", "created_at": "2026-01-01"}
        assert packed_row(partition([payload]), 0, 0, 2) == pack_row(payload, KEY)[0]
