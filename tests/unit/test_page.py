"""A user's own page: it says everything, holds text as text, loads nothing, and is written whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mem0
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory
from langchain_mem0_scoped.page import Conversation, render
from langchain_mem0_scoped.records import record_from
from tests.chat import HARD_TEXT, MESSAGES
from tests.support import MODES, Spy, new_user, opened
from tests.unit.test_tables import NASTY

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
ROW: dict[str, Any] = {
    "id": "00000000-0000-4000-8000-000000000000",
    "memory": "I am vegetarian",
    "user_id": "u_alice",
    "role": "user",
    "metadata": {"topic": "food", "session_id": "monday"},
    "created_at": "2026-01-02T03:04:05+00:00",
    "updated_at": "2026-02-03T00:00:00+00:00",
}


class Page(HTMLParser):
    """Reads a page back: its tags, and what an assistive technology would read of it."""

    VOID = frozenset({"meta", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, "a tag was left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.opened]


def page_of(*rows: dict[str, Any], said: list[Conversation] | None = None, contact: str | None = None) -> str:
    return render("u_alice", [record_from(row) for row in rows], said or [], contact=contact, made_at=NOW)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[mem0.Memory]:
    with opened("embedded", tmp_path) as client:
        yield client


def export(memory: ScopedMemory, mode: str, path: Any, **options: Any) -> Path:
    return memory.export_html(path, **options) if mode == "sync" else asyncio.run(memory.aexport_html(path, **options))


class TestContent:
    def test_tells_what_where_from_when_and_how_to_erase_it(self) -> None:
        text = Page(page_of(ROW)).text
        for told in (
            "about u_alice and nobody else",
            "2026-03-02 09:30 UTC",
            "I am vegetarian",
            "Said2026-01-02 03:04 UTC",
            "How it is knownYou said so",
            "In the conversationmonday",
            "Last changed2026-02-03 00:00 UTC",
            "topicfood",
            ROW["id"],
            "Ask whoever gave you this page.",
        ):
            assert told in text, told

    def test_an_extracted_fact_of_no_session(self) -> None:
        text = Page(page_of(ROW | {"role": None, "metadata": {"a": [1, {"b": True}]}, "created_at": None})).text
        assert "Concluded from what was said" in text
        assert "In the conversation" not in text
        assert "at a time not recorded" in text
        assert 'a[1, {"b": true}]' in text

    def test_conversations_word_for_word(self) -> None:
        said = [
            HumanMessage("Hello"),
            AIMessage("", tool_calls=[{"name": "look", "args": {"for": "tea"}, "id": "c1"}]),
            ToolMessage("Darjeeling", tool_call_id="c1"),
            HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]),
        ]
        page = page_of(ROW, said=[Conversation("monday", said)])
        text = Page(page).text
        assert "monday (4 messages)" in text
        for told in (
            "YouHello",
            'Assistant[uses look: {"for": "tea"}]',
            "ToolDarjeeling",
            "[image_url that is not text]",
        ):
            assert told in text, told
        assert "example.com" not in page

    @pytest.mark.parametrize("kind", MESSAGES)
    def test_any_message_can_be_shown(self, kind: str) -> None:
        page = page_of(ROW, said=[Conversation("monday", [MESSAGES[kind]])])
        page.encode()
        Page(page)

    def test_of_nobody_known(self) -> None:
        text = Page(page_of()).text
        assert "Nothing is remembered." in text
        assert "No conversation is kept here." in text

    @pytest.mark.parametrize(
        ("contact", "href", "shown"),
        [
            ("mailto:privacy@example.com", "mailto:privacy@example.com", "privacy@example.com"),
            ('https://example.com/?a=1&b="', 'https://example.com/?a=1&b="', 'https://example.com/?a=1&b="'),
            ("Write to the front desk <b>", None, "Write to the front desk <b>"),
            ("javascript:alert(1)", None, "javascript:alert(1)"),
        ],
    )
    def test_whom_to_ask(self, contact: str, href: str | None, shown: str) -> None:
        page = Page(page_of(contact=contact))
        links = [attrs.get("href") for tag, attrs in page.opened if tag == "a"]
        assert [link for link in links if link and not link.startswith("#")] == ([href] if href else [])
        assert shown in page.text


class TestSafety:
    CLEAN = Page(page_of(ROW, said=[Conversation("monday", [HumanMessage("Hello")])])).tags()

    def hostile(self, text: str) -> str:
        said = [Conversation(text, [HumanMessage(text)])]
        row = ROW | {"memory": text, "metadata": {"session_id": text, "topic": text}, "created_at": text}
        return render(text, [record_from(row)], said, contact=text, made_at=NOW)

    @pytest.mark.parametrize("text", [*NASTY, HARD_TEXT])
    def test_text_stays_text_wherever_it_stands(self, text: str) -> None:
        html = self.hostile(text)
        # A date that is none is no <time>, and one contact is no list; nothing else may differ.
        missing = {"time": 1, "tr": 2, "th": 2, "td": 2}
        tags = Page(html).tags()
        for tag in {*self.CLEAN, *tags} - set(missing):
            assert tags.count(tag) == self.CLEAN.count(tag), tag
        assert not {"script", "img", "b", "svg", "iframe"} & set(tags)
        html.encode()
        assert "\0" not in html

    @settings(max_examples=50)
    @given(st.text(st.characters(), min_size=1))
    def test_any_text(self, text: str) -> None:
        page = Page(self.hostile(text))
        assert not any(name.startswith("on") for _, attrs in page.opened for name in attrs)
        assert text.isprintable() is False or text.strip() in page.text

    def test_loads_and_runs_nothing(self) -> None:
        html = page_of(ROW, said=[Conversation("monday", [HumanMessage("Hello")])])
        page = Page(html)
        assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(page.tags())
        assert not re.search(r"url\(|@import|https?:", html)
        (policy,) = [str(attrs["content"]) for _, attrs in page.opened if "http-equiv" in attrs]
        assert unescape(policy).startswith("default-src 'none'; style-src 'sha256-")

    def test_is_marked_up_for_those_who_do_not_see_it(self) -> None:
        page = Page(page_of(ROW))
        assert ("html", {"lang": "en"}) in page.opened
        assert {"header", "nav", "main", "h1", "h2", "caption", "title"} <= set(page.tags())
        assert page.tags().count("h1") == 1
        assert all(attrs.get("scope") for tag, attrs in page.opened if tag == "th")
        ids = {attrs["id"] for _, attrs in page.opened if "id" in attrs}
        named = {str(attrs["href"])[1:] for tag, attrs in page.opened if tag == "a"}
        assert named <= ids


@pytest.mark.parametrize("mode", MODES)
class TestExport:
    def test_holds_one_user_and_what_they_said(self, local: mem0.Memory, mode: str, tmp_path: Path) -> None:
        alice, bob = (ScopedMemory(new_user(name), client=local) for name in ("alice", "bob"))
        alice.chat_history("monday").add_messages([HumanMessage("I am vegetarian"), AIMessage("Noted, no meat")])
        bob.chat_history("monday").add_messages([HumanMessage("I prefer a window seat")])
        path = tmp_path / "alice.html"
        assert export(alice, mode, str(path), contact="mailto:privacy@example.com") == path
        text = Page(path.read_text(encoding="utf-8")).text
        assert text.count("I am vegetarian") == 2
        assert "monday (2 messages)" in text
        assert "privacy@example.com" in text
        assert "window seat" not in text
        assert bob.user_id not in text

    def test_is_for_its_owner_and_leaves_nothing_beside_it(self, local: mem0.Memory, mode: str, tmp_path: Path) -> None:
        folder = tmp_path / "pages"
        folder.mkdir()
        (folder / "alice.html").write_text("an older page, longer than the new one" * 10_000)
        export(ScopedMemory(new_user(), client=local), mode, folder / "alice.html")
        assert os.listdir(folder) == ["alice.html"]
        assert stat.S_IMODE((folder / "alice.html").stat().st_mode) == 0o600
        assert (folder / "alice.html").read_text(encoding="utf-8").endswith("</html>\n")

    @pytest.mark.parametrize("path", ["", ".", "no/such/folder/alice.html", "a\0b.html", b"alice.html", None, 3])
    def test_a_path_that_is_none_is_refused_before_anything_is_read(
        self, local: mem0.Memory, mode: str, path: Any
    ) -> None:
        memory = ScopedMemory(new_user(), client=local)
        with Spy(local) as spy, pytest.raises(InputError, match="path"):
            export(memory, mode, path)
        assert spy.calls == []

    def test_a_full_disk_leaves_the_page_before(
        self, local: mem0.Memory, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "pages"
        folder.mkdir()
        (folder / "alice.html").write_text("the page before")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        memory = ScopedMemory(new_user(), client=local)
        memory.add("zebra")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BackendError, match="No space left on device; what was there before is as it was") as caught:
            export(memory, mode, folder / "alice.html")
        assert "zebra" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert [file.read_text() for file in folder.iterdir()] == ["the page before"]


def test_a_client_without_transcripts_has_no_conversations(tmp_path: Path) -> None:
    with opened("qdrant", tmp_path) as client:
        memory = ScopedMemory("u_alice", client=client)
        memory.add("I am vegetarian", session_id="monday")
        text = Page(memory.export_html(tmp_path / "alice.html").read_text(encoding="utf-8")).text
    assert "I am vegetarian" in text
    assert "No conversation is kept here." in text
