"""A weighted semaphore: limits what is used at the same time, where some use more than others.

::

    WeightedSemaphore    the face: arguments, contexts, blocks, wrappers      weighted
      Attempt            one wait and what is told of it                      attempt
      Permits            the line, shared: a lock, and waking                 permits
      PermitLine         whose turn it is: decisions without threads          line
      SemaphoreHooks     what a semaphore tells its hooks                     hooks
"""

from ion_actors.semaphore.line import Fairness, SemaphoreMetrics
from ion_actors.semaphore.weighted import Hold, WeightedSemaphore

__all__ = ["Fairness", "Hold", "SemaphoreMetrics", "WeightedSemaphore"]
