"""The hash and the comparison of a resource are the user's code: they run under no lock."""

from __future__ import annotations

import threading
from typing import Any

from ion_actors.ratelimit import MultiTierLimiter

PATIENCE = 30.0


def test_a_comparison_that_blocks_holds_up_nobody_else():
    class Resource:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> Any:
            begun.set()
            return gate.wait(PATIENCE)

    begun, gate = threading.Event(), threading.Event()
    limiter = MultiTierLimiter()
    assert limiter.for_(resource=Resource()).allow()
    found: list[bool] = []
    thread = threading.Thread(
        target=lambda: found.append(limiter.for_(resource=Resource()).allow())
    )
    thread.start()
    assert begun.wait(PATIENCE)
    assert limiter.for_(resource="other").allow()
    gate.set()
    thread.join(PATIENCE)
    assert found == [True]
    assert limiter.buckets == 2
