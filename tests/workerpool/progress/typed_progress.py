"""What ``progress=`` takes, to type checkers. See ``tests/workerpool/typed_proxy.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from functools import partial

import rich.progress

from ion_actors import Pool


class Bar:
    """As the type stubs of tqdm describe it."""

    def __init__(self, total: float | None = None, desc: str | None = None) -> None: ...

    def update(self, n: float | None = 1) -> bool | None: ...


def show(done: int, total: int | None) -> None: ...


def mistaken(done: str) -> None: ...


def kinds(pool: Pool, bars: rich.progress.Progress) -> None:
    for _ in pool.map(abs, [-1], progress=True), pool.map(abs, [-1], progress=None):
        pool.map(abs, [-1], progress=show)
        pool.map(abs, [-1], progress=lambda done, total: print(done, total or "many"))
        pool.map(abs, [-1], progress=Bar())
        pool.map(abs, [-1], progress=Bar)
        pool.map_unordered(abs, [-1], progress=partial(Bar, desc="bars"))
        pool.map_unordered(abs, [-1], progress=bars)
        pool.amap(abs, [-1], progress=(bars, bars.add_task("mine")))


def mistakes(pool: Pool) -> None:
    pool.map(abs, [-1], progress=3)  # type: ignore[call-overload]
    pool.map(abs, [-1], progress="bar")  # type: ignore[call-overload]
    pool.map(abs, [-1], progress=mistaken)  # type: ignore[arg-type]
