"""Circuit breakers: they reject calls to a service that keeps failing, until it works again.

Start at :class:`CircuitBreaker`.

From the top down, each importing only from below::

    breaker  the public CircuitBreaker
    core     the machine, its lock, and one call through it
    hooks    the metrics and spans of a breaker
    machine  the breaker as a pure state machine
    window   counts of the latest results
    rules    the settings, and how exceptions count under them
"""

from ion_actors.circuit.breaker import CircuitBreaker
from ion_actors.circuit.core import Guard
from ion_actors.circuit.machine import CircuitMetrics, CircuitState
from ion_actors.circuit.rules import FailureRate
from ion_actors.errors import CircuitOpen

__all__ = [
    "CircuitBreaker",
    "CircuitMetrics",
    "CircuitOpen",
    "CircuitState",
    "FailureRate",
    "Guard",
]
