"""The public part of :mod:`ion_actors.backends.process.transport.context_vars`."""

from ion_actors.backends.process.transport.context_vars import left_behind

__all__ = ["left_behind"]
