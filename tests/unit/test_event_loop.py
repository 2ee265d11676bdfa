"""The async side of the embedded store: concurrent calls, an event loop that is not blocked, cancelled calls."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory
from tests.faults import PATIENCE, Embedding, assert_sound, rows_in, store
from tests.models import ScriptedModel, lines


async def test_two_hundred_calls_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with store(path) as client:
        users = [f"u_{number}" for number in range(20)]

        async def add_and_search(user: str, number: int) -> list[str]:
            memory = ScopedMemory(user, client=client)
            await memory.aadd(f"{user} likes number {number}")
            found = await memory.asearch(f"likes number {number}", k=50)
            assert {record["user_id"] for record in found} == {user}
            return [record["memory"] for record in found]

        answers = await asyncio.gather(*(add_and_search(user, number) for number in range(10) for user in users))
        for number in range(10):
            for position, user in enumerate(users):
                assert f"{user} likes number {number}" in answers[number * len(users) + position]
        counts = await asyncio.gather(*(ScopedMemory(user, client=client).acount() for user in users))
        assert counts == [10] * len(users)
    assert_sound(path)


class TestNotBlocked:
    async def test_the_event_loop_runs_while_an_embedding_is_computed(self, tmp_path: Path) -> None:
        released = threading.Event()

        def on(text: str) -> None:
            if "slow" in text:
                assert released.wait(PATIENCE), "the loop never came to release it: it is blocked"

        with store(tmp_path / "m.db", embeddings=Embedding(on)) as client:
            memory = ScopedMemory("u_alice", client=client)
            calls = [asyncio.create_task(memory.aadd("slow text")), asyncio.create_task(memory.asearch("slow query"))]
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert not any(call.done() for call in calls)
            released.set()
            added, _ = await asyncio.gather(*calls)
            assert [record["memory"] for record in added] == ["slow text"]

    async def test_the_event_loop_runs_during_every_call(self, tmp_path: Path) -> None:
        """Calls run in threads, so other tasks run in the meantime."""
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        with store(tmp_path / "m.db") as client:
            memory = ScopedMemory("u_alice", client=client)
            ticking = asyncio.create_task(tick())
            record = (await memory.aadd("I am vegetarian"))[0]
            least = turns
            for verb, args in (
                ("aadd", ["I like tea"]),
                ("asearch", ["tea"]),
                ("aget_all", []),
                ("aget", [record["id"]]),
                ("aupdate", [record["id"], "I am vegan"]),
                ("ahistory", [record["id"]]),
                ("acount", []),
                ("adelete", [record["id"]]),
                ("adelete_all", []),
            ):
                before = turns
                await getattr(memory, verb)(*args)
                assert turns > before, f"{verb} ran on the event loop"
            ticking.cancel()
        assert least >= 3


class TestCancelled:
    @pytest.mark.parametrize("infer", [False, True], ids=["verbatim", "extracted"])
    async def test_a_cancelled_add_is_stored_whole_or_not_at_all(self, tmp_path: Path, infer: bool) -> None:
        path = tmp_path / "m.db"
        begun, released = threading.Event(), threading.Event()

        def on(text: str) -> None:
            begun.set()
            assert released.wait(PATIENCE)

        llm = ScriptedModel(says=lines('{"memory": [{"text": "fact one"}, {"text": "fact two"}]}'))
        with store(path, embeddings=Embedding(on), llm=llm) as client:
            memory = ScopedMemory("u_alice", client=client)
            task = asyncio.create_task(memory.aadd(["part one", "part two"], infer=infer))
            await asyncio.to_thread(begun.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await memory.aget_all() == []
            released.set()
            # The thread finishes what it has begun.
            await asyncio.get_running_loop().shutdown_default_executor()
            assert memory.count() == 2
            memory.add("after", infer=False)
            assert memory.count() == 3
        assert_sound(path)

    async def test_hundreds_of_cancelled_adds_leave_the_store_sound(self, tmp_path: Path) -> None:
        path = tmp_path / "m.db"
        with store(path) as client:
            memory = ScopedMemory("u_alice", client=client)
            tasks = [asyncio.create_task(memory.aadd([f"{n} one", f"{n} two"])) for n in range(200)]
            await tasks[20]
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            done = [n for n, result in enumerate(results) if isinstance(result, list)]
            assert {type(result) for result in results if not isinstance(result, list)} <= {asyncio.CancelledError}
            await asyncio.get_running_loop().shutdown_default_executor()
            texts = sorted(record["memory"] for record in memory.get_all())
            for number in range(200):
                there = [text for text in texts if text.startswith(f"{number} ")]
                assert there in ([], [f"{number} one", f"{number} two"])
                assert there or number not in done
            assert len(texts) == rows_in(path)
        assert_sound(path)

    async def test_a_call_on_a_closed_store_raises(self, tmp_path: Path) -> None:
        with store(tmp_path / "m.db") as client:
            memory = ScopedMemory("u_alice", client=client)
        for call in (memory.aadd("x"), memory.asearch("x"), memory.aget_all(), memory.adelete_all()):
            with pytest.raises(BackendError, match="is closed"):
                await call
