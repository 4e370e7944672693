"""What becomes of the children at the end of their parent, whatever kind of end that is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workerpool.helpers import PATIENCE, eventually, is_alive

ROOT = Path(__file__).parents[3]

# A file of its own, since the children import it: `main` is what the tests add.
_PROGRAM = """
import os, signal, sys, threading, time, warnings
from pathlib import Path
from ion_actors import *
from tests.backends.process import errands

{main}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
"""


class Parent:
    """A program with a pool."""

    def __init__(self, folder: Path, main: str) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        source = folder / "program.py"
        source.write_text(_PROGRAM.format(main=main))
        self.process = subprocess.Popen(
            [sys.executable, source, self.marks],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pid(self, name: str) -> int:
        """Of the child that has begun with that mark."""
        mark = self.marks / name
        eventually(lambda: mark.exists() and mark.read_text())
        return int(mark.read_text())

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Parent]]:
    started: list[Parent] = []

    def start(main: str) -> Parent:
        started.append(Parent(tmp_path, main))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def in_session(leader: int) -> list[str]:
    """The processes that it has started, and those that they have, which run."""
    found = []
    for one in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, session = one.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(one.parent.name)
    return found


BUSY = """
def main(marks):
    with Pool(3, backend="process") as pool:
        pool.submit(errands.spin, marks / "spin")
        pool.submit(errands.spin_natively, marks / "native")
        pool.submit(errands.stubborn, marks / "stubborn")
        pool.submit(os.getpid).result()
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_they_end_when_it_is_killed(start: Callable[[str], Parent], method: str) -> None:
    parent = start(BUSY.replace('"process"', f"ProcessBackend(start_method={method!r})"))
    children = [parent.pid(name) for name in ("spin", "native", "stubborn")]
    assert {str(child) for child in children} < set(in_session(parent.process.pid))
    parent.process.kill()
    eventually(lambda: not any(map(is_alive, children)))
    # Nor do those that multiprocessing has, the forkserver and the tracker of resources.
    eventually(lambda: not in_session(parent.process.pid))


@pytest.mark.skipif(sys.platform != "linux", reason="what a process blocks is in /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_child_that_is_being_made_does_not_hear_it(
    start: Callable[[str], Parent], name: str
) -> None:
    parent = start(f"""
def main(marks):
    with Pool(1, backend="process") as pool:
        server = pool.submit(os.getppid).result()  # each child begins as its copy
        status = Path(f"/proc/{{server}}/status").read_text()
    words = dict(line.split(":") for line in status.splitlines())
    bit = signal.{name} - 1
    print(*(int(words[one], 16) >> bit & 1 for one in ("SigBlk", "SigIgn", "SigCgt")))
""")
    assert parent.end() == (0, "0 0 1\n", "")


def test_ctrl_c_is_for_the_parent_alone(start: Callable[[str], Parent]) -> None:
    parent = start("""
def main(marks):
    try:
        with Pool(2, backend="process") as pool:
            future = pool.submit(errands.heed_and_answer, marks / "heed")
            future.result()
    except KeyboardInterrupt:
        print(future.result())
        return 3
""")
    child = parent.pid("heed")
    os.killpg(parent.process.pid, signal.SIGINT)  # as a terminal does
    code, out, err = parent.end()
    assert (code, err) == (3, "")
    assert "was closed" in out
    eventually(lambda: not is_alive(child))


def test_what_a_service_manager_tells_all_processes_is_for_the_parent_to_decide(
    start: Callable[[str], Parent],
) -> None:
    parent = start("""
def main(marks):
    signal.signal(signal.SIGTERM, lambda *_: None)
    with Pool(2, backend="process") as pool, pool.drain_on_signal(signal.SIGTERM):
        futures = [pool.submit(errands.await_go, marks / str(n), marks / "go") for n in range(4)]
        errands.await_go(marks / "begun", marks / "drained")
        print([future.result() for future in futures], pool.metrics().restarts)
""")
    for name in ("0", "1", "begun"):
        parent.pid(name)
    os.killpg(parent.process.pid, signal.SIGTERM)
    (parent.marks / "go").touch()
    assert [parent.pid(name) > 0 for name in ("2", "3")]  # they begin when the others have ended
    (parent.marks / "drained").touch()
    assert parent.end() == (0, "['went', 'went', 'went', 'went'] 0\n", "")


def test_a_pool_that_nobody_closed_does_its_work_and_leaves_no_child(
    start: Callable[[str], Parent],
) -> None:
    parent = start("""
def main(marks):
    global pool
    warnings.simplefilter("ignore")
    pool = Pool(1, backend="process")
    pool.submit(errands.here, marks / "done")
""")
    code, out, err = parent.end()
    assert (code, out, err) == (0, "", "")
    child = parent.pid("done")
    assert not is_alive(child)


def test_a_task_that_never_ends_does_not_keep_the_interpreter(
    start: Callable[[str], Parent],
) -> None:
    parent = start("""
def main(marks):
    global pool
    warnings.simplefilter("ignore")
    pool = Pool(1, backend="process", drain_timeout=0.5)
    pool.submit(errands.stubborn, marks / "stubborn")
    while not (marks / "stubborn").exists():
        time.sleep(0.01)
""")
    child = parent.pid("stubborn")
    assert parent.end()[0] == 0
    eventually(lambda: not is_alive(child))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_without_a_guard_is_told_so_once(tmp_path: Path, method: str) -> None:
    source = tmp_path / "program.py"
    source.write_text(
        "from ion_actors import Pool, ProcessBackend\n"
        f"with Pool(4, backend=ProcessBackend(start_method={method!r})) as pool:\n"
        "    print(pool.submit(pow, 2, 3).result())\n"
    )
    found = subprocess.run(
        [sys.executable, source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert "BrokenPool" in found.stderr
    assert 'call that under `if __name__ == "__main__":`' in found.stderr
    assert found.stderr.count("Traceback") == 1
    assert len(found.stderr.splitlines()) < 20


def test_what_is_started_by_others_is_not_ended_for_lack_of_a_guard(tmp_path: Path) -> None:
    """Their own error is all that they hear."""
    source = tmp_path / "program.py"
    source.write_text(
        "import multiprocessing\n"
        "from ion_actors import Pool\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    print(child.exitcode)\n"
        "else:\n"
        "    with Pool(1, backend='process') as pool:\n"
        "        pool.submit(pow, 2, 3).result()\n"
    )
    found = subprocess.run(
        [sys.executable, source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "1\n")
    assert "BrokenPool" in found.stderr


@pytest.mark.parametrize("task", ["spin", "spin_natively"])
@pytest.mark.parametrize("early", [False, True])
def test_a_fork_of_the_parent_does_not_keep_the_children(
    start: Callable[[str], Parent], task: str, early: bool
) -> None:
    fork = """
        if not os.fork():
            (marks / "fork").write_text(str(os.getpid()))
            time.sleep(600)
"""
    begun = f"""
        pool.submit(errands.{task}, marks / "busy")
        errands.await_go(marks / "waits", marks / "busy")
"""
    # Early: while the child is being made.
    parent = start(f"""
def main(marks):
    with Pool(1, backend="process") as pool:
{fork + begun if early else begun + fork}
        (marks / "done").write_text("0")
        pool.submit(os.getpid).result()
""")
    child, grandchild = parent.pid("busy"), parent.pid("fork")
    parent.pid("done")
    parent.process.kill()
    eventually(lambda: not is_alive(child))
    os.kill(grandchild, signal.SIGKILL)


def test_a_fork_of_the_parent_can_have_children_of_its_own(start: Callable[[str], Parent]) -> None:
    parent = start("""
def main(marks):
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks of programs with threads
    with Pool(1, backend="process") as pool:
        pool.submit(os.getpid).result()
    if not (fork := os.fork()):
        with Pool(1, backend="process") as pool:
            assert pool.submit(os.getppid).result() != os.getppid()
            assert pool.submit(pow, 2, 3).result() == 8
        os._exit(7)
    with Pool(1, backend="process") as pool:
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), pool.submit(pow, 2, 3).result())
""")
    assert parent.end() == (0, "7 8\n", "")
