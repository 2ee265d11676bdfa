"""A headless Chromium of this machine, cut off from any network: `make browser`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

PHONE = {"width": 360, "height": 740}
"""The narrowest phone in wide use, in CSS pixels."""


@dataclass
class Seen:
    """A page in the browser, and what it did that no page of ours may do."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def listen(self, line: Any) -> None:
        if line.type in ("error", "warning"):
            self.complaints.append(line.text)

    def violations(self) -> list[Any]:
        """What axe-core finds that keeps somebody from reading the page."""
        found: list[Any] = Axe().run(self.page).response["violations"]
        return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]

    def fits(self) -> bool:
        """Whether nothing has to be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    def picture(self, name: str) -> None:
        """Keep a picture for people to look at, where they asked for pictures."""
        if folder := os.environ.get("SCREENSHOTS"):
            # Not `full_page`: a frame that was never in view would stay blank.
            size = self.page.viewport_size
            self.page.set_viewport_size({**size, "height": self.page.evaluate("document.documentElement.scrollHeight")})
            for frame in self.page.locator("iframe").all():
                frame.content_frame.locator("body").wait_for()
            self.page.screenshot(path=Path(folder, f"{name}.png"))
            self.page.set_viewport_size(size)


Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    assert program, "no Chromium: on Debian apt-get install chromium, or CHROMIUM=/path/to/one"
    with sync_playwright() as playwright:
        # The sandbox refuses to run as root, which is who runs in a container.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=not root)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Browser) -> Open:
    """`with show(path) as seen:` opens a file as a browser without a network would."""

    @contextmanager
    def opened(path: Path, *, scheme: Any = "light", size: Any = PHONE) -> Iterator[Seen]:
        context = chromium.new_context(color_scheme=scheme, viewport=size, offline=True)
        page = context.new_page()
        seen = Seen(page)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("dialog", seen.dismiss)
        page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
        page.on("console", seen.listen)
        page.goto(path.as_uri())
        yield seen
        context.close()

    return opened
