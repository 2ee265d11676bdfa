"""Exported HTML pages: reading one back, the time at which the tests render it, and text that tries to be markup."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Final

NOW: Final = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

NASTY: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table>",
    "<!-- ",
    "]]>",
    "a & b < c",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "${7*7} {{7*7}} %s",
)
"""Text that a page or a table must show as text."""

RUNS: Final = (
    "<script>window.ran = 1; alert(1)</script>",
    "<img src=x onerror='window.ran = 1'>",
    "<svg onload='window.ran = 1'></svg>",
    "</p></li></ol><style>body{display:none}</style>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<a href='javascript:window.ran=1' autofocus onfocus='window.ran=1'>x</a>",
)
"""Text that would set `window.ran` if it ran."""


class Page(HTMLParser):
    """Parses a page: its tags, and the text that assistive technology reads."""

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
