"""mem0's extraction: which answers of a model are read, and which memories take part."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mem0.memory.utils import remove_code_blocks

from langchain_mem0_scoped.extraction import (
    UnreadableAnswer,
    comparable,
    is_unreadable,
    lasts_longer,
    must_last_until,
    normal_forms,
    readable_answer,
    takes_part,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FACT = st.fixed_dictionaries({"text": st.text(min_size=1, max_size=30).filter(str.strip)})


def read(answer: str) -> list[dict[str, str]]:
    """As mem0 reads what it gets."""
    facts: list[dict[str, str]] = json.loads(remove_code_blocks(readable_answer(answer)), strict=False)["memory"]
    return facts


@settings(max_examples=40)
@given(st.lists(FACT, max_size=4), st.lists(ANY_JSON, max_size=4), st.randoms())
def test_every_fact_that_can_be_stored_is_kept_whatever_stands_beside_it(facts: Any, others: Any, rng: Any) -> None:
    facts = [fact for fact in facts if "\0" not in fact["text"]]
    others = [other for other in others if not isinstance(other, dict) or "text" not in other]
    entries = [*facts, *others]
    rng.shuffle(entries)
    answer = json.dumps({"memory": entries})
    try:
        assert read(answer) == [entry for entry in entries if entry in facts]
    except UnreadableAnswer:
        assert not facts
        assert others


@settings(max_examples=60)
@given(ANY_JSON.map(json.dumps) | st.text(max_size=60))
def test_any_answer_is_read_or_unreadable(answer: str) -> None:
    with suppress(UnreadableAnswer):
        assert isinstance(read(answer), list)


@pytest.mark.parametrize(
    "around", ["{}", "```json\n{}\n```", "Here you are: {}\nAnything else?", "<think>{{</think>{}"]
)
@settings(max_examples=25)
@given(text=st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and "\0" not in text))
def test_answer_is_found_in_what_models_put_around_it(around: str, text: str) -> None:
    answer = json.dumps({"memory": [{"text": text}]})
    assert read(around.replace("{{", "\x01").replace("{}", answer).replace("\x01", "{")) == [{"text": text}]


def test_speaker_is_kept_if_mem0_has_such_a_speaker() -> None:
    for speaker, kept in {"user": True, "assistant": True, "u_bob": False, "": False}.items():
        (fact,) = read(json.dumps({"memory": [{"text": "x", "attributed_to": speaker, "id": "0"}]}))
        assert fact == ({"text": "x", "attributed_to": speaker} if kept else {"text": "x"})


def test_answer_of_many_braces_is_given_up() -> None:
    for answer in ("{" * 200_000, '{"a":' * 20_000, '{"memory": [' + '{"text": "x"}, ' * 20_000):
        with pytest.raises(UnreadableAnswer):
            readable_answer(answer)


def test_cause_of_mem0s_error_is_found() -> None:
    error = RuntimeError()
    error.__cause__ = ValueError()
    assert not is_unreadable(error)
    error.__cause__.__cause__ = UnreadableAnswer()
    assert is_unreadable(error)


def test_memory_takes_part_if_it_lasts_as_long_as_what_is_added() -> None:
    today = datetime.now(UTC).date()
    past, soon, later = (str(today + timedelta(days=days)) for days in (-1, 1, 9))
    assert must_last_until(None) == date.max
    assert must_last_until(past) == today
    assert str(must_last_until(soon)) == soon
    for stored, added, expected in [
        (None, None, True),
        (later, None, False),
        (past, None, False),
        (later, soon, True),
        (soon, soon, True),
        (soon, later, False),
        (past, past, False),
        (str(today), past, True),
        ("soon", None, True),
    ]:
        assert takes_part(stored, must_last_until(added)) is expected


@settings(max_examples=50)
@given(st.none() | st.dates().map(str), st.none() | st.dates().map(str))
def test_later_of_two_last_days(one: str | None, other: str | None) -> None:
    assert lasts_longer(one, other) == ((one or "z") > (other or "z"))
    assert not (lasts_longer(one, other) and lasts_longer(other, one))


@given(st.text(max_size=20))
def test_normal_forms_are_comparable(text: str) -> None:
    assert {comparable(form) for form in normal_forms(text)} == {comparable(text)}
