"""Circuit breakers: stop calling what keeps failing, and find out when it works again.

Start at :class:`CircuitBreaker`.
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
