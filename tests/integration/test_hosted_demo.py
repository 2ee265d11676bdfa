"""The demo on the hosted platform: two environment variables are all it needs."""

from __future__ import annotations

import pytest

from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import run_python


@pytest.mark.parametrize("platform", list(Scoping), indirect=True)
def test_demo_runs_on_the_hosted_platform_and_leaves_nothing(platform: Platform) -> None:
    output = run_python(
        "from langchain_mem0_scoped.__main__ import main; assert main() == 0",
        MEM0_API_KEY=platform.key,
        MEM0_HOST=platform.url,
    )
    assert "Every claim held." in output
    assert "FAIL" not in output
    assert platform.rows() == []
