"""A dashboard that is served, and a browser to look at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ion_actors.dashboard import DashboardServer, serve
from ion_actors.observe.living import (
    ADAPTIVE_LIMITS,
    BREAKERS,
    LIMITERS,
    POOLS,
    SEMAPHORES,
    SUPERVISORS,
)
from tests.dashboard.browser import Browser


@pytest.fixture
def board() -> Iterator[DashboardServer]:
    """A dashboard with actions. It shows what the test makes, and nothing that others have left."""
    for kind in (POOLS, SUPERVISORS, LIMITERS, BREAKERS, SEMAPHORES, ADAPTIVE_LIMITS):
        kind.clear()
    with serve(actions=True) as board:
        yield board


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium. CI installs it, where it can."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium on the PATH (Debian: apt-get install chromium)")
    browser = Browser(program, tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()
