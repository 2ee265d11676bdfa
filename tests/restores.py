"""Random schedules of backups, restores and kills; and what may be seen afterwards: a state that was, or an error."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Final

from langchain_core.messages import HumanMessage

from langchain_mem0_scoped import ScopedChatMessageHistory, ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.errors import ScopedMemoryError
from tests.faults import Child, store
from tests.worlds import WordEmbeddings

USERS: Final = ("u_alice", "u_bob", "u_eve")

State = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""The memories and the messages of each user."""

EMPTY: Final[State] = dict.fromkeys(USERS, ((), ()))


class ForeignText(AssertionError):
    """A user was shown another user's text."""


# -- in the child


def serve(pipe: Connection, path: Path, seed: int, state: State) -> None:
    """Do what the pipe says: "work" for ever, "write" once, "read", or "quit"."""
    random = Random(seed)
    with store(path, embeddings=WordEmbeddings()) as client:
        pipe.send("ready")
        while (command := pipe.recv()) != "quit":
            match command:
                case "work":
                    while True:
                        state = _change(client, random, state, pipe.send)
                case "write":
                    pipe.send(_write(client, random))
                case "read":
                    pipe.send(([], _outcome(lambda: _read(client))))
    pipe.send("closed")


def _write(client: EngineMemory, random: Random) -> tuple[list[State], State | str]:
    announced: list[State] = []
    return announced, _outcome(lambda: _change(client, random, _read(client), announced.append))


def _outcome(act: Callable[[], State]) -> State | str:
    """Return what it returns, or the text of the error it raises."""
    try:
        return act()
    except ScopedMemoryError as error:
        return str(error)


def _change(client: EngineMemory, random: Random, state: State, announce: Callable[[State], None]) -> State:
    """Change something of a user; announce the state before it is there."""
    user_id = random.choice(USERS)
    memory, number = ScopedMemory(user_id, client=client), random.getrandbits(32)
    memories, messages = state[user_id]
    text = f"{user_id} says {number} " + "x" * random.choice((1, 1, 40, 400, 4_000))
    match random.choice(["add", "add", "add", "log", "log", "update", "delete", "clear", "erase"]):
        case "add":
            after = (*memories, text), messages
            announce(state | {user_id: after})
            memory.add(text)
        case "log":
            after = memories, (*messages, text)
            announce(state | {user_id: after})
            _history(memory).add_messages([HumanMessage(text)])
        case "update" if memories:
            chosen = random.choice(memory.get_all())
            after = tuple(text if one == chosen["memory"] else one for one in memories), messages
            announce(state | {user_id: after})
            memory.update(chosen["id"], text)
        case "delete" if memories:
            chosen = random.choice(memory.get_all())
            after = tuple(one for one in memories if one != chosen["memory"]), messages
            announce(state | {user_id: after})
            memory.delete(chosen["id"])
        case "clear":
            after = memories, ()
            announce(state | {user_id: after})
            _history(memory).clear()
        case "erase":
            after = (), ()
            announce(state | {user_id: after})
            memory.delete_all()
        case _:
            return state
    return state | {user_id: after}


def _history(memory: ScopedMemory) -> ScopedChatMessageHistory:
    return memory.chat_history("s", recall=0, remember=False)


def _read(client: EngineMemory) -> State:
    """Read everything of everybody.

    Raises:
        ForeignText: A text is not its reader's.
    """
    state: State = {}
    for user_id in USERS:
        memory = ScopedMemory(user_id, client=client)
        listed = [record["memory"] for record in memory.get_all()]
        found = [record["memory"] for record in memory.search(f"{user_id} says", k=1_000, threshold=0)]
        messages = [message.text for message in _history(memory).messages]
        if foreign := [text for text in (*listed, *found, *messages) if not text.startswith(f"{user_id} says ")]:
            raise ForeignText(f"{user_id} was shown another user's text: {foreign}")
        assert sorted(found) == sorted(listed)
        state[user_id] = (tuple(listed), tuple(messages))
    return state


# -- in the test


def _normal(state: State) -> tuple[Any, ...]:
    return tuple((user_id, sorted(memories), list(messages)) for user_id, (memories, messages) in state.items())


class Schedule:
    """One schedule: a process works and is killed, its file is copied, and copies are put back in every wrong way.

    Args:
        folder: An empty directory.
        seed: Which schedule.

    Attributes:
        outcomes: How many reads were "right" and how many an "error".
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)
        self._path = folder / "memory.db"
        self._folder = folder
        self._states: list[tuple[Any, ...]] = [_normal(EMPTY)]
        self._backups: list[Path] = []
        self._now: State = EMPTY
        self.outcomes = {"right": 0, "error": 0}

    def run(self, rounds: int) -> None:
        """Run it."""
        for _ in range(rounds):
            self._live()
            outcome = self._open()
            self._check([], outcome)
            if isinstance(outcome, str):
                self._repair()
                outcome = self._open()
                assert not isinstance(outcome, str), outcome
                self._check([], outcome)
            self._now = outcome

    # -- a process lives, and what is done beneath it

    def _live(self) -> None:
        random = self._random
        with Child(serve, self._path, random.getrandbits(32), self._now) as child:
            assert child.receive() == "ready"
            if random.random() < 0.6:
                child.send("work")
                received: list[State] = [child.receive() for _ in range(random.randint(2, 12))]
                if random.random() < 0.5:
                    self._back_up(is_idle=False)
                time.sleep(random.uniform(0, 0.01))
                child.kill()
                self._note(received + child.receive_all())
                if random.random() < 0.3:
                    self._back_up()
                self._restore()
                return
            for _ in range(random.randint(1, 3)):
                child.send("write")
                self._check(*child.receive())
                if random.random() < 0.4:
                    self._back_up()
            self._restore()
            for _ in range(random.randint(0, 3)):
                child.send(random.choice(["read", "write"]))
                self._check(*child.receive())
            if random.random() < 0.5:
                # Another process opens the file meanwhile, and may write to it.
                self._check([], self._open())
                child.send(random.choice(["read", "write"]))
                self._check(*child.receive())
            if random.random() < 0.5:
                child.kill()
            else:
                child.send("quit")
                assert child.receive() == "closed"

    def _open(self) -> State | str:
        """Open the file anew and read."""
        try:
            with store(self._path, embeddings=WordEmbeddings()) as client:
                return _outcome(lambda: _read(client))
        except ScopedMemoryError as error:
            return str(error)

    def _note(self, states: list[State]) -> None:
        self._states += map(_normal, states)

    def _check(self, announced: list[State], outcome: State | str) -> None:
        """What is read is a state that was, of all users at once; or it is an error."""
        self._note(announced)
        if isinstance(outcome, str):
            self.outcomes["error"] += 1
            return
        self.outcomes["right"] += 1
        assert _normal(outcome) in self._states, "neither right nor an error"

    # -- copies

    def _back_up(self, *, is_idle: bool = True) -> None:
        """Copy the file: as SQLite does it; or, where nobody is writing, with its log."""
        copy = self._folder / f"backup{len(self._backups)}.db"
        if not is_idle or self._random.random() < 0.5:
            with closing(sqlite3.connect(self._path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        else:
            for suffix in ("", "-wal"):
                if os.path.exists(f"{self._path}{suffix}"):
                    shutil.copyfile(f"{self._path}{suffix}", f"{copy}{suffix}")
        self._backups.append(copy)

    def _repair(self) -> None:
        """Restore a backup as the README says; without one, begin anew."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        if self._backups:
            copy = self._random.choice(self._backups)
            for suffix in ("", "-wal"):
                if os.path.exists(f"{copy}{suffix}"):
                    shutil.copyfile(f"{copy}{suffix}", f"{self._path}{suffix}")

    def _restore(self) -> None:
        """Put a copy back, rightly or wrongly."""
        if not self._backups:
            return
        random, path = self._random, self._path
        copy = random.choice(self._backups)
        logs = [Path(f"{path}-wal"), Path(f"{path}-shm")]
        match random.choice(["right", "log is left", "log of another", "index is left", "replaced", "copy of a copy"]):
            case "right":
                for log in logs:
                    log.unlink(missing_ok=True)
                shutil.copyfile(copy, path)
            case "log is left":
                shutil.copyfile(copy, path)
            case "log of another":
                other = Path(f"{random.choice(self._backups)}-wal")
                shutil.copyfile(copy, path)
                if other.exists():
                    shutil.copyfile(other, logs[0])
            case "index is left":
                logs[0].unlink(missing_ok=True)
                shutil.copyfile(copy, path)
            case "replaced":
                temporary = path.with_name("new.db")
                shutil.copyfile(copy, temporary)
                os.replace(temporary, path)
            case "copy of a copy":
                for suffix in ("", "-wal"):
                    if os.path.exists(f"{copy}{suffix}"):
                        shutil.copyfile(f"{copy}{suffix}", f"{path}{suffix}")
