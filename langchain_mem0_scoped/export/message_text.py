"""How a page tells what a message holds: its words, and in brackets what is no words. Pure, no I/O."""

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
        mark: What kind of part it is, in brackets, which are the page's own; "" for what was simply said.
        words: Its text, word for word; "" where it has none.
    """

    mark: str
    words: str


def parts_of(message: BaseMessage) -> list[Part]:
    """Everything a message says, in order: each text of it, and a mark for what is no text.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> parts_of(HumanMessage(["Look: ", {"type": "image", "base64": "aGVsbG8="}]))
        [Part(mark='', words='Look: '), Part(mark='[image]', words='')]
    """
    calls = [*(getattr(message, "tool_calls", None) or ()), *(getattr(message, "invalid_tool_calls", None) or ())]
    content = [message.content] if isinstance(message.content, str) else message.content
    parts = _joined(part for block in content for part in _of_block(block, calls))
    # What some models' integrations keep beside the content: refusals and reasoning. Calls are told below.
    beside = {key: value for key, value in message.additional_kwargs.items() if key not in _CALLS_BESIDE}
    parts += [Part(_mark(key), words) for key, value in beside.items() for words in _words({key: value})]
    parts += [_call(call) for call in calls]
    if not calls and isinstance(legacy := message.additional_kwargs.get("function_call"), Mapping):
        parts.append(_call(legacy))
    if getattr(message, "artifact", None) is not None:
        parts.append(Part(f"[and data of the tool {message.name}]" if message.name else "[and data of the tool]", ""))
    return parts


def speaker_of(message: BaseMessage) -> str:
    """Who says it; a role or a name that somebody gave stands apart, as it could be anybody's."""
    if message.type == "chat":
        speaker = f"In the role “{getattr(message, 'role', '')}”"
    else:
        speaker = _SPEAKERS.get(message.type, message.type)
    return f"{speaker} ({message.name})" if message.name else speaker


def escape_invisible(text: str) -> str:
    r"""Text whose hidden controls are spelt out, so that it reads as nothing else; whatever people write stays.

    Joiners stay, without which Persian and many emoji are not what they are. Marks of direction stay beside letters
    that are written to the left, where they do nothing that such a letter does not.

    Example:
        >>> print(spelt("invoice\u202efdp.exe"))
        invoice\u202efdp.exe
    """
    hidden = _HIDDEN if _TO_THE_LEFT.search(text) else _HIDDEN_OR_MARK
    return hidden.sub(lambda found: found[1] or found[0].encode("unicode_escape").decode(), replace_unprintable(text))


def as_json(value: object) -> str:
    """A value for people to read."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _of_block(block: Any, calls: list[Any]) -> Iterator[Part]:
    if not isinstance(block, Mapping):
        yield Part("", str(block))
        return
    kind = block.get("type")
    if kind in _CALLS:
        if not any(_is_same_call(block, call) for call in calls):
            yield _call(block)
        return
    mark = _mark(kind) if isinstance(kind, str) else ""
    said = [block[key] for key in _SAID if isinstance(block.get(key), str)] if not mark else []
    yield Part("", "".join(said))
    words = _words({key: value for key, value in block.items() if not said or key not in _SAID})
    if words:
        yield Part("[with it]" if said else mark, "\n".join(words))
    elif mark or not said:
        yield Part(mark or "[something that is not text]", "")


def _joined(parts: Iterable[Part]) -> list[Part]:
    """What was simply said is one text: some models break a sentence wherever they name a source."""
    joined: list[Part] = []
    for plain, group in groupby((part for part in parts if any(part)), lambda part: not part.mark):
        some = list(group)
        joined += [Part("", "".join(part.words for part in some))] if plain else some
    return joined


def _words(block: object) -> list[str]:
    """Every text in a block, in order: any str that stands, at whatever depth, under a key that names text."""
    found: list[str] = []
    # No recursion: how deep somebody's blocks go must not keep a page from being written.
    left: list[tuple[bool, object]] = [(False, block)]
    while left:
        is_said, value = left.pop()
        if isinstance(value, str):
            if is_said and value.strip():
                found.append(value)
        elif isinstance(value, list):
            left += [(is_said, one) for one in reversed(value)]
        elif isinstance(value, Mapping):
            # Some name a text "data", as they do a picture.
            texts = _WORDS | {"data"} if value.get("type") == "text" else _WORDS
            left += [(key in texts, inner) for key, inner in list(value.items())[::-1]]
    return found


def _call(call: Mapping[str, Any]) -> Part:
    asked: object = next(
        (call[key] for key in ("args", "input", "arguments", "partial_json") if call.get(key) is not None), {}
    )
    return Part(f"[uses {call.get('name') or 'a tool'}: {asked if isinstance(asked, str) else as_json(asked)}]", "")


def _is_same_call(block: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    ids = {block.get(key) for key in ("id", "call_id", "tool_call_id") if isinstance(block.get(key), str)}
    return call.get("id") in ids if ids and call.get("id") else block.get("name") in (None, call.get("name"))


def _mark(kind: str) -> str:
    return "" if kind in _PLAIN else f"[{_MARKS.get(kind) or kind.replace('_', ' ')}]"


_WORDS: Final = frozenset(
    [
        *("text", "thinking", "reasoning", "reasoning_content", "refusal", "content", "summary", "title", "context"),
        *("output", "result", "filename", "cited_text", "transcript", "query", "arguments", "input", "caption"),
        *("alt_text", "code", "executable_code", "code_execution_result"),
    ]
)
_SAID: Final = ("text", "refusal")
_PLAIN: Final = ("", "text", "input_text", "output_text", "refusal")
_CALLS: Final = (
    *("tool_use", "tool_call", "invalid_tool_call", "function_call", "server_tool_use", "server_tool_call"),
    # What is left of a call that was streamed.
    *("tool_call_chunk", "input_json_delta"),
)
_CALLS_BESIDE: Final = ("tool_calls", "function_call")
_THINKS: Final = "what the assistant thought"
_MARKS: Final = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "input_file": "file",
    "text-plain": "document",
    "thinking": _THINKS,
    "reasoning": _THINKS,
    "reasoning_content": _THINKS,
    "redacted_thinking": f"{_THINKS}, which cannot be read",
    "tool_result": "what the tool answered",
    "server_tool_result": "what the tool answered",
}
_SPEAKERS: Final = {"human": "You", "ai": "Assistant", "tool": "Tool", "function": "Tool", "system": "Instructions"}

# The flags of England, Scotland and Wales are written with characters that elsewhere hide a text.
_FLAG: Final = "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)"
_CONTROLS: Final = "\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_HIDDEN: Final = re.compile(f"{_FLAG}|[{_CONTROLS}]")
_HIDDEN_OR_MARK: Final = re.compile(f"{_FLAG}|[{_CONTROLS}\u061c\u200e\u200f]")
_TO_THE_LEFT: Final = re.compile(
    "[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
