"""A scripted platform: takes the steps of a call and answers each, without any request being sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_mem0_scoped.backends.platform.operations import Step
from langchain_mem0_scoped.backends.platform.requests import Request


def play(steps: Any, answer: Callable[[Step], Any]) -> tuple[Any, list[Step]]:
    """Take the steps of a call to their end.

    Args:
        steps: The call, as the functions of `operations` and `adding` return it.
        answer: Returns what the platform answers to a request, or an error to be raised in its place.

    Returns:
        The result of the call, and its steps.
    """
    taken: list[Step] = []
    try:
        step = next(steps)
        while True:
            taken.append(step)
            given = [answer(one) for one in step] if isinstance(step, list) else answer(step)
            step = steps.throw(given) if isinstance(given, Exception) else steps.send(given)
    except StopIteration as done:
        return done.value, taken


def requests_in(steps: list[Step], text: str) -> list[Request]:
    """Return the requests among steps whose method and path contain a text."""
    flat = [one for step in steps for one in (step if isinstance(step, list) else [step])]
    return [one for one in flat if isinstance(one, Request) and text in f"{one.method} {one.path}"]


def row(number: int, text: str = "tea", user_id: str = "alice", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    """Return a row as the platform sends it, whose id is made from a number."""
    return {"id": str(UUID(int=number)), "memory": text, "user_id": user_id, "metadata": {}, "created_at": at}


def page_of(*rows: dict[str, Any], count: int | None = None, more: bool = False) -> dict[str, Any]:
    """Return a page as the platform sends it."""
    return {"results": [*rows], "count": len(rows) if count is None else count, "next": "more" if more else None}
