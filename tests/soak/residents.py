"""Pools that live as long as the program, and have something to do in each round."""

from __future__ import annotations

from collections import Counter

from ion_actors import Pool
from tests.soak import errands
from tests.soak.books import balance, outcome
from tests.soak.play import PATIENCE, pool_of

__all__ = ["Resident"]

ITEMS = 200  # calls of a map, in each round


class Resident:
    """One of them.

    Args:
        backend: the pool's.
        loops: whether its workers may have event loops.
    """

    def __init__(self, backend: str, *, loops: bool) -> None:
        self._pause = (errands.rest, errands.linger_async)
        if not loops:
            self._pause = (errands.pause, errands.linger)  # type: ignore[assignment]
        self._pool: Pool = pool_of(f"resident-{backend}", backend, size=2, drain_timeout=PATIENCE)
        self._seen: Counter[str] = Counter()

    def visit(self) -> list[str]:
        """Have it do something of everything. Returns what was wrong."""
        results = list(self._pool.map(errands.echo, range(ITEMS), timeout=PATIENCE))
        self._seen["completed"] += ITEMS
        futures = [self._pool.submit(one) for one in (errands.fail, errands.stray, self._pause[0])]
        late = self._pool.options(timeout=0.01).submit(self._pause[1])
        for future in (*futures, late):
            future.exception(PATIENCE)
            self._seen[outcome(future)] += 1
        wrong = results != list(range(ITEMS))
        return [f"a map of {self._pool.name} gave {results}"] if wrong else []

    def leave(self) -> tuple[list[str], int]:
        """End it. Returns what was wrong, and how many tasks it had."""
        self._pool.drain()
        numbers = self._pool.metrics()
        return balance(numbers, self._seen, complete=True), numbers.submitted
