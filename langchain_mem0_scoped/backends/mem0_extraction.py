"""A mem0.Memory for one extraction: only memories that take part are seen, and the model's answer is checked."""

from __future__ import annotations

import copy
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from ..extraction import readable_answer, takes_part

if TYPE_CHECKING:
    import mem0

_MAX_FETCH: Final = 10_000
"""Maximum number of rows fetched to find some that take part."""


def for_extraction(client: mem0.Memory, day: date) -> mem0.Memory:
    """Return a client on the same parts, for one add that extracts facts.

    mem0 shows its model memories that have expired, and takes an answer that is no JSON for "nothing to remember".

    Args:
        client: The client. Its entity store is open, or mem0 cannot open it.
        day: See `extraction.must_last_until`.
    """
    view = copy.copy(client)
    view.vector_store = _LastingRows(client.vector_store, day)
    view.llm = _CheckedModel(client.llm)
    return view


class _Proxy:
    """Everything that is not overridden is the target's own."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class _LastingRows(_Proxy):
    """A vector store whose search leaves out memories that do not take part in an extraction."""

    def __init__(self, store: Any, day: date) -> None:
        super().__init__(store)
        self._day = day

    def search(self, *args: Any, top_k: int = 5, **kwargs: Any) -> list[Any]:
        """Search as mem0 does; among more rows, as long as some of the best do not take part."""
        size = top_k
        while True:
            found = self._target.search(*args, top_k=size, **kwargs)
            lasting = [row for row in found if takes_part((row.payload or {}).get("expiration_date"), self._day)]
            if len(lasting) >= top_k or len(found) < size or size >= _MAX_FETCH:
                return lasting[:top_k]
            size = min(size * 4, _MAX_FETCH)


class _CheckedModel(_Proxy):
    """mem0's language model. An answer in JSON holds only facts that can be stored."""

    def generate_response(self, messages: Any, response_format: Any = None, **options: Any) -> Any:
        """Answer as the model does.

        Raises:
            UnreadableAnswer: The answer does not have the form mem0 asks for.
        """
        answer = self._target.generate_response(messages=messages, response_format=response_format, **options)
        return answer if response_format is None else readable_answer(answer)
