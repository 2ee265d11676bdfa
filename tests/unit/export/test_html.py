"""The HTML page of a user: it is complete, escapes every text, loads nothing, and is written whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, ScopeError
from langchain_mem0_scoped.backends import backend_for
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.export import html as page
from langchain_mem0_scoped.export.html import _INFERRED, Conversation, PageMemory, render
from langchain_mem0_scoped.scope import Scope
from langchain_mem0_scoped.transcripts.codec import dump_messages
from tests.chat import HARD_TEXT, MESSAGES, client_with_transcripts, close_transcripts
from tests.pages import NASTY, NOW, Page
from tests.support import MODES, Spy, new_user, opened

ROW: dict[str, Any] = {
    "id": "00000000-0000-4000-8000-000000000000",
    "memory": "I am vegetarian",
    "user_id": "u_alice",
    "role": "user",
    "metadata": {"topic": "food", "session_id": "monday"},
    "created_at": "2026-01-02T03:04:05+00:00",
    "updated_at": "2026-02-03T00:00:00+00:00",
}


def page_of(*rows: dict[str, Any], said: list[Conversation] | None = None, contact: str | None = None) -> str:
    return render("u_alice", [PageMemory.from_row(row) for row in rows], said or [], contact=contact, made_at=NOW)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[EngineMemory]:
    with opened("embedded", tmp_path) as client:
        assert isinstance(client, EngineMemory)
        yield client


def export(memory: ScopedMemory, mode: str, path: Any, **options: Any) -> Path:
    return memory.export_html(path, **options) if mode == "sync" else asyncio.run(memory.aexport_html(path, **options))


class TestContent:
    def test_memory_with_source_date_and_contact(self) -> None:
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
            "Ask the person who gave you this page.",
        ):
            assert told in text, told

    def test_extracted_memory_without_a_session(self) -> None:
        text = Page(page_of(ROW | {"role": None, "metadata": {"a": [1, {"b": True}]}, "created_at": None})).text
        assert "Concluded from what was said" in text
        assert "In the conversation" not in text
        assert "at a time not recorded" in text
        assert 'a[1, {"b": true}]' in text

    @pytest.mark.parametrize(
        ("last_day", "told"),
        [
            ("2026-03-01", "No longer usedits last day was 2026-03-01 (UTC); it is kept until it is erased"),
            ("2026-03-02", "Used until the end of2026-03-02 (UTC)"),  # today
            ("2999-12-31", "Used until the end of2999-12-31 (UTC)"),
            ("when <b>she</b> moves", "Used until the end ofwhen <b>she</b> moves"),  # as other code may have put it
            ("", None),
            (None, None),
        ],
    )
    def test_expiration(self, last_day: str | None, told: str | None) -> None:
        text = Page(page_of(ROW, ROW | {"expiration_date": last_day})).text
        assert (told or "I am vegetarian") in text
        assert ("Memories no longer used1" in text) == ("No longer used" in text) == (last_day == "2026-03-01")
        assert ("Used until" in text) == (told is not None and told.startswith("Used"))

    def test_conversation_is_verbatim(self) -> None:
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
            "[image]",
        ):
            assert told in text, told
        assert "example.com" not in page

    @pytest.mark.parametrize("kind", MESSAGES)
    def test_any_message_can_be_rendered(self, kind: str) -> None:
        page = page_of(ROW, said=[Conversation("monday", [MESSAGES[kind]])])
        page.encode()
        Page(page)

    def test_user_without_data(self) -> None:
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
            ("MailTo:privacy@example.com?subject=Erase", "MailTo:privacy@example.com?subject=Erase", None),
            ("HTTPS://Example.com:8443/a#b", "HTTPS://Example.com:8443/a#b", "Ask here: HTTPS://Example.com:8443/a#b"),
            (" https://exämple.de\n", "https://exämple.de", "Ask here: https://exämple.de"),
            ("https://", None, "https://"),
            ("https:///etc/passwd", None, "https:///etc/passwd"),
            ("https://bank.example@elsewhere.example/", None, "https://bank.example@elsewhere.example/"),
            ("https://example.com or the front desk", None, "https://example.com or the front desk"),
            ("https://example.com/\u202emoc", None, r"https://example.com/\u202emoc"),
            ("http://example.com", None, "http://example.com"),
            ("mailto:", None, "mailto:"),
            ("mailto:nobody", None, "mailto:nobody"),
            ("mailto:a@b?c@d e", None, "mailto:a@b?c@d e"),
        ],
    )
    def test_contact(self, contact: str, href: str | None, shown: str | None) -> None:
        page = Page(page_of(contact=contact))
        links = [attrs.get("href") for tag, attrs in page.opened if tag == "a"]
        assert [link for link in links if link and not link.startswith("#")] == ([href] if href else [])
        assert (shown or "Ask here: privacy@example.com") in page.text
        assert "subject" not in page.text

    def test_metadata_is_apart_from_the_pages_own_facts(self) -> None:
        """A key may have the name of one of the page's own facts. A model may have chosen it."""
        forged = {"Number": "1", "How it is known": "You said so", "No longer used": "erased", "Said": "never"}
        html = page_of(ROW | {"role": None, "metadata": forged})
        text = Page(html).text
        own, _, noted = text.partition("Noted with it")
        assert f"How it is known{_INFERRED}" in own
        assert f"Number{ROW['id']}" in own
        for key, value in forged.items():
            assert f"{key}{value}" not in own
            assert f"{key}{value}" in noted
        assert '<div class="noted">' in html
        assert "Noted with it" not in Page(page_of(ROW | {"metadata": {"session_id": "monday"}})).text

    def test_invisible_characters_are_escaped(self) -> None:
        row = {"memory": "pay\u202e001", "metadata": {"a\u200bb": "c\u2066d", "session_id": "s\u202dt"}}
        html = page_of(ROW | row, said=[Conversation("x\u202ey", [HumanMessage("e\ufefff", name="g\u202bh")])])
        for told in (r"pay\u202e001", r"a\u200bb", r"c\u2066d", r"s\u202dt", r"x\u202ey", r"e\ufefff", r"g\u202bh"):
            assert told in html, told
        assert not re.search("[\u200b\u202a-\u202e\u2066-\u2069\ufeff]", html)

    def test_page_names_what_is_not_on_it(self) -> None:
        text = Page(page_of(ROW)).text
        assert "Not on this page are how each memory came about and the latest messages that are kept" in text
        assert "everything kept" not in (page.__doc__ or "")


class TestSafety:
    CLEAN = Page(
        page_of(ROW | {"expiration_date": "2026-03-02"}, said=[Conversation("monday", [HumanMessage("Hello")])])
    ).tags()

    def hostile(self, text: str) -> str:
        said = [Conversation(text, [HumanMessage(text)])]
        row = ROW | {"memory": text, "metadata": {"session_id": text, "topic": text}, "created_at": text}
        row["expiration_date"] = text
        return render(text, [PageMemory.from_row(row)], said, contact=text, made_at=NOW)

    @pytest.mark.parametrize("text", [*NASTY, HARD_TEXT])
    def test_text_is_escaped_everywhere(self, text: str) -> None:
        html = self.hostile(text)
        # An invalid date gives no <time> and no row of the table. Nothing else may differ.
        tags = Page(html).tags()
        for tag in {*self.CLEAN, *tags} - {"time", "tr", "th", "td"}:
            assert tags.count(tag) == self.CLEAN.count(tag), tag
        assert not {"script", "img", "b", "svg", "iframe"} & set(tags)
        html.encode()
        assert "\0" not in html

    @settings(max_examples=50)
    @given(st.text(st.characters(), min_size=1))
    def test_any_text_is_escaped(self, text: str) -> None:
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

    def test_markup_is_accessible(self) -> None:
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
    def test_page_has_one_user_only(self, local: EngineMemory, mode: str, tmp_path: Path) -> None:
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

    def test_file_is_private_and_alone(self, local: EngineMemory, mode: str, tmp_path: Path) -> None:
        folder = tmp_path / "pages"
        folder.mkdir()
        (folder / "alice.html").write_text("an older page, longer than the new one" * 10_000)
        export(ScopedMemory(new_user(), client=local), mode, folder / "alice.html")
        assert os.listdir(folder) == ["alice.html"]
        assert stat.S_IMODE((folder / "alice.html").stat().st_mode) == 0o600
        assert (folder / "alice.html").read_text(encoding="utf-8").endswith("</html>\n")

    @pytest.mark.parametrize("path", ["", ".", "no/such/folder/alice.html", "a\0b.html", b"alice.html", None, 3])
    def test_invalid_path_raises_before_any_read(self, local: EngineMemory, mode: str, path: Any) -> None:
        memory = ScopedMemory(new_user(), client=local)
        with Spy(local) as spy, pytest.raises(InputError, match="path"):
            export(memory, mode, path)
        assert spy.calls == []

    @pytest.mark.parametrize("contact", ["", "  \n", 3, b"mailto:a@b", ["x"]])
    def test_invalid_contact_raises_before_any_read(
        self, local: EngineMemory, mode: str, tmp_path: Path, contact: Any
    ) -> None:
        memory = ScopedMemory(new_user(), client=local)
        with Spy(local) as spy, pytest.raises(InputError, match="contact must be"):
            export(memory, mode, tmp_path / "alice.html", contact=contact)
        assert spy.calls == []
        assert not (tmp_path / "alice.html").exists()

    def test_full_disk_leaves_the_old_page(
        self, local: EngineMemory, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "pages"
        folder.mkdir()
        (folder / "alice.html").write_text("the page before")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        memory = ScopedMemory(new_user(), client=local)
        memory.add("zebra")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BackendError, match="No space left on device; an existing file is unchanged") as caught:
            export(memory, mode, folder / "alice.html")
        assert "zebra" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert [file.read_text() for file in folder.iterdir()] == ["the page before"]


@pytest.fixture(scope="module", params=["embedded", "sql"])
def scope_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], ScopedMemory]]:
    """Build users on each kind of client: one with its own transcripts, one with transcripts in SQL."""
    with client_with_transcripts(request.param, tmp_path_factory.mktemp(request.param)) as (client, where):
        yield partial(ScopedMemory, client=client, transcripts=where)


@pytest.mark.parametrize("mode", MODES)
class TestForeignRows:
    """A store that returns another user's rows: nothing is written."""

    def refused(self, memory: ScopedMemory, mode: str, folder: Path) -> None:
        with pytest.raises(ScopeError) as caught:
            export(memory, mode, folder / "page.html")
        assert "secret" not in str(caught.value)
        assert not (folder / "page.html").exists()

    def test_foreign_memory_raises(
        self, scope_of: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alice, bob = scope_of(new_user("alice")), scope_of(new_user("bob"))
        alice.add("I drink tea")
        bob.add("Bob's secret", expires_on="2001-01-01")
        backend = backend_for(scope_of.keywords["client"])
        listed = backend.list_including_expired

        def mixed_up(user_id: str) -> Any:
            return [row for one in (alice, bob) for row in listed(one.user_id)]

        monkeypatch.setattr(backend, "list_including_expired", mixed_up)
        self.refused(alice, mode, tmp_path)

    def test_foreign_conversation_raises(self, tmp_path: Path, mode: str) -> None:
        with client_with_transcripts("sql", tmp_path) as (client, where):
            alice = ScopedMemory("alice", client=client, transcripts=where)
            alice.chat_history("monday").add_messages([HumanMessage("I drink tea")])
            store: Any = alice.scoped_client.transcript_store()
            with store._engine.begin() as connection:
                connection.execute(store._table.update().values(user_id="bob", session_id="secret"))
            self.refused(alice, mode, tmp_path)


async def test_async_export_blocks_nothing_on_the_event_loop(
    local: EngineMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = ScopedMemory(new_user(), client=local)
    alice.chat_history("monday").add_messages([HumanMessage("I drink tea")])
    done: list[tuple[str, bool]] = []

    def record(owner: Any, name: str) -> None:
        act = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            done.append((name, threading.current_thread() is threading.main_thread()))
            return act(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in (
        (local.backend, "erasure_token"),
        (local.backend, "list_including_expired"),
        (Scope, "require_own"),
        (PageMemory, "from_row"),
        (local.transcripts, "sessions"),
        (local.transcripts, "read"),
        (page, "render"),
        (os, "fsync"),
        (local.backend, "check_not_erased"),
    ):
        record(owner, name)
    await alice.aexport_html(tmp_path / "page.html")
    names = [
        "erasure_token",
        "list_including_expired",
        "require_own",
        "from_row",
        "sessions",
        "read",
        "render",
        "fsync",
    ]
    names += ["check_not_erased"] * 2
    assert done == [(name, False) for name in names]


def test_transcripts_of_both_stores_are_on_it(tmp_path: Path) -> None:
    with opened("embedded", tmp_path) as client:
        client.transcripts.append("u_alice", "monday", dump_messages([HumanMessage("I drank milk")]))
        memory = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        memory.chat_history("monday").add_messages([SystemMessage("Be brief")])
        text = Page(memory.export_html(tmp_path / "alice.html").read_text(encoding="utf-8")).text
        close_transcripts(client)
    assert "Conversations1Messages in them2" in text
    # The page does not say in which store a conversation is.
    assert text.count("monday (2 messages)") == text.count("monday") == 1
    assert text.index("I drank milk") < text.index("Be brief")


@pytest.mark.parametrize("body", ['{"type": "of its own", "data": {"content": "zebra"}}', "zebra", '["zebra"]', "5"])
def test_row_of_other_code_raises_a_clean_error(tmp_path: Path, body: str) -> None:
    with client_with_transcripts("sql", tmp_path) as (client, where):
        alice = ScopedMemory("alice", client=client, transcripts=where)
        alice.chat_history("monday").add_messages([HumanMessage("I drink tea")])
        store: Any = alice.scoped_client.transcript_store()
        with store._engine.begin() as connection:
            connection.execute(store._table.update().values(body=body))
        for read in (lambda: alice.export_html(tmp_path / "page.html"), lambda: alice.chat_history("monday").messages):
            with pytest.raises(BackendError, match="other code") as caught:
                read()
            assert "zebra" not in str(caught.value)
            assert caught.value.__cause__ is caught.value.__context__ is None


def test_numeric_session_of_other_code(tmp_path: Path) -> None:
    with opened("embedded", tmp_path) as client:
        client.add("I drink tea", user_id="u_alice", infer=False, metadata={"session_id": 5})
        memory = ScopedMemory("u_alice", client=client)
        text = Page(memory.export_html(tmp_path / "alice.html").read_text(encoding="utf-8")).text
        assert memory.get_all()[0]["session_id"] == "5"
    assert "In the conversation5" in text


def test_client_without_transcripts_has_no_conversations(tmp_path: Path) -> None:
    with opened("qdrant", tmp_path) as client:
        memory = ScopedMemory("u_alice", client=client)
        memory.add("I am vegetarian", session_id="monday")
        text = Page(memory.export_html(tmp_path / "alice.html").read_text(encoding="utf-8")).text
    assert "I am vegetarian" in text
    assert "No conversation is kept here." in text
