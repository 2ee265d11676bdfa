"""The fixture `no_window`: plots without a display. A test module that imports it draws into memory."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    """Draw without a window, and close every figure afterwards."""
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)
