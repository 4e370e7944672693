"""Draw the plot of the docs: ``python -m tests.adaptive``."""

from __future__ import annotations

from pathlib import Path

from ion_actors.adaptive import AIMD, Algorithm, Vegas
from tests.adaptive.simulation import trace

TARGET = Path(__file__).parents[2] / "docs" / "neighbours" / "adaptive.svg"
PHASES = [(40, 30.0), (8, 30.0), (60, 30.0)]
SECONDS = sum(seconds for _, seconds in PHASES)
LEFT, TOP, WIDTH, HEIGHT, MOST = 50, 30, 780, 220, 90.0


def _x(second: float) -> float:
    return LEFT + WIDTH * second / SECONDS


def _y(limit: float) -> float:
    return TOP + HEIGHT * (1 - min(limit, MOST) / MOST)


def _line(points: list[tuple[float, float]], style: str) -> str:
    text = " ".join(f"{_x(second):.1f},{_y(limit):.1f}" for second, limit in points)
    return f'<polyline points="{text}" fill="none" {style}/>'


def _capacity() -> list[tuple[float, float]]:
    points, now = [], 0.0
    for capacity, seconds in PHASES:
        points += [(now, float(capacity)), (now + seconds, float(capacity))]
        now += seconds
    return points


def _axes() -> list[str]:
    levels = [
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{_y(limit):.1f}" y2="{_y(limit):.1f}" '
        'stroke="#7d7d7d" stroke-opacity="0.25"/>'
        f'<text x="{LEFT - 8}" y="{_y(limit) + 4:.1f}" text-anchor="end">{limit}</text>'
        for limit in range(0, int(MOST) + 1, 20)
    ]
    below = TOP + HEIGHT + 18
    seconds = [
        f'<text x="{_x(second):.1f}" y="{below}" text-anchor="middle">{second} s</text>'
        for second in range(0, int(SECONDS) + 1, 10)
    ]
    return [*levels, *seconds]


def _legend() -> list[str]:
    entries = [("capacity", "#7d7d7d"), ("AIMD, refused", "#2f86d6"), ("Vegas, queued", "#dd7527")]
    return [
        f'<text x="{LEFT + 10 + 170 * place}" y="18" style="fill:{colour}">{name}</text>'
        for place, (name, colour) in enumerate(entries)
    ]


def draw() -> str:
    """The plot as SVG."""
    algorithms: list[tuple[Algorithm, bool, str]] = [
        (AIMD(), False, "#2f86d6"),
        (Vegas(), True, "#dd7527"),
    ]
    lines = [_line(_capacity(), 'stroke="#7d7d7d" stroke-width="2" stroke-dasharray="6 4"')]
    for algorithm, queueing, colour in algorithms:
        points = trace(algorithm, PHASES, queueing=queueing)
        lines.append(_line(points, f'stroke="{colour}" stroke-width="1.6"'))
    body = "\n".join([*_axes(), *_legend(), *lines])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 850 280" role="img" '
        'aria-label="The limit over time, beside the hidden capacity">\n'
        "<style>text { font: 13px system-ui, sans-serif; fill: #7d7d7d; }</style>\n"
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(draw())
