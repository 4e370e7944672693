"""How a child begins and ends: what it imports from where, and what is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ion_actors import BrokenPool, Pool, ProcessBackend, TaskPanicked, WorkerDied
from ion_actors.backends.process.child import last_words
from ion_actors.backends.process.child.last_words import LastWords
from ion_actors.backends.process.parent import forkserver
from tests.backends.process import errands
from tests.backends.process.programs import ROOT, run
from tests.workerpool.helpers import PATIENCE, eventually

METHODS = pytest.mark.parametrize("method", ["forkserver", "spawn"])

pytestmark = pytest.mark.usefixtures("no_child_is_left")


# -- where it searches for modules -------------------------------------------------------------

# All that a helper may look for; each one writes down that it was found.
_HOSTILE = (
    "ast", "atexit", "cloudpickle", "collections", "ctypes", "encodings", "fcntl", "importlib",
    "inspect", "io", "ion_actors", "json", "logging", "marshal", "multiprocessing", "numpy",
    "opentelemetry", "os", "pickle", "pkgutil", "pykka", "random", "resource", "runpy", "select",
    "signal", "site",
    "socket", "struct", "subprocess", "tempfile", "threading", "types", "typing_extensions",
    "usercustomize", "warnings", "weakref", "sitecustomize", "_posixshmem", "_multiprocessing",
)  # fmt: skip


@METHODS
def test_nothing_is_imported_from_the_current_directory(tmp_path: Path, method: str) -> None:
    safe, foreign, found = tmp_path / "safe", tmp_path / "foreign", tmp_path / "found"
    safe.mkdir()
    foreign.mkdir()
    for name in _HOSTILE:
        line = f"open({str(found)!r}, 'a').write({name!r} + ' ')\nraise ImportError\n"
        (foreign / f"{name}.py").write_text(line)
    main = f"""
        import json, random  # so that the parent has them
        with Pool(1, backend=ProcessBackend(start_method={method!r})) as pool:
            child = pool.submit(path).result()
        from multiprocessing import resource_tracker
        print(child == sys.path, resource_tracker._resource_tracker._pid is not None)
    """
    top = "def path():\n    return sys.path\n"
    assert run(safe, main, top=top, cwd=foreign) == "True True\n"
    assert not found.exists(), found.read_text()


@METHODS
def test_its_path_is_its_parents(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = ["/nowhere", Path("/a/path"), b"bytes"]  # imports go by strings only
    monkeypatch.setattr(sys, "path", [*entries, *sys.path, ""])
    with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
        assert pool.submit(errands.path).result(PATIENCE) == sys.path


# -- what is its own ---------------------------------------------------------------------------

# Each of three tasks waits for the others, so that each worker has one.
MEET = """
def meet(place):
    os.makedirs(place, exist_ok=True)
    open(os.path.join(place, str(os.getpid())), "x").close()
    while len(os.listdir(place)) < 3:
        time.sleep(0.001)
"""

DRAW = (
    MEET
    + """
import random
import numbers_of_all

def draw(place):
    meet(place)
    return os.getpid(), random.random(), numbers_of_all.random.random()

DATA = open(__file__, "rb", buffering=0)

def move(n, place):
    DATA.seek(n)
    meet(place)
    return DATA.tell() - n
"""
)


@METHODS
def test_random_numbers_and_open_files_of_the_main_module(tmp_path: Path, method: str) -> None:
    (tmp_path / "numbers_of_all.py").write_text("from random import Random\nrandom = Random(0)\n")
    main = f"""
        with Pool(3, backend=ProcessBackend(start_method={method!r})) as pool:
            drawn = {{pid: number for pid, number, _ in pool.map(draw, ["drawn"] * 3)}}
            moved = list(pool.map(move, range(1, 4), ["moved"] * 3))
        print(len(set(drawn.values())) == len(drawn) == 3, moved)
    """
    assert run(tmp_path, main, top=DRAW) == "True [0, 0, 0]\n"


def test_random_numbers_of_numpy_that_is_preloaded(tmp_path: Path) -> None:
    package = tmp_path / "numpy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "random.py").write_text(
        "from random import Random\n_state = Random(0)\nrand, seed = _state.random, _state.seed\n"
    )
    main = """
        with Pool(3, backend=ProcessBackend(preload=("numpy.random",))) as pool:
            drawn = dict(pool.map(draw, ["drawn"] * 3))
        print(len(set(drawn.values())) == len(drawn) == 3)
    """
    top = (
        MEET
        + """
def draw(place):
    import numpy.random
    meet(place)
    return os.getpid(), numpy.random.rand()
"""
    )
    assert run(tmp_path, main, top=top) == "True\n"


@METHODS
def test_nothing_that_is_not_in_order_is_seen_by_the_development_mode(
    tmp_path: Path, method: str
) -> None:
    main = f"""
        with Pool(2, backend=ProcessBackend(start_method={method!r})) as pool:
            print(pool.submit(pow, 2, 3).result())
    """
    assert run(tmp_path, main, "-X", "dev") == "8\n"


def test_the_forkserver_does_not_import_the_main_module(tmp_path: Path) -> None:
    main = """
        with Pool(2, backend="process") as pool:
            print(pool.submit(server).result() == pool.submit(importer).result())
            print(pool.submit(importer).result() == os.getpid())
    """
    top = """
        IMPORTER = os.getpid()
        def importer():
            return IMPORTER
        def server():
            return os.getppid()
    """
    assert run(tmp_path, main, top=top) == "False\nFalse\n"


@METHODS
def test_a_child_that_can_have_no_second_thread_is_want_of_room(
    tmp_path: Path, method: str
) -> None:
    top = f"""
        import _thread
        first = Path({str(tmp_path / "first")!r})
        if __name__ == "__mp_main__":
            def no_more(*_):
                raise RuntimeError("can't start new thread")
            try:
                first.touch(exist_ok=False)
            except FileExistsError:
                _thread.start_new_thread = no_more
    """
    main = f"""
        logging.disable()
        recovery = PanicRecovery(backoff=Backoff(initial=0.01, maximum=0.01, retries=2))
        with Pool(
            2,
            backend=ProcessBackend(start_method={method!r}),
            initializer=abs,
            initargs=(1,),
            panic_recovery=recovery,
        ) as pool:
            while pool.state == "running" and pool.metrics().restarts < 6:
                time.sleep(0.01)
            print(pool.submit(pow, 2, 3).result())
    """
    assert run(tmp_path, main, top=top) == "8\n"


# -- its end -----------------------------------------------------------------------------------


@METHODS
def test_what_was_registered_for_its_end_is_called(tmp_path: Path, method: str) -> None:
    mark = tmp_path / "mark"
    with Pool(
        1,
        backend=ProcessBackend(start_method=method),
        initializer=errands.register_for_the_end,
        initargs=(mark,),
    ) as pool:
        folder = pool.submit(errands.temporary_folder).result(PATIENCE)
        assert folder.exists()
    assert sorted(mark.read_text().split()) == ["atexit", "finalizer"]
    assert not folder.exists()


@METHODS
def test_also_if_it_has_done_its_share(tmp_path: Path, method: str) -> None:
    mark = tmp_path / "mark"
    backend = ProcessBackend(start_method=method, max_tasks_per_child=1)
    with Pool(1, backend=backend) as pool:
        pool.submit(errands.register_for_the_end, mark).result(PATIENCE)
        eventually(lambda: mark.exists() and len(mark.read_text().split()) == 2)


@METHODS
def test_what_fails_or_never_returns_there_does_not_keep_the_pool(
    tmp_path: Path, method: str
) -> None:
    mark = tmp_path / "mark"
    pool = Pool(1, backend=ProcessBackend(start_method=method, grace=0.3))
    pool.submit(errands.never_end, mark).result(PATIENCE)
    began = time.monotonic()
    pool.close(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    assert mark.read_text() == "called"  # after one that has raised


def test_a_temporary_folder_of_a_preloaded_module_outlives_the_children(tmp_path: Path) -> None:
    (tmp_path / "folders.py").write_text(
        "import atexit, sys, tempfile\n"
        "held = tempfile.TemporaryDirectory()\n"
        "atexit.register(print, 'called', file=sys.stdout)\n"
    )
    main = """
        with Pool(1, backend=ProcessBackend(preload=("folders",), max_tasks_per_child=1)) as pool:
            folders = {pool.submit(folder).result() for _ in range(3)}
        print(len(folders), all(exists for _, exists in folders))
        [(name, _)] = folders
    """
    top = """
        def folder():
            import folders
            return folders.held.name, os.path.exists(folders.held.name)
    """
    lines = run(tmp_path, main, top=top).splitlines()
    assert lines.count("called") >= 3
    assert "1 True" in lines


# -- its last words ----------------------------------------------------------------------------


def test_a_crash_among_many_threads_says_the_cause_and_the_place() -> None:
    with Pool(1, backend="process") as pool, pytest.raises(TaskPanicked) as panicked:
        pool.submit(errands.crash_among_threads, 60).result(PATIENCE)
    died = panicked.value.__cause__
    assert isinstance(died, WorkerDied)
    assert died.last_words.startswith("Fatal Python error: Segmentation fault\n")
    assert "in crash_among_threads" in died.last_words
    assert len(died.last_words) < 10_000


def test_without_a_place_for_files_the_last_words_come_by_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(last_words, "nameless_file", _no_place)
    words = LastWords()
    assert words.read() == ""
    os.write(words.fileno(), b"farewell")
    assert words.read() == "farewell"
    words.close()
    words.close()


def _no_place(label: str) -> int:
    raise last_words.NoPlace(label)


# -- odd places --------------------------------------------------------------------------------

WITHOUT = {
    "no memfd_create": "del os.memfd_create",
    "memfd_create is not known": "os.memfd_create = not_known",
    "memfd_create is forbidden": "os.memfd_create = forbidden",
    "nor a folder": "os.memfd_create = forbidden; tempfile.TemporaryFile = not_found",
}


@pytest.mark.parametrize("how", WITHOUT)
def test_without_memory_that_has_no_name(tmp_path: Path, how: str) -> None:
    top = f"""
        import ctypes, errno, tempfile
        def not_known(*_): raise OSError(errno.ENOSYS, "not known")
        def forbidden(*_): raise OSError(errno.EPERM, "forbidden")
        def not_found(*_, **__): raise FileNotFoundError("no usable folder")
        {WITHOUT[how]}
    """
    main = """
        with Pool(1, backend="process") as pool:
            print(len(pool.submit(bytes, 1_000_000).result()))
            logging.disable()
            words = pool.submit(ctypes.string_at, 0).exception().__cause__.last_words
            print(words.splitlines()[0])
    """
    assert run(tmp_path, main, top=top) == "1000000\nFatal Python error: Segmentation fault\n"


@pytest.mark.parametrize("folder", ["x" * 200, "is/not/there"])
def test_a_folder_for_temporary_files_that_no_socket_can_be_in(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "/" not in folder:
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    main = """
        with Pool(1, backend="process") as pool:
            print(pool.submit(pow, 2, 3).result())
    """
    assert run(tmp_path, main) == "8\n"


def test_without_a_place_output_cannot_be_captured_and_the_error_says_so(tmp_path: Path) -> None:
    main = """
        logging.disable()
        try:
            with Pool(1, backend=ProcessBackend(capture_output=True)) as pool:
                pool.submit(print).result()
        except BrokenPool as error:
            print(error)
    """
    top = """
        import tempfile
        def not_found(*_, **__): raise FileNotFoundError("no usable folder")
        tempfile.TemporaryFile = not_found
        del os.memfd_create
    """
    assert "capture_output is not possible" in run(tmp_path, main, top=top)


@pytest.mark.parametrize(
    "debugger", ["-m pdb -c continue -c quit", "-m cProfile", "-m trace --count -C cover"]
)
def test_a_debuggers_main_module(tmp_path: Path, debugger: str) -> None:
    (tmp_path / "program.py").write_text(
        "from ion_actors import Pool\n"
        "def square(number):\n"
        "    return number * number\n"
        "if __name__ == '__main__':\n"
        "    with Pool(1, backend='process') as pool:\n"
        "        print('result', pool.submit(square, 7).result())\n"
    )
    found = subprocess.run(
        [sys.executable, *debugger.split(), "program.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "result 49\n" in found.stdout
    assert "Error" not in found.stderr


@METHODS
def test_a_main_module_that_cannot_be_imported_is_one_error(tmp_path: Path, method: str) -> None:
    main = f"""
        try:
            with Pool(2, backend=ProcessBackend(start_method={method!r})) as pool:
                pool.submit(pow, 2, 3).result()
        except BrokenPool as error:
            print(error)
    """
    top = """
        logging.disable()
        if __name__ != "__main__":
            sys.exit("not for children")
    """
    words = run(tmp_path, main, top=top)
    assert "the main module of this program cannot be imported by a child process" in words
    assert "it raised SystemExit" in words


def test_without_an_interpreter_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import spawn

    forkserver.close_all()
    for executable, words in (
        (b"", "sys.executable is empty"),
        (b"/no/python", "No such file or directory"),
        (b"/bin/false", "exited with code 1 before it had forked a child"),
    ):
        monkeypatch.setattr(spawn, "_python_exe", executable)
        pool = Pool(1, backend="process")
        with pytest.raises(BrokenPool, match=words):
            pool.submit(pow, 2, 3).result(PATIENCE)
        pool.close()


# -- the forkserver ----------------------------------------------------------------------------


def test_a_forkserver_that_is_killed_is_replaced() -> None:
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=1)) as pool:
        server = pool.submit(os.getppid).result(PATIENCE)
        os.kill(server, signal.SIGKILL)
        servers = {pool.submit(os.getppid).result(PATIENCE) for _ in range(4)}
    assert len(servers - {server}) >= 1


def test_each_combination_of_modules_has_its_own_and_they_are_bounded() -> None:
    servers = set()
    for name in ("json", "csv", "cmd", "ast", "sched", "queue"):
        with Pool(1, backend=ProcessBackend(preload=(name,))) as pool:
            servers.add(pool.submit(os.getppid).result(PATIENCE))
    assert len(servers) == 6
    eventually(lambda: sum(map(_runs, servers)) <= 4)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_module_that_ends_the_forkserver_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)\n")
    main = """
        logging.disable()
        try:
            with Pool(2, backend=ProcessBackend(preload=("deadly",))) as pool:
                pool.submit(pow, 2, 3).result()
        except BrokenPool as error:
            print(error)
    """
    assert "the forkserver exited with code 3" in run(tmp_path, main)


# -- privileges --------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can drop")
@METHODS
def test_a_child_that_may_not_be_signalled_any_more_is_ended(method: str) -> None:
    main = f"""
        backend = ProcessBackend(start_method={method!r}, grace=0.1, kill_after=0.1)
        pool = Pool(1, backend=backend, drain_timeout=5)
        pid = pool.submit(os.getpid).result()
        other = Pool(1, backend=backend, drain_timeout=5)
        other.submit(os.getpid).result()
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            pool.options(timeout=0.2).submit(stubborn).result(20)
        except DeadlineExceeded:
            print("stopped")
        if {method!r} == "forkserver":
            print(pool.submit(os.getuid).result(20))
        began = time.monotonic()
        pool.close(3)
        other.close(3)
        print(time.monotonic() - began < 2.5)
        while Path(f"/proc/{{pid}}").exists():
            time.sleep(0.01)
    """
    top = """
        logging.disable()
        def stubborn():
            while True:
                try:
                    while True:
                        time.sleep(0.1)
                except BaseException:
                    pass
    """
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is root's alone
        Path(folder).chmod(0o755)
        # Unmeasured: as nobody, it may not write where the tests were started.
        lines = run(Path(folder), main, top=top, measured=False).split()
    assert lines == ["stopped", *(["65534"] if method == "forkserver" else []), "True"]


# -- in a process of somebody else's -----------------------------------------------------------


@METHODS
def test_the_key_of_a_process_may_be_of_a_foreign_kind(tmp_path: Path, method: str) -> None:
    """As in the processes of Celery, which come from billiard: its keys cannot be pickled."""
    main = f"""
        import multiprocessing
        multiprocessing.current_process()._config.update(authkey=Foreign(b"key"), daemon=True)
        with Pool(1, backend=ProcessBackend(start_method={method!r})) as pool:
            print(pool.submit(key).result())
    """
    top = """
        import multiprocessing
        class Foreign(bytes):
            def __reduce__(self):
                raise TypeError("not to be pickled")
        def key():
            return bytes(multiprocessing.current_process().authkey)
    """
    assert run(tmp_path, main, top=top) == "b'key'\n"
