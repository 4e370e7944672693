"""An e-mail service whose mail server dies in the middle: late letters, no lost ones.

::

    pip install '.[examples]'
    python examples/email_service.py
    python examples/email_service.py --letters 500 --rate 100 --down 5

The mail server is a real one (aiosmtpd), in a process of its own; the letters go there by
``smtplib``. When a third of them is delivered, the program kills that process, and some time later
starts it again. What to look for:

- *Rate limit*: letters go out no faster than agreed, and those that wait are sent in order.
- *Circuit breaker*: after three failures in a row, nobody knocks at the dead server any more. When
  the recovery time is over, one trial finds out whether it is back.
- *Nothing lost*: a letter stays in the outbox, a folder, until the server has answered for it. Its
  task tries again until then. After Ctrl-C the outbox is still there, and the next run goes on.
- *At least once*: if the server dies after it has stored a letter and before it has said so, that
  letter is sent again. The report counts by Message-ID what arrived, and what arrived twice.
- *Backpressure*: the pool's queue is small, so while nothing can be sent, ``submit`` waits.

Exit code: 0, or 1 if a letter was refused or did not arrive, 2 for wrong arguments, 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import smtplib
import sys
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from extras import require

require("aiosmtpd", "rich", extra="examples", about=__doc__)

from rich.console import Console
from rich.markup import escape

from ion_actors import Cancelled, CircuitOpen, Context, ContextEnded, Pool, current_context
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.ratelimit import TokenBucket, per_second
from maillab.outbox import Outbox
from maillab.server import HOST, Server, ServerError, message_ids
from maillab.timeline import Timeline
from support import between, folder, metrics_sum, metrics_table

BURST = 4  # letters
QUEUE_SIZE = 8
SMTP_TIMEOUT = 10.0  # seconds
AT_LEAST = 0.05  # seconds before the breaker is asked again: when its trial is under way, say


# --- the service --------------------------------------------------------------------------------


def is_temporary(error: BaseException) -> bool:
    """Whether it makes sense to send the letter again. For the breaker, only that is a failure."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(code < 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code < 500
    return True


class Service:
    """Delivers letters. Its methods are called by all workers."""

    def __init__(self, port: int, rate: int, recovery: float, timeline: Timeline) -> None:
        self._port = port
        self._timeline = timeline
        limiter = TokenBucket(per_second(rate), BURST, name="smtp")
        breaker = CircuitBreaker(
            "smtp",
            failure_threshold=3,
            recovery_timeout=recovery,
            half_open_max_requests=1,
            half_open_success_threshold=1,
            is_failure=is_temporary,
            on_state_change=self._on_state_change,
        )
        # The breaker outside: a letter that it turns away costs no token.
        self._send = (breaker.wrap | limiter.wrap)(self._send_by_smtp)
        timeline.change("circuit", "closed", "closed: letters go through")

    def deliver(self, letter: Path) -> None:
        """A task: send it until somebody answers for it.

        Raises:
            smtplib.SMTPException: nobody ever will.
            Cancelled: the service ends. The letter stays in the outbox.
        """
        while True:
            try:
                self._send(letter)
            except CircuitOpen as refusal:
                current_context().sleep(max(refusal.retry_after, AT_LEAST))
            except ContextEnded:  # before OSError: a deadline that has passed is one of those, too
                raise
            except OSError as error:  # all of smtplib's are
                self._timeline.say("failed", f"{letter.name[:5]}: {type(error).__name__}")
                if not is_temporary(error):
                    Outbox.refused(letter)
                    raise
            else:
                Outbox.delivered(letter)
                return

    def _send_by_smtp(self, letter: Path) -> None:
        message = Outbox.read(letter)
        with smtplib.SMTP(HOST, self._port, "localhost", SMTP_TIMEOUT) as smtp:
            smtp.send_message(message)

    def _on_state_change(self, old: CircuitState, new: CircuitState) -> None:
        meaning = {
            CircuitState.CLOSED: "letters go through",
            CircuitState.OPEN: "letters wait in the outbox",
            CircuitState.HALF_OPEN: "one letter is let through as a trial",
        }
        name = new.value.replace("_", " ")
        self._timeline.change("circuit", name, f"{name}: {meaning[new]}")


# --- the run ------------------------------------------------------------------------------------


def fail_and_recover(
    server: Server, moment: Future[None], down: float, timeline: Timeline, service: Context
) -> None:
    """The server's fate: it dies at the given moment, and comes back so many seconds later."""
    try:
        current_context().wait(moment)
        server.kill()
        timeline.change("server", "down", "killed")
        current_context().sleep(down)
        timeline.change("server", "up", f"is back, as process {server.start()}")
    except Cancelled:
        return
    except ServerError as error:
        service.cancel(str(error))  # nothing will ever be delivered


def run(options: argparse.Namespace, outbox: Outbox, timeline: Timeline) -> tuple[Pool, int]:
    """Deliver everything in the outbox; returns the pool, drained, and how many it could not."""
    letters = outbox.letters()
    third: Future[None] = Future()

    def settled(future: Future[None]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        count = timeline.deliver()
        if count == -(-len(letters) // 3):
            third.set_result(None)
        if count % max(1, len(letters) // 6) == 0 or count == len(letters):
            timeline.say("letters", f"{count} of {len(letters)} delivered")

    pool = Pool(options.workers, QUEUE_SIZE, name="mail", drain_timeout=None)
    with Server(options.folder / "mailbox") as server, Context() as context:
        timeline.change("server", "up", f"takes mail on {HOST}:{server.port}")
        service = Service(server.port, options.rate, options.recovery, timeline)
        futures: list[Future[None]] = []
        # The fate is a pool of its own: the letters may take all workers of theirs.
        with Pool(1, name="fate", drain_timeout=None) as fate, pool:
            fate.submit(fail_and_recover, server, third, options.down, timeline, context)
            for letter in letters:
                future = pool.options(name=letter.name[:5]).submit(service.deliver, letter)
                future.add_done_callback(settled)
                futures.append(future)
            wait(futures)
            fate.close()  # if its moment has not come by now, it never will
    return pool, sum(1 for one in futures if one.cancelled() or one.exception() is not None)


def show(options: argparse.Namespace, console: Console) -> int:
    """Write the letters, deliver them, then report; returns the exit code."""
    outbox = Outbox(options.folder / "outbox")
    if waiting := len(outbox.letters()):
        console.print(f"{waiting} letters are still in the outbox; they come first.")
    outbox.write(options.letters)
    expected = {str(Outbox.read(letter)["Message-ID"]) for letter in outbox.letters()}
    timeline = Timeline(console)
    pool, undelivered = run(options, outbox, timeline)
    took = timeline.now()
    arrived = message_ids(options.folder / "mailbox")
    missing = expected - arrived.keys()
    twice = sum(1 for one in expected if arrived[one] > 1)
    console.print(metrics_table(pool))
    lines = [
        metrics_sum(pool),
        *timeline.draw(),
        f"{len(expected)} letters in {took:.2f} s, no faster than {options.rate} per second",
        f"arrived: {len(expected) - len(missing)} of {len(expected)} by Message-ID, "
        f"{len(missing)} missing, {twice} twice",
        f"mailbox: {options.folder / 'mailbox'}",
    ]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    return 1 if missing or undelivered else 0


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="E-mail that survives the death of its server.")
    parser.add_argument(
        "--letters", type=between(1, 99_999), default=120, help="to be written (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=between(1, 10_000), default=40, help="letters per second (%(default)s)"
    )
    parser.add_argument(
        "--down", type=between(0, 3600), default=2, metavar="SECONDS",
        help="that the server is dead (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--recovery", type=between(1, 3600), default=1, metavar="SECONDS",
        help="until the breaker lets a trial through (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    parser.add_argument(
        "--folder", type=folder, metavar="DIR", default=Path("build/mail"),
        help="for the outbox and the mailbox (%(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    console = Console()
    # What the breaker would log is in the timeline.
    logging.getLogger("ion_actors").addHandler(logging.NullHandler())
    if importlib.util.find_spec("aiosmtpd") is None:
        parser.error("the mail server is aiosmtpd: pip install '.[examples]'")
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        return show(options, console)
    except OSError as error:
        parser.error(str(error))
    except ServerError as error:
        console.print(f"[red]failed[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        left = len(Outbox(options.folder / "outbox").letters())
        console.print(f"[yellow]Interrupted[/]; {left} letters are in the outbox for the next run.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
