"""Two users through one wrapped chain, in any order, are as two users of two chains that never met.

They use the same session ids, message ids and texts; runs fail, are stopped, retried and left open meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_mem0_scoped import ScopedMemory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import config_of, remembered, transcript_texts
from tests.memory_storage import MemoryStorage
from tests.worlds import WordEmbeddings

USERS: Final = ("alice", "bob")
SESSIONS: Final = ("s1", "s2")
WAYS: Final = ("answered", "failed", "closed early", "opened", "retried", "erased", "finished")

steps = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(SESSIONS),
    st.sampled_from(WAYS),
    st.sampled_from(("tea", "music", "boats")),
    st.sampled_from((None, "1", "2")),
    st.sampled_from(("alone", "whole conversation", "last messages")),
)


class ModelGone(Exception):
    pass


class World:
    """A chain with its store, and the front ends of its users."""

    def __init__(self) -> None:
        self.client = EngineMemory(MemoryStorage(), WordEmbeddings())
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.shown: dict[tuple[str, str], list[BaseMessage]] = defaultdict(list)
        self.open: dict[str, Iterator[Any]] = {}
        self.fails = False
        self.chain = with_scoped_memory(RunnableLambda(self.answer), client=self.client)

    def answer(self, messages: list[BaseMessage], config: RunnableConfig) -> Iterator[AIMessageChunk]:
        user = config["configurable"]["user_id"]
        self.seen[user].append([(message.type, message.text, message.id) for message in messages])
        fails, said = self.fails, f"{user} says {messages[-1].text}"
        yield AIMessageChunk(content="partial" if fails else said[: len(user)], id="always")
        if fails:
            raise ModelGone
        yield AIMessageChunk(content=said[len(user) :], id="always")

    def step(self, user: str, session: str, way: str, text: str, message_id: str | None, sends: str) -> None:
        shown = self.shown[user, session]
        if way == "erased":
            ScopedMemory(user, client=self.client).delete_all()
            for name in SESSIONS:
                self.shown[user, name].clear()
            return
        if way == "finished":
            list(self.open.pop(user, iter(())))
            return
        if way != "retried" or not shown or shown[-1].type != "human":
            shown.append(HumanMessage(text, id=message_id))
        sent = {"alone": shown[-1:], "whole conversation": shown[:], "last messages": shown[-4:]}[sends]
        self.fails = way == "failed"
        stream = self.chain.stream(sent, config_of(user, session))
        if way == "opened":
            list(self.open.pop(user, iter(())))
            next(stream)
            self.open[user] = stream
        elif way == "closed early":
            next(stream)
            stream.close()  # type: ignore[attr-defined]
        else:
            try:
                answer = list(stream)
            except ModelGone:
                return
            shown.append(AIMessage("".join(chunk.text for chunk in answer)))

    def finish(self) -> None:
        for stream in self.open.values():
            list(stream)

    def left_of(self, user: str) -> Any:
        kept = {session: transcript_texts(self.client, user, session) for session in SESSIONS}
        return kept, sorted(remembered(self.client, user)), self.seen[user]


@given(st.lists(steps, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_users_of_one_chain_are_as_users_of_two_chains(taken: list[Any]) -> None:
    shared, apart = World(), {user: World() for user in USERS}
    for one in taken:
        shared.step(*one)
        apart[one[0]].step(*one)
    shared.finish()
    for user, alone in apart.items():
        alone.finish()
        assert shared.left_of(user) == alone.left_of(user)
        # Nothing of the other user, in what is kept or in what the model was given.
        other = USERS[1 - USERS.index(user)]
        assert f"{other} says" not in repr(shared.left_of(user))
