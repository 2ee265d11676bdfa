"""HTML export: one user's memories and conversations as a single file without scripts, made to be given to the user."""

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
from ..transcripts.codec import load_messages
from .atomic_file import refuse_databases, validate_path, write_atomically
from .message_text import escape_invisible, parts_of, speaker_of, to_json

if TYPE_CHECKING:
    import os

    from langchain_core.messages import BaseMessage

    from ..backends.base import Row
    from ..requests import ErasureToken
    from ..scoped_client import ScopedClient
    from ..transcripts.base import TranscriptStore


class PageMemory(NamedTuple):
    """A memory on the page, with its last day, which a record does not have.

    Attributes:
        record: The memory.
        last_day: The last day (UTC) on which it is used, as the client returns it; None if it has none.
    """

    record: MemoryRecord
    last_day: str | None = None

    def __repr__(self) -> str:
        return f"PageMemory(id={self.record['id']!r})"

    @classmethod
    def from_row(cls, row: Row) -> PageMemory:
        """Turn a client's row into a memory on the page."""
        last_day = row.get("expiration_date")
        return cls(record_from(row), str(last_day) if last_day else None)

    def is_expired(self, today: date) -> bool:
        """Return whether its last day is before today."""
        day = _parse_day(self.last_day)
        return day is not None and day < today


class Conversation(NamedTuple):
    """The transcript of one session.

    Attributes:
        session_id: The session.
        messages: Its messages, in order.
    """

    session_id: str
    messages: list[BaseMessage]

    def __repr__(self) -> str:
        return f"Conversation({len(self.messages)} messages)"


def write_page(client: ScopedClient, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Write a user's page to a file; see `ScopedMemory.export_html`."""
    file, token = _start(client, path, contact)
    return _write(client, client.all_rows(), file, contact, token)


async def awrite_page(client: ScopedClient, path: str | os.PathLike[str], contact: str | None) -> Path:
    """Async twin of `write_page`."""
    file, token = await asyncio.to_thread(_start, client, path, contact)
    rows = await client.aall_rows()
    return await asyncio.to_thread(_write, client, rows, file, contact, token)


def _start(client: ScopedClient, path: str | os.PathLike[str], contact: str | None) -> tuple[Path, ErasureToken | None]:
    """Validate the arguments, then make an erasure token, before anything of the user is read."""
    if contact is not None and (not isinstance(contact, str) or not contact.strip()):
        raise InputError("contact must be an https:// or mailto: address or a sentence, as a str, or None")
    file = validate_path(path)
    refuse_databases(file, client.files())
    return file, client.erasure_token()


def _write(
    client: ScopedClient, rows: Sequence[Row], file: Path, contact: str | None, token: ErasureToken | None
) -> Path:
    memories = list(map(PageMemory.from_row, rows))
    transcripts = [_StoredTranscripts(store, client.user_id) for store in client.transcript_stores()]
    page = render(client.user_id, memories, _conversations(transcripts), contact=contact, made_at=datetime.now(UTC))

    def check() -> None:
        try:
            client.check_not_erased(token)
            lost = any(one.has_lost_a_session() for one in transcripts)
        except BackendError as error:
            failure = error
        else:
            if not lost:
                return
            failure = BackendError(
                "this user was erased, or a conversation was cleared, while the page was made; call again for a page "
                "of what is left",
                retryable=True,
            )
        raise BackendError(f"no page was written: {failure}", retryable=failure.retryable)

    write_atomically(file, page, check)
    return file


class _StoredTranscripts:
    """The transcripts of a user in one store, as they were when they were read."""

    def __init__(self, store: TranscriptStore, user_id: str) -> None:
        self._store = store
        self._user_id = user_id
        self.sessions = {
            session_id: load_messages(bodies)
            for session_id in store.sessions(user_id)
            # Empty if another call has cleared the session since.
            if (bodies := store.read(user_id, session_id))
        }

    def has_lost_a_session(self) -> bool:
        """Return whether a session is gone that was read; only for a store that cannot detect an erasure itself."""
        if self._store.detects_erasure or not self.sessions:
            return False
        return not self.sessions.keys() <= set(self._store.sessions(self._user_id))


def _conversations(transcripts: Sequence[_StoredTranscripts]) -> list[Conversation]:
    """Return each conversation once. Its beginning may be in another store than its end."""
    messages: dict[str, list[BaseMessage]] = {}
    for stored in transcripts:
        for session_id, part in stored.sessions.items():
            messages.setdefault(session_id, []).extend(part)
    return [Conversation(session_id, whole) for session_id, whole in messages.items()]


# -- the HTML


def render(
    user_id: str,
    memories: Sequence[PageMemory],
    conversations: Sequence[Conversation],
    *,
    contact: str | None,
    made_at: datetime,
) -> str:
    """Return the page as HTML. It loads and runs nothing; every text that is not from this module is escaped.

    Args:
        user_id: The user.
        memories: Their memories, the latest first.
        conversations: Their transcripts.
        contact: Whom the user asks to correct or erase data; None for no address.
        made_at: The time on the page; memories that have expired by then are marked.
    """
    today = made_at.astimezone(UTC).date()
    body = "".join(
        (
            _header(user_id, made_at),
            '<main id="content">',
            _summary(memories, conversations, today),
            _memories_section(memories, today),
            _conversations_section(conversations),
            _erasure_section(user_id, contact),
            "</main>",
        )
    )
    return _DOCUMENT.format(policy=_POLICY, style=_STYLE, body=body)


def _header(user_id: str, made_at: datetime) -> str:
    return (
        '<a class="skip" href="#content">Skip to the content</a>'
        f"<header><h1>What is remembered about you</h1>"
        f"<p>This page is about <strong>{_text(user_id)}</strong> and nobody else. It was made on "
        f"{_time(made_at.isoformat())} and is a copy: keep it in a safe place.</p>"
        '<nav aria-label="On this page"><ul><li><a href="#known">What is known</a></li>'
        '<li><a href="#said">What was said</a></li><li><a href="#erase">How to correct or erase it</a></li></ul></nav>'
        "</header>"
    )


def _summary(memories: Sequence[PageMemory], conversations: Sequence[Conversation], today: date) -> str:
    dates = sorted(moment for memory in memories if (moment := parse_timestamp(memory.record["created_at"])))
    expired = sum(memory.is_expired(today) for memory in memories)
    rows = [
        ("Memories", f"{len(memories):,}"),
        *([("Memories no longer used", f"{expired:,}")] if expired else []),
        ("Conversations", f"{len(conversations):,}"),
        ("Messages in them", f"{sum(len(conversation.messages) for conversation in conversations):,}"),
    ]
    if dates:
        rows += [("Oldest memory", f"{dates[0]:%Y-%m-%d}"), ("Newest memory", f"{dates[-1]:%Y-%m-%d}")]
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table><caption>At a glance</caption><tbody>{body}</tbody></table>"


def _memories_section(memories: Sequence[PageMemory], today: date) -> str:
    items = "".join(_memory_item(memory, today) for memory in memories) or "<li><p>Nothing is remembered.</p></li>"
    return (
        '<section aria-labelledby="known"><h2 id="known">What is known</h2>'
        f'<p>The latest comes first.</p><ol class="cards">{items}</ol></section>'
    )


def _memory_item(memory: PageMemory, today: date) -> str:
    record = memory.record
    facts = [("Said", _time(record["created_at"])), ("How it is known", _SOURCES.get(record["role"], _INFERRED))]
    if record["session_id"] is not None:
        facts.append(("In the conversation", _text(record["session_id"])))
    if record["updated_at"] and record["updated_at"] != record["created_at"]:
        facts.append(("Last changed", _time(record["updated_at"])))
    if memory.last_day is not None:
        day = _parse_day(memory.last_day)
        last_day = _text(memory.last_day) if day is None else f'<time datetime="{day}">{day}</time> (UTC)'
        if memory.is_expired(today):
            facts.append(("No longer used", f"its last day was {last_day}; it is kept until it is erased"))
        else:
            facts.append(("Used until the end of", last_day))
    facts.append(("Number", f"<code>{_text(record['id'])}</code>"))
    terms = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    text, metadata = _text(record["memory"]), _metadata_list(record["metadata"])
    return f'<li><p class="text" dir="auto">{text}</p><dl>{terms}{metadata}</dl></li>'


def _metadata_list(metadata: dict[str, Any]) -> str:
    # A list of its own, since a key may have the name of one of the page's own facts.
    if not metadata:
        return ""
    terms = "".join(
        f'<div><dt dir="auto">{_text(str(key))}</dt><dd dir="auto">{_value(value)}</dd></div>'
        for key, value in metadata.items()
    )
    return f'<div class="noted"><dt>Noted with it</dt><dd><dl>{terms}</dl></dd></div>'


def _conversations_section(conversations: Sequence[Conversation]) -> str:
    if not conversations:
        body = "<p>No conversation is kept here.</p>"
    else:
        body = (
            "<p>Every conversation that is kept, word for word. What is not text, such as a picture, is only named, in "
            "[brackets]. Open one to read it.</p>"
        ) + "".join(map(_conversation_item, conversations))
    return f'<section aria-labelledby="said"><h2 id="said">What was said</h2>{body}</section>'


def _conversation_item(conversation: Conversation) -> str:
    count = len(conversation.messages)
    lines = "".join(map(_message_item, conversation.messages))
    return (
        f"<details><summary><bdi>{_text(conversation.session_id)}</bdi> "
        f"({count:,} message{'' if count == 1 else 's'})</summary>"
        f'<ol class="talk">{lines}</ol></details>'
    )


def _message_item(message: BaseMessage) -> str:
    parts = "".join(
        (f'<p class="mark">{_text(part.label)}</p>' if part.label else "")
        + (f'<p class="text{" marked" * bool(part.label)}" dir="auto">{_text(part.text)}</p>' if part.text else "")
        for part in parts_of(message)
    )
    return f'<li><p class="who">{_text(speaker_of(message))}</p>{parts or _NO_TEXT}</li>'


def _erasure_section(user_id: str, contact: str | None) -> str:
    if contact is None:
        ask = "Ask the person who gave you this page."
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


def _parse_day(stamp: str | None) -> date | None:
    """Return an ISO date; None for any other text. Clients keep a memory with such an expiration date for good."""
    try:
        return date.fromisoformat(stamp or "")
    except ValueError:
        return None


def _value(value: object) -> str:
    return _text(value if isinstance(value, str) else to_json(value))


def _text(text: str) -> str:
    return escape(escape_invisible(text))


def _join(lines: Iterable[str]) -> str:
    return "".join(line.strip() for line in lines)


_INFERRED: Final = "Concluded from what was said"
_SOURCES: Final[dict[str | None, str]] = {"user": "You said so", "assistant": "The assistant said so"}
_NO_TEXT: Final = '<p class="text">…</p>'
# Matches what every browser reads as an address. Any other contact is shown as text.
_LINK: Final = re.compile(
    r"https://[^\W_][\w.-]*(:\d{1,5})?([/?#][^\s\\]*)?|mailto:(?P<address>[^\s@?,;:<>\"]+@[^\W_][\w.-]*)(\?\S*)?",
    re.IGNORECASE,
)

# Every colour has a contrast of at least 7:1 on its background, in the light and the dark scheme (WCAG 2.2, AAA).
_STYLE: Final = _join(
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


# Forbids scripts, pictures, fonts, frames, forms and every request. The style is allowed by its hash, so that an
# injected style has no effect.
_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"

_DOCUMENT: Final = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
    "<title>What is remembered about you</title><style>{style}</style></head>\n<body>{body}</body></html>\n"
)
