"""SeparateTurn: a turn whose transcript and memories are kept in two stores, and so written one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .appending import Appended
from .base import TranscriptStore, Turn
from .codec import StoredMessage

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..requests import AddRequest, ErasureToken


class SeparateTurn(Turn):
    """Appends to a transcript store, then remembers through a backend. There is nothing to commit at its end.

    Args:
        store: Keeps the transcript.
        backend: Keeps the memories.
        user_id: Whose turn.
        session_id: Which session.
        token: Made when the turn began; None for a turn that begins now.
    """

    def __init__(
        self, store: TranscriptStore, backend: Backend, user_id: str, session_id: str, token: ErasureToken | None
    ) -> None:
        self._store = store
        self._backend = backend
        self._user_id = user_id
        self._session_id = session_id
        self._token = token

    def append(
        self,
        messages: Sequence[StoredMessage],
        answers: Sequence[StoredMessage] = (),
        *,
        read_first: bool = False,
    ) -> Appended:
        """Append a turn in one transaction; it is durable when this returns."""
        if not self._store.detects_erasure:
            self._backend.check_not_erased(self._user_id, self._token)
        appended = self._store.append(self._user_id, self._session_id, messages, self._token, answers=answers)
        self.appended = True
        return appended

    def remember(self, request: AddRequest) -> object:
        """Store memories through the backend."""
        return self._backend.add(self._user_id, request)

    async def aremember(self, request: AddRequest) -> object:
        """Async twin of `remember`."""
        return await self._backend.aadd(self._user_id, request)
