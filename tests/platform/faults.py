"""The faults of the stand-in, and which requests they affect."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.platform.wire import Request

When = Literal["before", "after"]

HTML: Final = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>"


@dataclass(frozen=True)
class Throttle:
    """Status 429; the request is not executed.

    Attributes:
        retry_after: The header Retry-After and the body's retry_after: seconds, or any text.
        header: Whether the header is there.
        body: Whether the body has it.
    """

    retry_after: float | str = 1
    header: bool = True
    body: bool = True


@dataclass(frozen=True)
class Drop:
    """The connection breaks: before the request is executed, after it, or in the middle of the answer."""

    when: Literal["before", "after", "half"] = "before"


@dataclass(frozen=True)
class Status:
    """Another status than 2xx. With when="after", the request is executed. A str as body is sent as text."""

    code: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    when: When = "before"


@dataclass(frozen=True)
class Html:
    """A page of HTML instead of an answer, as a proxy or a login page sends it."""

    code: int = 200
    when: When = "before"
    text: str = HTML


@dataclass(frozen=True)
class Delay:
    """A delay before the request is executed."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """No answer until the client disconnects."""

    when: When = "before"


@dataclass(frozen=True)
class Fail:
    """The event that the request makes ends FAILED.

    Attributes:
        reason: Its error; {text} stands for the text of the messages. Real reasons quote it.
        stores: How many memories are stored before the failure.
    """

    reason: str = "could not process: {text}"
    stores: int = 0


@dataclass(frozen=True)
class Foreign:
    """Another user's row in the answer: first in a list, or instead of the row that was asked for.

    Attributes:
        user_id: Whose row. There must be one. None: of any user that the request does not name.
        claims: The user id that the row gives in the answer instead of its own; None: its own.
    """

    user_id: str | None = None
    claims: str | None = None


@dataclass(frozen=True)
class Rewrite:
    """The answer's body is replaced by the result of a function of it."""

    rewrite: Callable[[Any], Any]


Fault = Throttle | Drop | Status | Html | Delay | Hang | Fail | Foreign | Rewrite


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    path: str
    user_id: str | None
    left: float
    skip: int
    rate: float | None

    def applies_to(self, request: Request) -> bool:
        return (
            self.method in (None, request.method)
            and request.path.startswith(self.path)
            and (self.user_id is None or self.user_id in request.user_ids)
        )


class Faults:
    """Rules that say which requests have faults. May be changed at any time, from any thread.

    A rule applies to a request with its method, whose path begins with the rule's, and which names its user. All
    permanent rules that apply take effect, and the oldest of the limited rules.

    Attributes:
        seen: How often each kind of fault happened, by its name: faults.seen["Drop"].
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._random = random.Random(0)

    def once(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "/",
        user_id: str | None = None,
        times: int = 1,
        after: int = 0,
    ) -> None:
        """Apply a fault to the next `times` matching requests, after the first `after` of them."""
        self._add(_Rule(fault, method, path, user_id, times, after, None))

    def always(self, fault: Fault, *, method: str | None = None, path: str = "/", user_id: str | None = None) -> None:
        """Apply a fault to every matching request, until `clear`."""
        self._add(_Rule(fault, method, path, user_id, float("inf"), 0, 1.0))

    def randomly(
        self,
        rate: float,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "/",
        user_id: str | None = None,
        seed: int | None = None,
    ) -> None:
        """Apply a fault to a random share of the matching requests. Several such rules draw independently."""
        if seed is not None:
            self._random.seed(seed)
        self._add(_Rule(fault, method, path, user_id, float("inf"), 0, rate))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self.seen.clear()
            self._random.seed(0)

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def draw(self, request: Request) -> list[Fault]:
        """Return the faults of a request."""
        drawn: list[Fault] = []
        with self._lock:
            taken = False
            for rule in self._rules:
                if not rule.applies_to(request) or not rule.left:
                    continue
                if rule.rate is not None:
                    if rule.rate >= 1 or self._random.random() < rule.rate:
                        drawn.append(rule.fault)
                elif not taken:
                    if rule.skip:
                        rule.skip -= 1
                    else:
                        rule.left -= 1
                        taken = True
                        drawn.append(rule.fault)
            self._rules = [rule for rule in self._rules if rule.left]
            self.seen.update(type(fault).__name__ for fault in drawn)
        return drawn
