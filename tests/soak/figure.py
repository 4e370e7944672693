"""The curves of a soak, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.soak.gauges import Sample

__all__ = ["draw"]


def draw(path: Path, samples: Sequence[Sample], title: str) -> bool:
    """Draw them into a file. Returns False if there is no matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    minutes = [one.seconds / 60 for one in samples]
    above.plot(minutes, [one.resident for one in samples], label="resident memory, MiB")
    for name in ("descriptors", "threads", "children"):
        below.plot(minutes, [getattr(one, name) for one in samples], label=name)
    below.set_xlabel("minutes")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    above.set_title(title)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return True
