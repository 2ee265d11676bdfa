"""How requests reach mem0's hosted platform: connections, time limits and repetition in one place; failures as errors.

Every request has `TIMEOUT` and goes over a pool of `LIMITS`. What cannot have been acted on (no connection, 408, 429)
is sent again, whatever it is; what may have been (an answer lost or broken, 5xx) is sent again only if that does no
harm, at most `ATTEMPTS` times, after `BACKOFF` or what the platform asks for. An add that may have been acted on is
`OutcomeUnknown`: whoever sent it looks for it first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from ...errors import BackendError
from ...fork import INIT_LOCK
from .requests import Request, json_of

if TYPE_CHECKING:
    import mem0

TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, pool=60.0)
"""Seconds: to connect, for every read and write, and for a free connection of the pool."""

AT_ONCE: Final = 32
"""Requests under way at once: of one event loop, and of the threads of a process."""

LIMITS: Final = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)

ATTEMPTS: Final = 8
"""How many times a request is sent at most."""

BACKOFF: Final = wait_random_exponential(multiplier=0.1, max=10.0)
"""Seconds between two attempts, beyond those the platform asks for: random, up to 0.1 · 2^n, so that those refused
together do not come again together."""

LONGEST_PAUSE: Final = 30.0
"""Seconds the platform may ask us to wait; beyond, the caller is told instead."""

_NOT_ACTED_ON: Final = frozenset({408, 429})

_RAISED: Final = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, RuntimeError)
"""What httpx raises: RuntimeError where its client has been closed."""


class RequestFailed(BackendError):
    """A request that failed.

    Attributes:
        acted_on: Whether the platform may have acted on it.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        may_have_executed: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after=retry_after)
        self.may_have_executed = may_have_executed


class OutcomeUnknown(BackendError):
    """It is not known whether the platform has acted on a request that must not be acted on twice."""


class Transport:
    """Sends by one `mem0.MemoryClient`: over its own connections in threads, over its event loop's pool otherwise."""

    def __init__(self, client: mem0.MemoryClient) -> None:
        # Weakly: ports are kept by client, and would keep clients for ever. Whoever makes a call holds the client.
        self._weak_client = ref(client)
        # Made once, and not on an event loop: it takes 20 ms.
        self._tls = httpx.create_ssl_context()
        self._begin()
        _keep_ids_out_of_logs(str(client.client.base_url.host))

    @property
    def _client(self) -> mem0.MemoryClient:
        client = self._weak_client()
        if client is None:
            raise BackendError("the client has been freed")
        return client

    def _begin(self) -> None:
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._pid = os.getpid()

    def _check_process(self) -> None:
        """A connection carried over a fork would be spoken on by two processes at once."""
        if self._pid == os.getpid():
            return
        with INIT_LOCK:
            if self._pid != os.getpid():
                # What is the parent's is left alone, and kept, for it closes itself once it is freed. Last of all the
                # mark that this is done: other threads of the child go by that.
                self._parents = self._client.client
                self._client.client = httpx.Client(**_like(self._parents, self._tls))
                self._begin()

    # -- threads

    def send(self, request: Request) -> Any:
        """Send a request, again where that helps.

        Returns:
            The answer's JSON; None where what was asked for is gone.

        Raises:
            Unanswered: It must not be repeated, and may have been acted on.
            BackendError: It failed.
        """
        self._check_process()
        try:
            for attempt in Retrying(**_policy(request)):
                with attempt, self._turns:
                    return self._remove_duplicates(request)
        except RequestFailed as error:
            failure = _given_up(request, error)
        raise failure

    def _remove_duplicates(self, request: Request) -> Any:
        try:
            answer = self._client.client.request(
                request.method, request.path, params=request.params or None, json=request.body, timeout=TIMEOUT
            )
        except _RAISED as error:
            failure = _not_answered(request, error)
        else:
            return _read(request, answer)
        raise failure

    # -- event loops

    async def asend(self, request: Request) -> Any:
        """Async twin of `send`."""
        self._check_process()
        pool = await _pool_like(self._client.client, self._tls)
        try:
            async for attempt in AsyncRetrying(**_policy(request)):
                with attempt:
                    async with pool.turns:
                        return await self._aonce(pool.client, request)
        except RequestFailed as error:
            failure = _given_up(request, error)
        raise failure

    async def _aonce(self, client: httpx.AsyncClient, request: Request) -> Any:
        try:
            answer = await client.request(
                request.method, request.path, params=request.params or None, json=request.body
            )
        except _RAISED as error:
            failure = _not_answered(request, error)
        else:
            return _read(request, answer)
        raise failure


@dataclass(frozen=True, slots=True)
class _Pool:
    """Connections of one event loop.

    Attributes:
        turns: One for each request under way.
        closing: Closes them.
    """

    client: httpx.AsyncClient
    turns: asyncio.Semaphore
    closing: AsyncIterator[None]


_pools: Final[dict[tuple[int, asyncio.AbstractEventLoop], dict[tuple[str, str], _Pool]]] = {}
"""By process and event loop, then by address and key: one `mem0.MemoryClient` or many of them, it is one pool."""


async def _pool_like(client: httpx.Client, tls: ssl.SSLContext) -> _Pool:
    """The pool of this event loop that goes where a client goes."""
    here = os.getpid(), asyncio.get_running_loop()
    pools = _pools.get(here)
    if pools is None:
        for process, loop in list(_pools):
            if process == here[0] and loop.is_closed():
                _pools.pop((process, loop), None)
        pools = _pools[here] = {}
    place = str(client.base_url), client.headers.get("Authorization", "")
    pool = pools.get(place)
    if pool is None:
        connections = httpx.AsyncClient(**_like(client, tls))
        pool = pools[place] = _Pool(connections, asyncio.Semaphore(AT_ONCE), _closing(connections))
        await anext(pool.closing)
    return pool


async def _closing(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """An event loop that ends, as asyncio.run() ends one, closes its generators: this one, and so the connections."""
    try:
        yield
    finally:
        _pools.pop((os.getpid(), asyncio.get_running_loop()), None)
        await client.aclose()


def _like(client: httpx.Client, tls: ssl.SSLContext) -> dict[str, Any]:
    return {
        "base_url": client.base_url,
        "headers": client.headers,
        "timeout": TIMEOUT,
        "limits": LIMITS,
        "verify": tls,
    }


# -- again?


def _policy(request: Request) -> dict[str, Any]:
    def again(error: BaseException) -> bool:
        return (
            isinstance(error, RequestFailed)
            and error.retryable
            and (error.retry_after or 0.0) <= LONGEST_PAUSE
            and (request.idempotent or not error.may_have_executed)
        )

    return {
        "retry": retry_if_exception(again),
        "stop": stop_after_attempt(ATTEMPTS),
        "wait": _pause,
        "reraise": True,
    }


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, RequestFailed) else None
    return BACKOFF(state) + (asked or 0.0)


def _given_up(request: Request, error: RequestFailed) -> BackendError:
    kind = OutcomeUnknown if error.may_have_executed and not request.idempotent else BackendError
    return kind(str(error), retryable=error.retryable, retry_after=error.retry_after)


# -- answers


def _not_answered(request: Request, error: Exception) -> RequestFailed:
    doing, name = request.doing, type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return RequestFailed(
            f"mem0's platform could not be reached for {doing} ({name}): check the network, a proxy, the host",
            retryable=True,
        )
    if isinstance(error, (httpx.TransportError, httpx.StreamError)):
        return RequestFailed(
            f"the connection to mem0's platform broke during {doing} ({name})", retryable=True, may_have_executed=True
        )
    if isinstance(error, RuntimeError):
        return RequestFailed(f"mem0's platform cannot be asked for {doing}: the client has been closed")
    return RequestFailed(f"mem0's platform could not be asked for {doing} ({name})", may_have_executed=True)


def _read(request: Request, answer: httpx.Response) -> Any:
    status = answer.status_code
    if status == 404 and request.may_be_gone:
        return None
    if not answer.is_success:
        raise _refused(request, answer)
    if status == 204 or not answer.content:
        return {}
    try:
        found = json_of(answer.text)
    except ValueError:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()[:40] or "no type"
    else:
        # None means that what was asked for is gone, and that is not what null says.
        return {} if found is None else found
    raise RequestFailed(
        f"mem0's platform answered {request.doing} with {kind} instead of JSON: is there a proxy or a login page in "
        "between? check the host",
        may_have_executed=True,
    )


def _refused(request: Request, answer: httpx.Response) -> RequestFailed:
    status, doing = answer.status_code, request.doing
    if status in (401, 403):
        return RequestFailed(f"mem0's platform refused the API key for {doing} ({status}): check MEM0_API_KEY")
    if status == 413:
        return RequestFailed(
            f"mem0's platform refused {doing} (413): too large, or the quota is used up; add less at a time"
        )
    if status == 429:
        return RequestFailed(
            f"mem0's platform is limiting requests ({doing}, 429): call again later, or less often",
            retryable=True,
            retry_after=_retry_after(answer),
        )
    if status in _NOT_ACTED_ON:
        return RequestFailed(f"mem0's platform did not receive all of {doing} in time ({status})", retryable=True)
    if status >= 500:
        return RequestFailed(
            f"mem0's platform failed at {doing} ({status}): call again later",
            retryable=True,
            may_have_executed=True,
            retry_after=_retry_after(answer),
        )
    return RequestFailed(f"mem0's platform refused {doing} ({status}; its text is withheld, it may quote a memory)")


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds to wait: the header's, a number or a date, else the body's."""
    body: Any = None
    with suppress(ValueError, AttributeError):
        body = json_of(answer.text).get("retry_after")
    for given in (answer.headers.get("Retry-After"), body):
        with suppress(TypeError, ValueError):
            return min(max(0.0, float(given)), 86_400.0)
        with suppress(TypeError, ValueError):
            return max(0.0, (parsedate_to_datetime(str(given)) - datetime.now(UTC)).total_seconds())
    return None


# -- logs


class _NoQueries(logging.Filter):
    """Takes the query string, where a user id may stand, out of httpx's line about each request to the platform."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _without_ids(arg) if isinstance(arg, httpx.URL) and arg.host in self.hosts else arg
                for arg in record.args
            )
        return True


def _without_ids(url: httpx.URL) -> httpx.URL:
    return url.copy_with(query=None, path="/v2/entities/…" if url.path.startswith("/v2/entities/") else url.path)


_no_queries = _NoQueries()


def _keep_ids_out_of_logs(host: str) -> None:
    _no_queries.hosts.add(host)
    logger = logging.getLogger("httpx")
    if _no_queries not in logger.filters:
        logger.addFilter(_no_queries)
