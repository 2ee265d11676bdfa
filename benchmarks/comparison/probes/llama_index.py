"""The probe of llama-index-memory-mem0: LlamaIndex's memory over the same mem0; the user is fixed at construction."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.memory.mem0 import Mem0Memory

from . import material, mem0_made
from .asking import Answer, Probe, main, not_asked
from .material import ALICE, BOB, HERS, HIS, QUERY, SECRET


def _of(user: str, client: Any) -> Any:
    from llama_index.core.memory import Memory

    return Mem0Memory(primary_memory=Memory.from_defaults(), context={"user_id": user}, client=client)


def _say(memory: Any, text: str) -> None:
    memory.put(ChatMessage(role=MessageRole.USER, content=text))


def _both(folder: Path) -> tuple[Any, Any, Any]:
    client = mem0_made.memory(folder)
    alice, bob = _of(ALICE, client), _of(BOB, client)
    _say(alice, HERS)
    _say(bob, HIS)
    return client, alice, bob


def _known(memory: Any, query: str = QUERY) -> str:
    """Return the system message that a chat engine would receive."""
    return str(memory.get(input=query)[0].content)


def _known_to(_: Any, memory: Any) -> str:
    return _known(memory)


def _named(folder: Path) -> Answer:
    _, alice, _ = _both(folder)
    verbs = [verb for verb in ("put", "get", "get_all", "set", "reset") if "user_id" in _parameters(Mem0Memory, verb)]
    again = _of(ALICE, alice._client)
    found = SECRET in _known(again)
    if verbs or not found:
        return Answer("in each call", f"these take a user id: {', '.join(verbs)}")
    return Answer("once", "Mem0Memory(context={'user_id': …}); put, get, get_all, set and reset take no user id")


def _parameters(owner: Any, verb: str) -> list[str]:
    return list(inspect.signature(getattr(owner, verb)).parameters)


def _ids(folder: Path) -> Answer:
    client, _, _ = _both(folder)
    return Answer(
        *material.outcome(lambda user: _say(_of(user, client), "a note"), lambda user: [_known(_of(user, client))])
    )


def _widened(folder: Path) -> Answer:
    _, _, bob = _both(folder)
    attempts: dict[str, Callable[[], str]] = {
        "an argument of get": lambda: str(bob.get(input=QUERY, user_id=ALICE, filters={"user_id": ALICE})),
        "its search": lambda: str(bob.search(QUERY, filters={"user_id": ALICE})),
        "an assignment": lambda: _known_to(material.assigned_to_alice(bob.context), bob),
    }
    return material.attempted(attempts, lambda known: SECRET in known)


def _erased(folder: Path) -> Answer:
    hers = material.marked(ALICE)
    client, alice, _ = _both(folder)
    for _, text in hers:
        _say(alice, text)
    alice.reset()
    found = hers[0][0] in _known(_of(ALICE, client), hers[0][1])
    mem0_made.close(client)
    left = material.left_in(folder, [word for word, _ in hers])
    finds = "still finds" if found else "no longer finds"
    seen = f"reset(), its only method, then a new Mem0Memory: a search {finds} Alice's memory"
    return Answer(
        "no" if found else "one call, text left" if left else "one call, none left",
        f"{seen}; of {len(hers)} texts, {material.describe_left(left)}",
    )


def _independent(folder: Path) -> Answer:
    client = mem0_made.memory(folder)
    alice = _of(ALICE, client)
    for text in material.SIMILAR:
        _say(alice, text)

    def ranked() -> list[tuple[float, str]]:
        found = alice.search(QUERY, filters=alice.context.build_filter(), threshold=0.0)["results"]
        return material.ranking((row["score"], row["memory"]) for row in found)

    before = ranked()
    for text in material.others():
        client.add(text, user_id=BOB, infer=False)
    return material.unchanged(before, ranked())


def _history(folder: Path) -> Answer:
    _, alice, _ = _both(folder)
    before = len(alice.get_all())
    given = [
        ChatMessage(role=MessageRole.USER, content="What is the weather in Oslo?", additional_kwargs={"client": "web"}),
        ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": [{"id": "call_1"}]}),
        ChatMessage(role=MessageRole.TOOL, content="rain", additional_kwargs={"tool_call_id": "call_1"}),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text="It rains.")]),
    ]
    for message in given:
        alice.put(message)
    same, seen = material.compared(given, alice.get_all()[before:])
    again = len(_of(ALICE, alice._client).get_all())
    seen = f"LlamaIndex's ChatMessages: {seen}; a new Mem0Memory of Alice has {again}"
    return Answer("yes, in its process" if same and not again else "yes" if same else "no", seen)


def _recalled(folder: Path) -> Answer:
    from llama_index.core import Settings
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.llms.mock import MockLLM

    class RecordingLLM(MockLLM):
        def chat(self, messages: Any, *rest: Any, **options: Any) -> Any:
            received.append(str(list(messages)))
            return super().chat(messages, *rest, **options)

    received: list[str] = []
    client, alice, _ = _both(folder)
    for _, text in material.marked(ALICE, 12):
        _say(alice, text)
    Settings.llm = MockLLM(max_tokens=5)
    engine = SimpleChatEngine.from_defaults(llm=RecordingLLM(max_tokens=5), memory=_of(ALICE, client))
    engine.chat(QUERY)
    return Answer(
        "in chat engine" if SECRET in received[0] else "no", "SimpleChatEngine, in the first request to the model"
    )


def _sync_and_async(folder: Path) -> Answer:
    _, alice, _ = _both(folder)

    async def there() -> bool:
        return SECRET in str((await alice.aget(input=QUERY))[0].content)

    found = asyncio.run(there())
    return Answer("both" if found else "sync", "aput and aget of its base class, and put and get")


def _offline(folder: Path) -> Answer:
    try:
        Mem0Memory.from_config(context={"user_id": ALICE}, config={})
        default = ""
    except Exception as error:
        default = type(error).__name__
    memory = Mem0Memory.from_config(context={"user_id": ALICE}, config=mem0_made.config(folder))
    _say(memory, HERS)
    found = SECRET in _known(memory)
    if found and not default:
        return Answer("yes", "from_config with an empty config")
    seen = f"an empty config raises {default}; with an own embedder and model it stores and finds"
    return Answer("if configured" if found else "no", seen)


def _together(folder: Path) -> Answer:
    client, _, _ = _both(folder)
    works = []
    for user in ({"in": [ALICE, BOB]}, "*"):
        try:
            known = _known(_of(user, client), material.OF_BOTH)  # type: ignore[arg-type]
        except Exception:  # another operator may work
            continue
        if HERS in known and HIS in known:
            works.append(str(user))
    seen = (
        f"a context whose user_id is an in of both, or *; both users' rows came with: {', '.join(works) or 'neither'}"
    )
    return Answer("all, by `*`" if works == ["*"] else "yes" if works else "no", seen)


def _size(folder: Path) -> Answer:
    return Answer(*material.size("llama-index-memory-mem0"))


PROBES: dict[str, Probe] = {
    "named": _named,
    "ids": _ids,
    "widened": _widened,
    "foreign": not_asked("it has no method that takes the id of a memory"),
    "tools": not_asked("it has no tools"),
    "erased": _erased,
    "independent": _independent,
    "history": _history,
    "recalled": _recalled,
    "parts": lambda folder: Answer(
        ", ".join(material.parts(["llama_index.memory.mem0"])) or "none", "by type; it is an integration of LlamaIndex"
    ),
    "twins": _sync_and_async,
    "offline": _offline,
    "together": _together,
    "size": _size,
}

if __name__ == "__main__":
    main(PROBES)
