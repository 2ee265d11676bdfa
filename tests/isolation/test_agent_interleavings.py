"""Runs of two users on one middleware, interleaved at random, are those of two agents that never met.

Then one user alone: whatever the runs do, every message is logged once, in order, and remembered once, with the next
turn that ends.

Both users have the same thread ids and the same message ids. Runs fail, are interrupted and resumed by a second
instance, their messages are redacted and summarized, and users are erased in between and during runs. Of each user are
compared: the memories, the transcripts, and all that each model was given.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, PIIMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryMiddleware
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import calls, look, remembered, thread, transcript_texts
from tests.memory_storage import MemoryStorage
from tests.models import ScriptedModel

USERS: Final = ("alice", "bob")
THREADS: Final = ("t1", "t2")
EMBEDDINGS: Final = OfflineEmbeddings()

KINDS: Final = (
    *("answer", "tool", "remember", "fail", "fail in a tool", "close", "approve", "resume", "empty", "regenerate"),
    "erase",
)
MADE_BY_CHANCE: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.+]+")
"""Ids and times in the results of tools."""

SAID: Final[dict[str, list[str]]] = {
    "alice": ["I like black tea", "My code is 4711", "Write to ann@example.com", "What do you know of me?"],
    "bob": ["I keep bees", "My code is 1199", "Write to bob@example.com", "What do you know of me?"],
}


@dataclass(frozen=True)
class Operation:
    """One operation of a user.

    Attributes:
        user: Whose.
        kind: One of `KINDS`.
        thread: In which thread.
        text: Which text is said.
        id: The message's id; None for one that LangChain makes.
        is_around: Whether the next operation, if it is the other user's, happens while this run calls its model.
    """

    user: str
    kind: str
    thread: str
    text: int
    id: str | None
    is_around: bool


def make(client: EngineMemory) -> ScopedMemoryMiddleware:
    return ScopedMemoryMiddleware(client=client, tools=True)


@dataclass
class World:
    """One client with two instances of the middleware, and for each user an app of his own.

    Attributes:
        client: The client.
        given: What the models of each user were given.
    """

    client: EngineMemory
    given: dict[str, list[Any]] = field(default_factory=lambda: {user: [] for user in USERS})

    def __post_init__(self) -> None:
        self._instances = [make(self.client), make(self.client)]
        self._savers = {user: InMemorySaver() for user in USERS}
        self._steps: Counter[str] = Counter()
        self._meanwhile: Callable[[], None] | None = None
        self._kinds: dict[str, str] = {}
        self._agents: dict[tuple[str, int], Any] = {
            (user, number): self._agent(user, number) for user in USERS for number in range(2)
        }

    def _agent(self, user: str, instance: int) -> Any:
        @tool
        def fail() -> str:
            """Fail."""
            raise TimeoutError

        return create_agent(
            ScriptedModel(says=lambda messages: self._says(user, messages)),
            [look, fail],
            middleware=[
                PIIMiddleware("email", strategy="redact"),
                self._instances[instance],
                HumanInTheLoopMiddleware(interrupt_on={"look": True}),
                SummarizationMiddleware(
                    model=FakeListChatModel(responses=["a summary"]), trigger=("messages", 6), keep=("messages", 2)
                ),
            ],
            checkpointer=self._savers[user],
        )

    def _says(self, user: str, messages: list[BaseMessage]) -> AIMessage:
        self.given[user].append([(message.type, message.text) for message in messages])
        self._steps[user] += 1
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            # In a thread, so that it is a run of its own and not one inside this run.
            other = threading.Thread(target=meanwhile)
            other.start()
            other.join()
        number, kind = self._steps[user], self._kinds[user]
        if kind == "fail":
            raise TimeoutError
        if kind != "answer" and messages[-1].type == "human":
            name, arguments = {
                "tool": ("look", {"where": "drawer"}),
                "remember": ("remember", {"text": f"Fact of {user}"}),
                "fail in a tool": ("fail", {}),
                "close": ("list_memories", {}),
            }[kind]
            return calls(name, f"call{number}", **arguments)
        return AIMessage(f"answer {number} to {user}")

    def perform(self, operation: Operation, meanwhile: Callable[[], None] | None = None, text: str = "") -> bool:
        """Perform an operation.

        Args:
            operation: The operation.
            meanwhile: What happens while the model is called.
            text: What is said instead of the operation's text.

        Returns:
            Whether a run of the thread has ended.
        """
        user, config = operation.user, thread(operation.thread)
        if operation.kind == "erase":
            ScopedMemory(user, client=self.client).delete_all()
            return False
        agent, again = self._agents[user, 0], self._agents[user, 1]
        state = agent.get_state(config)
        self._kinds[user] = "answer"
        self._meanwhile = meanwhile
        calls_before = self._steps[user]
        with contextlib.suppress(TimeoutError):
            if operation.kind == "approve" and any(task.interrupts for task in state.tasks):
                resume: Any = Command(resume={"decisions": [{"type": "approve"}]})
                again.invoke(resume, config, context={"user_id": user})
            elif operation.kind == "resume" and state.next and not any(task.interrupts for task in state.tasks):
                again.invoke(None, config, context={"user_id": user})
            elif operation.kind == "regenerate":
                for earlier in agent.get_state_history(config):
                    if earlier.next == ("model",):
                        again.invoke(None, earlier.config, context={"user_id": user})
                        break
            elif operation.kind == "empty" and state.values.get("messages"):
                agent.invoke({"messages": []}, config, context={"user_id": user})
            elif operation.kind in ("answer", "tool", "remember", "fail", "fail in a tool", "close"):
                self._kinds[user] = operation.kind
                said = {"messages": [HumanMessage(text or SAID[user][operation.text], id=operation.id)]}
                stream = agent.stream(said, config, context={"user_id": user})
                for part in stream:
                    if operation.kind == "close" and "tools" in part:
                        stream.close()
        self._meanwhile = None
        return self._steps[user] > calls_before and not agent.get_state(config).next

    def outcome(self, user: str) -> dict[str, Any]:
        """Return all that is known of a user."""
        shown = {
            "memories": remembered(self.client, user),
            **{name: transcript_texts(self.client, user, name) for name in THREADS},
            "given": self.given[user],
        }
        return {name: MADE_BY_CHANCE.sub("", repr(what)) for name, what in shown.items()}


@contextlib.contextmanager
def world() -> Iterator[World]:
    with closing(EngineMemory(MemoryStorage(), EMBEDDINGS)) as client:
        yield World(client)


OPERATIONS: Final = st.lists(
    st.builds(
        Operation,
        user=st.sampled_from(USERS),
        kind=st.sampled_from([*KINDS, "answer"]),
        thread=st.sampled_from(THREADS),
        text=st.integers(0, 3),
        id=st.sampled_from(["1", "2", None]),
        is_around=st.booleans(),
    ),
    min_size=6,
    max_size=14,
)


def _around(user: str, kind: str, text: int = 0, *, around: bool = False) -> Operation:
    return Operation(user, kind, "t1", text, "1", around)


@settings(max_examples=5)
@given(OPERATIONS)
@example([_around("alice", "tool"), _around("bob", "answer"), _around("alice", "approve"), _around("bob", "empty")])
@example([_around("alice", "fail"), _around("bob", "answer"), _around("bob", "erase"), _around("alice", "resume")])
@example([_around("alice", "answer", around=True), _around("bob", "erase"), _around("alice", "regenerate")])
def test_interleaved_runs_are_those_of_two_agents_that_never_met(operations: list[Operation]) -> None:
    with world() as both:
        left = list(operations)
        while left:
            operation = left.pop(0)
            inside = left.pop(0) if operation.is_around and left and left[0].user != operation.user else None
            was_inside: list[bool] = []

            def meanwhile(inside: Operation | None = inside, was_inside: list[bool] = was_inside) -> None:
                was_inside.append(True)
                both.perform(inside)  # type: ignore[arg-type]

            both.perform(operation, None if inside is None else meanwhile)
            if inside is not None and not was_inside:
                both.perform(inside)
        together = {user: both.outcome(user) for user in USERS}
    for user in USERS:
        with world() as alone:
            for operation in operations:
                if operation.user == user:
                    alone.perform(operation)
            assert alone.outcome(user) == together[user]
        other = SAID["bob" if user == "alice" else "alice"]
        assert not any(text in repr(together[user]) for text in other[:3])


SINGLE: Final = st.lists(
    st.builds(
        Operation,
        user=st.just("alice"),
        kind=st.sampled_from([kind for kind in KINDS if kind not in ("erase", "remember")]),
        thread=st.sampled_from(THREADS),
        text=st.just(0),
        id=st.none(),
        is_around=st.just(False),
    ),
    min_size=8,
    max_size=16,
)


@settings(max_examples=5)
@given(SINGLE)
def test_every_message_is_logged_once_and_remembered_once(operations: list[Operation]) -> None:
    said: dict[str, list[str]] = {name: [] for name in THREADS}
    known: set[str] = set()
    with world() as alone:
        for number, operation in enumerate(operations):
            text = f"Message {number}."
            before = len(alone.given["alice"])
            ended = alone.perform(operation, text=text)
            if any(text in repr(messages) for messages in alone.given["alice"][before:]):
                said[operation.thread].append(text)
            if ended:
                known.update(said[operation.thread])
        for name in THREADS:
            logged = transcript_texts(alone.client, "alice", name)
            assert [text for kind, text in logged if kind == "human"] == said[name]
        memories = [text for text in remembered(alone.client, "alice") if text.startswith("Message")]
        assert sorted(memories) == sorted(known)
