"""Hooks: what a program may plug in to watch the library work.

Three small protocols, named as in ion. A hook that is not installed costs nothing; one that raises
is logged and changes nothing.
"""

from ion_actors.observe.hooks import Hooks, Metrics, Span, Tracer

__all__ = ["Hooks", "Metrics", "Span", "Tracer"]
