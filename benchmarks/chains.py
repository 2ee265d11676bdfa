"""The cost of memory for a chain: a turn through with_scoped_memory, and reading the end of a long session."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableConfig
from tqdm import tqdm

from langchain_mem0_scoped import ScopedChatMessageHistory, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory

from . import corpus, stores
from .measure import Result, Settings, in_turn, median, pooled, ratio_of_medians

_USERS: Final = 50
_TURNS_BEFORE: Final = 5
_TURNS: Final = 300
_COUNTED: Final = 20
_LONG: Final = 100_000
_SHORT: Final = 100
_LAST: Final = 50
_LOGGED_AT_ONCE: Final = 1_000
_BATCHES: Final = 7
_READS: Final = 100
_USER: Final = "user"
_SESSION: Final = "long"

Chain = Runnable[Any, Any]


def bare_chain() -> Chain:
    """Return a prompt, a model that answers at once, and a parser. The prompt takes a history if there is one."""
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You are a helpful assistant."),
            MessagesPlaceholder("history", optional=True),
            ("human", "{input}"),
        ]
    )
    return prompt | FakeListChatModel(responses=corpus.memories(-1, 100)) | StrOutputParser()


def session_of(user: int, session_id: str) -> RunnableConfig:
    """Return the config that a server passes with a call."""
    return {"configurable": {"user_id": stores.user_name(user), "session_id": session_id}}


def turn(_: Settings) -> Iterator[Result]:
    """Time whole turns of users with 20 memories from other sessions, after five to ten turns in this session.

    Three sides take the same turns alternately: the plain chain; the chain with memory on a file with the package's own
    settings (`synchronous=FULL`: an fsync for every commit); and the chain with memory on an equal file with
    `synchronous=OFF`, where SQLite writes the same bytes and never calls fsync. The difference of the second and the
    third is the disk's time for fsync. The difference of the third and the first is the package's own time.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _commits(Path(folder) / "counted.db")
        with asyncio.Runner() as runner:
            ways: dict[str, Callable[..., object]] = {
                "invoke": lambda chain, *given: chain.invoke(*given),
                "ainvoke": lambda chain, *given: runner.run(chain.ainvoke(*given)),
            }
            for name, run in ways.items():
                durable, quick = (
                    stores.filled_store(Path(folder) / f"{name}-{side}.db", _USERS) for side in ("durable", "quick")
                )
                stores.database_of(quick).set_pragmas("synchronous=OFF")
                yield _beyond(name, run, durable, quick)
                durable.close()
                quick.close()


def _beyond(name: str, run: Callable[..., object], durable: EngineMemory, quick: EngineMemory) -> Result:
    chain = bare_chain()
    sides = [with_scoped_memory(chain, client=durable), with_scoped_memory(chain, client=quick), chain]
    inputs = [{"input": question} for question in corpus.questions(f"turns/{name}", _TURNS_BEFORE * _USERS + _TURNS)]
    configs = [session_of(number % _USERS, "now") for number in range(len(inputs))]
    calls = [[partial(run, side, *given) for given in zip(inputs, configs, strict=True)] for side in sides]
    before = _TURNS_BEFORE * _USERS
    in_turn(*(of_side[:before] for of_side in calls), block=1)
    whole, without_fsync, bare = in_turn(*(of_side[before:] for of_side in calls), block=1)
    return Result(
        f"extra time of a turn through with_scoped_memory over the plain chain, {name}, without fsync",
        median([one - other for one, other in zip(without_fsync, bare, strict=True)]) * 1e3,
        "ms",
        2,
        detail={
            "fsync, ms": median([one - other for one, other in zip(whole, without_fsync, strict=True)]) * 1e3,
            "p50 turn with fsync, ms": median(whole) * 1e3,
            "p50 turn without fsync, ms": median(without_fsync) * 1e3,
            "p50 plain chain, ms": median(bare) * 1e3,
        },
    )


def _commits(path: Path) -> Result:
    """Count the transactions of a turn in the write-ahead log itself, so that none is missed."""
    client = stores.filled_store(path, _USERS)
    chain = with_scoped_memory(bare_chain(), client=client)
    ended: dict[str, list[int]] = {"known": [], "new": []}
    for number, question in enumerate(corpus.questions("counted", _COUNTED)):
        for who, user in (("known", number), ("new", _USERS + number)):
            client.purge()
            chain.invoke({"input": question}, session_of(user, "now"))
            ended[who].append(_transactions(path.with_name(f"{path.name}-wal")))
    client.close()
    title = "a turn through with_scoped_memory: durable commits, maximum"
    return Result(title, max(ended["known"]), "", 2, detail={"in a user's first turn": max(ended["new"])})


def _transactions(log: Path) -> int:
    """Count the frames of a write-ahead log that end a transaction; see https://www.sqlite.org/walformat.html."""
    content = log.read_bytes()
    page_size, salt = int.from_bytes(content[8:12], "big"), content[16:24]
    frames = (content[start : start + 24] for start in range(32, len(content), 24 + page_size))
    # Only those frames contain the size of the file in pages. Frames with another salt are older.
    return sum(frame[8:16] == salt and frame[4:8] != bytes(4) for frame in frames)


def transcript(_: Settings) -> Iterator[Result]:
    """Time reading the end of a long and of a short session. Each is in its own file; each read uses a new history."""
    with tempfile.TemporaryDirectory() as folder:
        clients = []
        for messages in (_LONG, _SHORT):
            clients.append(local_memory(Path(folder) / f"{messages}.db"))
            log(clients[-1], _USER, _SESSION, messages)

        def read(client: EngineMemory) -> list[BaseMessage]:
            return ScopedChatMessageHistory(_USER, _SESSION, client=client, recall=0, max_messages=_LAST).messages

        if any(len(read(client)) != _LAST for client in clients):
            raise RuntimeError("the history does not have the expected length")
        batches = []
        for _batch in tqdm(range(_BATCHES), desc=f"reading the last {_LAST}", unit="batch"):
            long, short = in_turn(*([partial(read, client)] * _READS for client in clients))
            batches.append((long, short))
        for client in clients:
            client.close()
    p50 = {f"p50 of {messages:,}, ms": pooled(batches, side) * 1e3 for side, messages in enumerate((_LONG, _SHORT))}
    title = f"the last {_LAST} messages of a session of {_LONG:,}, compared with a session of {_SHORT}"
    yield Result(title, ratio_of_medians(batches), "x", 2, detail=p50)


def log(client: EngineMemory, user_id: str, session_id: str, messages: int) -> None:
    """Add a session of many messages to the transcript; none of them becomes a memory."""
    history = ScopedChatMessageHistory(user_id, session_id, client=client, recall=0, remember=False)
    # Answers of models have an id. Questions of users have none.
    messages_of_session: list[BaseMessage] = [
        AIMessage(text, id=f"run-{number}") if number % 2 else HumanMessage(text)
        for number, text in enumerate(corpus.memories(0, messages))
    ]
    for start in tqdm(range(0, messages, _LOGGED_AT_ONCE), desc=f"logging {messages:,} messages", unit="batch"):
        history.add_messages(messages_of_session[start : start + _LOGGED_AT_ONCE])
