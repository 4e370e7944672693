"""Pipelines: chains of stages that are worked by pools, bounded from end to end.

::

    pipeline  the public Pipeline
    drivers   pull, wait and give out: for threads, and for coroutines
    run       jobs begin, end and fail
    stages    the checked arguments of a stage
    calls     what a stage has its workers call
    flow      where the items are, and what may happen next: decisions without threads
    metrics   the numbers, stage by stage
"""

from ion_actors.pipeline.metrics import PipelineMetrics, StageMetrics
from ion_actors.pipeline.pipeline import Pipeline
from ion_actors.pipeline.stages import OnError

__all__ = ["OnError", "Pipeline", "PipelineMetrics", "StageMetrics"]
