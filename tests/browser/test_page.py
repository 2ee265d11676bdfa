"""The HTML page of a user in a real browser: on a phone, in both color schemes, and with hostile memories."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, ToolMessage

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.transcripts.codec import dump_messages
from tests.browser.conftest import Open
from tests.chat import HARD_TEXT
from tests.pages import NASTY, RUNS
from tests.support import TEXTS, opened

_DETAILS = (".text + dl", ".noted dl")
LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    with opened("embedded", folder) as client:
        alice = ScopedMemory("alice@example.com", client=client)
        alice.add(list(TEXTS), session_id="monday", metadata={"topic": "<b>home</b>"}, at="2026-03-02T09:00:00Z")
        alice.add(
            [*RUNS, *NASTY, LONG, "\u202eright to left", "אני צמחוני"], session_id="<script>window.ran=1</script>"
        )
        forged = {"Number": "1", "No longer used": "erased", "source": "chat\u202etahc"}
        alice.add("I grow lemons", metadata=forged, at="2026-01-03")
        alice.add("I live in Ghent", expires_on="2026-03-31", at="2026-01-02")
        alice.add("I am on a diet", expires_on="2999-12-31", at="2026-01-01")
        alice.chat_history("monday").add_messages(
            [
                HumanMessage("What can I cook tonight?"),
                AIMessage("Dal."),
                HumanMessage(HARD_TEXT),
                HumanMessage(RUNS[0]),
                HumanMessage(["What is this? ", {"type": "image", "base64": "aGVsbG8="}, "אני צמחוני"], name="alice"),
                AIMessage(
                    [
                        {"type": "thinking", "thinking": "It may be a lemon. Let me look it up."},
                        {"type": "text", "text": "Let me see."},
                        {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"what": LONG}},
                    ],
                    tool_calls=[{"name": "look_up", "args": {"what": LONG}, "id": "c1"}],
                ),
                ToolMessage("A lemon", tool_call_id="c1", name="look_up", artifact={"rows": [1]}),
                ChatMessage(content="Order!", role="judge"),
            ]
        )
        # A conversation without memories.
        talk = [
            (AIMessage if number % 2 else HumanMessage)(f"{number}: {text}") for number, text in enumerate(TEXTS * 9)
        ]
        alice.scoped_client.transcript_store().append(alice.user_id, "a-long-talk", dump_messages(talk))
        return alice.export_html(folder / "alice.html", contact="mailto:privacy@example.com")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_in_both_color_schemes(show: Open, path: Path, scheme: str) -> None:
    with show(path, scheme=scheme) as seen:
        seen.picture(f"page-phone-{scheme}")
        assert seen.violations() == []
        seen.page.locator("summary").first.click()
        assert seen.violations() == []
        assert seen.page.locator("details").get_by_text("What can I cook tonight?").is_visible()
        seen.picture(f"page-phone-{scheme}-open")


def test_shows_expired_memories_and_long_conversations(show: Open, path: Path) -> None:
    with show(path) as seen:
        past, to_come = (seen.page.locator(".cards > li", has_text=text) for text in ("Ghent", "on a diet"))
        assert past.get_by_text("No longer used").is_visible()
        assert past.get_by_text("its last day was 2026-03-31 (UTC); it is kept until it is erased").is_visible()
        assert to_come.get_by_text("Used until the end of").is_visible()
        talk = seen.page.locator("details", has_text="a-long-talk (63 messages)")
        assert not talk.get_by_text("62: ").is_visible()
        talk.locator("summary").click()
        assert talk.get_by_text("62: ").is_visible()
        assert talk.locator("li").count() == 63
        assert seen.violations() == []
        assert seen.fits()


def test_metadata_is_below_and_apart_from_the_pages_own_facts(show: Open, path: Path) -> None:
    with show(path) as seen:
        card = seen.page.locator(".cards > li", has_text="I grow lemons")
        own, forged = (card.locator(f"{where} > div > dt", has_text="Number").bounding_box() for where in _DETAILS)
        assert forged["y"] > own["y"]
        assert forged["x"] > own["x"] + 5
        assert card.get_by_text(r"chat\u202etahc").is_visible()


def test_every_part_of_a_message_is_visible(show: Open, path: Path) -> None:
    with show(path) as seen:
        talk = seen.page.locator("details", has_text="monday")
        talk.locator("summary").click()
        for text in ("It may be a lemon.", "Let me see.", "A lemon", "In the role “judge”", "You (alice)"):
            assert talk.get_by_text(text).first.is_visible(), text
        for mark in ("[what the assistant thought]", "[image]", "[and data of the tool look_up]", "[uses look_up: "):
            assert talk.locator(".mark", has_text=mark).count() == 1, mark
        assert seen.violations() == []


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_no_horizontal_scrolling(show: Open, path: Path, width: int) -> None:
    with show(path, size={"width": width, "height": 740}) as seen:
        for summary in seen.page.locator("summary").all():
            summary.click()
        assert seen.fits()
        if width > 1000:
            seen.picture("page-desktop")


def test_runs_and_loads_nothing(show: Open, path: Path) -> None:
    with show(path) as seen:
        seen.page.locator("summary").first.click()
        assert seen.page.evaluate("window.ran") is None
        assert seen.page.evaluate("document.scripts.length + document.images.length + frames.length") == 0
        assert seen.page.url == path.as_uri()
        for text in RUNS[:-1]:
            assert seen.page.get_by_text(text, exact=True).first.is_visible(), text
        assert seen.requests == [path.as_uri()]
        assert seen.complaints == []


def test_injected_style_has_no_effect(show: Open, path: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with show(path, scheme="light") as light, show(path, scheme="dark") as dark:
        assert light.page.evaluate(colour) != dark.page.evaluate(colour)
        light.page.evaluate("document.body.innerHTML += '<style>body{background:red}</style>'")
        assert light.page.evaluate(colour) == "rgb(255, 255, 255)"


def test_keyboard_navigation(show: Open, path: Path) -> None:
    with show(path) as seen:
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert seen.page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        seen.page.keyboard.press("Enter")
        assert seen.page.url.endswith("#content")


def test_user_without_data(show: Open, tmp_path: Path) -> None:
    with opened("embedded", tmp_path) as client:
        path = ScopedMemory("u_nobody", client=client).export_html(tmp_path / "nobody.html")
    with show(path) as seen:
        assert seen.page.get_by_text("Nothing is remembered.").is_visible()
        assert seen.violations() == []
        assert seen.complaints == []
