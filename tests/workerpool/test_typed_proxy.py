"""Type checkers know what a call through a proxy returns, and what ``progress=`` takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Pool, Worker, worker_method
from tests.workerpool import typed_proxy
from tests.workerpool.helpers import PATIENCE

ROOT = Path(__file__).parents[2]
#: Both for one run of each checker, which takes a while to read the library.
PROGRAMS = [
    str(ROOT / "tests" / "workerpool" / "typed_proxy.py"),
    str(ROOT / "tests" / "workerpool" / "progress" / "typed_progress.py"),
]


def check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_with_the_types_runs() -> None:
    typed_proxy.run()


@pytest.mark.slow
def test_mypy_knows_the_types() -> None:
    pytest.importorskip("mypy", reason="it is in the extra 'check'")
    check("mypy", "--strict", *PROGRAMS)


@pytest.mark.slow
def test_basedpyright_knows_the_types(tmp_path: Path) -> None:
    pytest.importorskip("basedpyright", reason="it is in the extra 'check'")
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(json.dumps({
        "include": PROGRAMS, "extraPaths": [str(ROOT)], "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }))  # fmt: skip
    check("basedpyright", "-p", str(settings), "--pythonpath", sys.executable)


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
