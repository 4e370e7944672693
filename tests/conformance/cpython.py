"""CPython's own tests of executors on ours, by the newest Python of this machine that has them.

Tests come with the interpreter (its ``test`` package, which some distributions leave out). From
3.12 on, those of executors are a package, of which :mod:`.run_cpython` makes use. ``make
conformance`` runs those of processes; those of threads are quick, and run with our own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Those of its modules that are run.
MODULES = (
    "as_completed", "deadlock", "future", "init", "process_pool", "shutdown", "thread_pool", "wait",
)  # fmt: skip

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

_ASK = "import sys, test.test_concurrent_futures.executor; print(*sys.version_info[:3])"
_NEEDED = ("pykka", "typing_extensions", "cloudpickle")  # by our own modules, whichever version


def _candidates(*, with_ray: bool) -> Iterator[str]:
    yield sys.executable
    if with_ray:
        return  # that needs more than any interpreter has
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in range(12, 20)))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, (pyenv / "versions").glob("3.*/bin/python3"))


def newest(*, with_ray: bool = False) -> str | None:
    """The newest interpreter here that comes with these tests; None if none does.

    Args:
        with_ray: this one or none, whose environment has Ray.
    """
    found: dict[tuple[int, ...], str] = {}
    for one in _candidates(with_ray=with_ray):
        asked = subprocess.run([one, "-c", _ASK], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            found[tuple(map(int, asked.stdout.split()))] = one
    return found[max(found)] if found else None


def run(
    interpreter: str, *kinds: str, modules: Iterable[str] = MODULES, **more: object
) -> subprocess.CompletedProcess[str]:
    """Have it run the tests of these kinds of executors: "thread", "process", "ray".

    Args:
        interpreter: which one.
        kinds: which kinds.
        modules: which modules of its tests.
        more: for ``subprocess.run``.
    """
    with tempfile.TemporaryDirectory(prefix="ion_actors-cpython-") as folder:
        for name in _NEEDED:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None:
                origin = Path(spec.origin)
                source = origin.parent if origin.name == "__init__.py" else origin
                Path(folder, source.name).symlink_to(source)
        env = os.environ | {"PYTHONPATH": os.pathsep.join([folder, str(ROOT)])}
        command = [interpreter, str(HERE / "run_cpython.py"), *kinds, *modules]
        return subprocess.run(command, text=True, env=env, check=False, **more)  # type: ignore[call-overload, no-any-return]


def main() -> int:
    """Exit with their code."""
    with_ray = "ray" in sys.argv
    interpreter = newest(with_ray=with_ray)
    if interpreter is None:
        which = f"{sys.executable} does not come" if with_ray else "no Python of this machine comes"
        print(f"{which} with CPython's tests of 3.12 or later: they are not run")
        return 0
    return run(interpreter, *sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
