"""Storing a turn of an agent: the user's words before a model is given them, the whole turn after the last answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from ..chat_history import ScopedChatMessageHistory
from ..errors import BackendError
from ..memory_filter import Remember, select_messages
from ..pending_turn import TurnOutcome
from ..requests import add_request, list_request
from ..scoped_client import ScopedClient
from ..transcripts.sameness import has_same_id, identity_of, identity_of_stored, unanswered_from
from .state import RunMemo, Target
from .steps import Step, Steps
from .turn import AgentTurn, answers_of, answers_to_remember

logger = logging.getLogger(__name__)

_RECENT: Final = 200
"""How many messages of a transcript are compared with a turn that one run has begun and ended."""


@dataclass(frozen=True, slots=True)
class TurnSaver:
    """Stores the turns of one user in one session.

    Attributes:
        client: The user's client.
        session_id: The session; "" for none. Then there is no transcript, and memories belong to no session.
        transcript: Whether turns are logged in the session's transcript.
        remember: Which messages of a turn become memories.
    """

    client: ScopedClient
    session_id: str
    transcript: bool
    remember: Remember

    @property
    def target(self) -> Target:
        """Where turns are stored."""
        return Target(id(self.client.client), self.client.user_id, self.session_id)

    @property
    def _logs(self) -> bool:
        return self.transcript and bool(self.session_id)

    def require_store(self) -> None:
        """Return if there is a place for the turn.

        Raises:
            BackendError: The client keeps no transcripts.
        """
        if not self._logs:
            return
        try:
            self.client.transcript_store()
        except BackendError as error:
            raise BackendError(f"{error}; or transcript=False to remember without one") from None

    # -- before a model is given the user's words

    def log_said(self, memo: RunMemo, said: Sequence[BaseMessage], token: Any) -> Steps[None]:
        """Log the user's messages as unanswered.

        It is done before a model is called, once a run: whatever ends the run then, what the user said is stored. A
        failure is not raised, since the end of the run stores the messages again, and reports it.
        """
        if not self._logs or memo.logged:
            return
        memo.logged.update(str(message.id) for message in said)
        try:
            if memo.is_resumed:
                answered, unanswered = yield Step(lambda: self._logged(None))
                said = [one for one in said if not _is_in(one, answered) and not _is_in(one, unanswered)]
            if said:
                history = self._history(self.remember)
                yield Step(
                    lambda: history.add_unanswered(said, token=token),
                    lambda: history.aadd_unanswered(said, token=token),
                )
        except BackendError as error:
            logger.debug("the user's messages could not be logged before the answer (%s)", type(error).__name__)

    # -- after the last answer

    def save(
        self, turn: AgentTurn, memo: RunMemo, messages: Sequence[BaseMessage], *, is_logged: bool
    ) -> Steps[TurnOutcome]:
        """Store a turn.

        Args:
            turn: The turn.
            memo: What the run holds.
            messages: The agent's messages at the end of the run.
            is_logged: Whether another middleware of the agent has stored the turn in the same transcript.

        Returns:
            What was stored, and what failed.
        """
        by_id = memo.said | {str(one.id): one for one in messages}
        said = [by_id[one] for one in turn["said"] if one in by_id]
        answers = answers_of(turn, messages)
        remember = _RememberOfTurn(self.remember, frozenset(turn["noted"]), answers_to_remember(turn, messages))
        token = turn["erasure_token"]
        if not self._logs or is_logged:
            return (yield from self._remember(said, answers, remember, memo, turn))
        if not said and not answers:
            return TurnOutcome(in_transcript=True, remembered=True)
        again: list[BaseMessage] = []
        if memo.is_resumed or memo.logged:
            answered, unanswered = yield Step(lambda: self._logged(None if memo.is_resumed else _RECENT))
            stored = [one for one in said if _is_in(one, answered) and not _is_in(one, unanswered)]
            again = [one for one in stored if one.id in turn["left"]]
            said = [one for one in said if one not in stored]
            # A run that goes on from an earlier checkpoint has answers in its state that are stored already.
            if memo.is_resumed:
                answers = [one for one in answers if one.id in memo.answers or not _is_in(one, answered)]
        history = self._history(remember)
        outcome: TurnOutcome = yield Step(
            lambda: history.save_turn(said, answers, token=token),
            lambda: history.asave_turn(said, answers, token=token),
        )
        again = yield from self._not_remembered(again, remember)
        if again and outcome.error is None:
            rest = yield from self._add(again, remember, token)
            outcome = replace(rest, in_transcript=True, messages=outcome.messages)
        return outcome

    def _remember(
        self,
        said: list[BaseMessage],
        answers: list[BaseMessage],
        remember: Remember,
        memo: RunMemo,
        turn: AgentTurn,
    ) -> Steps[TurnOutcome]:
        """Remember a turn that is logged in no transcript, or by another middleware."""
        if lost := len(turn["said"]) - len(said):
            logger.warning("a summary removed %d messages of the user before they were remembered", lost)
        if memo.is_resumed and self.session_id:
            said = yield from self._not_remembered(said, remember)
        return (yield from self._add([*said, *answers], remember, turn["erasure_token"]))

    def _not_remembered(self, said: list[BaseMessage], remember: Remember) -> Steps[list[BaseMessage]]:
        """Return the messages whose text is not among the memories of the session.

        A run that goes on from an earlier checkpoint may find its turn remembered already.
        """
        if not said:
            return said
        request = list_request(session_id=self.session_id, limit=_RECENT)
        known = yield Step(lambda: self.client.list(request), lambda: self.client.alist(request))
        texts = {record["memory"] for record in known}
        return [one for one in said if not any(text.content in texts for text in select_messages([one], remember))]

    def _add(self, messages: Sequence[BaseMessage], remember: Remember, token: Any) -> Steps[TurnOutcome]:
        try:
            texts = select_messages(messages, remember)
            rows: Any = []
            if texts:
                request = add_request(texts, session_id=self.session_id or None, erasure_token=token)
                rows = yield Step(lambda: self.client.add(request), lambda: self.client.aadd(request))
        except Exception as error:
            return TurnOutcome(in_transcript=False, remembered=False, error=error)
        return TurnOutcome(in_transcript=False, remembered=True, memory_ids=tuple(row["id"] for row in rows))

    # -- the transcript

    def _history(self, remember: Remember) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory(
            self.client.user_id,
            self.session_id,
            client=self.client.client,
            transcripts=self.client.transcripts,
            recall=0,
            remember=remember,
        )

    def _logged(self, last: int | None) -> tuple[list[Any], list[Any]]:
        """Return the end of the transcript: what is answered, and what follows and is not."""
        bodies = self.client.transcript_store().read(self.client.user_id, self.session_id, last)
        logged = [identity_of_stored(body) for body in bodies]
        end = unanswered_from(logged)
        return logged[:end], logged[end:]


class _RememberOfTurn:
    """Decides what is remembered of one turn.

    Args:
        remember: The middleware's option.
        noted: The ids of messages from which a tool has remembered something.
        answers: The ids of answers that may be remembered.
    """

    def __init__(self, remember: Remember, noted: frozenset[str], answers: set[str | None]) -> None:
        self._remember = remember
        self._noted = noted
        self._answers = answers

    def __call__(self, message: BaseMessage) -> bool | str | None:
        is_human = isinstance(message, HumanMessage)
        if message.id in self._noted if is_human else message.id not in self._answers:
            return False
        if callable(self._remember):
            return self._remember(message)
        return self._remember and (is_human or isinstance(message, AIMessage))


def _is_in(message: BaseMessage, logged: Iterable[Any]) -> bool:
    identity = identity_of(message)
    return any(has_same_id(identity, one) for one in logged)
