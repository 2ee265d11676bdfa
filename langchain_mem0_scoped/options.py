"""HistoryOptions: the one list of options of chains, chat histories and their factory, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, TypedDict

from langchain_core.messages.utils import count_tokens_approximately

from .errors import InputError
from .memory_filter import Remember, validate_remember
from .messages import validate_count
from .transcripts.window import TokenCounter, TranscriptWindow


class HistoryOptions(TypedDict, total=False):
    """Options of `with_scoped_memory`, `ScopedChatMessageHistory`, `history_factory` and `ScopedMemory.chat_history`.

    `ScopedMemoryMiddleware` takes `recall` and `remember`. An agent gets its messages from a checkpointer.

    Attributes:
        recall: Maximum number of memories from other sessions given to the model; 0 for none. The default is 5. A long
            memory is cut, and a long recall leaves out the rest; see `recall_text.format_memories`.
        remember: Which messages of a turn become memories; see `memory_filter.Remember`. The default is True: what the
            user and the assistant said. The transcript keeps every message either way.
        max_messages: Maximum number of messages returned, the last of the transcript; None, the default, for all. With
            a cap, the first message returned is a human message: providers refuse others. A last turn that alone
            exceeds the cap is returned whole, from its human message on.
        max_tokens: Maximum number of tokens of the messages returned, the last of the transcript; None, the default,
            for all. The rules of `max_messages` apply.
        token_counter: Counts the tokens of a list of messages; None, the default, for LangChain's
            `count_tokens_approximately`.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> options = HistoryOptions(recall=0, max_messages=20)
        >>> ScopedMemory("u_alice").chat_history("monday", **options).messages
        []
    """

    recall: int
    remember: Remember
    max_messages: int | None
    max_tokens: int | None
    token_counter: TokenCounter | None


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """Validated `HistoryOptions`, with the defaults filled in.

    Attributes:
        recall: Maximum number of memories; 0 for none.
        remember: Which messages of a turn become memories.
        window: How much of the transcript's end is returned.
    """

    recall: int
    remember: Remember
    window: TranscriptWindow

    @classmethod
    def of(cls, options: HistoryOptions) -> Self:
        """Validate options.

        Args:
            options: As a function received them in `**options`.

        Raises:
            TypeError: There is no option of that name.
            InputError: An option's value cannot be used.
        """
        if unknown := sorted(options.keys() - _DEFAULTS.keys()):
            raise TypeError(f"unknown option {unknown[0]!r}; the options are {', '.join(_DEFAULTS)}")
        values: HistoryOptions = {**_DEFAULTS, **options}
        return cls(
            validate_count(values["recall"], "recall", least=0),
            validate_remember(values["remember"]),
            TranscriptWindow(
                _validate_cap(values["max_messages"], "max_messages"),
                _validate_cap(values["max_tokens"], "max_tokens"),
                _validate_token_counter(values["token_counter"]),
            ),
        )


_DEFAULTS: Final[HistoryOptions] = {
    "recall": 5,
    "remember": True,
    "max_messages": None,
    "max_tokens": None,
    "token_counter": None,
}


def _validate_cap(cap: object, name: str) -> int | None:
    return None if cap is None else validate_count(cap, name)


def _validate_token_counter(counter: object) -> TokenCounter:
    if counter is None:
        return count_tokens_approximately
    if not callable(counter):
        raise InputError(f"token_counter must be a function of a list of messages, got {type(counter).__name__}")
    return counter
