"""A child process, and everything that it shares with its parent."""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol, TypeVar

from ion_actors.backends.process.child.last_words import LastWords
from ion_actors.backends.process.child.setup import Setup, run
from ion_actors.backends.process.parent.interpreter import streams_occupied
from ion_actors.backends.process.parent.launch import ChildSettings, launch
from ion_actors.backends.process.transport.anonymous_file import NoPlace, new_file
from ion_actors.backends.process.transport.channel import PACKETS, Channel
from ion_actors.backends.process.transport.descriptors import Rights
from ion_actors.backends.process.transport.output_capture import OutputCapture
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers
from ion_actors.backends.protocol import Hopeless
from ion_actors.forking import renew_after_fork

__all__ = ["Resources"]


class _Closable(Protocol):
    def close(self) -> None: ...


Kept = TypeVar("Kept", bound=_Closable | None)


class Resources:
    """Starts a process, and owns the parent's ends of all connections to it.

    Args:
        worker: the name of the worker that it runs the tasks of.
        settings: those of its backend.

    Attributes:
        handle: the process.
        tasks: the channel for tasks.
        unread: its other end, by which tasks are taken back; None where that is not possible.
        replies: the channel for results, and for what is told during a task.
        control: the channel for what cannot wait until the task is over. It never blocks.
        words: the last words of the child.
        buffers: for large data.
        capture: its output, if that is captured.

    Raises:
        Exception: it cannot be started. Then all resources are freed.
    """

    def __init__(self, worker: str, settings: ChildSettings) -> None:
        self._ours, self._theirs = contextlib.ExitStack(), contextlib.ExitStack()
        renew_after_fork(self)  # before anything is open that a fork could keep open
        try:
            with streams_occupied():
                self._make(worker, settings)
        except BaseException:
            self._ours.close()
            raise
        finally:
            self._theirs.close()

    def _make(self, worker: str, settings: ChildSettings) -> None:
        tasks, tasks_there = self._pair(socket.SOCK_STREAM if PACKETS is None else PACKETS)
        replies, replies_there = self._pair()
        control, control_there = self._pair()
        lifeline_here, lifeline = self._pair()
        self._lifelines = (lifeline_here, control)
        rights, rights_there = self._pair()
        self.words = self._kept(LastWords())
        out, back = self._kept(new_file()), new_file()
        # Forks of this process may see what the child sends.
        self.buffers = SharedBuffers(out, back, private=True, rights=Rights(rights))
        self._ours.callback(self.buffers.close_back)
        self.capture = self._kept(_capture() if settings.capture_output else None)
        setup = Setup(
            worker, tasks_there, replies_there, control_there, lifeline, rights_there, self.words,
            (out, back), settings.preload, settings.max_tasks_per_child,
            settings.max_memory_per_child, self.capture,
        )  # fmt: skip
        self.handle = launch(settings, worker, run, setup)
        self.tasks = Channel(tasks, self.handle.has_ended)
        self.unread = None if PACKETS is None else self._kept(tasks_there.dup())
        self.replies = Channel(replies, self.handle.has_ended)
        self.control = Channel(control)
        control.setblocking(False)

    def _pair(
        self, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> tuple[socket.socket, socket.socket]:
        here, there = socket.socketpair(type=kind)
        self._ours.callback(here.close)
        self._theirs.callback(there.close)
        return here, there

    def _kept(self, one: Kept) -> Kept:
        if one is not None:
            self._ours.callback(one.close)
        return one

    def after_fork(self) -> None:
        """In a forked process: close what would hide the parent's end from the child."""
        self._theirs.close()
        self._ours.close()

    def cut(self) -> None:
        """End the streams that keep the process alive: the kernel kills it, or it ends itself.

        Closing them is not enough: a fork of this process may have them open, too.
        """
        for one in self._lifelines:
            with contextlib.suppress(OSError):  # it has ended already
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free all resources but the process."""
        self._ours.close()


def _capture() -> OutputCapture:
    try:
        return OutputCapture()
    except NoPlace as error:
        raise Hopeless(f"capture_output is not possible: {error}") from error
