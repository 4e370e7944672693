"""A dashboard that is served, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from ion_actors.dashboard import DashboardServer, serve
from tests.dashboard.browser import Browser


@pytest.fixture
def board() -> Iterator[DashboardServer]:
    """A dashboard with actions."""
    with serve(actions=True) as board:
        yield board


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium. With CI set, there must be one."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing = "there is no chromium on the PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    browser = Browser(program, tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()
