"""A user's own page: their memories and conversations, as one HTML file without scripts that can be handed to them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import BackendError, InputError
from ..records import MemoryRecord, record_from
from ..tables import format_timestamp, parse_timestamp
from ..transcripts import base as transcripts
from .atomic_file import refuse_databases, validate_path, write_whole
from .message_text import as_json, escape_invisible, parts_of, speaker_of

if TYPE_CHECKING:
    import os

    from langchain_core.messages import BaseMessage

    from ..backends.base import Row
    from ..memory import ScopedMemory
    from ..transcripts.base import TranscriptStore


class Known(NamedTuple):
    """What is known, and until when it is used.

    Attributes:
        record: The memory.
        last_day: The last day (UTC) on which it is used, as the client tells it; None where it has none.
    """

    record: MemoryRecord
    last_day: str | None = None

    def __repr__(self) -> str:
        return f"Known(id={self.record['id']!r})"

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

    def __repr__(self) -> str:
        return f"Conversation({len(self.messages)} messages)"


def write_page(memory: ScopedMemory, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Write a user's page; see `ScopedMemory.export_html`."""
    file, since = _begun(memory, path, contact)
    return _write(memory, memory._all_rows_of_user(), file, contact, since)


async def awrite_page(memory: ScopedMemory, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Async twin of `write_page`."""
    file, since = await asyncio.to_thread(_begun, memory, path, contact)
    rows = await memory._aall_rows_of_user()
    return await asyncio.to_thread(_write, memory, rows, file, contact, since)


def _begun(
    memory: ScopedMemory, path: str | os.PathLike[str], contact: str | None
) -> tuple[Path, Sequence[Any] | None]:
    """Check what was asked for, then note where the user stands: before anything of theirs is read."""
    if contact is not None and (not isinstance(contact, str) or not contact.strip()):
        raise InputError("contact must be an https:// or mailto: address or a sentence, as a str, or None")
    file = validate_path(path)
    client = memory._bind()[0]
    databases = [held for store in transcripts.stores_of(client) for held in store.files()]
    if isinstance(history := getattr(getattr(client, "db", None), "db_path", None), str):
        databases.append(Path(history))  # mem0's own
    refuse_databases(file, databases)
    return file, memory._begin()


def _write(
    memory: ScopedMemory, rows: Sequence[Row], file: Path, contact: str | None, since: Sequence[Any] | None
) -> Path:
    known = list(map(Known.of, rows))
    logs = [_Log(store, memory.user_id) for store in transcripts.stores_of(memory._bind()[0])]
    page = render(memory.user_id, known, _conversations(logs), contact=contact, made_at=datetime.now(UTC))

    def check() -> None:
        try:
            memory._check_not_erased(since)
            gone = any(log.lacks_something() for log in logs)
        except BackendError as error:
            failure = error
        else:
            if not gone:
                return
            failure = BackendError(
                "this user was erased, or a conversation cleared, while the page was made; call again for one of what "
                "is left",
                retryable=True,
            )
        raise BackendError(f"no page was written: {failure}", retryable=failure.retryable)

    write_whole(file, page, check)
    return file


class _Log:
    """One store's transcripts of a user, as they were when they were read."""

    def __init__(self, store: TranscriptStore, user_id: str) -> None:
        self._store = store
        self._user_id = user_id
        self.sessions = {
            session_id: transcripts.load_messages(bodies)
            for session_id in store.sessions(user_id)
            # Another call may have cleared it meanwhile.
            if (bodies := store.read(user_id, session_id))
        }

    def lacks_something(self) -> bool:
        """Whether a session has gone since, in a store that could not tell of an erasure otherwise."""
        if self._store.detects_erasure or not self.sessions:
            return False
        return not self.sessions.keys() <= set(self._store.sessions(self._user_id))


def _conversations(logs: Sequence[_Log]) -> list[Conversation]:
    """Every conversation once, though its beginning may lie in another place than its end."""
    said: dict[str, list[BaseMessage]] = {}
    for log in logs:
        for session_id, messages in log.sessions.items():
            said.setdefault(session_id, []).extend(messages)
    return [Conversation(session_id, messages) for session_id, messages in said.items()]


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
    dates = sorted(said for one in memories if (said := parse_timestamp(one.record["created_at"])))
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
    facts.append(("Number", f"<code>{_text(record['id'])}</code>"))
    terms = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<li><p class="text" dir="auto">{_text(record["memory"])}</p><dl>{terms}{_noted(record["metadata"])}</dl></li>'
    )


def _noted(metadata: dict[str, Any]) -> str:
    """Metadata in a list of its own: a key may have the name of one of the page's own facts."""
    if not metadata:
        return ""
    terms = "".join(
        f'<div><dt dir="auto">{_text(str(key))}</dt><dd dir="auto">{_value(value)}</dd></div>'
        for key, value in metadata.items()
    )
    return f'<div class="noted"><dt>Noted with it</dt><dd><dl>{terms}</dl></dd></div>'


def _said(conversations: Sequence[Conversation]) -> str:
    if not conversations:
        body = "<p>No conversation is kept here.</p>"
    else:
        body = (
            "<p>Every conversation that is kept, word for word. What is not text, such as a picture, is only named, in "
            "[brackets]. Open one to read it.</p>"
        ) + "".join(map(_conversation, conversations))
    return f'<section aria-labelledby="said"><h2 id="said">What was said</h2>{body}</section>'


def _conversation(conversation: Conversation) -> str:
    count = len(conversation.messages)
    lines = "".join(map(_message, conversation.messages))
    return (
        f"<details><summary><bdi>{_text(conversation.session_id)}</bdi> "
        f"({count:,} message{'' if count == 1 else 's'})</summary>"
        f'<ol class="talk">{lines}</ol></details>'
    )


def _message(message: BaseMessage) -> str:
    told = "".join(
        (f'<p class="mark">{_text(part.mark)}</p>' if part.mark else "")
        + (f'<p class="text{" marked" * bool(part.mark)}" dir="auto">{_text(part.words)}</p>' if part.words else "")
        for part in parts_of(message)
    )
    return f'<li><p class="who">{_text(speaker_of(message))}</p>{told or _NOTHING_SAID}</li>'


def _how_to_erase(user_id: str, contact: str | None) -> str:
    if contact is None:
        ask = "Ask whoever gave you this page."
    elif (found := _LINK.fullmatch(contact := contact.strip())) and contact.isprintable():
        ask = f'Ask here: <a href="{_text(contact)}">{_text(found["address"] or contact)}</a>'
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
        "<li>Not on this page are how each memory came about and the latest messages that are kept to understand the "
        "next ones, where such are kept. They go with everything.</li>"
        "<li>This file is not erased with it: delete it yourself.</li></ul></section>"
    )


def _time(stamp: str | None) -> str:
    parsed = parse_timestamp(stamp)
    if parsed is None:
        return _text(stamp) if stamp else "at a time not recorded"
    return f'<time datetime="{parsed.isoformat()}">{str(format_timestamp(stamp)).removesuffix("Z")} UTC</time>'


def _day(stamp: str | None) -> date | None:
    """A day without a time, or None where it is none: such is used for good, as the clients have it."""
    try:
        return date.fromisoformat(stamp or "")
    except ValueError:
        return None


def _value(value: object) -> str:
    return _text(value if isinstance(value, str) else as_json(value))


def _text(text: str) -> str:
    return escape(escape_invisible(text))


def _joined(lines: Iterable[str]) -> str:
    return "".join(line.strip() for line in lines)


_CONCLUDED: Final = "Concluded from what was said"
_SOURCES: Final[dict[str | None, str]] = {"user": "You said so", "assistant": "The assistant said so"}
_NOTHING_SAID: Final = '<p class="text">…</p>'
# What a browser surely takes for an address; whatever else somebody gives is shown as a text.
_LINK: Final = re.compile(
    r"https://[^\W_][\w.-]*(:\d{1,5})?([/?#][^\s\\]*)?|mailto:(?P<address>[^\s@?,;:<>\"]+@[^\W_][\w.-]*)(\?\S*)?",
    re.IGNORECASE,
)

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
    .who,.mark{margin:0;font-size:.9rem;color:var(--soft)}.mark{font-style:italic}
    .marked{padding-left:.75rem;border-left:2px dashed var(--line)}
    dl .noted{display:block;margin-top:.25rem}.noted dl{margin:.25rem 0 0;padding-left:.75rem;
    border-left:2px dashed var(--line)}
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
