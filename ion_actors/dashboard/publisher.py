"""Publishes snapshots of this process on a Unix socket, for ``python -m ion_actors top``.

::

    a reader                        this process
    {"what": "who"}        ──────▶  {"who": {"pid": 17, "program": "shop", …}}
    {"what": "snapshot"}   ──────▶  {"snapshot": {"time": …, "pools": […], …}}

One request a connection, each in a line. There is nothing to be done over it, only to be read, and
only by the same user and by root: the directory is the user's own
(:mod:`ion_actors.dashboard.directory`), and on Linux the kernel says who has connected.

One daemon thread sleeps until somebody connects, and serves one reader after the other. A forked
child closes its copy of the socket; whether it publishes is its own to say.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ion_actors.clock import system_clock
from ion_actors.dashboard.directory import Directory
from ion_actors.dashboard.letters import letters_kept
from ion_actors.dashboard.overview import snapshot
from ion_actors.forking import check, on_fork
from ion_actors.logs import Logger
from ion_actors.own_variables import daemon_thread

__all__ = ["Publication", "peer_of", "publish", "publish_quietly"]

logger = Logger("ion_actors.dashboard")

_LONGEST = 4096  # bytes of a request
_PATIENCE = 2.0  # seconds that a reader has to say what it wants, and to take a part of the answer
_END = 5.0  # seconds that the thread has to end
_END_AT_EXIT = 0.5  # the same, when the program is to end and not to wait for a reader
_PAUSE = 1.0  # seconds after a connection could not be accepted

_PEER = struct.Struct("3i")  # process, user, group


class Publication:
    """This process is published until :meth:`close`, or the end of the ``with`` block, or of it."""

    def __init__(self, publisher: _Publisher) -> None:
        self._publisher: _Publisher | None = publisher
        self._path = publisher.path

    @property
    def path(self) -> Path:
        """The socket."""
        return self._path

    def close(self) -> None:
        """Publish no more, unless somebody else in this process does. Twice does no harm."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            _leave(publisher)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def publish() -> Publication:
    """Let ``python -m ion_actors top`` see what there is in this process.

    A thread serves snapshots on a Unix socket, which this user and root can read. They have names,
    stacks and errors of tasks, and never their arguments. From now on the latest 100 dead letters
    of each pool are kept, to be shown. Nothing else costs anything while nobody reads.

    Returns:
        A handle: ``close()`` ends it, and so does leaving it as a ``with`` block. It need not be
        kept: then it ends with the process. Several may be open at a time.

    Raises:
        OSError: there are no Unix sockets (on Windows), or no directory that is safe.
        RuntimeError: no thread can be started.
    """
    global _current  # noqa: PLW0603  # there is one for the process
    if os.name == "nt" or not hasattr(socket, "AF_UNIX"):
        raise OSError("publish() needs Unix sockets, which Python does not have here; use serve()")
    check()
    with _lock:
        if _current is None:
            _current = _Publisher()
        _current.readers += 1
        return Publication(_current)


def publish_quietly() -> None:
    """Publish this process until its end, once; what goes wrong is logged."""
    if _current is not None:
        return
    try:
        publish()
    except Exception as error:
        logger.warning("ION_ACTORS_PUBLISH=1, but this process cannot be published: %s", error)


class _Publisher:
    """The socket and its thread."""

    def __init__(self) -> None:
        self.readers = 0  # handles that are open; under the module's lock
        self._stopped = threading.Event()
        self._name = f"{os.getpid()}.sock"
        with ExitStack() as stack:
            self._directory = stack.enter_context(Directory.own())
            self.path = self._directory.path / self._name
            stack.enter_context(letters_kept())
            self._listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._wake, self._woken = socket.socketpair()
            stack.enter_context(self._wake)
            stack.enter_context(self._woken)
            self._listen()
            stack.callback(self._directory.remove, self._name)
            self._thread = daemon_thread(self._serve, "ion_actors-publish")
            self._thread.start()
            self._open = stack.pop_all()

    def _listen(self) -> None:
        # Under another name until it listens: a socket that nobody listens to is taken for stale.
        hidden = f".{secrets.token_hex(8)}.sock"
        self._listener.bind(self._directory.address(hidden))
        try:
            self._listener.listen()
            self._listener.setblocking(False)
            self._directory.rename(hidden, self._name)
        except BaseException:
            self._directory.remove(hidden)
            raise

    def stop(self, patience: float) -> None:
        """Stop; returns when the thread has ended, or after so many seconds."""
        self._stopped.set()
        with contextlib.suppress(OSError):  # the buffer is full: it was told before
            self._wake.send(b"x")
        self._thread.join(patience)
        self._open.close()

    def abandon(self) -> None:
        """In a forked child: the socket is the parent's."""
        for one in (self._listener, self._wake, self._woken, self._directory):
            one.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopped.is_set():
                selector.select()
                try:
                    self._serve_next()
                except Exception:  # the next one may be served nevertheless
                    logger.debug("a reader was not served", exc_info=True)

    def _serve_next(self) -> None:
        try:
            reader, _ = self._listener.accept()
        except BlockingIOError:  # it was only woken, or the reader is gone
            return
        except OSError:  # no descriptor is left
            self._stopped.wait(_PAUSE)
            raise
        with reader:
            if _may_read(reader):
                reader.settimeout(_PATIENCE)
                reader.sendall(_answer(_request(reader)))


def _may_read(reader: socket.socket) -> bool:
    peer = peer_of(reader)
    if peer is None or peer[1] in (0, os.geteuid()):
        return True
    logger.warning("process %s of user %s may not read what this one publishes", *peer)
    return False


def peer_of(connection: socket.socket) -> tuple[int, int] | None:
    """The process and the user at the other end; None where the kernel does not say."""
    if sys.platform != "linux":
        return None
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(found)
    return pid, uid


def _request(reader: socket.socket) -> dict[str, Any]:
    until = system_clock.monotonic() + _PATIENCE
    line = b""
    while not line.endswith(b"\n"):
        part = reader.recv(_LONGEST)
        line += part
        if not part or len(line) > _LONGEST or system_clock.monotonic() > until:
            return {}
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def _answer(request: dict[str, Any]) -> bytes:
    what = request.get("what")
    try:
        if what == "snapshot":
            found = snapshot(stacks=request.get("stacks") is not False).as_dict()
        elif what == "who":
            found = _who()
        else:
            what, found = "error", {"text": "what is wanted must be 'who' or 'snapshot'"}
        text = json.dumps({what: found}, allow_nan=False)
    except Exception as error:
        logger.warning("no snapshot could be made", exc_info=True)
        text = json.dumps({"error": {"text": f"no snapshot could be made: {type(error).__name__}"}})
    return text.encode() + b"\n"


def _who() -> dict[str, Any]:
    found = snapshot(stacks=False)
    return {
        "pid": found.pid,
        "program": found.program,
        "since": found.since,
        "python": found.python,
        "version": found.version,
        "pools": [one.name for one in found.pools],
        "stuck": sum(len(one.stuck) for one in found.pools),
    }


_current: _Publisher | None = None
_lock = threading.RLock()  # guards which one is the current one, and its number of handles


def _leave(publisher: _Publisher) -> None:
    global _current  # noqa: PLW0603
    with _lock:
        if publisher is not _current:
            return  # the process has ended, or was forked
        publisher.readers -= 1
        if publisher.readers:
            return
        _current = None
    publisher.stop(_END)


def _at_exit() -> None:
    global _current
    publisher, _current = _current, None
    if publisher is not None:
        publisher.stop(_END_AT_EXIT)


def _after_fork_in_child() -> None:
    global _current, _lock  # noqa: PLW0603  # the old lock may be held by a thread that is not here
    _lock = threading.RLock()
    publisher, _current = _current, None
    if publisher is not None:
        publisher.abandon()


atexit.register(_at_exit)
on_fork(_after_fork_in_child)
