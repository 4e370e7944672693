"""Hooks: what a program may plug in to watch the library work.

Three small protocols, named as in ion: a logger, metrics, a tracer. A hook that is not installed
costs nothing; one that raises is logged and changes nothing. The adapters are in modules of their
own, to be imported from there, so that nobody imports what they do not use:

::

    opentelemetry   OtelMetrics, OtelTracer                       extra: otel
    prometheus      register, PoolCollector, PrometheusMetrics    extra: prometheus
    structured      LoggingTracer, merge_extra

The others::

    bus          tells what happens to those who have subscribed
    tee          several hooks where one is asked for
    probe        the hooks of one part of a program, made safe to call
    protocols    the hooks, as protocols
    conventions  what the adapters agree on
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
