"""What the libraries on the pages leave behind on purpose is not left here."""

from __future__ import annotations

import pytest
import tqdm


@pytest.fixture(autouse=True)
def no_thread_of_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm looks after its bars in a thread that never ends."""
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)
