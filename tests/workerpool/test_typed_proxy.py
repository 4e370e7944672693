"""Calls through a proxy, as ``typed_proxy.py`` has them; ``make check`` knows their types."""

from __future__ import annotations

from typing import Any

import pytest

from ion_actors import Pool, Worker, worker_method
from tests.workerpool import typed_proxy
from tests.workerpool.helpers import PATIENCE


def test_the_program_with_the_types_runs() -> None:
    typed_proxy.run()


def test_the_decorator_changes_nothing() -> None:
    def method(self: Any) -> None: ...

    assert worker_method(method) is method  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="decorates a method, not 3"):
        worker_method(3)  # type: ignore[call-overload]


def test_a_proxy_for_another_class_is_refused() -> None:
    class Other(Worker): ...

    with Pool(1, worker=typed_proxy.ImageWorker) as pool:
        for wrong in (Other, typed_proxy.NamedWorker):
            with pytest.raises(TypeError, match=f"which is ImageWorker, not .*{wrong.__name__}"):
                pool.proxy(wrong)
        assert pool.proxy(Worker).resize(1).result(PATIENCE) == 1  # type: ignore[attr-defined]
