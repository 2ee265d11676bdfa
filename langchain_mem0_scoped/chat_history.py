"""ScopedChatMessageHistory: a session's transcript as a LangChain chat history, with a recall before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.utils import ConfigurableFieldSpec

from .errors import BackendError, InputError
from .memory_filter import select_messages
from .options import HistoryOptions, HistorySettings
from .pending_turn import Attempt, PendingTurn, TurnOutcome
from .recall import arecall_other_sessions, last_human_text, recall_other_sessions
from .recall_text import is_recall, recall_message
from .records import MemoryList
from .requests import AddRequest, ErasureToken, add_request
from .scope import validate_id
from .scoped_client import ScopedClient
from .transcripts.appending import as_unanswered, until_last_human
from .transcripts.codec import dump_messages
from .transcripts.run_input import RunInput, resumed_run_input, split_run_input
from .transcripts.sameness import Identity, identity_of, repeated_within
from .transcripts.window import ReadTranscript

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends import Client

_storing: Final[set[asyncio.Future[TurnOutcome]]] = set()
"""Turns that are being stored. An event loop keeps only weak references to its tasks."""


class ScopedChatMessageHistory(BaseChatMessageHistory):
    """The messages of one session of one user, for use wherever LangChain takes a chat message history.

    `messages` is the session's transcript, exact and in order. With `recall` above 0 it is preceded by one HumanMessage
    with memories from the user's *other* sessions, marked as data. These are the memories that match the session's last
    human message best; the latest ones where there is no such message or it matches nothing.

    Transcript and recall are read once, by the first access. After that `messages` changes only by what is added
    through this object, as RunnableWithMessageHistory expects. So build one history per request. The recall is never
    stored.

    Args:
        user_id: Whose session; see `ScopedMemory`.
        session_id: Which session; the rules of a user_id apply.
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        **options: See `HistoryOptions`.

    Raises:
        ScopeError: user_id or session_id is refused.
        InputError: Another argument cannot be used. `transcripts` is validated by the first call that needs it.
        TypeError: There is no option of that name.

    Example:
        >>> from langchain_core.messages import AIMessage, HumanMessage
        >>> history = ScopedChatMessageHistory("u_alice", "monday")
        >>> history.add_messages([HumanMessage("I am vegetarian"), AIMessage("Noted")])
        >>> [message.text for message in history.messages]
        ['I am vegetarian', 'Noted']
        >>> [message.type for message in ScopedChatMessageHistory("u_alice", "tuesday").messages]  # the recall
        ['human']
    """

    def __init__(
        self,
        user_id: str,
        session_id: str = "default",
        *,
        client: Client | None = None,
        transcripts: str | Engine | None = None,
        **options: Unpack[HistoryOptions],
    ) -> None:
        self._client = ScopedClient(user_id, client=client, transcripts=transcripts)
        self._session_id = validate_id(session_id, "session_id")
        self._settings = HistorySettings.of(options)
        self._transcript: list[BaseMessage] | None = None
        self._unanswered = 0
        self._is_whole = False
        self._recalled: list[BaseMessage] | None = None
        self._token: ErasureToken | None = None

    @property
    def user_id(self) -> str:
        """Whose session this is."""
        return self._client.user_id

    @property
    def session_id(self) -> str:
        """Which session this is."""
        return self._session_id

    @property
    def scoped_client(self) -> ScopedClient:
        """The user and the backend that this history works on."""
        return self._client

    # -- reading

    @property
    def messages(self) -> list[BaseMessage]:
        """The recall, then the transcript; see the class.

        Raises:
            InputError: `transcripts` is not a SQLAlchemy URL or Engine, or this client is bound to another database.
            BackendError: The client failed, or it keeps no transcripts and `transcripts` was not passed.
            ScopeError: The client returned a row of another user.
        """
        # The transcript is read first, with the token: from here on an erasure stops the turn.
        transcript = self._read_transcript()
        if self._recalled is None:
            found = MemoryList()
            for text in self._recall_texts(transcript):
                if found := recall_other_sessions(self._client, text, self._session_id, self._settings.recall):
                    break
            self._recalled = _recall_messages(found)
        return [*self._recalled, *self._settings.window.cut(transcript)]

    @messages.setter
    def messages(self, value: object) -> None:
        raise InputError("messages cannot be assigned; use add_messages() and clear()")

    async def aget_messages(self) -> list[BaseMessage]:
        """Async twin of `messages`."""
        return await self._client.run_sync_or_async(lambda: self.messages, self._aget_messages)

    async def _aget_messages(self) -> list[BaseMessage]:
        transcript = await asyncio.to_thread(self._read_transcript)
        if self._recalled is None:
            found = MemoryList()
            for text in self._recall_texts(transcript):
                if found := await arecall_other_sessions(self._client, text, self._session_id, self._settings.recall):
                    break
            self._recalled = _recall_messages(found)
        return [*self._recalled, *await asyncio.to_thread(self._settings.window.cut, transcript)]

    def _read_transcript(self) -> list[BaseMessage]:
        if self._transcript is None:
            store = self._client.transcript_store()
            # A store that does not detect erasure has no token of its own; the client may have one.
            before = None if store.detects_erasure else self._client.erasure_token()
            read = self._settings.window.read(store, self.user_id, self._session_id)
            self._token = read.token if before is None else before
            self._transcript, self._unanswered, self._is_whole = read[1:]
        return self._transcript

    def _end_of_transcript(self, last: int) -> list[tuple[BaseMessage, Identity]]:
        """Return the last messages of the transcript; read further back where fewer were read."""
        transcript = self._read_transcript()
        if len(transcript) < last and not self._is_whole:
            bodies = self._client.transcript_store().read(self.user_id, self._session_id, last)
            read = ReadTranscript.of(None, bodies, last)
            # What was appended since the first read is left out, as `messages` leaves it out.
            self._transcript = transcript = _older_than(read.messages, transcript)
            self._is_whole = read.is_whole
        end = transcript[-last:]
        answered = len(end) - self._unanswered
        return [
            (message, identity_of(message)._replace(unanswered=place >= answered)) for place, message in enumerate(end)
        ]

    def _recall_texts(self, transcript: list[BaseMessage]) -> list[str]:
        """Return what to recall by, one after the other until something is found; "" finds the latest memories."""
        if not self._settings.recall:
            return []
        text = last_human_text(transcript)
        return [text, ""] if text else [""]

    # -- what a run is given

    def run_input(self, messages: Sequence[BaseMessage]) -> RunInput:
        """Split what a run is called with into what the transcript has of it and what it adds.

        A caller may pass the whole conversation, its last messages, or what is said now alone.

        Args:
            messages: In order, without instructions at their head.

        Raises:
            BackendError: As in `messages`.
        """
        return split_run_input(messages, self._end_of_transcript)

    def resumed_input(self) -> RunInput:
        """Return the input of a run that goes on where an earlier one of this session was interrupted.

        Raises:
            BackendError: As in `messages`.
        """
        return resumed_run_input(self._read_transcript(), self._unanswered)

    def context(self, given: RunInput) -> list[BaseMessage]:
        """Return what comes before the turn of a run: of the transcript as much as the options allow."""
        return self._settings.window.cut(given.context(self._read_transcript()))

    # -- adding

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages to the transcript, then remember some of them; see `HistoryOptions.remember`.

        What repeats the transcript is not added again: messages before the last human message that it has in the same
        order, and the last turn, if its id and content are the same.

        Args:
            messages: LangChain messages of any type, in order. Recalls, as `messages` returns them, are left out.

        Raises:
            InputError: One of them is not a message; nothing was stored. Or `remember` returned a value of another
                type; the messages are in the transcript then. Or `transcripts` is refused; see `messages`.
            BackendError: The client failed. If only remembering failed, the messages are in the transcript, and the
                error says so; it is not `retryable`, since adding them again would store them twice. Or the user was
                erased since the transcript was read: nothing was stored, and it is `retryable`.
        """
        self.add_turn(messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Async twin of `add_messages`. Once begun it goes on when it is cancelled: a turn is stored whole."""
        await self.aadd_turn(messages)

    def add_turn(
        self,
        messages: Sequence[BaseMessage],
        answers: Sequence[BaseMessage] = (),
        *,
        token: ErasureToken | None = None,
    ) -> TurnOutcome:
        """As `add_messages`, followed by answers that a model has just given: they are new whatever their ids.

        A model's cache repeats an answer with the id it had before. What earlier runs left unanswered is remembered
        with this turn; see `add_unanswered`.

        Args:
            messages: As in `add_messages`.
            answers: Follow the messages.
            token: The token of `ScopedClient.erasure_token`, made when the turn began; None for the one of the first
                access to `messages`, or of now.

        Returns:
            What was stored.

        Raises:
            InputError: As in `add_messages`.
            BackendError: As in `add_messages`.
        """
        return _raised(self.save_turn(messages, answers, token=token))

    async def aadd_turn(
        self,
        messages: Sequence[BaseMessage],
        answers: Sequence[BaseMessage] = (),
        *,
        token: ErasureToken | None = None,
    ) -> TurnOutcome:
        """Async twin of `add_turn`. Once begun it goes on when it is cancelled: a turn is stored whole."""
        return _raised(await self.asave_turn(messages, answers, token=token))

    def add_unanswered(self, messages: Sequence[BaseMessage], *, token: ErasureToken | None = None) -> TurnOutcome:
        """Add the human messages of a run that failed or was stopped, in one commit. They are not remembered yet.

        The next turn of the session remembers them with its own. What is stored already is not added again: a message
        of the same id and content, or, without ids, of the content that an unanswered run before it had.

        Args:
            messages: What was said. Messages after the last human message are left out.
            token: As in `add_turn`.

        Raises:
            InputError: As in `add_messages`.
            BackendError: As in `add_messages`.
        """
        return _raised(self.save_unanswered(messages, token=token))

    async def aadd_unanswered(
        self, messages: Sequence[BaseMessage], *, token: ErasureToken | None = None
    ) -> TurnOutcome:
        """Async twin of `add_unanswered`. Once begun it goes on when it is cancelled."""
        return _raised(await self.asave_unanswered(messages, token=token))

    def save_turn(
        self,
        messages: Sequence[BaseMessage],
        answers: Sequence[BaseMessage] = (),
        *,
        token: ErasureToken | None = None,
    ) -> TurnOutcome:
        """As `add_turn`, and return what failed instead of raising it."""
        pending: PendingTurn | None = None
        failure: Exception | None = None
        try:
            pending = self._prepare(messages, answers, token)
            for attempt in pending.attempts():
                with attempt, self._client.turn(self._session_id, pending.token) as turn:
                    pending.turn = turn
                    pending.appended = turn.append(
                        pending.stored, pending.answers, read_first=self._reads_first(attempt)
                    )
                    if (request := self._add_request(pending)) is not None:
                        pending.rows = turn.remember(request)
        except Exception as error:
            failure = error
        return self._finish(pending, failure)

    async def asave_turn(
        self,
        messages: Sequence[BaseMessage],
        answers: Sequence[BaseMessage] = (),
        *,
        token: ErasureToken | None = None,
    ) -> TurnOutcome:
        """Async twin of `save_turn`. Once begun it goes on when it is cancelled: a turn is stored whole."""
        return await _uninterrupted(
            self._client.run_sync_or_async(
                lambda: self.save_turn(messages, answers, token=token),
                lambda: self._asave_turn(messages, answers, token),
            )
        )

    async def _asave_turn(
        self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage], token: ErasureToken | None
    ) -> TurnOutcome:
        pending: PendingTurn | None = None
        failure: Exception | None = None
        try:
            pending = await asyncio.to_thread(self._prepare, messages, answers, token)
            for attempt in pending.attempts():
                with attempt, self._client.turn(self._session_id, pending.token) as turn:
                    pending.turn = turn
                    pending.appended = await asyncio.to_thread(
                        turn.append, pending.stored, pending.answers, read_first=self._reads_first(attempt)
                    )
                    if (request := await asyncio.to_thread(self._add_request, pending)) is not None:
                        pending.rows = await turn.aremember(request)
        except Exception as error:
            failure = error
        return await asyncio.to_thread(self._finish, pending, failure)

    def save_unanswered(self, messages: Sequence[BaseMessage], *, token: ErasureToken | None = None) -> TurnOutcome:
        """As `add_unanswered`, and return what failed instead of raising it."""
        pending: PendingTurn | None = None
        failure: Exception | None = None
        try:
            pending = self._prepare(until_last_human(messages), (), token)
            pending.stored = [as_unanswered(message) for message in pending.stored]
            for attempt in pending.attempts():
                with attempt, self._client.turn(self._session_id, pending.token) as turn:
                    pending.turn = turn
                    pending.appended = turn.append(pending.stored, read_first=self._reads_first(attempt))
        except Exception as error:
            failure = error
        unanswered = self._unanswered
        outcome = self._finish(pending, failure)
        if failure is None:
            self._unanswered = unanswered + outcome.messages
        return outcome

    async def asave_unanswered(
        self, messages: Sequence[BaseMessage], *, token: ErasureToken | None = None
    ) -> TurnOutcome:
        """Async twin of `save_unanswered`. Once begun it goes on when it is cancelled."""
        return await _uninterrupted(asyncio.to_thread(lambda: self.save_unanswered(messages, token=token)))

    def _reads_first(self, attempt: Attempt) -> bool:
        return attempt.number > 0 or self._unanswered > 0

    def _prepare(
        self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage], token: ErasureToken | None
    ) -> PendingTurn:
        kept = self._without_repeated([message for message in messages if not is_recall(message)])
        stored, stored_answers = dump_messages(kept), dump_messages(answers)
        if token is None:
            # A history that has read nothing begins its turn now: an erasure while the turn is stored stops it as well.
            token = self._client.erasure_token() if self._token is None else self._token
        return PendingTurn([*kept, *answers], stored, stored_answers, token)

    def _without_repeated(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Leave out what an agent's output repeats of its input and of the history it was given."""
        if len(messages) < 2 or not all(isinstance(message, BaseMessage) for message in messages):
            return list(messages)
        shown = [] if self._transcript is None else self._settings.window.cut(self._transcript)
        repeated = repeated_within([identity_of(one) for one in messages], lambda: [identity_of(one) for one in shown])
        return [message for place, message in enumerate(messages) if place not in repeated]

    def _add_request(self, pending: PendingTurn) -> AddRequest | None:
        """Return what is remembered of a turn; None for nothing. This may run a model, so no transaction is open."""
        texts = select_messages(pending.to_remember, self._settings.remember)
        if not texts:
            return None
        return add_request(texts, session_id=self._session_id, erasure_token=pending.token)

    def _finish(self, pending: PendingTurn | None, failure: Exception | None) -> TurnOutcome:
        """Take what was stored into `messages`; return the result."""
        if pending is None or (failure is not None and not pending.is_appended):
            return self._nothing_stored(failure)
        if failure is not None:
            try:
                # An erasure meanwhile has removed what was appended as well.
                self._client.check_not_erased(pending.token)
            except BackendError as error:
                return self._nothing_stored(error)
        if self._transcript is not None and pending.appended.new:
            self._transcript += pending.added
            self._unanswered = 0
        if isinstance(failure, BackendError):
            failure = BackendError(
                f"the turn is in the transcript, but it was not remembered: {failure}",
                retry_after=failure.retry_after,
                status=failure.status,
                code=failure.code,
            )
        return pending.outcome(failure)

    def _nothing_stored(self, error: Exception | None) -> TurnOutcome:
        if isinstance(error, BackendError):
            # The user may have been erased: the next turn must not build on what was read before.
            self._transcript = self._recalled = self._token = None
            error.__context__ = None  # An error of `remember`, which may quote the turn.
        return TurnOutcome(in_transcript=False, remembered=False, error=error)

    def clear(self) -> None:
        """Remove this session's transcript, and nothing else. Memories stay; see `ScopedMemory.delete_all`.

        Raises:
            InputError: As in `messages`.
            BackendError: As in `messages`.
        """
        self._client.clear_transcript(self._session_id)
        self._transcript, self._unanswered, self._is_whole = [], 0, True

    async def aclear(self) -> None:
        """Async twin of `clear`."""
        await asyncio.to_thread(self.clear)


async def _uninterrupted(work: Coroutine[Any, Any, TurnOutcome]) -> TurnOutcome:
    """Await work that goes on where the caller is cancelled."""
    storing = asyncio.ensure_future(work)
    _storing.add(storing)
    storing.add_done_callback(_storing.discard)
    return await asyncio.shield(storing)


def _raised(outcome: TurnOutcome) -> TurnOutcome:
    if outcome.error is not None:
        raise outcome.error from None
    return outcome


def _older_than(read: list[BaseMessage], known: list[BaseMessage]) -> list[BaseMessage]:
    """Return the messages that precede those that are known, and those."""
    identities = [identity_of(one) for one in known]
    for end in range(len(read), len(known) - 1, -1):
        if [identity_of(one) for one in read[end - len(known) : end]] == identities:
            return [*read[: end - len(known)], *known]
    return known


def _recall_messages(found: MemoryList) -> list[BaseMessage]:
    return [recall_message(found)] if found else []


HISTORY_CONFIG: Final[list[ConfigurableFieldSpec]] = [
    ConfigurableFieldSpec(
        id="user_id", annotation=str, name="User", description="Whose conversation this is.", is_shared=True
    ),
    ConfigurableFieldSpec(
        id="session_id", annotation=str, name="Session", description="Which conversation this is.", is_shared=True
    ),
]
"""The two fields that RunnableWithMessageHistory passes to a `history_factory`: its `history_factory_config`."""


def history_factory(
    client: Client | None = None, *, transcripts: str | Engine | None = None, **options: Unpack[HistoryOptions]
) -> Callable[[str, str], ScopedChatMessageHistory]:
    """Return the `get_session_history` of a RunnableWithMessageHistory; pass `HISTORY_CONFIG` beside it.

    Do not merge a client's dict into the config of a run. LangChain lets a user_id at the top level of a config replace
    the one in `configurable`, and calls this function with the result only: it cannot be seen here.

    Args:
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        **options: See `HistoryOptions`.

    Returns:
        A function of a user_id and a session_id that builds a `ScopedChatMessageHistory`.

    Raises:
        InputError: An argument cannot be used.
        TypeError: There is no option of that name.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> from langchain_core.runnables.history import RunnableWithMessageHistory
        >>> chain = RunnableWithMessageHistory(
        ...     RunnableLambda(lambda messages: f"{len(messages)} so far"),
        ...     history_factory(recall=0),
        ...     history_factory_config=HISTORY_CONFIG,
        ... )
        >>> monday = {"configurable": {"user_id": "u_alice", "session_id": "monday"}}
        >>> chain.invoke("Hello", monday), chain.invoke("And now?", monday)
        ('1 so far', '3 so far')
    """

    def history(user_id: str, session_id: str) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory(user_id, session_id, client=client, transcripts=transcripts, **options)

    # Validates the arguments now, and not in every run.
    history("user", "session")
    return history
