"""The library in a subinterpreter: some modules refuse to load there, and no thread is a daemon."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests.programs.conftest import ROOT

Run = Callable[..., tuple[int, list[str], str]]

needs_subinterpreters = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="Python has subinterpreters from 3.14 on"
)

# Everything is left behind that may be: the end of the interpreter has to cope.
PROGRAMS = {
    "all names": """
        import ion_actors
        for name in ion_actors.__all__:
            getattr(ion_actors, name)
        print("fine")
    """,
    "a context": """
        from ion_actors import Context, DeadlineExceeded
        with Context(timeout=0.01) as context:
            try:
                context.sleep(60)
            except DeadlineExceeded:
                print("fine")
        Context(timeout=1e6).add_callback(print)
    """,
    "a pool": """
        import asyncio, logging, sys
        from ion_actors import Pool, TaskPanicked
        logging.getLogger("ion_actors").addHandler(logging.NullHandler())
        async def blocking():
            return await asyncio.to_thread(pow, 2, 3)
        pool = Pool(2)
        try:
            pool.submit(sys.exit).result()
        except TaskPanicked:
            assert list(pool.map(abs, [-1, 2])) == [1, 2]
            assert pool.submit(blocking).result() == 8
            pool.dump()
        pool.submit(print, "fine")
    """,
    "child processes": """
        from ion_actors import Pool
        with Pool(1, backend="process") as pool:
            assert pool.submit(pow, 2, 3).result() == 8
        print("fine")
    """,
    "a signal": """
        from ion_actors import Pool
        with Pool(1) as pool:
            try:
                pool.drain_on_signal()
            except ValueError as error:
                assert "main thread" in str(error)
                print("fine")
    """,
}

# As in a subinterpreter, but on every version.
POOR = """
    import _thread, sys
    _thread.daemon_threads_allowed = lambda: False
    sys.modules["_tracemalloc"] = sys.modules["faulthandler"] = None
"""


@needs_subinterpreters
@pytest.mark.parametrize("what", PROGRAMS)
def test_it_works_in_a_subinterpreter(what: str, run: Run) -> None:
    program = f"""
import concurrent.interpreters
for _ in range(2):
    interpreter = concurrent.interpreters.create()
    interpreter.exec({textwrap.dedent(PROGRAMS[what])!r})
    interpreter.close()
"""
    assert run(program) == (0, ["fine", "fine"], "")


@pytest.mark.parametrize("what", ["all names", "a context", "a pool"])
def test_it_ends_without_daemons_and_without_some_modules(what: str) -> None:
    # Not by the fixture, which imports the library before.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(POOR) + textwrap.dedent(PROGRAMS[what])],
        capture_output=True, text=True, check=False, timeout=60, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
