"""The README as the tests read it."""

from __future__ import annotations

import re
from typing import Final

from tests.support import ROOT

README: Final = ROOT / "README.md"


def blocks(language: str = "python") -> list[str]:
    """The README's code blocks of one language, in order."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
