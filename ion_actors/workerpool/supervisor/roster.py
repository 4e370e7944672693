"""The workers of a pool: who works at which seat, from when and until when.

A seat has an index. There are as many as the pool's ``size``: resizing takes the last ones away or
fills in the first that are free, and a worker that the policy stops takes its own with it. A seat
is empty while its worker's initializer waits for another try, and at the end, when there is nothing
left to do. A worker that has nothing to initialize gets its thread when it is needed for the first
time, and if it never is, goes without ever having had one.
"""

from __future__ import annotations

import errno
import itertools
import logging
from typing import Any, Protocol

from ion_actors.actors import NO_MORE_THREADS, Envelope
from ion_actors.backends.protocol import Hopeless
from ion_actors.clock import Timer
from ion_actors.delivery import run_elsewhere
from ion_actors.errors import WorkerDied
from ion_actors.futures import Future
from ion_actors.own_variables import own_values
from ion_actors.raised import args_of, errno_of, is_a
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.protocols import Performer
from ion_actors.workerpool.messages import (
    Broadcast,
    Needed,
    Panicked,
    Ready,
    RetrySeat,
    StartFailed,
    Stopped,
)
from ion_actors.workerpool.model.lifecycle import Phase
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.recovery import RestartWindow
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.supervisor.appointments import (
    Appointed,
    Appointments,
    is_appointed,
)
from ion_actors.workerpool.worker.inbox import Answer, Letter, SupervisorInbox

__all__ = ["Authority", "Roster"]

# What CPython raises where there can be no more threads, as a RuntimeError.
_NO_THREAD = "can't start new thread"

_SHORTAGES = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}


def _is_shortage(error: BaseException | None) -> bool:
    """Whether a worker could not start because the system has no room for it at the moment."""
    # An initializer may have raised it: nothing of its class runs on the supervisor's thread.
    if is_a(error, OSError):
        number = errno_of(error)
        return type(number) is int and number in _SHORTAGES
    if is_a(error, RuntimeError):
        args = args_of(error)
        return bool(args) and type(args[0]) is str and args[0] == _NO_THREAD
    return is_a(error, MemoryError)


class Authority(Protocol):
    """Who decides about the pool's life: what the roster needs of the supervisor."""

    @property
    def phase(self) -> Phase:
        """Where the pool is in its life."""
        ...

    def break_pool(self, why: str, cause: BaseException | None) -> None:
        """Give up the pool."""
        ...

    def finish_if_over(self) -> None:
        """There is one worker less: it may have been the last."""
        ...


class Roster:
    """Appoints, starts, replaces and discharges workers, on the supervisor's thread.

    Args:
        core: the pool; the roster writes its workers and threads.
        inbox: the supervisor's, to which the workers report.
        authority: decides about the pool's life.
    """

    def __init__(self, core: PoolCore, inbox: SupervisorInbox, authority: Authority) -> None:
        self._core = core
        self._spec = core.spec
        self._clock = core.spec.context.clock
        self._inbox = inbox
        self._authority = authority
        self._appointments = Appointments(core, inbox)
        self._window = RestartWindow()
        self._failures: dict[int, int] = {}  # failed starts in a row, by seat
        self._seats: dict[int, Appointed | None] = {}  # a view: see reseat()
        self._is_short = False  # there was no room for a worker, which was said
        self._retries: dict[int, Timer] = {}  # by seat, until the supervisor has had the message

    def appoint(self, index: int) -> Appointed:
        """Seat a new worker. It is still to be started."""
        worker = self._appointments.make(index)
        self._core.workers.append(worker)  # first: only who is known here is handed a task
        self._seats[index] = worker
        worker.enlist()
        return worker

    def _start(self, worker: Appointed) -> None:
        """Start the thread of a worker, unless there is nothing for it to do yet."""
        if not worker.dormant:
            self._start_thread(worker)

    def resize(self, size: int) -> None:
        """Have so many seats: take the last ones away, or fill the first that are free.

        Who sat on one that is taken away stops once its task is over; what it was handed and has
        not begun goes to another one. So no task is lost either way.
        """
        before = len(self._seats)
        for index in sorted(self._seats)[size:]:
            self._part_with(self._seats.pop(index))
            self._failures.pop(index, None)
        # Not before they are doomed: if they wait, all that are left would seem to wait.
        self._core.mailbox.size = size
        free = (index for index in itertools.count() if index not in self._seats)
        for index in itertools.islice(free, max(0, size - before)):
            self._start(self.appoint(index))
        self._spec.log(
            logging.INFO, "pool %r has %d workers now, and had %d",
            self._spec.name, size, before, size=size,
        )  # fmt: skip

    def broadcast(self, message: Broadcast) -> list[Future[Any]]:
        """Write to every worker that has a seat: no more and no less, since seats change here."""
        seated = [worker for worker in self._seats.values() if worker is not None]
        return [_write_to(worker, message) for worker in seated]

    def seat_one_more(self) -> None:
        """Nobody is left, and a task came back: seat a worker for it."""
        self._start(self.appoint(min(self._seats, default=0)))

    def reseat(self) -> None:
        """Find out anew who sits where, and fill the seats that are empty. May be done again."""
        self.forget_retries()
        self._mend()
        for gone in [one for one in self._core.workers if is_appointed(one) and one.gone]:
            self._see_off(gone)
        self._seats = self._seated()
        for index, worker in list(self._seats.items()):
            if worker is not None:
                worker.enlist()
            if worker is None:
                self._fill(index)
            elif not worker.begun and (
                worker.slot is not None or worker.has_control or not worker.dormant
            ):
                self._start_thread(worker)

    def _seated(self) -> dict[int, Appointed | None]:
        """As many seats as there are to be, and who works there."""
        working = [one for one in self._core.workers if is_appointed(one) and not one.doomed]
        seats: dict[int, Appointed | None] = {worker.index: worker for worker in working}
        size = self._core.mailbox.size
        for index in sorted(seats)[size:]:
            self._part_with(seats.pop(index))
        free = (index for index in itertools.count() if index not in seats)
        return seats | dict.fromkeys(itertools.islice(free, size - len(seats)))

    def _part_with(self, worker: Appointed | None) -> None:
        """Discharge a worker whose seat is taken away."""
        if worker is not None and not self.dismiss(worker):
            worker.retire()

    def _fill(self, index: int) -> None:
        """Seat a worker where none is; later, if the last one could not start."""
        if self._failures.get(index):
            self._try_again(index, None)
        else:
            self._replace(index, None)

    def on_needed(self, message: Needed) -> None:
        """There is something for a worker that has no thread yet."""
        worker = message.worker
        if not is_appointed(worker) or worker.begun or worker not in self._core.workers:
            return
        if self._authority.phase is not Phase.RUNNING and self.dismiss(worker):
            self._authority.finish_if_over()
        else:
            self._start_thread(worker)

    def _start_thread(self, worker: Appointed) -> None:
        try:
            worker.start_thread()
        except NO_MORE_THREADS as error:
            self.on_start_failed(StartFailed(worker, error))
            self.on_stopped(Stopped(worker))
        else:
            if not self._spec.must_start:  # else it may fail yet
                self._forgive(worker.index)

    def on_ready(self, message: Ready) -> None:
        """A worker's initializer has run."""
        self._forgive(message.worker.index)

    def _forgive(self, index: int) -> None:
        """A worker of this seat has started: its failures are forgotten."""
        if self._failures and self._failures.pop(index, 0) and not self._failures:
            self._is_short = False

    def on_start_failed(self, message: StartFailed) -> None:
        """A worker could not start: its seat is empty until another try, if the policy permits."""
        worker, error = message.worker, message.error
        index = worker.index
        if is_a(error, Hopeless):
            self._authority.break_pool(str(error), error.__cause__)
            return
        seated = self._seats.get(index) is worker
        failures = self._failures.get(index, 0) + 1
        if seated:
            self._seats[index] = None
            self._failures[index] = failures
        if _is_shortage(error) and self._has_others():
            self._warn_of_shortage(message)
        else:
            self._spec.log(
                self._spec.dialect.alarm, "worker %s failed to start (%d in a row): %s",
                worker.name, failures, message.shown, worker=worker.name,
                error=error if failures == 1 else None,  # mostly it is the same error
            )  # fmt: skip
        if seated:
            self._try_again(index, error, message.shown)

    def _warn_of_shortage(self, message: StartFailed) -> None:
        """There is no room for another worker: say so once, until all have been started."""
        if not self._is_short:
            self._is_short = True
            begun = sum(one is not None and one.begun for one in self._seats.values())
            self._spec.log(
                logging.WARNING, "pool %r works with %d of %d workers, and tries again: %s",
                self._spec.name, begun, self._core.mailbox.size, message.shown,
            )  # fmt: skip

    def _try_again(self, index: int, error: BaseException | None, shown: str = "") -> None:
        """A worker could not start: plan another try, if the policy permits."""
        if self._authority.phase in (Phase.CANCELLING, Phase.CLOSED):
            return
        failures, backoff = self._failures[index], self._spec.recovery.backoff
        delay = backoff.delay(failures)
        if delay is None and _is_shortage(error) and self._has_others():
            delay = backoff.maximum  # the pool works with those that it has
        if delay is None:
            name = self._spec.worker_name(index)
            last = "" if error is None else f", the last time with {shown}"
            self._authority.break_pool(
                f"its worker {name} failed to start {failures} times{last}", error
            )
            return
        self._retries[index] = self._inbox.remind(
            self._clock, self._clock.monotonic() + delay, RetrySeat(index)
        )

    def _has_others(self) -> bool:
        """Whether a worker has a thread."""
        return any(one is not None and one.begun for one in self._seats.values())

    def on_retry(self, message: RetrySeat) -> None:
        """It is time to seat a worker again where the last one could not start."""
        if (timer := self._retries.pop(message.index, None)) is not None:
            timer.cancel()  # it is another one's message: the supervisor had failed meanwhile
        seat = self._seats.get(message.index, message)  # a pool that shrank has it no more
        if seat is None and self.wanted():
            self._core.mailbox.count_restart()
            self._start(self.appoint(message.index))
        self._authority.finish_if_over()

    @property
    def retries(self) -> bool:
        """Whether there will be another try to start a worker."""
        return bool(self._retries)

    def forget_retries(self) -> None:
        """Try no more to start those that could not."""
        while self._retries:
            self._retries.popitem()[1].cancel()

    def on_panicked(self, message: Panicked) -> Panic:
        """A task took its worker down. Returns what the panic handler is to be told."""
        worker = message.worker
        if is_appointed(worker) and self._seats.get(worker.index) is worker:
            self._follow(worker, message)
        if message.directive is Directive.ESCALATE:
            died = type(message.error) is WorkerDied
            said = (
                str(message.error) if died else f"what task {message.task!r} raised was escalated"
            )
            self._authority.break_pool(said, message.error)
        return Panic(
            pool=self._spec.name,
            worker=worker.name,
            task=message.task,
            error=message.error,
            restarts=self._core.metrics().restarts,
            directive=message.directive,
        )

    def _follow(self, worker: Appointed, message: Panicked) -> None:
        """Do with a worker's seat what the directive says."""
        if message.directive is Directive.STOP and len(self._seats) > 1:
            self._take_away(worker, message.error)
            return
        self._seats[worker.index] = None
        if message.directive is Directive.RESTART:
            self._replace(worker.index, message.error)
        elif message.directive is Directive.STOP and self.wanted():
            self._authority.break_pool(f"its last worker {worker.name} was stopped", message.error)

    def _take_away(self, worker: Appointed, error: BaseException) -> None:
        """Take the seat of a worker that stops, and do not replace it."""
        self._core.mailbox.size = len(self._seats) - 1  # first: the seats are but a view
        del self._seats[worker.index]
        self._failures.pop(worker.index, None)
        self._spec.log(
            logging.WARNING, "worker %s was stopped and is not replaced; %d are left",
            worker.name, len(self._seats), error=error, worker=worker.name, size=len(self._seats),
        )  # fmt: skip

    def _replace(self, index: int, error: BaseException | None) -> None:
        """Seat a successor, if the policy permits and there is work for it."""
        if not self.wanted():
            return
        window, allowed = self._window.allow(self._spec.recovery, self._clock.monotonic())
        if not allowed:
            self._window = window
            policy = self._spec.recovery
            self._authority.break_pool(
                f"more than {policy.max_restarts} restarts in {policy.within} s", error
            )
            return
        restarts, name = self._core.mailbox.count_restart(), self._spec.worker_name(index)
        self._spec.log(
            logging.WARNING, "worker %s was lost and is replaced (restart %d)",
            name, restarts, error=error, worker=name, restarts=restarts,
        )  # fmt: skip
        successor = self.appoint(index)
        self._window = window  # now: if this fails halfway, it is done again and counted once
        self._start(successor)

    def wanted(self) -> bool:
        """Whether a worker would still have something to do."""
        if self._authority.phase is Phase.DRAINING:
            return self._core.mailbox.has_work
        return self._authority.phase is Phase.RUNNING

    def has_seat(self, worker: Performer) -> bool:
        """Whether it works here for good: it is no caller, and nobody has taken its place."""
        return is_appointed(worker) and self._seats.get(worker.index) is worker

    def supersede(self, worker: Performer) -> None:
        """Seat a successor of one that has a seat. It stops once its task is over."""
        if is_appointed(worker):
            worker.retire()
            self._core.mailbox.count_restart()
            self._start(self.appoint(worker.index))

    def dismiss(self, worker: Performer) -> bool:
        """Discharge a worker that never got a thread. Returns whether it was one.

        From here on it is handed nothing: else it has been, and is about to begin.
        """
        if not is_appointed(worker) or not worker.dormant:
            return False
        if not self._core.mailbox.unpark(worker):
            return False
        self._core.mailbox.discharge(worker, worker.tally)
        self._core.workers.remove(worker)
        # Last: should this fail halfway, it is not idle any more, and gets a thread to end in.
        worker.begun = True  # and it is over: to wake it has no effect any more
        return True

    def on_stopped(self, message: Stopped) -> None:
        """A worker's thread is about to end, or has."""
        worker = message.worker
        self._see_off(worker)
        if is_appointed(worker) and self._has_left_a_seat(worker):
            self._seats[worker.index] = None
            self._replace(worker.index, None)
        self._authority.finish_if_over()

    def _has_left_a_seat(self, worker: Appointed) -> bool:
        """Whether its seat is still to be filled.

        It was not known to go; or there was nothing for a successor to do, until its key was free.
        """
        seat = self._seats.get(worker.index, worker.index)  # it may have been taken away
        return seat is worker or (seat is None and worker.index not in self._retries)

    def _see_off(self, worker: Performer) -> None:
        """A worker is gone. What it was handed and has not begun goes to the next one."""
        if is_appointed(worker) and worker.begun and not worker.left:
            self._bury(worker)
        if is_appointed(worker) and worker.interrupted_once:
            self._mend()
        self._core.mailbox.discharge(worker, worker.tally)
        if worker in self._core.workers:
            self._core.workers.remove(worker)
            if worker.thread is not None:
                self._core.threads = [one for one in self._core.threads if one.is_alive()]
                self._core.threads.append(worker.thread)

    def _mend(self) -> None:
        """A thread was interrupted, perhaps at the mailbox: finish what it had begun there."""
        for heir in self._core.mailbox.mend():
            heir.wake()
        self._core.mailbox.keep_time()
        for worker in self._core.workers:
            if worker.slot is not None:
                worker.wake()

    def _bury(self, worker: Appointed) -> None:
        """Its thread was ended from outside: do what it has left undone."""
        error = RuntimeError(worker.fate())
        worker.interrupted_once = True
        for task in worker.unsettled():
            worker.write_off(task, error)
            if task.key is not None and task is not worker.put_back:
                self._core.mailbox.release(task)
        run_elsewhere(worker.clean_up)


def _write_to(worker: Appointed, message: Broadcast) -> Future[Any]:
    answer: Future[Any] = Answer(worker, worker.name)
    worker.inbox.put(
        Envelope(Letter(message.message, answer, own_values(message.variables.copy())))
    )
    return answer
