"""Whatever a front end sends of its conversation, each message is given to the model, stored and remembered once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Literal
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import config_of, remembered, transcript_texts
from tests.memory_storage import MemoryStorage
from tests.worlds import WordEmbeddings

ACTIONS: Final = ("says", "says two", "retries", "regenerates", "edits", "deletes an exchange", "reloads")
OUTCOMES: Final = ("answered", "answered", "failed", "stopped")

steps = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(OUTCOMES), st.sampled_from((None, 4, 1)))


class ModelGone(Exception):
    pass


class FrontEnd:
    """A front end that keeps what it shows, over one session.

    Args:
        ids: Whether human messages have ids, and whether each run gets new ones.
    """

    def __init__(self, ids: Literal["none", "kept", "new"]) -> None:
        self.client = EngineMemory(MemoryStorage(), WordEmbeddings())
        self.chain = with_scoped_memory(RunnableLambda(self.answer), client=self.client, recall=0)
        self.with_ids = ids == "kept"
        self.makes_ids = ids == "new"
        self.shown: list[BaseMessage] = []
        self.said = 0
        self.fails = False
        self.seen: list[BaseMessage] = []

    def answer(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
        self.seen = messages
        yield AIMessageChunk(content="re ")
        if self.fails:
            raise ModelGone
        yield AIMessageChunk(content=messages[-1].text)

    def say(self) -> None:
        self.said += 1
        self.shown.append(HumanMessage(f"m{self.said}", id=f"id{self.said}" if self.with_ids else None))

    def drop_answers(self) -> None:
        while self.shown and self.shown[-1].type != "human":
            self.shown.pop()

    def step(self, action: str, outcome: str, last: int | None) -> None:
        waits = bool(self.shown) and self.shown[-1].type == "human"
        if action == "reloads":
            self.shown.clear()
            return
        if action == "deletes an exchange":
            if self.with_ids or any(message.type == "ai" for message in self.shown[2:]):
                del self.shown[:2]
            return
        if action in ("regenerates", "edits") and any(message.type == "human" for message in self.shown):
            before = list(self.shown)
            self.drop_answers()
            if not self.with_ids and not self.shows_answers(None):
                # Without ids and answers, nothing tells such messages from others that are said once more.
                self.shown = before
                return
            if action == "edits":
                self.shown.pop()
                self.say()
        elif action == "says two":
            self.say()
            self.say()
            last = None
        elif action != "retries" or not waits:
            self.say()
            if last == 1:
                self.run(outcome, 1)
                return
        self.run(outcome, last if self.with_ids or self.shows_answers(last) else None)

    def shows_answers(self, last: int | None) -> bool:
        return any(message.type == "ai" for message in (self.shown if last is None else self.shown[-last:]))

    def run(self, outcome: str, last: int | None) -> None:
        sent = self.shown[:] if last is None else self.shown[-last:]
        # Without a context, a message under another id is said once more.
        if self.makes_ids and re.search("human.* ai", " ".join(message.type for message in sent)):
            sent = [one.model_copy(update={"id": str(uuid4())}) if one.type == "human" else one for one in sent]
        self.fails = outcome == "failed"
        stream: Any = self.chain.stream(sent, config_of("u"))
        if outcome == "stopped":
            next(stream)
            stream.close()
            return
        try:
            answer = list(stream)
        except ModelGone:
            return
        self.shown.append(AIMessage("".join(chunk.text for chunk in answer)))


@given(st.sampled_from(("none", "kept", "new")), st.lists(steps, max_size=10))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_message_is_given_stored_and_remembered_once(ids: Any, taken: list[Any]) -> None:
    front_end = FrontEnd(ids)
    for one in taken:
        front_end.step(*one)
        given = Counter(message.text for message in front_end.seen if message.type == "human")
        assert set(given.values()) <= {1}
    front_end.say()
    front_end.run("answered", None)
    said = [f"m{number}" for number in range(1, front_end.said + 1)]
    assert front_end.seen[-1].text == said[-1]
    assert [text for kind, text in transcript_texts(front_end.client, "u", "s1") if kind == "human"] == said
    assert sorted(text for text in remembered(front_end.client, "u") if text.startswith("m")) == sorted(said)
