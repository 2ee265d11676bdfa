"""What can go wrong at the stand-in: faults, and which requests they happen to."""

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
    """429, not handled.

    Attributes:
        retry_after: What the header Retry-After and the body's retry_after say: seconds, or any text.
        header: Whether the header is there.
        body: Whether the body says it.
    """

    retry_after: float | str = 1
    header: bool = True
    body: bool = True


@dataclass(frozen=True)
class Drop:
    """The connection goes away: before the request is handled, after it, or in the middle of the answer's body."""

    when: Literal["before", "after", "half"] = "before"


@dataclass(frozen=True)
class Status:
    """Another status than 2xx; with when="after", the work is done all the same. A body of str is sent as text."""

    code: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    when: When = "before"


@dataclass(frozen=True)
class Html:
    """A page of HTML instead of an answer, as a captive portal or a proxy sends it."""

    code: int = 200
    when: When = "before"
    text: str = HTML


@dataclass(frozen=True)
class Delay:
    """Handled this much later."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """No answer, ever: until the client goes away."""

    when: When = "before"


@dataclass(frozen=True)
class Fail:
    """The event that the request makes ends FAILED.

    Attributes:
        reason: Its error; {text} stands for the text of the messages, which real reasons quote.
        stores: How many memories are there nevertheless: a failure half way.
    """

    reason: str = "could not process: {text}"
    stores: int = 0


@dataclass(frozen=True)
class Foreign:
    """Somebody else's row in the answer: beside the rows of a list, instead of the one asked for.

    Attributes:
        user_id: Whose row. There must be one. None: of any user that the request does not name.
        claims: The user id that the row gives in the answer instead of its own; None: its own.
    """

    user_id: str | None = None
    claims: str | None = None


@dataclass(frozen=True)
class Rewrite:
    """The answer's body is replaced by what this makes of it."""

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

    def meant(self, request: Request) -> bool:
        return (
            self.method in (None, request.method)
            and request.path.startswith(self.path)
            and (self.user_id is None or self.user_id in request.user_ids)
        )


class Faults:
    """Which requests go wrong, and how. May be changed at any time, from any thread.

    A request is meant by a rule if it has its method, if its path begins with the rule's, and if it names the user.
    All standing rules that mean a request take effect, and the oldest of the one-shot rules that do.

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
        """The next `times` requests that are meant, leaving out the first `after` of them."""
        self._add(_Rule(fault, method, path, user_id, times, after, None))

    def always(self, fault: Fault, *, method: str | None = None, path: str = "/", user_id: str | None = None) -> None:
        """Every request that is meant, until `clear`."""
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
        """That share of the requests that are meant. With several of these, each draws for itself."""
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
        """What happens to this request."""
        drawn: list[Fault] = []
        with self._lock:
            taken = False
            for rule in self._rules:
                if not rule.meant(request) or not rule.left:
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
