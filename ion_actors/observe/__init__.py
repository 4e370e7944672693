"""Hooks: what a program may plug in to watch the library work.

Three small protocols, named as in ion: a logger, metrics, a tracer. A hook that is not installed
costs nothing; one that raises is logged and changes nothing.
"""

from ion_actors.observe.probe import Log, Probe
from ion_actors.observe.protocols import Metrics, Span, Tracer

__all__ = ["Log", "Metrics", "Probe", "Span", "Tracer"]
