"""PlatformBackend: mem0's hosted platform. Runs the steps of each call, in a thread or on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import BackendError
from ...requests import AddRequest, ErasureToken, ListRequest, SearchRequest, UpdateRequest
from ..base import Backend, Changes, Row, Rows
from . import adding, operations
from .operations import Step, Steps
from .requests import Request
from .transport import Transport

if TYPE_CHECKING:
    import mem0

T = TypeVar("T")

_THREADS: Final = 8
"""Threads that send the requests of one step."""


class PlatformBackend(Backend):
    """mem0's hosted platform, over the address, the key and the connections of one `mem0.MemoryClient`.

    What a call does is written once, in `operations` and `adding`.

    Args:
        client: The client. It is referenced weakly: the caller of each method holds it.
    """

    def __init__(self, client: mem0.MemoryClient) -> None:
        self._transport = Transport(client)

    # -- running steps

    def _run(self, steps: Steps[T]) -> T:
        """Take all steps in this thread."""
        answer, failure = None, None
        while True:
            try:
                step = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration as done:
                result: T = done.value
                return result
            answer, failure = None, None
            try:
                answer = self._take(step)
            except BackendError as error:
                failure = error

    def _take(self, step: Step) -> Any:
        if isinstance(step, Request):
            return self._transport.send(step)
        if isinstance(step, float):
            time.sleep(step)
            return None
        with ThreadPoolExecutor(min(_THREADS, len(step) or 1)) as pool:
            return list(pool.map(self._transport.send, step))

    async def _arun(self, steps: Steps[T]) -> T:
        """Take all steps on this event loop."""
        answer, failure = None, None
        while True:
            try:
                step = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration as done:
                result: T = done.value
                return result
            answer, failure = None, None
            try:
                answer = await self._atake(step)
            except BackendError as error:
                failure = error

    async def _atake(self, step: Step) -> Any:
        if isinstance(step, Request):
            return await self._transport.asend(step)
        if isinstance(step, float):
            await asyncio.sleep(step)
            return None
        return await asyncio.gather(*map(self._transport.asend, step))

    async def run_sync_or_async(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """See `Backend.run_sync_or_async`. Async calls need no thread here."""
        return await awork()

    # -- the calls, sync and async

    def add(self, user_id: str, request: AddRequest) -> Rows:
        """See `Backend.add`. Stores each message once, also where an answer is lost; see `adding.add`."""
        return self._run(adding.add(user_id, request))

    async def aadd(self, user_id: str, request: AddRequest) -> Rows:
        """Async twin of `add`."""
        return await self._arun(adding.add(user_id, request))

    def search(self, request: SearchRequest) -> Rows:
        """See `Backend.search`."""
        return self._run(operations.search(request))

    async def asearch(self, request: SearchRequest) -> Rows:
        """Async twin of `search`."""
        return await self._arun(operations.search(request))

    def search_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        """See `Backend.search_other_sessions`."""
        return self._run(operations.search_other_sessions(request, session_id))

    async def asearch_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        """Async twin of `search_other_sessions`."""
        return await self._arun(operations.search_other_sessions(request, session_id))

    def list(self, request: ListRequest) -> Rows:
        """See `Backend.list`."""
        return self._run(operations.list_rows(request))

    async def alist(self, request: ListRequest) -> Rows:
        """Async twin of `list`."""
        return await self._arun(operations.list_rows(request))

    def list_including_expired(self, user_id: str) -> Rows:
        """See `Backend.list_including_expired`."""
        return self._run(operations.list_including_expired(user_id))

    async def alist_including_expired(self, user_id: str) -> Rows:
        """Async twin of `list_including_expired`."""
        return await self._arun(operations.list_including_expired(user_id))

    def count(self, user_id: str) -> int:
        """See `Backend.count`. Takes two requests, however many rows there are; see `operations.count`."""
        return self._run(operations.count(user_id))

    async def acount(self, user_id: str) -> int:
        """Async twin of `count`."""
        return await self._arun(operations.count(user_id))

    def get(self, user_id: str, memory_id: str) -> Row | None:
        """See `Backend.get`. The platform cannot ask by user."""
        return self._run(operations.get(memory_id))

    async def aget(self, user_id: str, memory_id: str) -> Row | None:
        """Async twin of `get`."""
        return await self._arun(operations.get(memory_id))

    def update(self, user_id: str, request: UpdateRequest) -> Row | None:
        """See `Backend.update`."""
        return self._run(operations.update(user_id, request))

    async def aupdate(self, user_id: str, request: UpdateRequest) -> Row | None:
        """Async twin of `update`."""
        return await self._arun(operations.update(user_id, request))

    def delete(self, user_id: str, memory_id: str) -> bool:
        """See `Backend.delete`."""
        return self._run(operations.delete(memory_id))

    async def adelete(self, user_id: str, memory_id: str) -> bool:
        """Async twin of `delete`."""
        return await self._arun(operations.delete(memory_id))

    def history(self, user_id: str, memory_id: str) -> Changes:
        """See `Backend.history`."""
        return self._run(operations.history(user_id, memory_id))

    async def ahistory(self, user_id: str, memory_id: str) -> Changes:
        """Async twin of `history`."""
        return await self._arun(operations.history(user_id, memory_id))

    def erase(self, user_id: str) -> Mapping[str, int]:
        """See `Backend.erase`."""
        return self._run(operations.erase(user_id))

    async def aerase(self, user_id: str) -> Mapping[str, int]:
        """Async twin of `erase`."""
        return await self._arun(operations.erase(user_id))

    def erasure_token(self, user_id: str) -> None:
        """See `Backend.erasure_token`. Always None: the platform cannot tell."""

    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        """See `Backend.check_not_erased`. Always returns."""
