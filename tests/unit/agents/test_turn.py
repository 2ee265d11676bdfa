"""What a turn of an agent is, by its messages alone; test_said.py runs agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_mem0_scoped.agents.turn import (
    AgentTurn,
    answers_of,
    answers_to_remember,
    begin_turn,
    continue_turn,
    end_turn,
    is_owner,
    is_users,
    leave_to_next_turn,
    left_unanswered,
    merge_turns,
    seen_by_model,
    source_of,
)
from langchain_mem0_scoped.recall_text import recall_message


def human(text: str, id: str | None = None, **more: Any) -> HumanMessage:
    return HumanMessage(text, id=id or text, **more)


def ai(text: str, id: str | None = None) -> AIMessage:
    return AIMessage(text, id=id or text)


def call(id: str) -> AIMessage:
    return AIMessage("", id=id, tool_calls=[{"name": "look", "args": {}, "id": "c1", "type": "tool_call"}])


def result(text: str) -> ToolMessage:
    return ToolMessage(text, id=text, tool_call_id="c1")


RECALL = recall_message([{"memory": "m"}]).model_copy(update={"id": "r"})  # type: ignore[typeddict-item]
SUMMARY = human("s", additional_kwargs={"lc_source": "summarization"})


def begin(messages: Sequence[BaseMessage], user: str = "alice", previous: AgentTurn | None = None) -> AgentTurn:
    return begin_turn(previous, messages, user, [1, 0], left_unanswered(previous, user)["ids"])


def stored(turn: AgentTurn, messages: Sequence[BaseMessage]) -> AgentTurn:
    """Return a turn after its end."""
    seen = AgentTurn(seen=seen_by_model(turn, messages))
    return merge_turns(merge_turns({"m": turn}, {"m": seen}), {"m": end_turn(messages)})["m"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], []),
        ([human("a"), human("b")], ["a", "b"]),
        ([human("a"), ai("x"), human("b")], ["b"]),
        ([human("a"), ai("x")], []),
        ([human("a"), call("x"), result("r")], ["a"]),
        ([human("a"), call("x"), human("b")], ["a", "b"]),
        ([human("a"), call("x"), result("r"), human("b"), human("c")], ["b", "c"]),
        ([SUMMARY, human("a")], ["a"]),
        ([SUMMARY], []),
        ([RECALL, human("a")], ["a"]),
    ],
)
def test_said_since_the_last_answer(messages: list[BaseMessage], said: list[str]) -> None:
    assert begin(messages)["said"] == said


def test_what_a_run_has_seen_is_not_said_again() -> None:
    first = [human("a", "1"), ai("x")]
    turn = stored(begin(first[:1]), first)
    assert begin(first, previous=turn)["said"] == []
    assert begin([human("b", "1"), ai("x")], previous=turn)["said"] == ["1"]
    assert begin([*first, human("b", "2")], previous=turn)["said"] == ["2"]
    # Messages that an app sends again without ids are part of the conversation before the last answer.
    assert begin([*first, human("a", "3"), ai("x", "4"), human("b", "5")], previous=turn)["said"] == ["5"]


def test_what_a_run_left_belongs_to_its_users_next_turn() -> None:
    failed = begin([human("a", "1")])
    messages = [human("a", "1"), human("b", "2")]
    assert begin(messages, previous=failed)["said"] == ["1", "2"]
    assert begin(messages, previous=failed)["left"] == ["1"]
    bobs = begin(messages, "bob", failed)
    assert (bobs["said"], bobs["left"]) == (["2"], [])
    again = begin([*messages, human("c", "3")], previous=bobs)
    assert again["said"] == ["1", "3"]
    # A message that is gone from the thread is forgotten, and one that is answered is not left.
    assert begin([human("c", "3")], previous=bobs)["said"] == ["3"]
    assert begin(messages, previous=stored(again, messages))["said"] == []


def test_removed_message_that_is_sent_again_is_not_said_again() -> None:
    turn = stored(begin([human("a", "1")]), [SUMMARY, ai("x")])
    assert begin([SUMMARY, ai("x"), human("a", "1"), human("b", "2")], previous=turn)["said"] == ["2"]
    # Nor does the state keep a digest of it.
    assert [len(digest) for one, digest in turn["seen"].items() if one == "1"] == [1]


def test_what_was_left_before_an_erasure_is_not_said_after_it() -> None:
    failed = begin([human("a", "1")])
    assert left_unanswered(failed, "alice") == {"ids": ["1"], "erasure_token": [1, 0]}
    assert left_unanswered(failed, "bob")["ids"] == left_unanswered(None, "bob")["ids"] == []
    turn = begin_turn(failed, [human("a", "1"), human("b", "2")], "alice", [2, 0])
    assert turn["said"] == ["2"]
    assert left_unanswered(turn, "alice") == {"ids": ["2"], "erasure_token": [2, 0]}


def test_changed_by_a_middleware_is_new_only_at_the_end() -> None:
    raw, redacted = human("my mail is a@b.c", "1"), human("my mail is [REDACTED]", "1")
    turn = stored(begin([raw]), [redacted, ai("x")])
    assert begin([raw, ai("x"), human("b", "2")], previous=turn)["said"] == ["2"]
    assert begin([redacted, ai("x"), human("b", "2")], previous=turn)["said"] == ["2"]
    assert begin([raw, ai("x")], previous=turn)["said"] == ["1"]
    later = begin([raw, ai("x"), human("b", "2")], previous=turn)
    assert begin([redacted, ai("x"), human("b", "2"), human("c", "3")], previous=stored(later, [human("b", "2")]))[
        "said"
    ] == ["3"]


def test_resumed_turn_takes_what_an_app_has_added() -> None:
    turn = begin([human("a", "1")])
    added = [human("a", "1"), call("x"), result("r"), human("b", "2")]
    assert continue_turn(turn, added) == ["1", "2"]
    assert continue_turn(turn, added[:3]) == ["1"]
    assert continue_turn(turn, [SUMMARY, human("b", "2")]) == ["1", "2"]


def test_state_holds_no_text_and_no_user() -> None:
    turn = begin([human("SECRET", "1")], "alice@example.com")
    assert "SECRET" not in json.dumps(turn)
    assert "alice" not in json.dumps(turn)
    assert is_owner(turn, "alice@example.com")
    assert not is_owner(turn, "alice@example.co")
    assert begin([], "alice@example.com")["owner"] != turn["owner"]


def test_answers_follow_what_was_said() -> None:
    turn = begin([ai("x0"), human("a", "1")])
    messages = [ai("x0"), human("a", "1"), call("x1"), result("r"), human("nudge"), ai("x2")]
    assert [one.id for one in answers_of(turn, messages)] == ["x1", "r", "x2"]
    assert answers_to_remember(turn, messages) == {"x1", "r", "x2"}
    # The last message before the turn was removed; an earlier one is left.
    assert [one.id for one in answers_of(turn, [ai("x0"), ai("x2")])] == ["x2"]
    # An answer with the id of an earlier one is in its place.
    replaced = AgentTurn(**{**turn, "answers": ["x0"]})
    assert [one.id for one in answers_of(replaced, messages[:2])] == ["x0"]


def test_after_a_summary_only_the_last_answer_is_remembered() -> None:
    turn = begin([human("a", "1")])
    messages = [SUMMARY, call("x1"), result("r"), ai("x2")]
    assert [one.id for one in answers_of(turn, messages)] == ["x1", "r", "x2"]
    assert answers_to_remember(turn, messages) == {"x2"}
    assert answers_to_remember(turn, messages[:3]) == set()


def test_answers_to_nothing_are_not_remembered() -> None:
    turn = begin([])
    assert [one.id for one in answers_of(turn, [ai("x")])] == ["x"]
    assert answers_to_remember(turn, [ai("x")]) == set()


@pytest.mark.parametrize(
    ("text", "said", "source"),
    [
        ("anything", ["a"], "a"),
        ("Moved to Porto", ["I moved to Porto", "I am vegetarian"], "I moved to Porto"),
        ("IS VEGETARIAN", ["I moved to Porto", "I am vegetarian"], "I am vegetarian"),
        ("她住在波尔图", ["我住在波尔图", "我吃素"], "我住在波尔图"),
        ("xyz", ["I moved to Porto", "I am vegetarian"], None),
    ],
)
def test_source_of_a_remembered_text(text: str, said: list[str], source: str | None) -> None:
    assert source_of(text, [human(one) for one in said]) == source


def test_turns_are_merged_by_middleware() -> None:
    one, two = begin([human("a", "1")]), begin([human("b", "2")])
    both = merge_turns(merge_turns(None, {"one": one}), {"two": two})
    assert both == {"one": one, "two": two}
    noted = merge_turns(merge_turns(both, {"one": AgentTurn(noted=["1"])}), {"one": AgentTurn(noted=["3"])})
    assert noted["one"] == {**one, "noted": ["1", "3"]}
    assert noted["two"] == two
    assert merge_turns(noted, {"one": two})["one"] == two
    assert merge_turns({}, {"new": AgentTurn(noted=["1"])}) == {"new": {"noted": ["1"]}}


def test_is_users() -> None:
    assert is_users(human("a"))
    assert not is_users(SUMMARY)
    assert not is_users(ai("a"))


def test_what_comes_with_the_resume_of_another_users_run_is_that_users_next_turns() -> None:
    turn = begin([human("a")])
    messages = [human("a"), human("b1"), human("b2")]
    # Resumed twice, and erased in between: the first token keeps all of it from being stored.
    for said, token in (("b1", [1, 0]), ("b2", [2, 0])):
        update = leave_to_next_turn(turn, [said], "bob", token)
        turn = merge_turns({"m": turn}, {"m": update})["m"]
    assert left_unanswered(turn, "bob") == {"ids": ["b1", "b2"], "erasure_token": [1, 0]}
    turn["seen"] = seen_by_model(turn, messages)
    assert begin([*messages, human("c")], "alice", turn)["said"] == ["a", "c"]
    assert begin([*messages, human("c")], "bob", turn)["said"] == ["b1", "b2", "c"]
