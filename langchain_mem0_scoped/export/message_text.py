"""Message text: a message as readable parts, its texts and labels for what is not text. Pure, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..tables import replace_unprintable

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


class Part(NamedTuple):
    """A part of a message.

    Attributes:
        label: The kind of part in brackets, such as "[image]"; "" for plain text.
        text: The part's text, unchanged; "" if it has none.
    """

    label: str
    text: str


def parts_of(message: BaseMessage) -> list[Part]:
    """Split a message into its parts: every text, and a label for anything that is not text.

    Args:
        message: The message.

    Returns:
        The parts in the order of the message. Adjacent plain texts are one part.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> parts_of(HumanMessage(["Look: ", {"type": "image", "base64": "aGVsbG8="}]))
        [Part(label='', text='Look: '), Part(label='[image]', text='')]
    """
    calls = [*(getattr(message, "tool_calls", None) or ()), *(getattr(message, "invalid_tool_calls", None) or ())]
    content = [message.content] if isinstance(message.content, str) else message.content
    parts = _join_plain(part for block in content for part in _block_parts(block, calls))
    # Some integrations keep refusals and reasoning outside the content. Calls follow below.
    extra = {key: value for key, value in message.additional_kwargs.items() if key not in _CALL_KEYS}
    parts += [Part(_label(key), text) for key, value in extra.items() for text in _find_texts({key: value})]
    parts += [_call_part(call) for call in calls]
    if not calls and isinstance(legacy := message.additional_kwargs.get("function_call"), Mapping):
        parts.append(_call_part(legacy))
    if getattr(message, "artifact", None) is not None:
        parts.append(Part(f"[and data of the tool {message.name}]" if message.name else "[and data of the tool]", ""))
    return parts


def speaker_of(message: BaseMessage) -> str:
    """Return the speaker of a message for display.

    A custom role or name is marked as such, because it could be the name of anyone.
    """
    if message.type == "chat":
        speaker = f"In the role “{getattr(message, 'role', '')}”"
    else:
        speaker = _SPEAKERS.get(message.type, message.type)
    return f"{speaker} ({message.name})" if message.name else speaker


def escape_invisible(text: str) -> str:
    r"""Escape invisible control characters, so that a text cannot be displayed as another one.

    Joiners stay: Persian and many emoji need them. Direction marks stay in a text with right-to-left letters, where
    they have no more effect than such a letter.

    Args:
        text: Any text.

    Returns:
        The text with escapes such as "\u202e" in place of the characters.

    Example:
        >>> print(escape_invisible("invoice\u202efdp.exe"))
        invoice\u202efdp.exe
    """
    pattern = _INVISIBLE if _RIGHT_TO_LEFT.search(text) else _INVISIBLE_OR_DIRECTION_MARK
    return pattern.sub(lambda found: found[1] or found[0].encode("unicode_escape").decode(), replace_unprintable(text))


def to_json(value: object) -> str:
    """Return a value as readable JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _block_parts(block: Any, calls: list[Any]) -> Iterator[Part]:
    if not isinstance(block, Mapping):
        yield Part("", str(block))
        return
    kind = block.get("type")
    if kind in _CALL_KINDS:
        if not any(_is_same_call(block, call) for call in calls):
            yield _call_part(block)
        return
    label = _label(kind) if isinstance(kind, str) else ""
    plain = [block[key] for key in _PLAIN_KEYS if isinstance(block.get(key), str)] if not label else []
    yield Part("", "".join(plain))
    texts = _find_texts({key: value for key, value in block.items() if not plain or key not in _PLAIN_KEYS})
    if texts:
        yield Part("[with it]" if plain else label, "\n".join(texts))
    elif label or not plain:
        yield Part(label or "[something that is not text]", "")


def _join_plain(parts: Iterable[Part]) -> list[Part]:
    """Join adjacent plain texts: some models split a sentence wherever they cite a source."""
    joined: list[Part] = []
    for plain, group in groupby((part for part in parts if any(part)), lambda part: not part.label):
        some = list(group)
        joined += [Part("", "".join(part.text for part in some))] if plain else some
    return joined


def _find_texts(block: object) -> list[str]:
    """Return every text in a block, in order: each str under a key that names text, at any depth."""
    found: list[str] = []
    # No recursion, because deeply nested blocks must not make the export fail.
    pending: list[tuple[bool, object]] = [(False, block)]
    while pending:
        is_text, value = pending.pop()
        if isinstance(value, str):
            if is_text and value.strip():
                found.append(value)
        elif isinstance(value, list):
            pending += [(is_text, item) for item in reversed(value)]
        elif isinstance(value, Mapping):
            # Some integrations keep a text under "data", which elsewhere holds an image.
            text_keys = _TEXT_KEYS | {"data"} if value.get("type") == "text" else _TEXT_KEYS
            pending += [(key in text_keys, inner) for key, inner in list(value.items())[::-1]]
    return found


def _call_part(call: Mapping[str, Any]) -> Part:
    arguments: object = next(
        (call[key] for key in ("args", "input", "arguments", "partial_json") if call.get(key) is not None), {}
    )
    arguments_text = arguments if isinstance(arguments, str) else to_json(arguments)
    return Part(f"[uses {call.get('name') or 'a tool'}: {arguments_text}]", "")


def _is_same_call(block: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    ids = {block.get(key) for key in ("id", "call_id", "tool_call_id") if isinstance(block.get(key), str)}
    return call.get("id") in ids if ids and call.get("id") else block.get("name") in (None, call.get("name"))


def _label(kind: str) -> str:
    return "" if kind in _PLAIN_KINDS else f"[{_LABELS.get(kind) or kind.replace('_', ' ')}]"


_TEXT_KEYS: Final = frozenset(
    [
        *("text", "thinking", "reasoning", "reasoning_content", "refusal", "content", "summary", "title", "context"),
        *("output", "result", "filename", "cited_text", "transcript", "query", "arguments", "input", "caption"),
        *("alt_text", "code", "executable_code", "code_execution_result"),
    ]
)
_PLAIN_KEYS: Final = ("text", "refusal")
_PLAIN_KINDS: Final = ("", "text", "input_text", "output_text", "refusal")
_CALL_KINDS: Final = (
    *("tool_use", "tool_call", "invalid_tool_call", "function_call", "server_tool_use", "server_tool_call"),
    # Parts of a streamed call.
    *("tool_call_chunk", "input_json_delta"),
)
_CALL_KEYS: Final = ("tool_calls", "function_call")
_THOUGHT: Final = "what the assistant thought"
_LABELS: Final = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "input_file": "file",
    "text-plain": "document",
    "thinking": _THOUGHT,
    "reasoning": _THOUGHT,
    "reasoning_content": _THOUGHT,
    "redacted_thinking": f"{_THOUGHT}, which cannot be read",
    "tool_result": "what the tool answered",
    "server_tool_result": "what the tool answered",
}
_SPEAKERS: Final = {"human": "You", "ai": "Assistant", "tool": "Tool", "function": "Tool", "system": "Instructions"}

# The flags of England, Scotland and Wales use tag characters, which elsewhere can hide a text.
_FLAG: Final = "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)"
_CONTROLS: Final = "\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_INVISIBLE: Final = re.compile(f"{_FLAG}|[{_CONTROLS}]")
_INVISIBLE_OR_DIRECTION_MARK: Final = re.compile(f"{_FLAG}|[{_CONTROLS}\u061c\u200e\u200f]")
_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
