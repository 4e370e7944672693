"""A program publishes itself to its own user, and to nobody else."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ion_actors
from ion_actors import Pool
from ion_actors.dashboard import publish, publisher, reader
from ion_actors.dashboard.directory import Directory
from ion_actors.dashboard.reader import Unreadable
from ion_actors.futures import Future
from tests.dashboard.programs import Running, running
from tests.workerpool.helpers import eventually

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no Unix sockets")

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs publish in this test, and in the programs that it starts."""
    found = tmp_path / "run"
    monkeypatch.setenv("ION_ACTORS_RUNTIME_DIR", str(found))
    return found


def ask(path: Path, request: bytes) -> Any:
    """The answer to a request of one's own; None if there is none."""
    with Directory(path.parent, os.geteuid()) as directory, socket.socket(socket.AF_UNIX) as mine:
        mine.settimeout(PATIENCE)
        mine.connect(directory.address(path.name))
        try:
            mine.sendall(request)
            with mine.makefile("rb") as answer:
                line = answer.readline()
        except (BrokenPipeError, ConnectionResetError):  # it has not even read the request
            return None
    return json.loads(line) if line else None


# -- what is published ---------------------------------------------------------------------


def test_a_process_can_be_read_while_it_is_published(place: Path, occupy: Occupy) -> None:
    with Pool(1, name="mine") as pool:
        occupy(pool)
        with publish() as published:
            assert published.path == place / f"{os.getpid()}.sock"
            found = reader.snapshot_of(os.getpid())
            (mine,) = [one for one in found["pools"] if one["name"] == "mine"]
            assert "in hold" in mine["workers"][0]["stack"]
            assert found["pid"] == os.getpid()
            (who,) = reader.everybody()
            assert (who["pid"], who["stuck"]) == (os.getpid(), 0)
            assert "mine" in who["pools"]
            without = reader.snapshot_of(os.getpid(), stacks=False)
            assert not any(worker["stack"] for one in without["pools"] for worker in one["workers"])
        assert list(place.iterdir()) == []
        assert reader.everybody() == []
        with pytest.raises(Unreadable, match="does not publish itself"):
            reader.snapshot_of(os.getpid())
        pool.close(0)


def test_it_is_published_until_the_last_handle_is_closed(place: Path) -> None:
    first, second = publish(), publish()
    first.close()
    first.close()
    assert [one["pid"] for one in reader.everybody()] == [os.getpid()]
    second.close()
    assert reader.everybody() == []
    with publish():
        assert len(reader.everybody()) == 1


def test_dead_letters_are_shown(place: Path, occupy: Occupy) -> None:
    with publish(), Pool(1, name="lossy") as pool:
        occupy(pool)
        pool.options(name="lost").submit(print, "the-secret-argument")
        pool.purge()
        assert pool.dead_letters.join(PATIENCE)
        found = reader.snapshot_of(os.getpid())
        letters = [one for pool in found["pools"] for one in pool["dead_letters"]]
        assert [one["name"] for one in letters] == ["lost"]
        assert "the-secret-argument" not in json.dumps(found)
        pool.close(0)


@pytest.mark.parametrize(
    "request_",
    [b"\n", b"[]\n", b"nonsense\n", b'{"what": "resize"}\n', b'{"what": ["snapshot"]}\n'],
)
def test_a_request_that_makes_no_sense_gets_an_answer(place: Path, request_: bytes) -> None:
    with publish() as published:
        assert "error" in ask(published.path, request_)
        assert "who" in ask(published.path, b'{"what": "who"}\n')


def test_a_reader_that_says_too_much_or_nothing_does_not_keep_others_waiting(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_PATIENCE", 0.2)
    with publish() as published:
        assert "error" in ask(published.path, b"x" * 10_000 + b"\n")
        with Directory(place, os.geteuid()) as directory:
            silent = socket.socket(socket.AF_UNIX)
            silent.connect(directory.address(published.path.name))
        assert "who" in ask(published.path, b'{"what": "who"}\n')
        silent.close()


def test_many_read_at_the_same_time(place: Path, threads: Any) -> None:
    with publish(), Pool(1, name="popular"):
        found = list(threads.map(lambda _: reader.snapshot_of(os.getpid()), range(20)))
    assert all("popular" in [pool["name"] for pool in one["pools"]] for one in found)


# -- who may read --------------------------------------------------------------------------


def test_the_directory_is_the_owners_only(place: Path) -> None:
    with publish():
        found = place.stat()
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == os.geteuid()


def test_a_directory_that_others_may_use_is_refused(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(PermissionError, match=r"is open to other users \(mode 0755\): chmod 700"):
        publish()
    assert list(place.iterdir()) == []
    assert reader.everybody() == []


def test_a_relative_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ION_ACTORS_RUNTIME_DIR", "run")
    with pytest.raises(OSError, match="must be an absolute path, not 'run'"):
        publish()


def test_a_symbolic_link_is_refused(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"run"):
        publish()
    assert list(elsewhere.iterdir()) == []


def test_a_directory_of_somebody_else_is_refused(place: Path) -> None:
    place.mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="belongs to the user"):
        Directory(place, os.geteuid() + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say who connects")
def test_another_user_is_turned_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with publish() as published:
        monkeypatch.setattr(publisher, "peer_of", lambda _: (1, os.geteuid() + 1))
        assert ask(published.path, b'{"what": "who"}\n') is None
        monkeypatch.setattr(publisher, "peer_of", lambda _: (1, 0))  # root
        assert "who" in ask(published.path, b'{"what": "who"}\n')


def test_a_socket_of_another_user_is_not_believed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publish():
        monkeypatch.setattr(reader, "peer_of", lambda _: (1, os.geteuid() + 1))
        with pytest.raises(Unreadable, match="is not what it says"):
            reader.snapshot_of(os.getpid())


def test_a_path_may_be_longer_than_the_kernel_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only by its descriptor a path can be that long")
    long = tmp_path / ("x" * 120)
    monkeypatch.setenv("ION_ACTORS_RUNTIME_DIR", str(long))
    with publish():
        assert reader.snapshot_of(os.getpid())["pid"] == os.getpid()


# -- what can go wrong ---------------------------------------------------------------------


def test_without_unix_sockets_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(OSError, match=r"needs Unix sockets.*use serve\(\)"):
        publish()


def test_without_a_thread_nothing_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            publish()
    assert list(place.iterdir()) == []
    with publish():
        assert len(reader.everybody()) == 1


def test_a_snapshot_that_fails_is_an_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    with publish():
        with monkeypatch.context() as patch:
            patch.setattr(publisher, "snapshot", fail)
            with pytest.raises(Unreadable, match="no snapshot could be made: ZeroDivisionError"):
                reader.snapshot_of(os.getpid())
        assert reader.snapshot_of(os.getpid())["pid"] == os.getpid()


def test_a_stale_socket_is_cleaned_up(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        assert [one["pid"] for one in reader.everybody()] == [program.pid]
        program.process.kill()
        program.process.wait()
        assert (place / f"{program.pid}.sock").exists()
        assert reader.everybody() == []
        assert not (place / f"{program.pid}.sock").exists()
        with pytest.raises(Unreadable, match=f"there is no process {program.pid}"):
            reader.snapshot_of(program.pid)


def test_a_process_that_is_stopped_is_one_clear_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PATIENCE", 0.2)
    with running(ION_ACTORS_PUBLISH="1") as program:
        program.process.send_signal(signal.SIGSTOP)
        try:
            os.waitpid(program.pid, os.WUNTRACED)  # until it has stopped
            with pytest.raises(Unreadable, match="does not answer: is it stopped"):
                reader.snapshot_of(program.pid)
            (found,) = reader.everybody()
            assert found["pid"] == program.pid
            assert "is it stopped" in found["error"]
        finally:
            program.process.send_signal(signal.SIGCONT)


# -- whole programs ------------------------------------------------------------------------


def test_the_environment_publishes_a_program_that_nobody_changed(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        found = reader.snapshot_of(program.pid)
        (pool,) = found["pools"]
        (stuck,) = pool["stuck"]
        assert (stuck["task"], stuck["worker"]) == ("send invoice 17", "mail-0")
        assert "in fetch_invoice" in stuck["stack"]
        assert "the-secret-argument" not in json.dumps(found)
        code, _, complaints = program.end()
        assert (code, complaints.count("Traceback")) == (0, 0)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_it_does_so_only_if_it_is_1(place: Path, value: str) -> None:
    unpublished = pytest.raises(Unreadable, match="does not publish itself")
    with running(ION_ACTORS_PUBLISH=value) as program, unpublished:
        reader.snapshot_of(program.pid)
    assert not place.exists()


def test_what_hinders_it_is_logged_and_the_program_goes_on(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)
    with running(ION_ACTORS_PUBLISH="1") as program:
        code, _, complaints = program.end()
    assert code == 0
    assert "this process cannot be published" in complaints
    assert "chmod 700" in complaints


def test_a_program_ends_with_a_handle_that_nobody_closed(place: Path) -> None:
    source = """
        import ion_actors
        from ion_actors.dashboard import publish
        publish()
        pool = ion_actors.Pool(1)
        print("ready", flush=True)
        pool.drain()
    """
    with running(source, PYTHONWARNINGS="error", PYTHONDEVMODE="1") as program:
        assert program.end() == (0, "", "")
    assert list(place.iterdir()) == []


# Newer versions of Python warn of a fork in a process with threads.
QUIETLY = {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"}

FORKS = """
    import os, sys, ion_actors
    from ion_actors.dashboard import reader

    pool = ion_actors.Pool(1, name="parent")
    child = os.fork()
    if child == 0:
        with ion_actors.Pool(1, name="child"):
            found = [(one["pid"] == os.getpid(), one["pools"]) for one in reader.everybody()]
            print(sorted(found), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print([one["pools"] for one in reader.everybody()], flush=True)
    print("ready", flush=True)
    pool.drain()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_publishes_itself_if_the_environment_says_so(place: Path) -> None:
    program = Running(FORKS, {"ION_ACTORS_PUBLISH": "1", **QUIETLY})
    code, said, complaints = program.end()
    assert (code, complaints) == (0, "")
    assert said.splitlines() == [
        "[(False, ['parent']), (True, ['child'])]",
        "[['parent']]",
        "ready",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_is_not_published_by_its_parents_handle(place: Path) -> None:
    source = FORKS.replace("pool = ", "ion_actors.dashboard.publish()\n    pool = ", 1)
    code, said, complaints = Running(source, QUIETLY).end()
    assert (code, complaints) == (0, "")
    assert said.splitlines() == ["[(False, ['parent'])]", "[['parent']]", "ready"]


def test_nothing_costs_while_nobody_reads(place: Path) -> None:
    """The thread sleeps: it takes no time of the processor."""
    with publish(), Pool(1) as pool:
        pool.submit(print).result(PATIENCE)
        (thread,) = [one for one in threading.enumerate() if one.name == "ion_actors-publish"]
        if not hasattr(time, "pthread_getcpuclockid"):
            pytest.skip("the time of a thread is not known")
        clock = time.pthread_getcpuclockid(thread.ident)  # type: ignore[arg-type]

        def rests() -> bool:
            before = time.clock_gettime(clock)
            threading.Event().wait(0.05)
            return time.clock_gettime(clock) == before

        eventually(rests)  # on a busy machine, it may still be on its way to where it sleeps


def test_the_name_is_not_the_module() -> None:
    assert callable(ion_actors.dashboard.publish)
    assert "publish" in dir(ion_actors.dashboard)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ion_actors.dashboard.nonsense  # type: ignore[attr-defined]
