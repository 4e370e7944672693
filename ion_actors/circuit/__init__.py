"""Circuit breakers: stop calling what keeps failing, and find out when it works again.

Start at :class:`CircuitBreaker`.

From the top down, each importing only from below::

    breaker  the breaker as its users have it
    core     the machine, its lock, and one call through it
    hooks    what a breaker tells its hooks
    machine  the breaker as a state machine, pure
    window   the latest results, counted
    rules    the settings, and what each exception means under them
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
