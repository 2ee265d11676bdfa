"""HistoryOptions: each option works wherever it is taken, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import (
    InputError,
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopedMemoryMiddleware,
    history_factory,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.options import HistoryOptions, HistorySettings
from langchain_mem0_scoped.recall_text import is_recall
from tests.agents import config_of
from tests.chat import turn
from tests.support import new_user
from tests.worlds import WordEmbeddings


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path_factory.mktemp("options") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@dataclass
class Outcome:
    """What an entry point gave to the model, and how many memories it stored."""

    recalled: list[str] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)
    stored: int = 0

    def take(self, context: list[BaseMessage]) -> None:
        for message in context:
            if is_recall(message):
                self.recalled += [line for line in message.text.splitlines() if line.startswith('"')]
            else:
                self.transcript.append(message.text)


def use_history(history: ScopedChatMessageHistory) -> Outcome:
    outcome = Outcome()
    outcome.take(history.messages)
    history.add_messages(turn("new"))
    return outcome


def through_history(client: EngineMemory, user: str, options: HistoryOptions) -> Outcome:
    return use_history(ScopedChatMessageHistory(user, "s1", client=client, **options))


def through_factory(client: EngineMemory, user: str, options: HistoryOptions) -> Outcome:
    return use_history(history_factory(client, **options)(user, "s1"))


def through_facade(client: EngineMemory, user: str, options: HistoryOptions) -> Outcome:
    return use_history(ScopedMemory(user, client=client).chat_history("s1", **options))


def through_chain(client: EngineMemory, user: str, options: HistoryOptions) -> Outcome:
    outcome = Outcome()

    def answer(given: Any) -> str:
        outcome.take(given["history"])
        return "new 1"

    with_scoped_memory(RunnableLambda(answer), client=client, **options).invoke({"input": "new 0"}, config_of(user))
    return outcome


ENTRIES: Final = (through_history, through_factory, through_facade, through_chain)

WORKS: Final[dict[str, tuple[HistoryOptions, Callable[[Outcome], bool]]]] = {
    "recall": ({"recall": 2}, lambda outcome: len(outcome.recalled) == 2),
    "remember": ({"remember": False}, lambda outcome: outcome.stored == 0),
    "max_messages": ({"max_messages": 3}, lambda outcome: outcome.transcript == ["old 4", "old 5"]),
    "max_tokens": ({"max_tokens": 20}, lambda outcome: outcome.transcript == ["old 4", "old 5"]),
    "token_counter": (
        {"max_tokens": 4, "token_counter": len},
        lambda outcome: outcome.transcript == ["old 2", "old 3", "old 4", "old 5"],
    ),
}
"""For each option a value, and what shows that it works."""


def run(entry: Callable[..., Outcome], client: EngineMemory, options: HistoryOptions) -> Outcome:
    """Run an entry point for a user who has a transcript of six messages, and nine memories elsewhere."""
    user = new_user()
    memory = ScopedMemory(user, client=client)
    memory.add([f"old fact {number}" for number in range(9)], session_id="s0")
    ScopedChatMessageHistory(user, "s1", client=client, remember=False).add_messages(turn("old", 6))
    outcome = entry(client, user, options)
    outcome.stored = memory.count() - 9
    return outcome


def test_every_option_is_shown_to_work() -> None:
    assert WORKS.keys() == HistoryOptions.__annotations__.keys()


@pytest.mark.parametrize("entry", ENTRIES)
class TestEveryEntry:
    @pytest.mark.parametrize("option", WORKS)
    def test_the_option_works(self, client: EngineMemory, entry: Callable[..., Outcome], option: str) -> None:
        options, works = WORKS[option]
        assert works(run(entry, client, options))

    def test_the_defaults_apply_without_options(self, client: EngineMemory, entry: Callable[..., Outcome]) -> None:
        outcome = run(entry, client, {})
        assert (len(outcome.recalled), outcome.stored) == (5, 2)
        assert outcome.transcript == [f"old {number}" for number in range(6)]
        assert not any(works(outcome) for _, works in WORKS.values())

    def test_none_is_the_default(self, client: EngineMemory, entry: Callable[..., Outcome]) -> None:
        outcome = run(entry, client, {"max_messages": None, "max_tokens": None, "token_counter": None})
        assert len(outcome.transcript) == 6

    def test_an_unknown_option_raises_and_names_the_known_ones(
        self, client: EngineMemory, entry: Callable[..., Outcome]
    ) -> None:
        with pytest.raises(TypeError, match=r"'recal'.*recall, remember, max_messages, max_tokens, token_counter"):
            entry(client, "u_alice", {"recal": 3})

    @pytest.mark.parametrize(
        "options",
        [
            {"recall": -1},
            {"recall": True},
            {"recall": None},
            {"remember": None},
            {"remember": "yes"},
            {"max_messages": 0},
            {"max_messages": 2.0},
            {"max_tokens": "many"},
            {"token_counter": 7},
        ],
        ids=str,
    )
    def test_an_invalid_value_raises(
        self, client: EngineMemory, entry: Callable[..., Outcome], options: dict[str, Any]
    ) -> None:
        with pytest.raises(InputError, match=next(iter(options))):
            entry(client, "u_alice", options)


@pytest.mark.parametrize("options", [{"recall": -1}, {"recall": None}, {"remember": None}, {"remember": 1}], ids=str)
def test_the_middleware_validates_its_two_options_alike(client: EngineMemory, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as expected:
        HistorySettings.of(options)  # type: ignore[arg-type]
    with pytest.raises(InputError) as raised:
        ScopedMemoryMiddleware(client=client, **options)
    assert str(raised.value) == str(expected.value)


def test_building_a_factory_or_a_chain_opens_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    history_factory(transcripts=url, recall=1)
    with_scoped_memory(RunnableLambda(str), transcripts=url, recall=1)
    assert list(tmp_path.iterdir()) == []
