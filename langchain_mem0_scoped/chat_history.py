"""ScopedChatMessageHistory: a session's transcript for LangChain, preceded by what is known from other sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, ToolMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables.utils import ConfigurableFieldSpec

from .errors import BackendError, InputError
from .memory import ScopedMemory
from .memory_filter import Remember, select_messages, validate_remember
from .messages import validate_count
from .recall import (
    arecall_other_sessions,
    is_recall,
    last_human_text,
    recall_message,
    recall_other_sessions,
    validate_recall,
)
from .scope import validate_id
from .transcripts import base as transcripts

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends import Client
    from .records import MemoryList
    from .transcripts.base import TranscriptStore


class ScopedChatMessageHistory(BaseChatMessageHistory):
    """The messages of one session of one user; drop it in where LangChain takes a chat message history.

    `messages` is the session's transcript, exact and in order. With `recall` above 0 it is preceded by one
    SystemMessage with what is known from the user's *other* sessions: by this session's last human turn, or, where
    there is none or it matches nothing, the latest. Both are read once, at the first look, and then stand still but for
    what is added through this object, as RunnableWithMessageHistory needs; so build one history for each request. The
    recall is never logged.

    Args:
        user_id: Whose; see `ScopedMemory`.
        session_id: Which conversation; the rules of a user_id hold.
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        recall: At most so many memories precede the transcript; 0 for none.
        remember: What of a turn becomes memory: True for what the user and the assistant said, False for nothing (the
            transcript is kept all the same), or a function that looks at each message; see `remembering.Remember`.
        max_messages: Return only so many of the transcript's last messages; None for all.
        max_tokens: Return only as many of the last as fit; None for all.
        token_counter: Counts the tokens of messages; None for `count_tokens_approximately`.

    Raises:
        ScopeError: user_id or session_id is refused.
        InputError: Another argument means nothing; what `transcripts` names is looked at by the first call.

    Example:
        >>> from langchain_core.messages import AIMessage, HumanMessage
        >>> history = ScopedChatMessageHistory("u_alice", "monday")
        >>> history.add_messages([HumanMessage("I am vegetarian"), AIMessage("Noted")])
        >>> [message.text for message in history.messages]
        ['I am vegetarian', 'Noted']
        >>> [message.type for message in ScopedChatMessageHistory("u_alice", "tuesday").messages]  # the recall
        ['system']
    """

    def __init__(
        self,
        user_id: str,
        session_id: str = "default",
        *,
        client: Client | None = None,
        transcripts: str | Engine | None = None,
        recall: int = 5,
        remember: Remember = True,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        token_counter: Callable[[list[BaseMessage]], int] | None = None,
    ) -> None:
        self._memory = ScopedMemory(user_id, client=client, transcripts=transcripts)
        self._session_id = validate_id(session_id, "session_id")
        self._recall = validate_recall(recall)
        self._remember = validate_remember(remember)
        self._max_messages = None if max_messages is None else validate_count(max_messages, "max_messages")
        self._max_tokens = None if max_tokens is None else validate_count(max_tokens, "max_tokens")
        self._token_counter = token_counter or count_tokens_approximately
        self._since: Sequence[Any] | None = None
        self._log: list[BaseMessage] | None = None
        self._recalled: list[BaseMessage] | None = None

    @property
    def user_id(self) -> str:
        """Whose conversation this is."""
        return self._memory.user_id

    @property
    def session_id(self) -> str:
        """Which conversation this is."""
        return self._session_id

    @property
    def memory(self) -> ScopedMemory:
        """What is known about the user."""
        return self._memory

    @property
    def messages(self) -> list[BaseMessage]:
        """What is known from other sessions, then the transcript; see the class.

        Raises:
            InputError: `transcripts` names no SQLAlchemy URL or Engine, or another one than this client is bound to.
            BackendError: The client keeps no transcripts and none were handed in, or it failed.
            ScopeError: The client returned a row of another user.
        """
        self._read_log()
        if self._recalled is None:
            found: MemoryList | None = None
            for query in self._queries():
                found = found or recall_other_sessions(self._memory, query, self._session_id, self._recall)
            self._recalled = _as_recall(found)
        return [*self._recalled, *self._capped()]

    @messages.setter
    def messages(self, value: object) -> None:
        raise InputError("a history's messages are changed by add_messages() and clear()")

    async def aget_messages(self) -> list[BaseMessage]:
        """Async twin of `messages`."""
        return await self._memory._run_sync_or_async(lambda: self.messages, self._amessages)

    async def _amessages(self) -> list[BaseMessage]:
        await asyncio.to_thread(self._read_log)
        if self._recalled is None:
            found: MemoryList | None = None
            for query in self._queries():
                found = found or await arecall_other_sessions(self._memory, query, self._session_id, self._recall)
            self._recalled = _as_recall(found)
        return [*self._recalled, *await asyncio.to_thread(self._capped)]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Log messages, then remember what is worth it. A message whose id is there already counts once.

        Args:
            messages: LangChain messages of any type, in order; messages of ours that recall memories are left out.

        Raises:
            InputError: A message cannot be kept exactly; nothing of the turn was stored. Or `remember` returned
                something else; the messages are logged then. Or `transcripts` is refused; see `messages`.
            BackendError: The client failed. Where only the remembering did, the messages are logged and it says so;
                it is not `retryable`, for adding them again would log them twice. Or the user was erased since the
                transcript was read: then nothing is stored, and it is `retryable`.
        """
        self._add(messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Async twin of `add_messages`. Once begun it goes on when it is cancelled: a turn is kept whole."""
        await self._aadd(messages)

    def _add(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage] = ()) -> None:
        """As `add_messages`, and answers that a model has just given: they are new whatever their ids."""
        self._log_and(messages, answers, lambda said, since: self._memory._remember(said, self._session_id, since))

    async def _aadd(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage] = ()) -> None:
        """Async twin of `_add`."""
        work = self._memory._run_sync_or_async(
            lambda: self._add(messages, answers), lambda: self._aadd_one_by_one(messages, answers)
        )
        adding = asyncio.ensure_future(work)
        _ADDING.add(adding)
        adding.add_done_callback(_ADDING.discard)
        await asyncio.shield(adding)

    async def _aadd_one_by_one(self, messages: Sequence[BaseMessage], answers: Sequence[BaseMessage]) -> None:
        remembering: list[tuple[list[dict[str, str]], Sequence[Any] | None]] = []
        await asyncio.to_thread(self._log_and, messages, answers, lambda *said: remembering.append(said))
        if remembering:
            said, since = remembering[-1]
            try:
                await self._memory._aremember(said, self._session_id, since)
            except BackendError as error:
                failure = _only_logged(error)
            else:
                return
            raise failure

    def clear(self) -> None:
        """Empty this session's transcript, and nothing else: memories stay, see `ScopedMemory.delete_all`.

        Raises:
            InputError: As in `messages`.
            BackendError: As in `messages`.
        """
        self._memory._transcript_store().clear(self.user_id, self._session_id)
        self._log = []

    async def aclear(self) -> None:
        """Async twin of `clear`."""
        await asyncio.to_thread(self.clear)

    def _read_log(self) -> None:
        if self._log is None:
            store, last = self._memory._transcript_store(), self._max_messages
            if not store.detects_erasure:
                self._since = self._memory._begin()
            wanted = last if self._max_tokens is None else min(last or _READ_AT_ONCE, _READ_AT_ONCE)
            since, bodies = store.begin(self.user_id, self._session_id, wanted)
            self._since = since or self._since
            self._log = self._enough(store, transcripts.load_messages(bodies), wanted)

    def _enough(self, store: TranscriptStore, found: list[BaseMessage], wanted: int | None) -> list[BaseMessage]:
        """The transcript's end, read further back until it fills the cap by tokens."""
        while (
            self._max_tokens is not None
            and wanted is not None
            and len(found) == wanted != self._max_messages
            and self._token_counter(found) <= self._max_tokens
        ):
            wanted = min(wanted * 4, self._max_messages or wanted * 4)
            found = transcripts.load_messages(store.read(self.user_id, self._session_id, wanted))
        return found

    def _queries(self) -> list[str]:
        """What to recall by, until something is found: the last human turn, then nothing, which gives the latest."""
        if not self._recall:
            return []
        said = last_human_text(self._log or [])
        return [said, ""] if said else [""]

    def _log_and(
        self,
        messages: Sequence[BaseMessage],
        answers: Sequence[BaseMessage],
        remember: Callable[[list[dict[str, str]], Sequence[Any] | None], object],
    ) -> None:
        """Log what is new of these messages, and the answers; remember of it what is worth it."""
        store = self._memory._transcript_store()
        ours = [message for message in messages if not is_recall(message)] + self._anew(answers, store)
        entries = transcripts.dump_messages(ours)
        # A turn that has read nothing begins now: an erasure while it is being stored stops it, too.
        since = self._memory._begin() if self._since is None else self._since

        def then(new: list[int]) -> Callable[[], object] | None:
            said = select_messages([ours[position] for position in new], self._remember)
            return partial(remember, said, since) if said else None

        with self._anew_if_erased():
            if not store.detects_erasure:
                self._memory._check_not_erased(since)
            if not entries:
                return
            new, failure = store.append_and(self.user_id, self._session_id, entries, since, then)
            if failure is not None:
                # An erasure meanwhile has taken what was logged as well.
                self._memory._check_not_erased(since)
        if self._log is not None:
            self._log += [entries[position].message for position in new]
        if failure is not None:
            raise (_only_logged(failure) if isinstance(failure, BackendError) else failure) from None

    def _anew(self, answers: Sequence[BaseMessage], store: TranscriptStore) -> list[BaseMessage]:
        """Answers without ids that are taken: one from a model's cache has the id it had when it was first given."""
        ids = {answer.id for answer in answers if answer.id}
        known = store.known(self.user_id, self._session_id, ids) if ids else set()
        return [answer.model_copy(update={"id": None}) if answer.id in known else answer for answer in answers]

    @contextmanager
    def _anew_if_erased(self) -> Iterator[None]:
        """A turn that quotes what was erased since it was read is not stored; the next one is read anew."""
        try:
            yield
        except BackendError:
            self._log = self._recalled = self._since = None
            raise

    def _capped(self) -> list[BaseMessage]:
        log = list(self._log or ())
        if self._max_messages is not None:
            log = log[-self._max_messages :]
        if self._max_tokens is not None:
            log = trim_messages(
                log,
                max_tokens=self._max_tokens,
                token_counter=self._token_counter,
                strategy="last",
                include_system=False,
            )
        if self._max_messages is not None or self._max_tokens is not None:
            # A model refuses a tool's answer whose call was cut off.
            log = list(dropwhile(lambda message: isinstance(message, ToolMessage), log))
        return log


_ADDING: Final[set[asyncio.Future[None]]] = set()
"""Turns that are being added; an event loop itself keeps no hold of its tasks."""


def _only_logged(error: BackendError) -> BackendError:
    return BackendError(f"the turn is in the transcript, but it was not remembered: {error}")


def _as_recall(found: MemoryList | None) -> list[BaseMessage]:
    return [recall_message(found)] if found else []


_READ_AT_ONCE: Final = 100
"""How many of the last messages are read to see whether they fill `max_tokens`."""

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
    client: Client | None = None,
    *,
    transcripts: str | Engine | None = None,
    recall: int = 5,
    remember: Remember = True,
    max_messages: int | None = None,
    max_tokens: int | None = None,
) -> Callable[[str, str], ScopedChatMessageHistory]:
    """Return what RunnableWithMessageHistory takes as `get_session_history`, with `HISTORY_CONFIG` beside it.

    Args:
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        recall: As in `ScopedChatMessageHistory`, like the rest.
        remember: As there.
        max_messages: As there.
        max_tokens: As there.

    Returns:
        A function of a user_id and a session_id that builds that history.

    Raises:
        InputError: As in `ScopedChatMessageHistory`.

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
        return ScopedChatMessageHistory(
            user_id,
            session_id,
            client=client,
            transcripts=transcripts,
            recall=recall,
            remember=remember,
            max_messages=max_messages,
            max_tokens=max_tokens,
        )

    # One that is never used refuses here and now what would else fail every run.
    history("user", "session")
    return history
