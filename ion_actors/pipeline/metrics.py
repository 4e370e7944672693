"""The numbers of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PipelineMetrics", "StageMetrics"]


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """The numbers of one stage."""

    name: str  #: the stage's name: by default its function's
    items_in: int  #: items that have come in
    items_out: int  #: items that have gone on to the next stage
    failed: int  #: items on which its function failed
    skipped: int  #: those of them that were left out
    in_flight: int  #: items that are here now: they wait, are worked, or wait to go on
    busy: float  #: seconds of all calls of its function that returned
    workers: int  #: the workers of its pool; 1 without a pool
    window: int  #: how many items may be here

    @property
    def busy_per_worker(self) -> float:
        """The seconds that each worker would have been busy, had they shared the calls evenly."""
        return self.busy / max(1, self.workers)


@dataclass(frozen=True, slots=True)
class PipelineMetrics:
    """The numbers of one run of a pipeline: so far, or at its end. Print them for a table."""

    stages: tuple[StageMetrics, ...]  #: in their order
    pulled: int  #: items that the source has given
    given: int  #: items that have come out
    seconds: float  #: since the run began, or what it took

    @property
    def in_flight(self) -> int:
        """The items that are in all stages now."""
        return sum(stage.in_flight for stage in self.stages)

    @property
    def bottleneck(self) -> StageMetrics | None:
        """The stage whose workers were busy longest; None if nothing has been done yet.

        To make the pipeline faster, give its pool more workers, or it a pool of its own.
        """
        slowest = max(self.stages, key=lambda stage: stage.busy_per_worker, default=None)
        return None if slowest is None or not slowest.busy else slowest

    def __str__(self) -> str:
        head = ("stage", "in", "out", "failed", "skipped", "in flight", "busy", "workers")
        rows = [
            (
                stage.name, str(stage.items_in), str(stage.items_out), str(stage.failed),
                str(stage.skipped), str(stage.in_flight), f"{stage.busy:.3f} s",
                str(stage.workers),
            )
            for stage in self.stages
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *rows)
        )
