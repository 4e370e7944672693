"""What is left of an actor that has died: its journal, how its process has ended, its last words.

All of that is at hand if the actor was on this machine. Elsewhere there is the journal only, which
a task on the actor's node has to read.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import secrets
import select
import signal
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ion_actors.backends.process.parent.escalation import KILL
from ion_actors.backends.ray.journal import JournalReader, read_and_remove
from ion_actors.backends.ray.last_words import exit_code, last_words
from ion_actors.clock import system_clock

if TYPE_CHECKING:
    from ion_actors.backends.ray.site import RaySite
    from ion_actors.context import Context

__all__ = ["Remains"]

# Seconds that it may take to read the journal of an actor elsewhere, where Ray may have to start a
# process for that; and between looks whether the pool closes meanwhile.
_FAR_READ, _GLANCE = 30.0, 0.1


class Remains:
    """Knows what there will be, from the moment when the actor has been placed. For one thread.

    Args:
        site: the connection.
        journaled: whether there is to be a journal.
    """

    def __init__(self, site: RaySite, *, journaled: bool) -> None:
        self._site = site
        self.pid: int | None = None  # of the actor's process, once it has been placed
        self.node = ""
        self.exitcode: int | None = None  # once it is buried, if it is known
        self.words = ""  # its last ones, likewise
        self.secret = secrets.randbits(63) | 1 if journaled else 0  # of the journal
        self._journal: JournalReader | None = None
        self._journal_path = ""  # of one on another machine
        self._node_id = ""
        self._errors = ""  # the file of its standard error, on its node
        self._pidfd: int | None = None  # of its process, if that is on this machine
        self._poll = select.poll()

    def placed(self, pid: int, node: str, node_id: str, errors: str) -> None:
        """The actor has been placed, and has said where."""
        self.node, self._node_id, self._errors = node, node_id, errors
        self.pid = pid
        if node == platform.node() and hasattr(signal, "pidfd_send_signal"):
            with contextlib.suppress(OSError):  # it has died, or the node is not this machine
                self._pidfd = os.pidfd_open(pid)
                self._poll.register(self._pidfd)

    def find_journal(self, path: str) -> None:
        """The actor keeps one there."""
        try:
            if self._pidfd is None:
                raise FileNotFoundError(path)
            self._journal = JournalReader(path, self.secret)
        except OSError:
            self._journal_path = path

    # -- the process -----------------------------------------------------------------------------

    def has_ended(self) -> bool:
        """Whether the process has, as far as is known."""
        return self._pidfd is not None and bool(self._poll.poll(0))

    def kill(self, patience: float) -> bool:
        """Kill the process, and wait so long for its end. Returns whether it is here at all."""
        if self._pidfd is None:
            return False
        with contextlib.suppress(OSError):  # it has ended; or this is not permitted
            signal.pidfd_send_signal(self._pidfd, KILL)
        self._poll.poll(patience * 1000)
        return True

    def bury(self, *, left: bool) -> None:
        """The process has ended: learn how.

        Args:
            left: it was told to, and so nobody wants to know.
        """
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is None:
            return
        if not left:
            self.exitcode, self.words = exit_code(pidfd), last_words(self._errors)
        os.close(pidfd)

    # -- the journal -----------------------------------------------------------------------------

    def read_journal(
        self, context: Context, *, wanted: bool, left: bool
    ) -> tuple[int, dict[int, bytes]]:
        """The number of the task that was begun last, and the replies by the tasks' numbers.

        Afterwards the journal is gone.

        Args:
            context: the pool's; nobody waits for a journal elsewhere once that has ended.
            wanted: whether anybody wants to know.
            left: the actor has left by itself, and has removed its journal.

        Raises:
            Exception: there is none, or its node is gone, too, or the control plane.
        """
        if (journal := self._journal) is None:
            return self._read_far_journal(context, wanted=wanted, left=left)
        self._journal = None
        try:
            return journal.read()
        finally:
            journal.close()

    def _read_far_journal(
        self, context: Context, *, wanted: bool, left: bool
    ) -> tuple[int, dict[int, bytes]]:
        """Have a task on its node read the journal, and remove it."""
        if not self._journal_path:
            raise FileNotFoundError("it has no journal")
        found: SimpleQueue[Any] = SimpleQueue()
        if not left:
            self._site.post(functools.partial(self._ask_for_journal, found))
        if not wanted:
            return 0, {}
        until = system_clock.monotonic() + _FAR_READ
        while system_clock.monotonic() < until and not context.cancelled:
            with contextlib.suppress(Empty):
                result: tuple[int, dict[int, bytes]] = found.get(timeout=_GLANCE).result()
                return result
        raise TimeoutError("its journal could not be read in time")

    def _ask_for_journal(self, found: SimpleQueue[Any]) -> None:
        ray = self._site.connected.result().ray
        strategies = ray.util.scheduling_strategies
        where = strategies.NodeAffinitySchedulingStrategy(self._node_id, soft=False)
        read = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(read_and_remove)
        reference = read.remote(self._journal_path, self.secret)
        reference.future().add_done_callback(found.put)
