"""What ``python -m ion_actors top`` shows, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ion_actors
from ion_actors import Pool
from ion_actors.circuit import CircuitBreaker
from ion_actors.dashboard import reader
from ion_actors.dashboard.letters import letters_kept
from ion_actors.dashboard.terminal import command, words
from ion_actors.dashboard.terminal.layout import as_text, laid_out
from ion_actors.dashboard.terminal.report import SORTS, View, report, summary, who_is_there
from ion_actors.futures import Future
from ion_actors.supervision import Supervisor, child
from tests.dashboard.programs import PATIENCE, ROOT, Running, running
from tests.dashboard.programs import command as run_command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no Unix sockets")

Occupy = Callable[[Pool], list[Future[Any]]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs publish in this test, and in the programs that it starts."""
    found = tmp_path / "run"
    monkeypatch.setenv("ION_ACTORS_RUNTIME_DIR", str(found))
    return found


def shown(facts: dict[str, Any], view: View | None = None) -> str:
    return as_text(laid_out(summary(facts), report(facts, view or View()), 200))


def facts_of(*names: str) -> dict[str, Any]:
    """A snapshot with these only: other tests may have left something that is not collected yet."""
    found = ion_actors.snapshot().as_dict()
    for kind, things in found.items():
        if isinstance(things, list):
            found[kind] = [one for one in things if one["name"] in names]
    return found


# -- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0, "0.0 s"), (-1.0, "0.0 s"), (9.94, "9.9 s"), (10.7, "10 s"), (59.9, "59 s"),
        (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (86399, "23 h 59 min"),
        (86400, "1 d 0 h"), (864000 + 7200, "10 d 2 h"),
    ],
)  # fmt: skip
def test_ages(seconds: float | None, text: str) -> None:
    assert words.age(seconds) == text


STACK = """\
  File "/srv/shop/invoices.py", line 12, in fetch
    reply = read(socket)
  File "/usr/lib/python3.12/socket.py", line 707, in readinto
    return self._sock.recv_into(b)
"""


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (STACK, "invoices.py:12 fetch > readinto"),
        ("".join(STACK.splitlines(keepends=True)[:2]), "invoices.py:12 fetch"),
        ("".join(STACK.splitlines(keepends=True)[2:]), "socket.py:707 readinto"),
        (
            STACK.replace("/usr/lib/python3.12/", "/usr/lib/python3.12/site-packages/"),
            "socket.py:707 readinto",
        ),
        (STACK.replace("/srv/shop/", "C:\\shop\\"), "invoices.py:12 fetch > readinto"),
        ("(child process 7 does not answer)\n", "(child process 7 does not answer)"),
        ("", ""),
    ],
)
def test_the_place_is_the_users_own_line(stack: str, text: str) -> None:
    assert words.place(stack) == text


# -- the report ----------------------------------------------------------------------------


def test_what_is_stuck_comes_first_and_the_rest_is_told(
    occupy: Occupy, gate: threading.Event
) -> None:
    with (
        letters_kept(),
        Supervisor([child(lambda: Pool(1, name="leaf"), id="leaf")], name="root"),
        Pool(1, 3, name="mail", stuck_after=1e-9) as mail,
        Pool(1, 1000, name="idle"),
    ):
        occupy(mail)
        mail.options(name="lost").submit(print)
        mail.purge()
        assert mail.dead_letters.join(PATIENCE)
        for number in range(3):
            mail.options(name=f"letter {number}", key="a").submit(print)
        breaker = CircuitBreaker("payments")
        breaker.trip()
        text = shown(facts_of("root", "leaf", "mail", "idle", "payments"))
        gate.set()
    head, *sections = text.split("\n\n")
    assert head.splitlines()[1] == "3 pools, 1 running, 3 queued, 1 stuck, 1 open circuit"
    titles = [one.splitlines()[0] for one in sections]
    assert titles == [
        "STUCK", "POOLS", "WAITING, the oldest first", "DEAD LETTERS, the newest first",
        "SUPERVISORS", "LIMITS",
    ]  # fmt: skip
    stuck, pools, waiting, letters, supervisors, limits = sections
    assert re.search(r"hold +0\.\d s +mail-0 +conftest.py:\d+ hold > wait", stuck)
    assert re.search(r"mail +running +1/1 +3/3 ", pools.splitlines()[2])  # trouble comes first
    assert re.search(r"letter 0 +0\.\d s +mail +'a'", waiting)
    assert re.search(r"lost +0\.\d s ago +mail +purged +TaskDropped: task 'lost'", letters)
    assert "└─ leaf" in supervisors
    assert re.search(r"breaker +payments +open +tries again in", limits)


def test_whole_stacks_and_all_rows_if_they_are_wanted(occupy: Occupy) -> None:
    with Pool(1, name="mail") as pool:
        occupy(pool)
        for number in range(30):
            pool.options(name=f"letter {number}").submit(print)
        facts = facts_of("mail")
        few, all_ = shown(facts), shown(facts, View(stacks=True))
        assert "letter 9" in few
        assert "letter 10" not in few
        assert "and 20 more" in few
        assert "in hold\n" not in few
        assert "letter 29" in all_
        assert re.search(r'File ".*conftest.py", line \d+, in hold\n', all_)
        pool.close(0)


def test_what_there_is_none_of_is_left_out() -> None:
    with Pool(1, name="alone"):
        head, pools = shown(facts_of("alone")).split("\n\n")
    assert head.splitlines()[1] == "1 pool, 0 running, 0 queued"
    assert pools.splitlines()[1].split() == [
        "POOL", "STATE", "BUSY", "QUEUED", "OLDEST", "LONGEST", "DONE",
    ]  # fmt: skip


def test_a_rate_is_what_was_done_between_two_snapshots() -> None:
    with Pool(1, name="quick") as pool:
        before = facts_of("quick")
        for _ in range(10):
            pool.submit(pow, 2, 3).result(PATIENCE)
        after = facts_of("quick")
        before["time"] = after["time"] - 5.0
        text = shown(after, View(before=before))
    assert "DONE/S" in text
    assert re.search(r"quick +running +0/1 .* 2\.0 +10", text)


def test_a_broken_pool_says_why() -> None:
    def fail() -> None:
        raise SystemExit("no more")

    ended = Pool(1, name="given up", panic_recovery=ion_actors.PanicRecovery(max_restarts=0))
    assert isinstance(ended.submit(fail).exception(PATIENCE), ion_actors.TaskPanicked)
    ended.close()
    text = shown(facts_of("given up"))
    assert "1 broken" in text
    assert re.search(r"given up +broken ", text)
    assert "    BrokenPool: " in text


@pytest.mark.parametrize("sort", SORTS)
def test_pools_can_be_sorted(sort: str, occupy: Occupy, gate: threading.Event) -> None:
    with Pool(1, name="a") as idle, Pool(1, name="b") as busy:
        occupy(busy)
        busy.submit(print)
        lines = shown(facts_of("a", "b"), View(sort=sort)).splitlines()
        names = [line.split()[0] for line in lines if line.startswith(("  a ", "  b "))]
        gate.set()
    assert names[:2] == (["a", "b"] if sort == "name" else ["b", "a"])
    assert idle.name == "a"


@given(
    name=st.text(max_size=80), error=st.text(max_size=80), width=st.integers(20, 250),
    stacks=st.booleans(),
)  # fmt: skip
def test_whatever_a_process_says_stays_in_its_place(
    name: str, error: str, width: int, stacks: bool
) -> None:
    """Also one that does not escape what it says: no text can move the cursor or begin a line."""
    worker = {
        "name": name, "state": "busy", "task": name, "task_id": "1", "age": 1.0,
        "interrupted": [name], "pid": None, "stack": f'  File "{name}", line 3, in {name}\n',
    }  # fmt: skip
    pool = {
        "name": name, "id": "@1", "state": "running", "paused": False, "broken": error,
        "queue_size": None, "queued": 1, "running": 1, "size": 1, "queue_time": 1.0,
        "run_time": 1.0, "completed": 1, "failed": 0, "panicked": 0, "rejected": 0, "restarts": 0,
        "dropped": {}, "workers": [worker],
        "waiting_tasks": [{
            "id": "2", "name": name, "age": 1.0, "key": name, "priority": 0, "due_in": None,
            "tries": 1, "error": error,
        }],
        "dead_letters": [{"id": "1", "name": name, "reason": name, "age": 1.0, "error": error}],
        "stuck": [{"worker": name, "task": name, "task_id": "1", "age": 1.0, "stack": error}],
    }  # fmt: skip
    facts = {
        "time": 2.0, "since": 1.0, "pid": 7, "program": name, "python": name, "version": name,
        "pools": [pool], "supervisors": [], "limiters": [], "semaphores": [], "adaptive": [],
        "breakers": [{
            "name": name, "state": name, "failed": 1, "succeeded": 1, "retry_after": None,
        }],
    }  # fmt: skip
    lines = laid_out(summary(facts), report(facts, View(stacks=stacks)), width)
    text = as_text(lines)
    assert len(text.splitlines()) == len(lines)
    assert all(line.isprintable() for line in text.split("\n"))
    titles = [one.title.text for one in report(facts)]
    assert titles[:3] == ["STUCK", "POOLS", "RUNNING"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_lines_fit_the_width_where_they_can(width: int, occupy: Occupy) -> None:
    with Pool(1, name="p" * 60) as pool:
        occupy(pool)
        pool.options(name="日本" * 60).submit(print)
        facts = facts_of(pool.name)
        pool.close(0)
    for one in report(facts):
        if one.title.text.startswith("WAITING"):
            lines = as_text(laid_out([], [one], width)).splitlines()
            assert all("…" in line for line in lines[2:])
            assert max(map(len, lines)) <= width


def test_who_is_there() -> None:
    found = [
        {"pid": 12, "program": "shop", "since": time.time() - 90, "pools": ["a", "b"], "stuck": 2},
        {"pid": 7, "error": "process 7 does not answer: is it stopped?"},
    ]
    lines = as_text(laid_out([], [who_is_there(found)], 200)).splitlines()
    assert lines[1].split() == ["12", "shop", "1", "min", "30", "s", "2", "stuck", "a,", "b"]
    assert lines[2].split(maxsplit=1) == ["7", "process 7 does not answer: is it stopped?"]


# -- the command ---------------------------------------------------------------------------


def test_a_program_is_seen_from_outside(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        listed = run_command("top")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert str(program.pid) in listed.stdout
        assert "1 stuck" in listed.stdout
        (one,) = json.loads(run_command("top", "--json").stdout)
        assert (one["pid"], one["pools"]) == (program.pid, ["mail"])

        once = run_command("top", "--once", str(program.pid))
        assert (once.returncode, once.stderr) == (0, "")
        assert re.search(
            r"send invoice 17 +[\d.]+ s +mail-0 +<string>:\d+ fetch_invoice", once.stdout
        )
        assert re.search(r"send invoice 18 .*'customer-7'", once.stdout)
        stacks = run_command("top", "--once", "--stacks", str(program.pid))
        assert "in fetch_invoice" in stacks.stdout

        as_json = run_command("top", "--json", str(program.pid))
        facts = json.loads(as_json.stdout)
        assert facts["pools"][0]["stuck"][0]["task"] == "send invoice 17"
        for done in (listed, once, stacks, as_json):
            assert "the-secret-argument" not in done.stdout


def test_not_on_a_terminal_it_is_printed_once(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        done = run_command("top", str(program.pid))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "STUCK" in done.stdout


def test_nobody_is_there(place: Path) -> None:
    done = run_command("top")
    assert done.returncode == 0
    assert done.stdout.startswith("No process of yours publishes itself.")
    assert json.loads(run_command("top", "--json").stdout) == []


def test_a_process_that_is_gone_is_one_clear_line(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        program.end()
        done = run_command("top", str(program.pid))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"ion_actors: there is no process {program.pid}\n"


def test_a_process_that_does_not_publish_itself_is_one_clear_line(place: Path) -> None:
    with running() as program:
        done = run_command("top", "--json", str(program.pid))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "does not publish itself: start it with ION_ACTORS_PUBLISH=1" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_of_somebody_else_is_one_clear_line(place: Path) -> None:
    program = f"""
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from ion_actors.dashboard.terminal.command import main
        main(["top", "--json"])  # what it imports may be out of reach later
        os.setgid(65534)
        os.setuid(65534)
        sys.exit(main(["top", "{os.getpid()}"]))
    """
    code, said, complaint = Running(program, {}).end()
    assert (code, said) == (1, "[]\n")
    assert complaint == f"ion_actors: process {os.getpid()} belongs to root\n"


@pytest.mark.parametrize(
    "arguments",
    [["top", "x"], ["top", "0"], ["top", "-3"], ["top", "7", "--interval", "0"],
     ["top", "--interval", "nan"], ["top", "1", "2"], ["nonsense"], ["top", "--nonsense"]],
)  # fmt: skip
def test_senseless_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "usage: " in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    assert "show what a running program does now" in capsys.readouterr().out
    for arguments, text in (["--help"], "COMMAND"), (["top", "--help"], "ION_ACTORS_PUBLISH=1"):
        with pytest.raises(SystemExit, match="0"):
            command.main(arguments)
        assert text in capsys.readouterr().out
    done = run_command("--version")
    assert (done.returncode, done.stdout) == (0, f"ion_actors {ion_actors.__version__}\n")


def test_windows_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        code = command.main(["top"])
    assert code == 1
    assert "Windows" in capsys.readouterr().err


def test_a_program_of_another_version_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"pid": 7, "version": "9.9\n", "pools": [{"name": "of the future"}]}
    monkeypatch.setattr(reader, "snapshot_of", lambda _: other)
    assert command.main(["top", "7", "--once"]) == 1
    assert capsys.readouterr().err == (
        "ion_actors: process 7 has ion_actors 9.9\\n, whose snapshots this version cannot show; "
        "use --json\n"
    )
    assert command.main(["top", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == other


def test_a_reader_that_goes_away_is_no_traceback(place: Path) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        unread, writer = os.pipe()
        os.close(unread)  # as `head` does
        done = subprocess.run(
            [sys.executable, "-m", "ion_actors", "top", "--json", str(program.pid)],
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# -- the live view -------------------------------------------------------------------------


# It takes the terminal for its own, so that Ctrl-C comes as a signal, and becomes the command.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "ion_actors", *sys.argv[1:]])
"""


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        self._fd, its = pty.openpty()
        usual = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LINES": "40"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *arguments],
            stdin=its, stdout=its, stderr=its, start_new_session=True,
            env={**os.environ, **usual, "COLUMNS": "120", **environ},
        )  # fmt: skip
        os.close(its)
        self.said = ""

    def await_text(self, text: str) -> None:
        """Wait until it shows that, after what was waited for before."""
        until = time.monotonic() + PATIENCE
        while text not in self.said:
            assert self._read(until), f"it never said {text!r}:\n{self.said}"
        self.said = self.said.partition(text)[2]

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> tuple[int, str]:
        """Wait for its end: the exit code, and what it has said since."""
        until = time.monotonic() + PATIENCE
        while self._read(until):
            continue
        return self._process.wait(PATIENCE), self.said

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        try:
            found = os.read(self._fd, 65536)
        except OSError:  # so Linux says that nobody is at the other end
            return False
        self.said += found.decode(errors="replace")
        return bool(found)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal(place: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*arguments: str, **environ: str) -> Terminal:
        opened.append(Terminal(*arguments, **environ))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_the_live_view_obeys_keys(terminal: Callable[..., Terminal]) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        view = terminal("top", str(program.pid), "--interval", "0.1")
        view.await_text("STUCK")
        view.await_text("fetch_invoice")
        view.await_text("sorted by trouble")
        view.press("s")
        view.await_text("sorted by name")
        view.press("e")
        view.await_text("in fetch_invoice")
        view.press("p")
        view.await_text("PAUSED")
        view.press("\x1b[B")
        view.press("p")
        view.await_text("p pause")
        view.press("q")
        code, said = view.end()
    assert (code, "Traceback" in said) == (0, False)


def test_ctrl_c_is_quiet(terminal: Callable[..., Terminal]) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        view = terminal("top", str(program.pid))
        view.await_text("STUCK")
        view.press("\x03")
        code, said = view.end()
    assert code == 0
    assert "Traceback" not in said
    assert "Keyboard" not in said


def test_the_view_ends_with_the_process(terminal: Callable[..., Terminal]) -> None:
    with running(ION_ACTORS_PUBLISH="1") as program:
        view = terminal("top", str(program.pid), "--interval", "0.1")
        view.await_text("STUCK")
        program.end()
        code, said = view.end()
    assert code == 1
    assert f"process {program.pid} has ended, or publishes itself no more" in said


def test_without_rich_one_line_says_what_to_install(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    hide = "import sys; sys.modules['rich'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    with running(ION_ACTORS_PUBLISH="1") as program:
        view = terminal("top", str(program.pid), PYTHONPATH=path)
        code, said = view.end()
        assert code == 1
        assert said.strip().startswith("ion_actors: the live view needs rich: pip install")
        assert "ion_actors[cli]" in said
        view = terminal("top", "--once", str(program.pid), PYTHONPATH=path)
        code, said = view.end()
        assert code == 0
        assert "STUCK" in said
        assert "\x1b" not in said
