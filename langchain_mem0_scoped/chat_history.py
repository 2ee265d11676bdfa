"""ScopedChatMessageHistory: a session's transcript as a LangChain chat history, with a recall before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Unpack

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.utils import ConfigurableFieldSpec

from .errors import BackendError, InputError
from .memory_filter import select_messages
from .options import HistoryOptions, HistorySettings
from .recall import arecall_other_sessions, last_human_text, recall_other_sessions
from .recall_text import is_recall, recall_message
from .records import MemoryList
from .requests import AddRequest, ErasureToken, add_request
from .scope import validate_id
from .scoped_client import ScopedClient
from .transcripts.base import ConcurrentWrite, TranscriptStore, Turn
from .transcripts.codec import StoredMessage, dump_messages

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends import Client

_MAX_ATTEMPTS: Final = 10
"""How often a turn is stored again because other writers stored some of its messages meanwhile."""

_adding: Final[set[asyncio.Future[None]]] = set()
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
            token, messages = self._settings.window.read(store, self.user_id, self._session_id)
            self._token = token if before is None else before
            self._transcript = messages
        return self._transcript

    def _recall_texts(self, transcript: list[BaseMessage]) -> list[str]:
        """Return what to recall by, one after the other until something is found; "" finds the latest memories."""
        if not self._settings.recall:
            return []
        text = last_human_text(transcript)
        return [text, ""] if text else [""]

    # -- adding

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages to the transcript, then remember some of them; see `HistoryOptions.remember`.

        A message whose id is in the session already is not added again.

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

    def add_turn(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage] = ()) -> None:
        """As `add_messages`, followed by answers that a model has just given: they are new whatever their ids.

        A model's cache repeats an answer with the id it had before.
        """
        pending = self._prepare(messages, answers)
        failure: Exception | None = None
        try:
            for attempt in _attempts(pending):
                with attempt, self._client.turn(self._session_id, pending.token) as turn:
                    pending.turn = turn
                    pending.new = turn.append(pending.stored)
                    if (request := self._add_request(pending)) is not None:
                        turn.remember(request)
        except Exception as error:
            failure = error
        self._finish(pending, failure)

    async def aadd_turn(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage] = ()) -> None:
        """Async twin of `add_turn`. Once begun it goes on when it is cancelled: a turn is stored whole."""
        adding = asyncio.ensure_future(
            self._client.run_sync_or_async(
                lambda: self.add_turn(messages, answers), lambda: self._aadd_turn(messages, answers)
            )
        )
        _adding.add(adding)
        adding.add_done_callback(_adding.discard)
        await asyncio.shield(adding)

    async def _aadd_turn(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage]) -> None:
        pending = await asyncio.to_thread(self._prepare, messages, answers)
        failure: Exception | None = None
        try:
            for attempt in _attempts(pending):
                with attempt, self._client.turn(self._session_id, pending.token) as turn:
                    pending.turn = turn
                    pending.new = await asyncio.to_thread(turn.append, pending.stored)
                    if (request := await asyncio.to_thread(self._add_request, pending)) is not None:
                        await turn.aremember(request)
        except Exception as error:
            failure = error
        await asyncio.to_thread(self._finish, pending, failure)

    def _prepare(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage]) -> _PendingTurn:
        store = self._client.transcript_store()
        kept = [message for message in messages if not is_recall(message)]
        kept += self._without_taken_ids(answers, store)
        stored = dump_messages(kept)
        # A history that has read nothing begins its turn now: an erasure while the turn is stored stops it as well.
        token = self._client.erasure_token() if self._token is None else self._token
        return _PendingTurn(kept, stored, token)

    def _without_taken_ids(self, answers: Sequence[BaseMessage], store: TranscriptStore) -> list[BaseMessage]:
        ids = {answer.id for answer in answers if answer.id}
        taken = store.existing_ids(self.user_id, self._session_id, ids) if ids else set()
        return [answer.model_copy(update={"id": None}) if answer.id in taken else answer for answer in answers]

    def _add_request(self, pending: _PendingTurn) -> AddRequest | None:
        """Return what is remembered of a turn; None for nothing. This may run a model, so no transaction is open."""
        texts = select_messages([pending.messages[position] for position in pending.new], self._settings.remember)
        if not texts:
            return None
        return add_request(texts, session_id=self._session_id, erasure_token=pending.token)

    def _finish(self, pending: _PendingTurn, failure: Exception | None) -> None:
        """Take what was stored into `messages`, and raise what failed."""
        try:
            if failure is not None and not pending.appended:
                raise failure
            if failure is not None:
                # An erasure meanwhile has removed what was appended as well.
                self._client.check_not_erased(pending.token)
        except BackendError as error:
            # The user may have been erased: the next turn must not build on what was read before.
            self._transcript = self._recalled = self._token = None
            error.__context__ = None  # An error of `remember`, which may quote the turn.
            raise
        if self._transcript is not None:
            self._transcript += [pending.stored[position].message for position in pending.new]
        if isinstance(failure, BackendError):
            failure = BackendError(f"the turn is in the transcript, but it was not remembered: {failure}")
        if failure is not None:
            raise failure from None

    def clear(self) -> None:
        """Remove this session's transcript, and nothing else. Memories stay; see `ScopedMemory.delete_all`.

        Raises:
            InputError: As in `messages`.
            BackendError: As in `messages`.
        """
        self._client.transcript_store().clear(self.user_id, self._session_id)
        self._transcript = []

    async def aclear(self) -> None:
        """Async twin of `clear`."""
        await asyncio.to_thread(self.clear)


@dataclass(slots=True)
class _PendingTurn:
    """A turn that is being stored.

    Attributes:
        messages: The turn's messages, recalls left out.
        stored: The same messages in their stored form.
        token: Made when the turn began.
        turn: The last attempt to store it.
        new: The positions of the messages that are new to the session.
    """

    messages: list[BaseMessage]
    stored: list[StoredMessage]
    token: ErasureToken | None
    turn: Turn | None = None
    new: list[int] = field(default_factory=list)

    @property
    def appended(self) -> bool:
        """Whether the messages are in the transcript."""
        return self.turn is not None and self.turn.appended


class _Attempt:
    """One attempt to store a turn: a ConcurrentWrite in its block is noted and not raised."""

    conflicted = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.conflicted = isinstance(error, ConcurrentWrite)
        return self.conflicted


def _attempts(pending: _PendingTurn) -> Iterator[_Attempt]:
    """Yield attempts until a block ends without a ConcurrentWrite; none for a turn without messages.

    Raises:
        BackendError: There were too many of them.
    """
    if not pending.stored:
        return
    for _ in range(_MAX_ATTEMPTS):
        attempt = _Attempt()
        yield attempt
        if not attempt.conflicted:
            return
    raise BackendError(
        f"other writers stored messages of this turn at the same time, {_MAX_ATTEMPTS} times; nothing was stored",
        retryable=True,
    )


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
