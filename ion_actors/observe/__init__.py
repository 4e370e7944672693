"""Hooks by which a program observes the library.

Three small protocols, named as in ion: a logger, metrics, a tracer. A hook that is not installed
costs nothing; one that raises is logged and has no other effect. Each adapter is a module of its
own and is imported from there, so that a program imports only the ones that it uses:

::

    opentelemetry   OtelMetrics, OtelTracer                       extra: otel
    prometheus      register, PoolCollector, PrometheusMetrics    extra: prometheus
    structured      LoggingTracer, merge_extra

The others::

    bus          passes events to subscribers
    tee          several hooks as one
    probe        the hooks of one object, checked and safe to call
    protocols    the protocols of the hooks
    conventions  conventions that the adapters share
    living       what there is in this process, for those who look at it
"""

from ion_actors.observe.bus import Bus, Subscription
from ion_actors.observe.probe import HOOKS, Log, Probe
from ion_actors.observe.protocols import Metrics, Span, Tracer
from ion_actors.observe.tee import TeeMetrics, TeeTracer

__all__ = [
    "HOOKS",
    "Bus",
    "Log",
    "Metrics",
    "Probe",
    "Span",
    "Subscription",
    "TeeMetrics",
    "TeeTracer",
    "Tracer",
]
