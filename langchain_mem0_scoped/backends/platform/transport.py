"""Transport: sends requests to mem0's hosted platform: connections, time limits, retries, and failures as errors.

Every request has `TIMEOUT` and uses a connection pool of `LIMITS`. A request that cannot have been executed (no
connection, 408, 429) is sent again. One that may have been executed (a broken connection, 5xx) is sent again only if it
is idempotent. It is sent at most `ATTEMPTS` times, with pauses of `BACKOFF` plus what the platform asks for. An add
that may have been executed raises `OutcomeUnknown`: the caller searches for it first.
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
from .requests import Request
from .responses import parse_json

if TYPE_CHECKING:
    import mem0

TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, pool=60.0)
"""Seconds to connect, for each read and write, and to wait for a free connection of the pool."""

MAX_CONCURRENT: Final = 32
"""Requests at once: of one event loop, and of all threads of a process."""

LIMITS: Final = httpx.Limits(max_connections=MAX_CONCURRENT, max_keepalive_connections=MAX_CONCURRENT)

ATTEMPTS: Final = 8
"""How often a request is sent at most."""

BACKOFF: Final = wait_random_exponential(multiplier=0.1, max=10.0)
"""Seconds between two attempts, in addition to those the platform asks for: random, up to 0.1 · 2^n. Requests that were
refused together are not sent again together."""

MAX_RETRY_AFTER: Final = 30.0
"""The longest pause the platform may ask for, in seconds. After a longer one the call fails instead of waiting."""

_HTTPX_ERRORS: Final = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, RuntimeError)
"""What httpx raises; RuntimeError if its client is closed."""


class RequestFailed(BackendError):
    """A request failed.

    Attributes:
        may_have_executed: Whether the platform may have executed it.
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
    """It is not known whether the platform executed a request that is not idempotent."""


class Transport:
    """Sends requests for one `mem0.MemoryClient`.

    Threads use the client's own connections. Each event loop has one pool for all clients of the same address and key.

    Args:
        client: The client. It is referenced weakly: the caller of each method holds it.
    """

    def __init__(self, client: mem0.MemoryClient) -> None:
        # Backends are kept by client. A strong reference would keep the client alive for ever.
        self._weak_client = ref(client)
        # Made here, not on an event loop: it takes 20 ms.
        self._tls = httpx.create_ssl_context()
        self._init_process()
        _keep_ids_out_of_logs(str(client.client.base_url.host))

    @property
    def _client(self) -> mem0.MemoryClient:
        client = self._weak_client()
        if client is None:
            raise BackendError("the mem0.MemoryClient of this backend was freed; keep a reference to it")
        return client

    def _init_process(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._pid = os.getpid()

    def _check_process(self) -> None:
        """Replace the connections after a fork: two processes must not use the same ones."""
        if self._pid == os.getpid():
            return
        with INIT_LOCK:
            if self._pid != os.getpid():
                # The parent's client is kept: freeing it would close its connections. `_pid` is set last, because other
                # threads of the child check it without the lock.
                self._parent_connections = self._client.client
                self._client.client = httpx.Client(**_options_like(self._parent_connections, self._tls))
                self._init_process()

    # -- threads

    def send(self, request: Request) -> Any:
        """Send a request; again where that may help and does no harm.

        Args:
            request: What to send.

        Returns:
            The answer's JSON; None for a 404, if the request's `may_be_gone` allows it.

        Raises:
            OutcomeUnknown: It is not idempotent, and may have been executed.
            BackendError: It failed.
        """
        self._check_process()
        try:
            for attempt in Retrying(**_retry_policy(request)):
                with attempt, self._slots:
                    return self._send_once(request)
        except RequestFailed as error:
            failure = _final_error(request, error)
        raise failure

    def _send_once(self, request: Request) -> Any:
        try:
            answer = self._client.client.request(
                request.method, request.path, params=request.params or None, json=request.body, timeout=TIMEOUT
            )
        except _HTTPX_ERRORS as error:
            failure = _connection_error(request, error)
        else:
            return _parse(request, answer)
        raise failure

    # -- event loops

    async def asend(self, request: Request) -> Any:
        """Async twin of `send`."""
        self._check_process()
        pool = await _pool_for(self._client.client, self._tls)
        try:
            async for attempt in AsyncRetrying(**_retry_policy(request)):
                with attempt:
                    async with pool.slots:
                        return await self._asend_once(pool.client, request)
        except RequestFailed as error:
            failure = _final_error(request, error)
        raise failure

    async def _asend_once(self, client: httpx.AsyncClient, request: Request) -> Any:
        try:
            answer = await client.request(
                request.method, request.path, params=request.params or None, json=request.body
            )
        except _HTTPX_ERRORS as error:
            failure = _connection_error(request, error)
        else:
            return _parse(request, answer)
        raise failure


@dataclass(frozen=True, slots=True)
class _Pool:
    """The connections of one event loop to one address.

    Attributes:
        client: The connections.
        slots: One for each request at once.
        closer: Closes the connections when the event loop ends.
    """

    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    closer: AsyncIterator[None]


_pools: Final[dict[tuple[int, asyncio.AbstractEventLoop], dict[tuple[str, str], _Pool]]] = {}
"""By process and event loop, then by address and key. All `mem0.MemoryClient`s of one address and key share a pool."""


async def _pool_for(client: httpx.Client, tls: ssl.SSLContext) -> _Pool:
    """Return this event loop's pool for the address and key of a client."""
    here = os.getpid(), asyncio.get_running_loop()
    pools = _pools.get(here)
    if pools is None:
        for process, loop in list(_pools):
            if process == here[0] and loop.is_closed():
                _pools.pop((process, loop), None)
        pools = _pools[here] = {}
    target = str(client.base_url), client.headers.get("Authorization", "")
    pool = pools.get(target)
    if pool is None:
        connections = httpx.AsyncClient(**_options_like(client, tls))
        pool = pools[target] = _Pool(connections, asyncio.Semaphore(MAX_CONCURRENT), _closer(connections))
        await anext(pool.closer)
    return pool


async def _closer(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Close connections when the event loop ends: asyncio.run() closes all async generators, this one too."""
    try:
        yield
    finally:
        _pools.pop((os.getpid(), asyncio.get_running_loop()), None)
        await client.aclose()


def _options_like(client: httpx.Client, tls: ssl.SSLContext) -> dict[str, Any]:
    return {
        "base_url": client.base_url,
        "headers": client.headers,
        "timeout": TIMEOUT,
        "limits": LIMITS,
        "verify": tls,
    }


# -- retries


def _retry_policy(request: Request) -> dict[str, Any]:
    def may_retry(error: BaseException) -> bool:
        return (
            isinstance(error, RequestFailed)
            and error.retryable
            and (error.retry_after or 0.0) <= MAX_RETRY_AFTER
            and (request.idempotent or not error.may_have_executed)
        )

    return {
        "retry": retry_if_exception(may_retry),
        "stop": stop_after_attempt(ATTEMPTS),
        "wait": _pause,
        "reraise": True,
    }


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    retry_after = error.retry_after if isinstance(error, RequestFailed) else None
    return BACKOFF(state) + (retry_after or 0.0)


def _final_error(request: Request, error: RequestFailed) -> BackendError:
    kind = OutcomeUnknown if error.may_have_executed and not request.idempotent else BackendError
    return kind(str(error), retryable=error.retryable, retry_after=error.retry_after, status=error.status)


# -- answers


def _connection_error(request: Request, error: Exception) -> RequestFailed:
    operation, name = request.operation, type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return RequestFailed(
            f"mem0's platform could not be reached for {operation} ({name}): check the network, a proxy and the host",
            retryable=True,
        )
    if isinstance(error, (httpx.TransportError, httpx.StreamError)):
        return RequestFailed(
            f"the connection to mem0's platform broke during {operation} ({name}); call again",
            retryable=True,
            may_have_executed=True,
        )
    if isinstance(error, RuntimeError):
        return RequestFailed(
            f"{operation} cannot be sent to mem0's platform: the client's connections were closed; build a new client"
        )
    return RequestFailed(
        f"{operation} could not be sent to mem0's platform ({name}): check the host", may_have_executed=True
    )


def _parse(request: Request, answer: httpx.Response) -> Any:
    status = answer.status_code
    if status == 404 and request.may_be_gone:
        return None
    if not answer.is_success:
        error = _status_error(request, answer)
        error.status = status
        raise error
    if status == 204 or not answer.content:
        return {}
    try:
        parsed = parse_json(answer.text)
    except ValueError:
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()[:40] or "no content type"
    else:
        # None means 404. An answer of `null` does not.
        return {} if parsed is None else parsed
    raise RequestFailed(
        f"mem0's platform answered {request.operation} with {media_type}, expected JSON: check the host, and whether a "
        "proxy or a login page answers in its place",
        may_have_executed=True,
    )


def _status_error(request: Request, answer: httpx.Response) -> RequestFailed:
    status, operation = answer.status_code, request.operation
    if status in (401, 403):
        return RequestFailed(f"mem0's platform refused the API key for {operation} ({status}): check MEM0_API_KEY")
    if status == 408:
        return RequestFailed(
            f"mem0's platform did not receive all of {operation} in time (408); call again", retryable=True
        )
    if status == 413:
        return RequestFailed(
            f"mem0's platform refused {operation} (413): it is too large, or the quota is used up; add less at a time"
        )
    if status == 429:
        return RequestFailed(
            f"mem0's platform limits the rate of requests ({operation}, 429): call again later, or less often",
            retryable=True,
            retry_after=_retry_after(answer),
        )
    if status >= 500:
        return RequestFailed(
            f"mem0's platform failed at {operation} ({status}): call again later",
            retryable=True,
            may_have_executed=True,
            retry_after=_retry_after(answer),
        )
    return RequestFailed(
        f"mem0's platform refused {operation} ({status}; its text is withheld because it may quote a memory)"
    )


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds to wait: from the header, a number or a date, else from the body."""
    body: Any = None
    with suppress(ValueError, AttributeError):
        body = parse_json(answer.text).get("retry_after")
    for value in (answer.headers.get("Retry-After"), body):
        with suppress(TypeError, ValueError):
            return min(max(0.0, float(value)), 86_400.0)
        with suppress(TypeError, ValueError):
            return max(0.0, (parsedate_to_datetime(str(value)) - datetime.now(UTC)).total_seconds())
    return None


# -- logs


class _RemoveIds(logging.Filter):
    """Removes user ids, which are in query strings and paths, from httpx's log line about each platform request."""

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


_remove_ids = _RemoveIds()


def _keep_ids_out_of_logs(host: str) -> None:
    _remove_ids.hosts.add(host)
    logger = logging.getLogger("httpx")
    if _remove_ids not in logger.filters:
        logger.addFilter(_remove_ids)
