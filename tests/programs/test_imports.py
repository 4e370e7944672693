"""What a program imports, and what it does not: a program pays for what it uses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import ion_actors
from tests import needs_threads_at_exit


def imported_by(program: str) -> set[str]:
    """The modules that a fresh interpreter has imported at the end of this program."""
    code = textwrap.dedent(program) + "\nimport sys\nprint(*sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def of_the_library(modules: set[str]) -> set[str]:
    return {one for one in modules if one.partition(".")[0] == "ion_actors"}


def test_a_pool_of_threads_does_not_import_multiprocessing(
    run: Callable[..., tuple[int, list[str], str]],
) -> None:
    # Not measured: what measures it may import what it likes.
    program = """
        with Pool(1) as pool:
            pool.submit(pow, 2, 3).result()
        say(any(name.partition(".")[0] == "multiprocessing" for name in sys.modules))
        say("ion_actors.backends.process.parent.runner" in sys.modules)
    """
    code, said, complaints = run(program, measured=False)
    assert (code, said, complaints) == (0, ["False", "False"], "")


def test_the_library_itself_imports_nothing_of_itself() -> None:
    modules = imported_by("import ion_actors")
    assert of_the_library(modules) == {"ion_actors"}
    assert not modules & {"asyncio", "dataclasses", "inspect", "logging", "pykka", "threading"}
    assert len(modules) < len(imported_by("import concurrent.futures.thread, asyncio"))


def test_an_error_does_not_import_the_pool() -> None:
    modules = imported_by("from ion_actors import QueueFull")
    assert "ion_actors.errors" in modules
    assert not any(one.startswith("ion_actors.workerpool") for one in modules)


@pytest.mark.parametrize("package", ["circuit", "ratelimit", "semaphore"])
def test_what_stands_beside_the_pool_does_not_import_it(package: str) -> None:
    modules = imported_by(f"import ion_actors.{package}")
    assert f"ion_actors.{package}" in modules
    assert not any(one.startswith("ion_actors.workerpool") for one in modules)
    assert "pykka" not in modules


_NOT_FOR_THREADS = {
    "asyncio", "cloudpickle", "ctypes", "decimal", "logging.handlers", "multiprocessing", "pickle",
    "random", "selectors", "socket", "ssl", "statistics", "subprocess", "tempfile", "tracemalloc",
    "ion_actors.backends.event_loop", "ion_actors.backends.process", "ion_actors.circuit",
    "ion_actors.ratelimit", "ion_actors.semaphore", "ion_actors.supervision", "ion_actors.testing",
}  # fmt: skip


def test_a_pool_of_threads_imports_nothing_that_it_does_not_need() -> None:
    modules = imported_by(
        """
        from ion_actors import Pool
        with Pool(1) as pool:
            assert pool.submit(pow, 2, 3).result() == 8
            assert list(pool.map(abs, [-1, 2])) == [1, 2]
        """
    )
    assert not modules & _NOT_FOR_THREADS
    others = modules - of_the_library(modules)
    assert len(others) < len(imported_by("import concurrent.futures.thread, asyncio"))


def test_a_coroutine_brings_asyncio_with_it() -> None:
    modules = imported_by(
        """
        import sys, threading
        from ion_actors import Pool

        async def work():
            return threading.current_thread().name

        with Pool(1, name="mine") as pool:
            name = pool.submit(threading.current_thread).result().name
            assert "asyncio" not in sys.modules
            assert pool.submit(work).result() == name
        """
    )
    assert {"asyncio", "ion_actors.backends.event_loop"} <= modules


@needs_threads_at_exit
def test_the_first_coroutine_may_come_at_exit(
    run: Callable[..., tuple[int, list[str], str]],
) -> None:
    program = """
        async def work():
            say("asyncio" in sys.modules)

        def first():
            exiting.wait()
            say("asyncio" in sys.modules)

        pool, exiting = Pool(1), threading.Event()
        threading._register_atexit(exiting.set)
        pool.submit(first)
        pool.submit(work)
    """
    code, said, complaints = run(program, measured=False)
    assert (code, said, complaints) == (0, ["False", "True"], "")


# -- names that are imported when they are used --------------------------------------------


def test_every_public_name_is_there_by_name_and_by_star() -> None:
    modules = imported_by(
        """
        import ion_actors
        assert set(ion_actors.__all__) <= set(dir(ion_actors))
        from ion_actors import *
        assert set(ion_actors.__all__) <= set(globals())
        for name in ion_actors.__all__:
            assert globals()[name] is getattr(ion_actors, name) is vars(ion_actors)[name]
        """
    )
    assert "ion_actors.workerpool.pool" in modules


def test_a_package_is_there_without_an_import_of_its_own() -> None:
    modules = imported_by("import ion_actors\nion_actors.ratelimit.TokenBucket\n")
    assert "ion_actors.ratelimit" in modules


@pytest.mark.parametrize("name", ["Nix", "_nix", "__wrapped__", "a.b", "errors.QueueFull", ""])
def test_a_name_that_is_not_there_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match="module 'ion_actors' has no attribute") as caught:
        getattr(ion_actors, name)
    assert caught.value.args[0].endswith(repr(name))


def test_a_name_that_is_not_there_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nix' from 'ion_actors'"):
        exec("from ion_actors import Nix")


def test_a_fault_while_a_module_is_imported_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The extra of an adapter is missing, say: that is not "no attribute".
    monkeypatch.setitem(sys.modules, "ion_actors.testing.leaks", None)
    for one in [one for one in sys.modules if one == "ion_actors.testing"]:
        monkeypatch.delitem(sys.modules, one)
    monkeypatch.delattr(ion_actors, "testing", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"ion_actors\.testing\.leaks"):
        _ = ion_actors.testing


def test_threads_that_import_at_the_same_moment_get_the_same() -> None:
    imported_by(
        """
        import sys, threading
        import ion_actors
        sys.setswitchinterval(1e-6)
        names = ion_actors.__all__
        start, found = threading.Barrier(8), []

        def look(offset):
            start.wait()
            mine = names[offset:] + names[:offset]
            found.append({name: getattr(ion_actors, name) for name in mine})

        threads = [threading.Thread(target=look, args=(9 * number,)) for number in range(8)]
        for one in threads: one.start()
        for one in threads: one.join()
        assert len(found) == 8
        assert all(one == found[0] for one in found)
        """
    )


# A whole program, in a file: its children import it. Says how much memory it holds at the end.
OF_PROCESSES = """
import sys


def double(number):
    return number + number


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    if sys.argv[1] == "theirs":
        from concurrent.futures import ProcessPoolExecutor as make
    else:
        from ion_actors import Pool

        def make(size):
            return Pool(size, backend="process")

    with make(2) as pool:
        assert pool.submit(double, 21).result() == 42
        assert list(pool.map(double, range(200))) == list(range(0, 400, 2))
        print(resident())
    print(*sys.modules)
"""


@pytest.fixture
def of_processes(tmp_path: Path) -> Callable[[str], tuple[int, set[str]]]:
    """Runs that program. Returns the bytes it holds, and the modules it has imported."""
    program = tmp_path / "program.py"
    program.write_text(OF_PROCESSES)
    # As installed: to compile a module takes more memory than to load it.
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(whose: str) -> tuple[int, set[str]]:
        done = subprocess.run(
            [sys.executable, str(program), whose],
            capture_output=True, text=True, check=True, timeout=120, env=env,
        )  # fmt: skip
        held, modules = done.stdout.splitlines()
        return int(held), set(modules.split())

    return run


def test_the_parent_of_processes_does_not_import_what_only_a_child_needs(
    of_processes: Callable[[str], tuple[int, set[str]]],
) -> None:
    _, modules = of_processes("ours")
    children = {f"ion_actors.backends.process.child.{one}" for one in ("main", "task_server")}
    modules -= imported_by("import logging")  # which needs pathlib, from 3.15 on
    assert not modules & {"asyncio", "cloudpickle", "ctypes", "pathlib", *children}


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_it_holds_at_most_8_mib_more_than_with_a_process_pool_executor(
    of_processes: Callable[[str], tuple[int, set[str]]],
) -> None:
    of_processes("ours")  # compiles
    of_processes("theirs")
    more = of_processes("ours")[0] - of_processes("theirs")[0]
    assert more <= 8 * 1024 * 1024, f"{more / 1024 / 1024:.1f} MiB"
