"""What a child has from its parent: as it is when the child starts, before a user's code runs."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ion_actors import Pool, ProcessBackend
from ion_actors.backends.process.child.environment import environment
from tests.backends.process import errands
from tests.backends.process.programs import run, run_source
from tests.workerpool.helpers import PATIENCE

METHODS = pytest.mark.parametrize("method", ["forkserver", "spawn"])

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc")


@pytest.fixture(autouse=True)
def leave_as_it_was(no_child_is_left: None) -> Iterator[None]:
    """This process is the parent: what a test changes of it must not last."""
    folder, mask = Path.cwd(), os.umask(0)
    os.umask(mask)
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    cpus = os.sched_getaffinity(0)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Pool(1, backend="process") as pool:  # a forkserver that has started before
        pool.submit(pow, 2, 3).result(PATIENCE)
    yield
    os.chdir(folder)
    os.umask(mask)
    resource.setrlimit(resource.RLIMIT_CORE, limit)
    os.sched_setaffinity(0, cpus)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def ask(method: str, name: str, **settings: object) -> object:
    backend = ProcessBackend(start_method=method, **settings)  # type: ignore[arg-type]
    with Pool(1, backend=backend) as pool:
        return pool.submit(errands.surroundings).result(PATIENCE)[name]


@METHODS
def test_variables_that_were_added_changed_and_deleted(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("added", "changed"):
        monkeypatch.setenv("ION_TEST", step)
        found = ask(method, "env")
        assert isinstance(found, dict)
        assert found["ION_TEST"] == step
    monkeypatch.delenv("ION_TEST")
    assert "ION_TEST" not in found or "ION_TEST" not in ask(method, "env")  # type: ignore[operator]


@METHODS
def test_a_child_that_replaces_another_one_has_what_holds_now(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ProcessBackend(start_method=method, max_tasks_per_child=1)
    with Pool(1, backend=backend) as pool:
        pool.submit(pow, 2, 3).result(PATIENCE)
        pool.submit(pow, 2, 3).result(PATIENCE)
        monkeypatch.setenv("ION_TEST", "later")
        pool.submit(pow, 2, 3).result(PATIENCE)  # the child that has started meanwhile
        pool.submit(pow, 2, 3).result(PATIENCE)
        assert pool.submit(os.getenv, "ION_TEST").result(PATIENCE) == "later"


@METHODS
def test_the_time_zone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5")
    assert ask(method, "zone") == "XYZ"


@METHODS
def test_the_mask_for_new_files(method: str) -> None:
    os.umask(0o027)
    assert ask(method, "umask") == 0o027


@METHODS
def test_the_niceness(method: str, tmp_path: Path) -> None:
    # Of the main thread, as it is for os.nice(); that of the worker's is from before.
    program = """
        with Pool(1, backend=ProcessBackend(start_method=METHOD, max_tasks_per_child=1)) as pool:
            pool.submit(pow, 2, 3).result()
            os.nice(3)
            for _ in range(3):
                found = pool.submit(os.nice, 0).result()
        with Pool(1, backend=ProcessBackend(start_method=METHOD, nice=2)) as pool:
            print(found - os.nice(0), pool.submit(os.nice, 0).result() - os.nice(0))
    """
    assert run(tmp_path, program.replace("METHOD", repr(method))) == "0 2\n"


@METHODS
def test_the_cpus(method: str) -> None:
    one = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {one})
    assert ask(method, "cpus") == {one}


@METHODS
def test_the_limits(method: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    soft = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert ask(method, "core") == (soft, hard)


@METHODS
def test_the_directory(method: str, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    assert ask(method, "folder") == str(tmp_path)


@METHODS
def test_a_directory_that_has_been_moved(method: str, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    os.chdir(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    assert ask(method, "folder") == str(tmp_path / "after")


@METHODS
def test_a_directory_that_has_been_removed(method: str, tmp_path: Path) -> None:
    if method == "spawn" and sys.version_info[:3] == (3, 13, 0):
        pytest.skip("no program can `import socket` there with CPython 3.13.0")
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert ask(method, "folder") is None


@METHODS
def test_signals_that_are_blocked_but_for_those_that_end_it(method: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT, signal.SIGTERM})
    assert ask(method, "blocked") == {signal.SIGALRM}


# -- before anything of the user's -------------------------------------------------------------


EARLY = """
import os
from ion_actors import Pool, ProcessBackend

seen = os.environ.get("ION_EARLY"), os.environ.get("OMP_NUM_THREADS")

def look():
    return seen

if __name__ == "__main__":
    import sys
    os.environ["ION_EARLY"] = "parent's"
    for method in ("forkserver", "spawn"):
        with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
            print(pool.submit(look).result()[0])
        backend = ProcessBackend(
            start_method=method, preload=("early",), env={"ION_EARLY": "x", "OMP_NUM_THREADS": "7"}
        )
        with Pool(1, backend=backend) as pool:
            import early
            print(*pool.submit(look).result(), *pool.submit(early.look).result())
"""


def test_the_main_module_and_what_is_preloaded_see_it(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(EARLY.partition("if __name__")[0])
    found = run_source(tmp_path, EARLY, env={"ION_EARLY": "before"})
    assert found == "parent's\nx 7 x 7\n" * 2


# -- threads of native libraries ---------------------------------------------------------------


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith("_THREADS"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("without_threads")
def test_the_pool_shares_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ion_actors.workerpool.spec.available_cpus", lambda: 8)
    with Pool(3, backend="process") as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE) == "2"
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result(PATIENCE) == "2"


@pytest.mark.usefixtures("without_threads")
def test_it_need_not_and_a_child_has_one_thread_at_least() -> None:
    with Pool(1, backend=ProcessBackend(native_threads=None)) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE) is None
    assert ProcessBackend().among(100, 4).native_threads == 1
    assert ProcessBackend(native_threads=3).among(100, 4).native_threads == 3


@pytest.mark.usefixtures("without_threads")
def test_what_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment({}, 2)["MKL_NUM_THREADS"] == "2"
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    assert environment({}, 2)["MKL_NUM_THREADS"] == "5"
    found = environment({"OMP_NUM_THREADS": "4"}, 2)  # which OpenBLAS and others go by
    assert found["OMP_NUM_THREADS"] == "4"
    assert "OPENBLAS_NUM_THREADS" not in found
    assert found["NUMBA_NUM_THREADS"] == "2"
    assert not any(name.startswith("OMP_") for name in environment({}, None))


@pytest.mark.usefixtures("without_threads")
def test_a_pool_in_a_child_shares_what_the_child_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment({"MKL_NUM_THREADS": "5"}, 4).items():
        monkeypatch.setenv(name, value)  # as in a child
    inner = ProcessBackend().among(2, 8)
    assert inner.native_threads == 2
    found = environment({}, inner.native_threads)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("2", "5")
    assert "OMP_NUM_THREADS" not in environment({}, None)


@pytest.mark.parametrize("given", [0, -1, True, "all", 1.5])
def test_a_number_of_threads_that_makes_no_sense(given: object) -> None:
    with pytest.raises((TypeError, ValueError), match="native_threads"):
        ProcessBackend(native_threads=given)  # type: ignore[arg-type]


# -- standard streams that are closed ----------------------------------------------------------


@METHODS
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_what_is_printed_where_the_parent_has_no_stream_goes_nowhere(
    tmp_path: Path, method: str, closed: tuple[int, ...]
) -> None:
    found = tmp_path / "found"
    top = """
        def talk():
            for stream in (1, 2):
                os.write(stream, b"not for a channel\\n")
            return [os.readlink(f"/proc/self/fd/{stream}") for stream in range(3)]
    """
    main = f"""
        logging.disable()
        if 0 not in {closed}:
            os.dup2(os.open(os.devnull, os.O_WRONLY), {3 - closed[0]})
        for stream in {closed}:
            os.close(stream)  # the next descriptors get these numbers
        streams = set()
        with Pool(3, backend=ProcessBackend(start_method={method!r})) as pool:
            for one in [pool.submit(talk) for _ in range(12)]:
                streams.update(one.result())
            restarts = pool.metrics().restarts
        Path({str(found)!r}).write_text(f"{{streams}} {{restarts}}")
        for stream in {closed}:
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    """
    assert run(tmp_path, main, top=top) == ""
    assert found.read_text() == "{'/dev/null'} 0"
