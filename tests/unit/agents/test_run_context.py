"""Which user, session and agent a run is of; agents under agents are in test_subagents.py."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from langchain_mem0_scoped import ScopeError
from langchain_mem0_scoped.agents.run_context import current_config, is_called_by_an_agent, session_of, user_id_from


@pytest.mark.parametrize(
    "context", [{"user_id": "a"}, MappingProxyType({"user_id": "a"}), SimpleNamespace(user_id="a")]
)
def test_user_of_a_context(context: Any) -> None:
    assert user_id_from(context) == "a"


@pytest.mark.parametrize("context", [None, {}, {"user_id": None}, "a", 7, SimpleNamespace()], ids=str)
def test_context_without_a_user(context: Any) -> None:
    with pytest.raises(ScopeError, match="no default user"):
        user_id_from(context)


@pytest.mark.parametrize(
    ("configurable", "session"),
    [
        ({}, ""),
        (None, ""),
        ({"thread_id": None}, ""),
        ({"thread_id": "t1"}, "t1"),
        ({"thread_id": 0}, "0"),
        ({"thread_id": UUID(int=1)}, "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_session_of_a_thread(configurable: Any, session: str) -> None:
    assert session_of({"configurable": configurable}) == session


@pytest.mark.parametrize("thread_id", ["", " ", "a b", "*", True, 1.0, b"t1", ["t1"]], ids=repr)
def test_refused_thread(thread_id: Any) -> None:
    with pytest.raises(ScopeError, match=r"^thread_id must .* The thread is the session"):
        session_of({"configurable": {"thread_id": thread_id}})


@pytest.mark.parametrize(
    ("configurable", "metadata", "expected"),
    [
        ({}, {}, False),
        ({"checkpoint_ns": "model:1"}, {}, False),
        ({"checkpoint_ns": "tools:1|model:2"}, {}, True),
        ({"checkpoint_ns": "research:1|tools:2|model:3"}, {}, True),
        ({"checkpoint_ns": "research:1|model:2"}, {}, False),
        ({"checkpoint_ns": "model:1"}, {"checkpoint_ns": "tools:2"}, True),
        ({"checkpoint_ns": "model:1"}, {"checkpoint_ns": "toolshed:2"}, False),
        ({"checkpoint_ns": "guard.before_model:1|model:2"}, {}, True),
        ({"checkpoint_ns": "before_model:1|model:2"}, {}, False),
    ],
)
def test_agent_called_by_an_agent(configurable: Any, metadata: Any, expected: bool) -> None:
    assert is_called_by_an_agent({"configurable": configurable, "metadata": metadata}) is expected


def test_outside_of_a_run_the_config_is_empty() -> None:
    assert session_of(current_config()) == ""
