"""A user's own page: everything kept about one person, as one HTML file without scripts that can be handed to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from . import transcripts
from .errors import BackendError, InputError
from .records import MemoryRecord, record_from
from .tables import legible, moment, parsed_moment

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from .clients.port import Row
    from .memory import ScopedMemory


class Known(NamedTuple):
    """What is known, and until when it is used.

    Attributes:
        record: The memory.
        last_day: The last day (UTC) on which it is used, as the client tells it; None where it has none.
    """

    record: MemoryRecord
    last_day: str | None = None

    @classmethod
    def of(cls, row: Row) -> Known:
        """What a client's row tells; a record does not say until when it is used."""
        last_day = row.get("expiration_date")
        return cls(record_from(row), str(last_day) if last_day else None)

    def no_longer_used(self, today: date) -> bool:
        """Whether its last day has passed."""
        day = _day(self.last_day)
        return day is not None and day < today


class Conversation(NamedTuple):
    """What was said in one session.

    Attributes:
        session_id: Which.
        messages: In order.
    """

    session_id: str
    messages: list[BaseMessage]


def write_page(memory: ScopedMemory, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Write a user's page; see `ScopedMemory.export_html`."""
    file = _checked_place(path)
    return _write(memory, memory._everything(), file, contact)


async def awrite_page(memory: ScopedMemory, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Async twin of `write_page`."""
    file = await asyncio.to_thread(_checked_place, path)
    rows = await memory._aeverything()
    return await asyncio.to_thread(_write, memory, rows, file, contact)


def _write(memory: ScopedMemory, rows: Sequence[Row], file: Path, contact: str | None) -> Path:
    known = list(map(Known.of, rows))
    page = render(memory.user_id, known, _conversations(memory), contact=contact, made_at=datetime.now(UTC))
    _write_whole(file, page)
    return file


def _conversations(memory: ScopedMemory) -> list[Conversation]:
    """Every transcript of the user, wherever this client's transcripts lie."""
    return [
        Conversation(session_id, transcripts.unlogged(bodies))
        for store in transcripts.stores_of(memory._bind()[0])
        for session_id in store.sessions(memory.user_id)
        # Another call may have cleared it meanwhile.
        if (bodies := store.read(memory.user_id, session_id))
    ]


# -- the file: whole or not at all, and for its owner's eyes


def _checked_place(path: str | os.PathLike[str]) -> Path:
    """Say what is wrong with a path before anything is read."""
    if not isinstance(path, (str, os.PathLike)) or not (name := os.fspath(path)) or not isinstance(name, str):
        raise InputError("path must name the HTML file to write, as a str or Path")
    if "\0" in name:
        raise InputError("path holds NUL, which no file's name can")
    try:
        file = Path(name).expanduser()
        if file.is_dir():
            raise InputError("path names a directory; name the file to write in it, such as 'alice.html'")
        if not file.parent.is_dir():
            raise InputError("path names a file in a directory that does not exist")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = type(error).__name__
    else:
        return file
    raise InputError(f"path cannot be used as a file's name ({reason})")


def _write_whole(file: Path, page: str) -> None:
    """Write under another name first, readable by the owner alone: whoever opens the file finds all of it."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".langchain-mem0-scoped-", suffix=".html")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as opened:
            opened.write(page)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
    raise BackendError(f"the page could not be written: {reason}; what was there before is as it was")


# -- the page


def render(
    user_id: str,
    memories: Sequence[Known],
    conversations: Sequence[Conversation],
    *,
    contact: str | None,
    made_at: datetime,
) -> str:
    """The page as text. Everything that is not in this module is escaped; nothing in it is loaded or run."""
    today = made_at.astimezone(UTC).date()
    body = "".join(
        (
            _header(user_id, made_at),
            '<main id="content">',
            _summary(memories, conversations, today),
            _known(memories, today),
            _said(conversations),
            _how_to_erase(user_id, contact),
            "</main>",
        )
    )
    return _DOCUMENT.format(policy=_POLICY, style=_STYLE, body=body)


def _header(user_id: str, made_at: datetime) -> str:
    return (
        '<a class="skip" href="#content">Skip to the content</a>'
        f"<header><h1>What is remembered about you</h1>"
        f"<p>This page is about <strong>{_text(user_id)}</strong> and nobody else. It was made on "
        f"{_time(made_at.isoformat())} and is a copy: keep it as you would keep a letter.</p>"
        '<nav aria-label="On this page"><ul><li><a href="#known">What is known</a></li>'
        '<li><a href="#said">What was said</a></li><li><a href="#erase">How to correct or erase it</a></li></ul></nav>'
        "</header>"
    )


def _summary(memories: Sequence[Known], conversations: Sequence[Conversation], today: date) -> str:
    dates = sorted(said for one in memories if (said := parsed_moment(one.record["created_at"])))
    past = sum(one.no_longer_used(today) for one in memories)
    rows = [
        ("Memories", f"{len(memories):,}"),
        *([("Memories no longer used", f"{past:,}")] if past else []),
        ("Conversations", f"{len(conversations):,}"),
        ("Messages in them", f"{sum(len(one.messages) for one in conversations):,}"),
    ]
    if dates:
        rows += [("Oldest memory", f"{dates[0]:%Y-%m-%d}"), ("Newest memory", f"{dates[-1]:%Y-%m-%d}")]
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table><caption>At a glance</caption><tbody>{body}</tbody></table>"


def _known(memories: Sequence[Known], today: date) -> str:
    items = "".join(_memory(one, today) for one in memories) or "<li><p>Nothing is remembered.</p></li>"
    return (
        '<section aria-labelledby="known"><h2 id="known">What is known</h2>'
        f'<p>The latest comes first.</p><ol class="cards">{items}</ol></section>'
    )


def _memory(known: Known, today: date) -> str:
    record = known.record
    facts = [("Said", _time(record["created_at"])), ("How it is known", _SOURCES.get(record["role"], _CONCLUDED))]
    if record["session_id"] is not None:
        facts.append(("In the conversation", _text(record["session_id"])))
    if record["updated_at"] and record["updated_at"] != record["created_at"]:
        facts.append(("Last changed", _time(record["updated_at"])))
    if known.last_day is not None:
        day = _day(known.last_day)
        shown = _text(known.last_day) if day is None else f'<time datetime="{day}">{day}</time> (UTC)'
        if known.no_longer_used(today):
            facts.append(("No longer used", f"its last day was {shown}; it is kept until it is erased"))
        else:
            facts.append(("Used until the end of", shown))
    facts += [(_text(str(key)), _value(value)) for key, value in record["metadata"].items()]
    facts.append(("Number", f"<code>{_text(record['id'])}</code>"))
    terms = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<li><p class="text" dir="auto">{_text(record["memory"])}</p><dl>{terms}</dl></li>'


def _said(conversations: Sequence[Conversation]) -> str:
    if not conversations:
        body = "<p>No conversation is kept here.</p>"
    else:
        body = "<p>Every conversation that is kept, word for word. Open one to read it.</p>" + "".join(
            map(_conversation, conversations)
        )
    return f'<section aria-labelledby="said"><h2 id="said">What was said</h2>{body}</section>'


def _conversation(conversation: Conversation) -> str:
    count = len(conversation.messages)
    lines = "".join(map(_message, conversation.messages))
    return (
        f"<details><summary>{_text(conversation.session_id)} ({count:,} message{'' if count == 1 else 's'})</summary>"
        f'<ol class="talk">{lines}</ol></details>'
    )


def _message(message: BaseMessage) -> str:
    speaker = _SPEAKERS.get(message.type, message.type)
    parts = [str(message.text)] if message.text else []
    parts += [
        f"[{block.get('type', 'something')} that is not text]"
        for block in (message.content if isinstance(message.content, list) else ())
        if isinstance(block, dict) and "text" not in block
    ]
    parts += [f"[uses {call['name']}: {_json(call['args'])}]" for call in getattr(message, "tool_calls", ())]
    said = "\n".join(parts) or "…"
    return f'<li><p class="who">{_text(speaker)}</p><p class="text" dir="auto">{_text(said)}</p></li>'


def _how_to_erase(user_id: str, contact: str | None) -> str:
    if contact is None:
        ask = "Ask whoever gave you this page."
    elif contact.startswith(("https://", "mailto:")):
        ask = f'Ask here: <a href="{_text(contact)}">{_text(contact.removeprefix("mailto:"))}</a>'
    else:
        ask = _text(contact)
    return (
        '<section aria-labelledby="erase"><h2 id="erase">How to correct or erase it</h2>'
        f"<p>{ask}</p>"
        "<ul><li>To correct or erase one memory, give its number. Its old text is then nowhere in what is known; "
        "what was said in the conversation stays until that is erased, too.</li>"
        f"<li>To erase everything, give the name you have here: <strong>{_text(user_id)}</strong>. All memories go, "
        "those no longer used as well, with their history and every conversation. You can ask for the receipt, which "
        "counts what was erased.</li>"
        "<li>This file is not erased with it: delete it yourself.</li></ul></section>"
    )


def _time(stamp: str | None) -> str:
    parsed = parsed_moment(stamp)
    if parsed is None:
        return _text(stamp) if stamp else "at a time not recorded"
    return f'<time datetime="{parsed.isoformat()}">{str(moment(stamp)).removesuffix("Z")} UTC</time>'


def _day(stamp: str | None) -> date | None:
    """A day without a time, or None where it is none: such is used for good, as the clients have it."""
    try:
        return date.fromisoformat(stamp or "")
    except ValueError:
        return None


def _value(value: object) -> str:
    return _text(value if isinstance(value, str) else _json(value))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(text: str) -> str:
    return escape(legible(text))


def _joined(lines: Iterable[str]) -> str:
    return "".join(line.strip() for line in lines)


_CONCLUDED: Final = "Concluded from what was said"
_SOURCES: Final[dict[str | None, str]] = {"user": "You said so", "assistant": "The assistant said so"}
_SPEAKERS: Final = {"human": "You", "ai": "Assistant", "tool": "Tool", "function": "Tool", "system": "Instructions"}

# Colours have a contrast of 7:1 or more on their grounds, in both schemes.
_STYLE: Final = _joined(
    """
    :root{color-scheme:light dark;
    --ink:#1b1b1f;--soft:#44464f;--ground:#fff;--card:#f3f4f8;--line:#8a8d99;--link:#0b3d91}
    @media(prefers-color-scheme:dark){
    :root{--ink:#f1f1f4;--soft:#c9cbd6;--ground:#121318;--card:#1f2129;--line:#7d808c;--link:#a9c7ff}}
    *{box-sizing:border-box}
    html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
    body{margin:0 auto;padding:1rem;max-width:46rem;font:1rem/1.55 system-ui,sans-serif;color:var(--ink);
    background:var(--ground);overflow-wrap:anywhere}
    h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.3rem;margin:2rem 0 .5rem}
    a{color:var(--link)}a:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px}
    .skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--ground);padding:.5rem}
    nav ul{list-style:none;margin:0;padding:0}nav a,summary{display:inline-block;padding:.5rem 0}
    summary{display:list-item;cursor:pointer;font-weight:600}
    table{border-collapse:collapse;margin:1rem 0}caption{text-align:left;font-weight:600;padding-bottom:.25rem}
    th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-top:1px solid var(--line)}th{font-weight:400}
    .cards,.talk{list-style:none;margin:0;padding:0}
    .cards>li{margin:.75rem 0;padding:.75rem 1rem;background:var(--card);
    border-left:4px solid var(--line);border-radius:.25rem}
    .text{margin:0;white-space:pre-wrap}.cards .text{font-size:1.1rem}
    dl{margin:.5rem 0 0;font-size:.9rem;color:var(--soft)}dl div{display:flex;flex-wrap:wrap;gap:0 .5rem}
    dt::after{content:":"}dd{margin:0;min-width:0}code{font-size:.9em}
    .talk>li{margin:.5rem 0;padding-left:.75rem;border-left:2px solid var(--line)}
    .who{margin:0;font-size:.9rem;color:var(--soft)}
    @media print{nav,.skip{display:none}.cards>li{break-inside:avoid}}
    """.splitlines()
)


def _hash(style: str) -> str:
    return b64encode(hashlib.sha256(style.encode()).digest()).decode()


# What is not named is forbidden: scripts, pictures, fonts, frames, forms and every request. The style is named by its
# hash, so that not even a style of somebody else's would count.
_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"

_DOCUMENT: Final = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
    "<title>What is remembered about you</title><style>{style}</style></head>\n<body>{body}</body></html>\n"
)
