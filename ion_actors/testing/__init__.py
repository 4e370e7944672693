"""Tools for tests of concurrent code, for users' tests and the library's own.

- :class:`VirtualClock`: a clock that stands still until the test moves it.
- :class:`Sequencer`: the order in which blocks of several threads run.
- :class:`RecordingMetrics`, :class:`RecordingTracer`: hooks that record their calls.
- :func:`assert_no_leaks`: no thread, actor or child process is left behind.

Nothing here just sleeps: every wait is for an event, and gives up with a clear error.

::

    clock      VirtualClock
    leaks      assert_no_leaks
    metrics    RecordingMetrics
    sequencer  Sequencer, SequenceBroken
    tracer     RecordedSpan, RecordingTracer
"""

from ion_actors.testing.clock import VirtualClock
from ion_actors.testing.leaks import assert_no_leaks
from ion_actors.testing.metrics import RecordingMetrics
from ion_actors.testing.sequencer import SequenceBroken, Sequencer
from ion_actors.testing.tracer import RecordedSpan, RecordingTracer

__all__ = [
    "RecordedSpan",
    "RecordingMetrics",
    "RecordingTracer",
    "SequenceBroken",
    "Sequencer",
    "VirtualClock",
    "assert_no_leaks",
]
