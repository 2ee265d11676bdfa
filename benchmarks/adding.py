"""How fast verbatim messages are stored."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory

from . import corpus, stores
from .measure import Result, Settings, median, seconds

_MESSAGES: Final = 1_000
_TIMES: Final = 11


def add(_: Settings) -> Iterator[Result]:
    """One add of many messages, of another user each time, durable when it returns."""
    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "memory.db")
        ScopedMemory("warm-up", client=client).add(corpus.memories(0, 10))
        times = []
        for user in tqdm(range(_TIMES), desc=f"adding {_MESSAGES:,} messages", unit="add"):
            memory = ScopedMemory(stores.user_name(user), client=client)
            times.append(seconds(partial(memory.add, corpus.memories(user, _MESSAGES))))
        client.close()
    title = f"{_MESSAGES:,} verbatim messages in one add"
    yield Result(title, _MESSAGES / median(times), "a second", 3_000, at_most=False, detail={"p50, s": median(times)})
