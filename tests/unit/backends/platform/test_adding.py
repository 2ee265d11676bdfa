"""An add on the platform, step by step: sent again where it is lost, and stored once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from langchain_mem0_scoped import BackendError, ScopeError
from langchain_mem0_scoped.backends.platform import adding
from langchain_mem0_scoped.backends.platform.operations import Step
from langchain_mem0_scoped.backends.platform.requests import DEDUP_KEY, Request
from langchain_mem0_scoped.backends.platform.transport import OutcomeUnknown
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.requests import AddRequest
from tests.unit.backends.platform.script import page_of, play, requests_in, row

EVENT = str(UUID(int=99))
LOST = OutcomeUnknown("the connection broke", retryable=True)


def add_request(*texts: str, **changes: Any) -> AddRequest:
    messages = [TextMessage(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    return AddRequest(messages, **{"infer": True, **changes})


class TestAdd:
    def test_lost_add_is_sent_again_with_the_same_id(self) -> None:
        lost = iter([True, True])
        ids: list[str] = []

        def answer(step: Step) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, Request)
            if "add" in step.path:
                assert step.body is not None
                ids.append(step.body["metadata"][DEDUP_KEY])
                return LOST if next(lost, False) else {"results": [{"id": row(1)["id"]}], "status": "SUCCEEDED"}
            return page_of(row(1)) if len(ids) == 3 else page_of()

        added, steps = play(adding.add("alice", add_request("tea")), answer)
        assert [one["id"] for one in added] == [row(1)["id"]]
        assert len(ids) == 3
        assert len({*ids}) == 1
        assert sum(step for step in steps if isinstance(step, float)) / 2 >= adding.LOST_ADD_TIMEOUT
        assert requests_in(steps, "DELETE") == []

    def test_rows_the_last_answer_does_not_name_are_deleted(self) -> None:
        sends, looks = iter([LOST]), iter([page_of()] * 5)

        def answer(step: Step) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, Request)
            if "add" in step.path:
                return next(sends, {"results": [{"id": row(2)["id"]}], "status": "SUCCEEDED"})
            return {} if step.method == "DELETE" else next(looks, page_of(row(2), row(1)))

        added, steps = play(adding.add("alice", add_request("tea", infer=False)), answer)
        assert [one["id"] for one in added] == [row(2)["id"]]
        assert [request.path for request in requests_in(steps, "DELETE")] == [f"/v1/memories/{row(1)['id']}/"]

    @pytest.mark.parametrize("wait", [True, False])
    def test_repeated_add_is_polled_even_without_wait(self, wait: bool) -> None:
        sends, done = iter([LOST, {"event_id": EVENT, "status": "PENDING"}]), False

        def answer(step: Step) -> Any:
            nonlocal done
            if isinstance(step, float):
                return None
            assert isinstance(step, Request)
            if "add" in step.path:
                return next(sends)
            if "event" in step.path:
                done = True
                return {"status": "SUCCEEDED", "results": [{"id": row(2)["id"]}]}
            if step.method == "DELETE":
                return {}
            return page_of(row(2), row(1)) if done else page_of()

        added, steps = play(adding.add("alice", add_request("tea", wait=wait)), answer)
        assert [one["id"] for one in added] == [row(2)["id"]]
        assert [request.path for request in requests_in(steps, "DELETE")] == [f"/v1/memories/{row(1)['id']}/"]

    def test_foreign_row_with_the_id_raises(self) -> None:
        def answer(step: Step) -> Any:
            if isinstance(step, Request) and step.path == "/v3/memories/":
                return page_of(row(1, user_id="bob"))
            return {"results": [], "status": "SUCCEEDED"}

        with pytest.raises(ScopeError):
            play(adding.add("alice", add_request("tea")), answer)

    def test_verbatim_rows_have_the_order_and_roles_of_the_messages(self) -> None:
        rows = [row(number, text) for number, text in enumerate(("b", "a", "a"), 1)]  # the same text by two speakers
        ordered = adding.in_message_order(rows, add_request("a", "a", "b", infer=False))
        assert [(one["memory"], one["role"]) for one in ordered] == [("a", "user"), ("a", "assistant"), ("b", "user")]
        assert len({one["id"] for one in ordered}) == 3
        # A text that the platform has changed is returned too.
        assert [one["memory"] for one in adding.in_message_order([row(1, "A")], add_request("a", infer=False))] == ["A"]

    def test_event_is_polled_at_growing_intervals(self) -> None:
        polls = iter(["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])

        def answer(step: Step) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, Request)
            if "event" in step.path:
                return {"status": next(polls), "results": []}
            return page_of(row(1)) if step.path == "/v3/memories/" else {"event_id": EVENT, "status": "PENDING"}

        _, steps = play(adding.add("alice", add_request("tea")), answer)
        assert len(requests_in(steps, "event")) == 4
        waited = [step for step in steps if isinstance(step, float)]
        assert waited == sorted(waited)
        assert len(waited) == 3

    def test_failed_add_raises_even_without_wait(self) -> None:
        with pytest.raises(BackendError, match="could not finish add: quota"):
            play(
                adding.add("alice", add_request("tea", wait=False)),
                lambda _: {"results": [], "status": "FAILED", "error": "quota"},
            )

    @pytest.mark.parametrize("retryable", [True, False])
    def test_error_after_a_possible_add_is_not_retryable(self, retryable: bool) -> None:
        def answer(step: Step) -> Any:
            if isinstance(step, Request) and "add" in step.path:
                return {"event_id": EVENT, "status": "PENDING"}
            return BackendError("down", retryable=retryable, status=503)

        with pytest.raises(BackendError, match="down") as caught:
            play(adding.add("alice", add_request("tea")), answer)
        assert not caught.value.retryable
        assert caught.value.status == 503
        assert ("not known" in str(caught.value)) == retryable
