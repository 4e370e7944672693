"""Time that tools for tests have frozen or moved: waits take as long as they should."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

from ion_actors import Context, DeadlineExceeded, Future, Pool
from ion_actors.ratelimit import TokenBucket, per_second
from tests.interrupts import LIBRARY

_REAL = {name: getattr(time, name) for name in ("monotonic", "time", "perf_counter")}


def replace_everywhere(patch: pytest.MonkeyPatch, fake: Callable[[], float]) -> None:
    """As freezegun does: wherever a module has one of the functions."""
    for module in list(sys.modules.values()):
        if module is sys.modules[__name__] or not hasattr(module, "__dict__"):
            continue
        if module.__name__.startswith(("threading", "queue", "selectors", "asyncio", "_pytest")):
            continue  # which these tools spare, or which are not ours
        for name, value in list(vars(module).items()):
            if any(value is real for real in _REAL.values()):
                patch.setattr(module, name, fake)


@pytest.mark.parametrize("jump", [0.0, 3600.0], ids=["frozen", "moved"])
def test_no_wait_hangs_or_ends_early(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    now = [_REAL["monotonic"]()]

    def fake() -> float:
        now[0] += jump
        return now[0]

    async def await_() -> bool:
        return await Context().await_(timeout=0.02)

    with monkeypatch.context() as patch:
        replace_everywhere(patch, fake)
        began = _REAL["monotonic"]()
        Context().sleep(0.02)
        with pytest.raises(TimeoutError):
            Future[int]().result(timeout=0.02)
        with Context(timeout=0.02) as context, pytest.raises(DeadlineExceeded):
            context.sleep(5)
        asyncio.run(await_())
        bucket = TokenBucket(per_second(50), 1)
        bucket.wait()
        bucket.wait()
        with Pool(1) as pool:
            late = pool.options(timeout=0.02).submit(lambda: Context().sleep(5))
            with pytest.raises(DeadlineExceeded):
                late.result(timeout=20)
        took = _REAL["monotonic"]() - began
    assert 0.12 <= took < 5


def test_the_library_may_be_imported_while_time_is_frozen() -> None:
    program = """
        import time
        real = time.perf_counter
        time.monotonic = lambda: 5.0
        from ion_actors import Context
        began = real()
        Context().sleep(0.05)
        print(0.05 <= real() - began < 5)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(LIBRARY.parent)},
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr


def test_no_module_asks_for_the_time_where_tools_freeze_it() -> None:
    """They replace ``time.monotonic``; what was bound before, as by the clock, stays real."""
    asks = [
        f"{path.relative_to(LIBRARY)}:{node.lineno}"
        for path in LIBRARY.rglob("*.py")
        if "testing" not in path.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.monotonic"
    ]
    assert asks == []
