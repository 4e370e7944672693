"""What the tests have done in child processes; a child can only import it by name."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import contextvars
import ctypes
import dataclasses
import importlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import util
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

from ion_actors import Context, Pool, current_context, report_progress

FOREVER = 600.0


def pid(*_: object) -> int:
    return os.getpid()


def echo(value: object) -> object:
    return value


def segfault() -> object:
    return ctypes.string_at(0)


def leave(code: int) -> None:
    os._exit(code)


def kill_self(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(FOREVER)


def fail(error: BaseException) -> NoReturn:
    raise error


def fail_for_a_reason() -> NoReturn:
    try:
        raise KeyError("lost")
    except KeyError as error:
        raise RuntimeError("no luck") from error


def remaining_of(context: Context) -> float | None:
    return context.remaining()


def note(folder: Path, *_: object) -> None:
    """Leave a file that says that this was called."""
    os.close(tempfile.mkstemp(dir=folder)[0])


def here(mark: Path) -> None:
    """Say that the task has begun."""
    mark.write_text(str(os.getpid()))


def spin(mark: Path) -> None:
    here(mark)
    while True:
        pass


def spin_natively(mark: Path) -> None:
    """Never let go of the interpreter's lock, nor hear a signal."""
    here(mark)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.PyDLL(None).sleep(600)


def nap(mark: Path) -> None:
    """Sleep, and say so if the sleep is broken off in an orderly way."""
    here(mark)
    try:
        time.sleep(FOREVER)
    finally:
        mark.with_suffix(".finally").touch()


def stubborn(mark: Path) -> None:
    """Hold on for dear life."""
    while True:
        try:
            here(mark)
            time.sleep(FOREVER)
        except BaseException:
            mark.with_suffix(".asked").touch()


def await_go(mark: Path, go: Path) -> str:
    """Wait until there is such a file."""
    here(mark)
    while not go.exists():
        time.sleep(0.005)
    return "went"


def heed(mark: Path) -> None:
    """Wait for the end of its context."""
    here(mark)
    current_context().sleep(FOREVER)


def linger(duration: float) -> None:
    """Be busy for so many seconds more once it has reported, and its context has ended."""
    report_progress(0.5)
    current_context().wait()
    until = time.perf_counter() + duration
    while time.perf_counter() < until:
        pass


def heed_and_answer(mark: Path) -> str | None:
    here(mark)
    current_context().wait()
    return current_context().reason


async def heed_in_coroutine(mark: Path) -> None:
    here(mark)
    try:
        await asyncio.sleep(FOREVER)
    finally:
        mark.with_suffix(".finally").touch()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def remaining() -> float | None:
    return current_context().remaining()


def remaining_later(delay: float) -> float | None:
    """Whoever asks late has less time left."""
    time.sleep(delay)
    return current_context().remaining()


def stop_answering(mark: Path) -> None:
    here(mark)
    os.kill(os.getpid(), signal.SIGSTOP)


def stop(pid: int) -> None:
    """Have a process stand still, with all its threads."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while not all(") T " in (one / "stat").read_text() for one in threads.iterdir()):
        time.sleep(0.001)


def hear_ctrl_c() -> tuple[bool, bool]:
    """Whether nothing comes of it, and whether this is the thread that would hear it."""
    os.kill(os.getpid(), signal.SIGINT)
    unheard = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return unheard, threading.current_thread() is threading.main_thread()


def leave_a_thread() -> str:
    """Which would keep an interpreter from ending."""
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    return "left"


def fork_unseen() -> int:
    """As a library in C does: nobody is told."""
    found: int = ctypes.PyDLL(None).fork()
    return found


def fork_and_return(mark: Path) -> int:
    """Both return: only one of them is the child that was asked."""
    if found := fork_unseen():
        os.waitpid(found, 0)
        return found
    here(mark)
    return 0


def fork_and_die(mark: Path) -> None:
    """A process that lives on has the child's end of everything open."""
    if not fork_unseen():
        here(mark)
        while mark.exists():
            time.sleep(0.01)
        os._exit(0)
    while not mark.exists():
        time.sleep(0.01)
    os._exit(7)


def write_to_all_descriptors() -> None:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"x" * 64)
        except OSError:
            continue
    time.sleep(FOREVER)


def close_all_descriptors() -> None:
    os.closerange(3, 64)
    time.sleep(FOREVER)


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def squares_in_a_pool(backend: str) -> list[int]:
    with Pool(2, backend=backend) as pool:
        return list(pool.map(_square, range(5)))


def _square(number: int) -> int:
    return number * number


def getenv(name: str) -> str | None:
    return os.environ.get(name)


def niceness() -> int:
    return os.nice(0)


_held: list[bytes] = []


def hold(size: int) -> int:
    _held.append(b"x" * size)
    return os.getpid()


_place: list[object] = []


def settle(value: object) -> None:
    """An initializer."""
    _place.append(value)


def settled() -> list[object]:
    return _place


def fail_to_settle(mark: Path) -> None:
    """An initializer that fails twice, and then no more."""
    with mark.open("a") as file:
        file.write("x")
    if len(mark.read_text()) <= 2:
        raise OSError("not yet")


def wait_for_ever() -> None:
    time.sleep(FOREVER)


def run_a_program() -> str:
    """Which must not inherit anything of the pool's."""
    found = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
    )
    return found.stdout


number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


def get_number() -> int:
    return number.get()


def set_number(value: int) -> int:
    number.set(value)
    return number.get()


def log(words: str) -> None:
    logging.getLogger("errands").warning(words)


def log_in_a_thread(words: str) -> None:
    """After the task's end."""
    threading.Timer(0.05, log, (words,)).start()


def log_for_ever(mark: Path) -> None:
    with _unmeasured():
        here(mark)
        while True:
            log("x" * 1000)


@contextlib.contextmanager
def _unmeasured() -> Iterator[None]:
    """For what is interrupted in the midst of the library's own code, at any point.

    The tracer of coverage takes a lock by a function in Python. What a signal raises in there
    leaves it locked, and the process waits for it for ever.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


def warn(words: str) -> None:
    warnings.warn(words, stacklevel=1)


def progress(mark: Path) -> None:
    report_progress(0.5, "half of it")
    here(mark)
    current_context().wait()


def nap_with_a_callback_that_blocks(mark: Path) -> None:
    current_context().add_callback(lambda: time.sleep(FOREVER))
    nap(mark)


class Endless:
    """Its destructor never returns."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __del__(self) -> None:
        here(self.mark)
        while True:
            pass


def nap_after_a_destructor(mark: Path) -> None:
    """Be in a destructor, where an exception goes nowhere, and then sleep."""
    try:
        Endless(mark)
        time.sleep(FOREVER)
    finally:
        mark.with_suffix(".finally").touch()


def nap_after_a_destructor_with_a_quick_signal(mark: Path) -> None:
    """The same, but the next signal comes while the lost exception is being looked at."""
    start = _thread.start_new_thread

    def at_once(fn: Callable[..., object], args: tuple[object, ...]) -> None:
        _thread.start_new_thread = start
        fn(*args)

    _thread.start_new_thread = at_once  # type: ignore[assignment]
    nap_after_a_destructor(mark)


def import_slowly(folder: Path, mark: Path) -> None:
    """Import a module that takes for ever."""
    source = f"import time, pathlib\npathlib.Path({str(mark)!r}).touch()\ntime.sleep(600)\n"
    (folder / "takes_for_ever.py").write_text(source)
    sys.path.insert(0, str(folder))
    importlib.import_module("takes_for_ever")


def wait_from_the_second_time_on(mark: Path) -> None:
    if mark.exists():
        time.sleep(FOREVER)
    here(mark)


async def end_late_in_the_loop(mark: Path) -> None:
    """End in a way that lets the signal find the loop between its last two steps."""
    loop = asyncio.get_running_loop()

    def wait_in_the_loop() -> None:
        del loop.__dict__["_run_once"]
        here(mark)
        until = time.perf_counter() + FOREVER
        while time.perf_counter() < until:
            pass

    loop._run_once = wait_in_the_loop  # type: ignore[attr-defined]


def zeros(size: int) -> Any:
    import numpy as np

    return np.zeros(size, dtype=np.uint8)


def shelved() -> int:
    """Bytes of memory that this process shares with its parent."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of this very look
            if str(one.readlink()).startswith("/memfd:ion_actors "):
                found += one.stat().st_blocks
    return 512 * found


def fork_and_return_array(size: int, mark: Path, go: Path) -> Any:
    """The fork returns another one, when it may."""
    if os.fork():
        return zeros(size) + 1
    await_go(mark, go)
    return zeros(size) + 2


def fork_with(_: object) -> int:
    if not (found := os.fork()):
        os._exit(0)
    os.waitpid(found, 0)
    return os.getpid()


def fork_while_others_log(mark: Path) -> None:
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            log("y" * 20_000)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        for _ in range(20):
            if not (found := os.fork()):
                sys.stderr = mark.open("a")
                logging.getLogger("errands").error("from the fork")
                sys.stderr.flush()
                os._exit(0)
            os.waitpid(found, 0)
    finally:
        stop.set()
        talking.join()


def terminate_a_fork() -> int:
    here, there = os.pipe()
    if not (found := os.fork()):
        os.write(there, b".")
        time.sleep(FOREVER)
    os.read(here, 1)  # a signal that comes before it is quite there would be lost
    os.kill(found, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(found, 0)[1])


def fork_and_log(mark: Path) -> None:
    if found := os.fork():
        os.waitpid(found, 0)
        return
    for _ in range(100):
        log("from nowhere")
    here(mark)
    os._exit(0)


class Unwelcome:
    """Cannot be rebuilt in a child."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> Unwelcome:
    if os.getpid() != pid:
        raise SystemExit("not in here")
    return Unwelcome()


def make_unwelcome() -> object:
    return Unwelcome()


def deep(levels: int) -> object:
    found: list[object] = []
    for _ in range(levels):
        found = [found]
    return found


def say(words: str) -> None:
    print(words)
    print(words.upper(), file=sys.stderr)


def say_and_die(words: str) -> None:
    say(words)
    os._exit(7)


def say_and_fail(words: str) -> None:
    say(words)
    raise ValueError(words)


class Slow:
    """Takes its time to be pickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        here(self.mark)
        time.sleep(FOREVER)
        return Slow, (self.mark,)


def make_slow(mark: Path) -> Slow:
    return Slow(mark)


def log_in_a_signal_handler() -> int:
    """In the midst of other messages, too."""
    caught = []

    def handler(*_: object) -> None:
        caught.append(1)
        log("from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    try:
        while len(caught) < 50:
            log("x" * 1_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return len(caught)


def surroundings() -> dict[str, Any]:
    """What this process has from its parent."""
    mask = os.umask(0)
    os.umask(mask)
    try:
        folder: str | None = str(Path.cwd())
    except FileNotFoundError:
        folder = None
    return {
        "env": dict(os.environ),
        "zone": time.tzname[0],
        "umask": mask,
        "cpus": os.sched_getaffinity(0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "folder": folder,
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    }


def dispositions_of_a_program() -> dict[str, set[int]]:
    """The signals that a program blocks and ignores from its first moment on."""
    found = subprocess.run(
        ["cat", "/proc/self/status"], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = dict(line.split(":") for line in found.stdout.splitlines())
    return {
        name: {bit + 1 for bit in range(64) if int(lines[name], 16) >> bit & 1}
        for name in ("SigBlk", "SigIgn")
    }


def interrupt_a_program() -> int:
    """The return code of a program that gets Ctrl-C."""
    with subprocess.Popen(["sleep", str(FOREVER)]) as program:
        program.send_signal(signal.SIGINT)
        return program.wait()


def handlers_of_a_fork() -> list[str]:
    """Of some signals, in a process that this one forks."""
    reading, writing = os.pipe()
    if not os.fork():
        signums = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
        found = [signal.getsignal(signum) for signum in signums]
        os.write(writing, " ".join(getattr(one, "__name__", "SIG_DFL") for one in found).encode())
        os._exit(0)
    os.wait()
    return os.read(reading, 1000).decode().split()


def read_a_pipe_in_c(mark: Path) -> int:
    """Block in a system call that nobody repeats, until a signal has come. Returns its result."""
    reading, writing = os.pipe()
    native = ctypes.CDLL(None, use_errno=True)
    woken, waking = os.pipe()
    for fd in (woken, waking):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waking)
    threading.Thread(target=_write_after_a_signal, args=(writing, woken, mark)).start()
    try:
        return int(native.read(reading, ctypes.create_string_buffer(1), 1))
    finally:
        signal.set_wakeup_fd(-1)


def _write_after_a_signal(fd: int, woken: int, mark: Path) -> None:
    main = Path(f"/proc/self/task/{os.getpid()}/syscall")
    while not main.read_text().startswith(("0 ", "63 ")):  # it is in read(), of x86-64 or arm64
        time.sleep(0.001)
    mark.write_text(str(os.getpid()))
    wait([woken])
    os.write(fd, b"x")


def path() -> list[Any]:
    """Where this process searches for modules."""
    return sys.path


def register_for_the_end(mark: Path) -> None:
    """Note what is called at the end of this process."""
    atexit.register(_note, mark, "atexit ")
    util.Finalize(None, _note, args=(mark, "finalizer "), exitpriority=10)


def _note(mark: Path, words: str) -> None:
    with mark.open("a") as file:
        file.write(words)


def temporary_folder() -> Path:
    """One that goes away at the end of this process."""
    global _folder  # noqa: PLW0603 - nobody else may let go of it
    _folder = tempfile.TemporaryDirectory()
    return Path(_folder.name)


_folder: object = None


def never_end(mark: Path) -> None:
    """Register for the end of this process what hangs, what says so, and what raises."""
    atexit.register(time.sleep, FOREVER)
    atexit.register(mark.write_text, "called")
    atexit.register(int, "no number")  # this is called first


def crash_among_threads(number: int) -> None:
    """Like :func:`segfault`, with many others."""
    for _ in range(number):
        threading.Thread(target=_deeply, args=(30,), daemon=True).start()
    ctypes.string_at(0)


def _deeply(depth: int) -> None:
    if depth:
        _deeply(depth - 1)
    else:
        time.sleep(FOREVER)


# -- what multiprocessing hands over -----------------------------------------------------------


class NamedPipe(multiprocessing.connection.Connection):
    """A pipe's end of a user's own class."""


class PipeError(Exception):
    """Brings something with it."""

    def __init__(self, pipe: Any) -> None:
        super().__init__("see the pipe")
        self.pipe = pipe


@dataclasses.dataclass
class Registered:
    """A user has told multiprocessing how it is handed over, and pickle does it differently."""

    number: int

    def __reduce__(self) -> Any:
        return int, (self.number,)


handed_over: contextvars.ContextVar[Any] = contextvars.ContextVar("handed_over")

_kept: list[Any] = []


def rebuild_registered(duplicate: Any) -> Registered:
    return Registered(duplicate.detach())


def say_into(pipe: Any, words: bytes = b"hello") -> int:
    pipe.send_bytes(words)
    return int(pipe.fileno())


def say_into_all(pipes: dict[str, list[Any]]) -> None:
    for pipe in pipes["pipes"]:
        say_into(pipe)


def say_into_variable() -> None:
    say_into(handed_over.get())


def hear_from(sock: socket.socket) -> tuple[bytes, float | None]:
    return sock.recv(100), sock.gettimeout()


def give_pipe() -> list[Any]:
    reader, writer = multiprocessing.Pipe(duplex=False)
    writer.send_bytes(b"from the child")
    return [reader, writer]


def give_socket() -> socket.socket:
    here, there = socket.socketpair()
    with here:
        here.send(b"from the child")
    return there


def fail_with_pipe() -> NoReturn:
    raise PipeError(give_pipe()[0])


def log_pipe(logger: str) -> None:
    reader, writer = give_pipe()
    logging.getLogger(logger).warning("see the pipe", extra={"pipe": reader})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(PipeWarning(writer), stacklevel=1)


class PipeWarning(UserWarning):
    """Brings something with it."""


def keep(*things: Any) -> None:
    _kept[:] = things


def use_kept() -> int:
    lock, value, array, queue, event, pipe = _kept
    with lock, value.get_lock():
        value.value += 1
        array[0] += 1
    queue.put("hello")
    event.set()
    pipe.send("hello")
    return int(value.value)


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def registered_number(found: Registered) -> tuple[type, bytes]:
    with open(found.number, "rb", closefd=True) as file:  # noqa: PTH123 - it has no name
        return type(found), file.read()


def take_number(path: Path, number: int) -> None:
    """Open a file under this number."""
    with path.open("wb") as file:
        os.dup2(file.fileno(), number)


def number_is_of(number: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(number), path.stat())


def leave_with(_: object) -> None:
    os._exit(3)


class Costly:
    """Counts how often it is packed, in the process where that happens."""

    packed = 0

    def __init__(self, size: int = 0) -> None:
        self.data = b"x" * size

    def __reduce__(self) -> Any:
        type(self).packed += 1
        return Costly, (0,), {"data": self.data}


class Unpackable:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


def kept_sizes() -> tuple[int, int]:
    return os.getpid(), sum(len(one.data) for one in _kept)


def spoil_kept(value: int) -> int:
    """Change an array in place; returns what was there."""
    before = int(_kept[0][0])
    _kept[0][:] = value
    return before


def hear_all_at_once(times: int) -> str:
    """All signals that may be sent to all processes, at one moment."""
    signums = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
    signums += [signal.SIGUSR1, signal.SIGUSR2]
    for _ in range(times):
        signal.pthread_sigmask(signal.SIG_BLOCK, signums)
        for signum in signums:
            signal.pthread_kill(threading.get_ident(), signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signums)
    return "alive"


def wait_if_there(file: Path, go: Path) -> None:
    """An initializer that waits for the second file, if there is the first."""
    while file.exists() and not go.exists():
        time.sleep(0.005)


def first_here_then_there(mark: Path, go: Path) -> None:
    here(mark)
    while not go.exists():
        time.sleep(0.005)
    _there(mark)


def _there(mark: Path) -> None:
    mark.with_suffix(".there").touch()
    time.sleep(FOREVER)


class SlowToPickle:
    """Is in no hurry to be sent."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        self.entered.set()
        self.go.wait(FOREVER)
        return int, ()


MEGABYTE = 1_000_000


def hoard(folder: Path, most: int, rest: float = 0.01) -> int:
    """Allocate ten megabytes again and again, about 1 GB/s; most is given back."""
    note(folder)
    kept = []
    for _ in range(most // (10 * MEGABYTE)):
        kept.append(b"x" * (10 * MEGABYTE))
        time.sleep(rest)
    return len(kept)


def hoard_natively(folder: Path, size: int) -> None:
    """Fill so many bytes, and never let go of the interpreter's lock."""
    note(folder)
    libc = ctypes.PyDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memset(libc.malloc(size), 1, size)
    libc.sleep(600)


_in_order: list[int] = []


def keep_order(number: int) -> int:
    """The number of calls in this process; they come in order of their arguments."""
    assert number == len(_in_order)
    _in_order.append(number)
    return len(_in_order)


def await_other(folder: Path, number: int, which: int) -> None:
    """Wait until the other one of two calls runs, which must be elsewhere."""
    (folder / f"here-{number}-{which}").touch()
    while not (folder / f"here-{number}-{1 - which}").exists():
        time.sleep(0.001)


def record(path: Path, number: int) -> None:
    """Add a line to a file, whoever else does so."""
    with path.open("ab", buffering=0) as file:
        file.write(b"%d\n" % number)
