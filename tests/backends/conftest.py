"""What the tests of the process backend share: no child is left, and one of them starts quickly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ion_actors.backends.process.parent import forkserver, interpreter
from ion_actors.backends.process.parent.launch import running_children
from tests.workerpool.helpers import eventually


@pytest.fixture(scope="session", autouse=True)
def quick_start() -> None:
    """Each child imports the main module, which is pytest; let the forkserver have done so."""
    forkserver.ALWAYS += ["pytest", "_pytest.config"]


@pytest.fixture
def no_child_is_left(nothing_is_left_behind: None) -> Iterator[None]:
    interpreter.resource_tracker_fd()
    before = _descriptors()
    yield
    assert running_children() == []
    forkserver.close_all()
    if before is not None:
        eventually(lambda: len(_descriptors() or ()) <= len(before))


def _descriptors() -> list[str] | None:
    """The open descriptors of this process."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return None
    return [one.name for one in folder.iterdir()]
