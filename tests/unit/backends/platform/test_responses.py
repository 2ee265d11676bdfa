"""How the platform's answers are read: rows, events, reasons, changes. Pure, without a platform."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped import BackendError, ScopeError
from langchain_mem0_scoped.backends.platform import responses
from langchain_mem0_scoped.backends.platform.requests import DEDUP_KEY
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.requests import AddRequest
from langchain_mem0_scoped.scope import Scope
from tests.support import NOBODYS_ID

ROW = {"id": NOBODYS_ID, "memory": "tea", "user_id": "alice"}


class TestRows:
    def test_are_in_utc_and_without_the_dedup_key(self) -> None:
        row = responses.parse_row(
            {**ROW, "metadata": {DEDUP_KEY: "m", "n": 1}, "created_at": "2026-01-01T00:00:00-07:00"}
        )
        assert (row["metadata"], row["created_at"]) == ({"n": 1}, "2026-01-01T07:00:00+00:00")
        assert (row["updated_at"], row["score"]) == (None, None)

    def test_keep_a_date_that_cannot_be_parsed(self) -> None:
        assert responses.parse_row({**ROW, "created_at": "yesterday"})["created_at"] == "yesterday"

    @pytest.mark.parametrize("form", [None, [], "tea", {}, {"id": 5}, {"id": "x", "memory": {"a": 1}}], ids=repr)
    def test_of_an_unexpected_form_raise(self, form: Any) -> None:
        with pytest.raises(BackendError, match="unexpected form"):
            responses.parse_row(form)
        with pytest.raises(BackendError, match="unexpected form"):
            responses.parse_rows({"results": [ROW, form]})

    @pytest.mark.parametrize("answer", [None, [], "tea", {}, {"results": None}, {"results": {}}], ids=repr)
    def test_missing_results_raise(self, answer: Any) -> None:
        with pytest.raises(BackendError, match="a list of results"):
            responses.parse_rows(answer)


class TestEvents:
    @pytest.mark.parametrize(
        ("answer", "status", "event_id"),
        [
            ({"status": "pending", "event_id": "e"}, "PENDING", "e"),
            ({"status": None, "event_id": ""}, "", None),
            ({"event_id": 5}, "", None),
            ([], "", None),
            (None, "", None),
        ],
        ids=repr,
    )
    def test_status_and_event_id(self, answer: Any, status: str, event_id: str | None) -> None:
        assert (responses.status_of(answer), responses.event_id_of(answer)) == (status, event_id)

    def test_an_add_that_is_not_waited_for_is_pending(self) -> None:
        request = AddRequest([TextMessage("user", "tea")], {"session_id": "s1"})
        (row,) = responses.pending_rows("alice", request, "e")
        assert row["metadata"] == {"session_id": "s1", "status": "PENDING", "event_id": "e"}
        assert (row["id"], row["user_id"], row["memory"], row["role"]) == ("", "alice", "tea", "user")


class TestReasons:
    TEXT = "The spare key lies under Frieda's flowerpot"

    def reason(self, given: Any) -> str:
        return responses.failure_reason({"error": given}, [self.TEXT])

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ("quota exceeded", "quota exceeded"),
            (f"could not parse: {TEXT}", "could not parse: …"),
            (f"could not parse '{TEXT}' at 3", "could not parse …"),
            ('model said {"memory": "Frieda"}, no JSON', "model said …"),
            ("FLOWERPOT unknown", "… unknown"),
            (None, ""),
            ("", ""),
            (5, "5"),
        ],
        ids=repr,
    )
    def test_have_no_word_of_the_text(self, given: Any, reason: str) -> None:
        assert self.reason(given).startswith(reason)
        for word in ("key", "Frieda", "flowerpot", "FLOWERPOT"):
            assert word not in self.reason(given)

    def test_are_short(self) -> None:
        assert len(self.reason("too long " * 100)) <= 200

    @given(st.text(max_size=60), st.text("abcé🐈 \n\"'`{[(", min_size=4, max_size=40))
    def test_have_no_word_of_any_text(self, around: str, text: str) -> None:
        reason = responses.failure_reason({"error": f"{around} {text} {around}"}, [text])
        words = {word.casefold() for word in responses._WORD.findall(text)}
        assert not words & {word.casefold() for word in responses._WORD.findall(reason)}

    @pytest.mark.parametrize("answer", [None, [], "x", {}])
    def test_of_no_event_are_empty(self, answer: Any) -> None:
        assert responses.failure_reason(answer, []) == ""


class TestHistory:
    def change(self, **changes: Any) -> dict[str, Any]:
        return {
            "id": "h",
            "memory_id": NOBODYS_ID,
            "user_id": "alice",
            "event": "ADD",
            "new_memory": "tea",
            "old_memory": "water",
            "input": [{"role": "user", "content": "I drink tea"}],
            "created_at": "2026-01-01T00:00:00Z",
            **changes,
        }

    def test_is_oldest_first_with_only_the_present_text(self) -> None:
        rows = [self.change(event="UPDATE", new_memory="coffee", created_at="2026-01-02T00:00:00Z"), self.change()]
        changes = responses.parse_history(rows, NOBODYS_ID.upper(), Scope("alice"))
        assert [(row["event"], row["new_memory"], row["old_memory"]) for row in changes] == [
            ("ADD", None, None),
            ("UPDATE", "coffee", None),
        ]
        assert "drink" not in str(changes)

    def test_of_another_user_raises(self) -> None:
        with pytest.raises(ScopeError):
            responses.parse_history([self.change(), self.change(user_id="bob")], NOBODYS_ID, Scope("alice"))

    def test_of_another_memory_raises(self) -> None:
        with pytest.raises(BackendError, match="unexpected form"):
            responses.parse_history([self.change(memory_id="x")], NOBODYS_ID, Scope("alice"))

    @pytest.mark.parametrize("form", [{}, "x", [5], None], ids=repr)
    def test_of_an_unexpected_form_raises(self, form: Any) -> None:
        with pytest.raises(BackendError, match="unexpected form"):
            responses.parse_history(form, NOBODYS_ID, Scope("alice"))


@pytest.mark.parametrize("text", ["", "<html>", "{", "[" * 100_000, "nonsense: secret"], ids=len)
def test_text_that_is_not_json_raises_without_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not JSON$") as caught:
        responses.parse_json(text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
