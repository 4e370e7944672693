"""A weighted semaphore: limits what is used at the same time, where some use more than others.

::

    weighted  WeightedSemaphore: arguments, contexts, blocks, wrappers
    attempt   one acquisition that has to wait
    hooks     what a semaphore reports to logs, metrics and traces
    permits   the line with its lock, and how waiters are woken
    line      who is next: decisions without threads
"""

from ion_actors.semaphore.line import Fairness, SemaphoreMetrics
from ion_actors.semaphore.weighted import Hold, WeightedSemaphore

__all__ = ["Fairness", "Hold", "SemaphoreMetrics", "WeightedSemaphore"]
