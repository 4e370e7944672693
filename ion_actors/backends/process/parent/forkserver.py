"""The library's own forkserver: a small process that is forked for each child, which is quick.

::

    parent ──request: descriptors──▶ server ──fork──▶ child
       ▲                               │                ▲
       └──status: its id, its code─────┘                │
       └──────────────stream: what it has to do─────────┘

The forkserver of ``multiprocessing`` is for the program's own processes. It is not used, because
the settings of one use would affect the other (signals, modules, environment), and because it
imports the main module from CPython 3.13.1 on: all children would share its open files, and its
random numbers.

There is one server for each combination of what a child cannot change by itself: the preloaded
modules, what an interpreter reads once when it starts, and the rights that the process has given
up. The server is reached by a socket without a name, which it inherits. When that is closed, the
server exits as soon as its last child has ended.
"""

from __future__ import annotations

import array
import contextlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from typing import IO

from ion_actors.backends.process.child import birth
from ion_actors.backends.process.child.environment import open_streams
from ion_actors.backends.process.main_module import UNGUARDED, serving, unguarded
from ion_actors.backends.process.parent import interpreter
from ion_actors.backends.process.signals import NO_SIGPIPE, leave_to_parent, without_sigpipe
from ion_actors.backends.protocol import Hopeless

__all__ = ["ALWAYS", "after_fork", "close_all", "fork", "read_number"]

#: Modules that each server imports, in addition to those of its pool: also what tasks and the
#: program's main module often need, which each child would have to import by itself.
ALWAYS = [
    "ion_actors.backends.event_loop",
    "ion_actors.backends.process.child.main",
    "ion_actors.workerpool.pool",
    "multiprocessing.connection",
    "pathlib",
    "pkgutil",
    "runpy",
]

_MOST_SERVERS = 4  # of this process; beyond that, the least recently used one is closed
_MOST_FDS = 200  # in one message; Linux has 253
_NUMBER = struct.Struct("q")
_LAST, _MORE = b"\0", b"\1"  # the content of a message with descriptors
_IMPORT_PATIENCE = 60.0  # seconds
_PATIENCE = 5.0  # seconds that a server may take to exit once it has closed its streams

# Variables that an interpreter, its C library or the linker reads when it starts.
_AT_START = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "LC_", "LANG")
# Variables that change all the time, and do not matter to modules.
_OF_THE_MOMENT = frozenset({"PYTEST_CURRENT_TEST"})

_Key = tuple[object, ...]


class _Server:
    """A running server, in its parent."""

    def __init__(self, preload: Sequence[str], env: Mapping[str, str]) -> None:
        self._lock = threading.Lock()  # held during a request: its messages belong together
        self.has_forked = False
        ours, theirs = socket.socketpair()
        stream, ours_too = map(interpreter.above_streams, os.pipe())
        control = interpreter.above_streams(theirs.detach())
        try:
            # If it has exited, the next request finds out how.
            with contextlib.suppress(BrokenPipeError), os.fdopen(ours_too, "wb") as writing:
                module = __name__
                self.pid = interpreter.start_helper(module, stream, (control,), (control,), env)
                with without_sigpipe():
                    writing.write(interpreter.path_here() + pickle.dumps((*ALWAYS, *preload)))
                    writing.flush()
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(stream)
            os.close(control)
        self._control = ours

    def request(self, fds: Sequence[int]) -> None:
        """Make it fork a child with these descriptors.

        Raises:
            OSError: it has exited.
        """
        with self._lock:
            for start in range(0, len(fds), _MOST_FDS):
                some = fds[start : start + _MOST_FDS]
                word = _LAST if start + _MOST_FDS >= len(fds) else _MORE
                # Not by `send_fds`, which takes flags, and leaves them out.
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", some))
                self._control.sendmsg([word], [rights], NO_SIGPIPE)

    def close(self) -> None:
        """Make it exit when its last child has ended."""
        self._control.close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def await_exit(self, timeout: float) -> int | None:
        """Its exit code; None if it has not exited, or if that is unknown."""
        waited = 0.0
        with contextlib.suppress(ChildProcessError):  # other code has waited for it
            while waited <= timeout:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
                wait((), 0.005)
                waited += 0.005
        return None


_lock = threading.Lock()  # guards all below
_owner = os.getpid()
_servers: OrderedDict[_Key, _Server] = OrderedDict()
_closed: list[_Server] = []  # may run on for their children


def fork(
    preload: Sequence[str],
    env: Mapping[str, str],
    confined: tuple[object, ...],
    fds: Sequence[int],
    timeout: float | None,
) -> tuple[int, int]:
    """Make a server fork a child.

    Args:
        preload: modules that the server has imported, if it could.
        env: the environment that the child will have.
        confined: the rights that this process has given up; see :func:`.confinement`.
        fds: descriptors for the child; the first one is the stream with its instructions.
        timeout: seconds that the server may take; None for any time. One that has just been
            started gets a minute at least, for the imports.

    Returns:
        The id of the child, and a descriptor from which its exit code can be read.

    Raises:
        Hopeless: there can never be a server.
        OSError: there is none now, or it cannot fork.
    """
    _notice_fork()
    key = (*_key(preload, env), confined)
    while True:
        server = _server(key, preload, env)
        try:
            return _ask(server, fds, timeout)
        except TimeoutError:
            _forget(key, server)
            if not server.has_forked:
                server.kill()
            raise
        except (ConnectionError, EOFError):
            _forget(key, server)
            if not server.has_forked:
                raise _why(server.await_exit(_PATIENCE)) from None
            # It has worked before, and was killed since: another one replaces it.


def _key(preload: Sequence[str], env: Mapping[str, str]) -> _Key:
    names = env.keys() - _OF_THE_MOMENT
    if not preload:
        names = {name for name in names if name.startswith(_AT_START)}
    return tuple(preload), frozenset((name, env[name]) for name in names)


def _server(key: _Key, preload: Sequence[str], env: Mapping[str, str]) -> _Server:
    with _lock:
        _closed[:] = [one for one in _closed if not _is_over(one)]
        if key not in _servers:
            _servers[key] = _Server(preload, env)
            if len(_servers) > _MOST_SERVERS:
                _retire(_servers.popitem(last=False)[1])
        _servers.move_to_end(key)
        return _servers[key]


def _is_over(server: _Server) -> bool:
    try:
        return os.waitpid(server.pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _retire(server: _Server) -> None:
    server.close()
    _closed.append(server)


def _forget(key: _Key, server: _Server) -> None:
    with _lock:
        if _servers.get(key) is server:
            del _servers[key]
            _retire(server)


def _ask(server: _Server, fds: Sequence[int], timeout: float | None) -> tuple[int, int]:
    status, theirs = os.pipe()
    try:
        try:
            server.request((fds[0], theirs, *fds[1:]))
        finally:
            os.close(theirs)
        if timeout is not None and not server.has_forked:
            timeout = max(timeout, _IMPORT_PATIENCE)
        if not wait([status], timeout):
            raise TimeoutError(
                f"the forkserver has not answered within {timeout:g} seconds. Perhaps a module of "
                "preload= takes that long to be imported"
            )
        number = read_number(status)
    except BaseException:
        os.close(status)
        raise
    server.has_forked = True
    if number < 0:
        os.close(status)
        raise OSError(-number, f"the forkserver cannot fork: {os.strerror(-number)}")
    return number, status


def _why(code: int | None) -> Exception:
    """The error to raise for a server that has exited with this code and never forked."""
    if code == UNGUARDED:
        return unguarded()
    if code is None or code < 0:
        how = "has ended" if code is None else f"was ended by signal {-code}"
        return ChildProcessError(f"the forkserver {how} before it had forked a child")
    return Hopeless(
        f"the forkserver exited with code {code} before it had forked a child. Either "
        f"{interpreter.executable()!r} is no interpreter of Python like this one "
        "(multiprocessing.set_executable() names another one), or a module of preload= has exited; "
        "see its output"
    )


def read_number(fd: int) -> int:
    """The next number that a server sends about a child.

    Raises:
        EOFError: the server has exited.
    """
    data = b""
    while len(data) < _NUMBER.size:
        more = os.read(fd, _NUMBER.size - len(data))
        if not more:
            raise EOFError("the forkserver has exited")
        data += more
    number: int = _NUMBER.unpack(data)[0]
    return number


def _notice_fork() -> None:
    """Check for a fork: some programs fork without Python's hooks."""
    if os.getpid() != _owner:
        after_fork()


def after_fork() -> None:
    """In a forked process: the servers are the parent's."""
    global _lock, _owner
    _lock, _owner = threading.Lock(), os.getpid()  # a thread of the parent may hold it
    _closed.clear()
    for server in _servers.values():
        server.close()
    _servers.clear()


def close_all() -> None:
    """Close all servers of this process: they exit when their children have ended."""
    with _lock:
        for server in _servers.values():
            _retire(server)
        _servers.clear()


# -- in the server -----------------------------------------------------------------------------


def main(stream: IO[bytes], control_fd: int) -> None:
    """The main function of a server."""
    open_streams()
    leave_to_parent()
    # All of them: without SIGCHLD, which its parent may block, it would not hear of any end.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with stream:
        names: tuple[str, ...] = pickle.load(stream)
    _preload(names)
    leave_to_parent()  # again: a module may have set handlers
    with contextlib.suppress(OSError):
        os.chdir("/")  # so that no directory is kept in use
    with contextlib.suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one is open for each child
    with socket.socket(fileno=control_fd) as control:
        _serve(control)


def _preload(names: Sequence[str]) -> None:
    with serving():
        for name in names:
            try:
                __import__(name)
            except BaseException as error:  # a child tries again, and can report it
                del error


def _serve(control: socket.socket) -> None:
    """Fork children, and report their exit codes, until the parent and all of them have ended."""
    children: dict[int, int] = {}  # their ids, and the descriptors for their exit codes
    woken, waking = os.pipe()
    for fd in (woken, waking):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(control, select.POLLIN)
    open_ = True
    while open_ or children:
        ready = [fd for fd, _ in poll.poll()]
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 65536)
            _tell_ends(children)
        if control.fileno() in ready:
            fds = _receive(control)
            if fds:
                _fork(fds, children, (control.fileno(), woken, waking))
            else:
                poll.unregister(control)
                open_ = False


def _receive(control: socket.socket) -> list[int]:
    """The descriptors of a request; none if the parent has ended."""
    found: list[int] = []
    while True:
        word, fds, _, _ = socket.recv_fds(control, 1, _MOST_FDS + 10)
        for fd in fds:
            os.set_inheritable(fd, False)
        found += fds
        if not word:
            return []
        if word == _LAST:
            return found


def _fork(fds: list[int], children: dict[int, int], own: Sequence[int]) -> None:
    stream, status, *rest = fds
    try:
        with warnings.catch_warnings():  # a module of preload= may have started threads
            warnings.simplefilter("ignore")
            pid = os.fork()
    except OSError as error:
        _say(status, -(error.errno or 1))
        os.close(status)
    else:
        if not pid:
            _be_child(stream, rest, (*own, status, *children.values()))
        children[pid] = status
        _say(status, pid)
    for fd in (stream, *rest):
        os.close(fd)


def _be_child(stream: int, fds: list[int], foreign: Sequence[int]) -> None:
    """In a fork of the server. It does not return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in foreign:
            os.close(fd)
        birth.make_own()
        code = birth.begin(os.fdopen(stream, "rb"), fds)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _tell_ends(children: dict[int, int]) -> None:
    """Report the exit codes of the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if (fd := children.pop(pid, None)) is not None:  # else a module had started it
                _say(fd, os.waitstatus_to_exitcode(status))
                os.close(fd)


def _say(fd: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent has ended, or has closed it
        os.write(fd, _NUMBER.pack(number))
