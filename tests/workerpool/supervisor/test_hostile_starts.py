"""What an initializer raises is judged by the supervisor, and none of its own code runs there."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ion_actors import Backoff, BrokenPool, PanicRecovery, Pool
from tests.workerpool.helpers import why_broken

PATIENCE = 30.0

ASKED: list[str] = []


def told(self: object, *_: object) -> Any:
    ASKED.append(threading.current_thread().name)
    raise LookupError("its own code")


class Equal:
    """Compares, and can be hashed, by its own code."""

    __eq__ = told  # type: ignore[assignment]
    __hash__ = told  # type: ignore[assignment]


class Runtime(RuntimeError):
    args = property(told)  # type: ignore[assignment]


class System(OSError):
    errno = property(told)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "error", [Runtime("x"), System(11, "x"), RuntimeError(Equal()), OSError(Equal(), "x")],
    ids=["args", "errno", "an argument", "a number"],
)  # fmt: skip
def test_no_code_of_its_runs_on_the_supervisors_thread(error: Exception) -> None:
    ASKED.clear()

    def initializer() -> None:
        raise error

    quick = PanicRecovery(backoff=Backoff(initial=0.0, retries=1))
    pool = Pool(1, name="hostile", initializer=initializer, panic_recovery=quick)
    with pytest.raises(BrokenPool):
        pool.submit(int).result(PATIENCE)
    pool.close(PATIENCE)
    assert "hostile-supervisor" not in ASKED
    assert "failed to start" in str(why_broken(pool))
