"""Limits that find themselves: how many calls may be under way to something of unknown capacity.

::

    limit       AdaptiveLimit: verbs, blocks, wrappers
    learner     the limit in use: hands samples to the algorithm, and resizes the permits
    permit      a call that is under way, and how it ended
    overload    which exceptions mean that there was too much
    sizing      how many workers a pool should have: Adaptive, and its decisions
    algorithms  AIMD, Vegas, Gradient: decisions without threads
"""

from ion_actors.adaptive.algorithms import AIMD, Algorithm, Bounds, Gradient, Sample, Vegas
from ion_actors.adaptive.learner import AdaptiveMetrics
from ion_actors.adaptive.limit import AdaptiveLimit
from ion_actors.adaptive.overload import is_overload
from ion_actors.adaptive.permit import CallBlock, Permit
from ion_actors.adaptive.sizing import Adaptive

__all__ = [
    "AIMD",
    "Adaptive",
    "AdaptiveLimit",
    "AdaptiveMetrics",
    "Algorithm",
    "Bounds",
    "CallBlock",
    "Gradient",
    "Permit",
    "Sample",
    "Vegas",
    "is_overload",
]
