"""Pipelines of any shape, on shared and on full pools, give what a loop gives, and never hang."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ion_actors import Pool
from ion_actors.pipeline import Pipeline
from tests import rounds


def number_of(item: Any) -> int:
    return item if isinstance(item, int) else sum(map(number_of, item))


def tripled(item: Any) -> int:
    return number_of(item) * 3


async def next_one(item: Any) -> int:
    return number_of(item) + 1


def some(item: Any) -> Iterator[int]:
    for place in range(number_of(item) % 3):
        yield number_of(item) + place


def not_fourth(item: Any) -> bool:
    return number_of(item) % 4 != 0


@dataclass(frozen=True)
class Step:
    verb: str
    pool: int
    window: int | None

    def plainly(self, items: list[Any]) -> list[Any]:
        if self.verb == "map":
            return [tripled(item) for item in items]
        if self.verb == "coroutine":
            return [number_of(item) + 1 for item in items]
        if self.verb == "flat_map":
            return [one for item in items for one in some(item)]
        if self.verb == "batch":
            size = self.window or 2
            return [items[n : n + size] for n in range(0, len(items), size)]
        return [item for item in items if not_fourth(item)]

    def on(self, pipeline: Pipeline[Any], pools: list[Pool]) -> Pipeline[Any]:
        pool = pools[self.pool]
        if self.verb == "map":
            return pipeline.map(tripled, pool=pool, window=self.window)
        if self.verb == "coroutine":
            return pipeline.map(next_one, pool=pool, window=self.window)
        if self.verb == "flat_map":
            return pipeline.flat_map(some, pool=pool, window=self.window)
        if self.verb == "batch":
            return pipeline.batch(self.window or 2)
        return pipeline.filter(not_fourth, None if self.verb == "filter" else pool)


steps = st.builds(
    Step,
    verb=st.sampled_from(["map", "coroutine", "flat_map", "batch", "filter", "pool filter"]),
    pool=st.integers(0, 2),
    window=st.one_of(st.none(), st.integers(1, 5)),
)


@pytest.mark.parametrize("nested", [False, True])
@settings(max_examples=rounds(30, thorough=500))
@given(plan=st.lists(steps, max_size=6), count=st.integers(0, 40), by_coroutine=st.booleans())
def test_any_pipeline(nested: bool, plan: list[Step], count: int, by_coroutine: bool) -> None:
    expected: list[Any] = list(range(count))
    for step in plan:
        expected = step.plainly(expected)

    with Pool(1, 0) as one, Pool(1, 1) as two, Pool(2) as three:
        pipeline: Pipeline[Any] = Pipeline(range(count))
        for step in plan:
            pipeline = step.on(pipeline, [one, two, three])

        async def listed() -> list[Any]:
            return [item async for item in pipeline]

        def run() -> list[Any]:
            return asyncio.run(listed()) if by_coroutine else list(pipeline)

        found = one.submit(run).result(30) if nested else run()
        assert found == expected
        numbers = pipeline.metrics()
        assert numbers.in_flight == 0
        assert (numbers.pulled, numbers.given) == (count, len(expected))
        for before, after in itertools.pairwise(numbers.stages):
            assert before.items_out == after.items_in
