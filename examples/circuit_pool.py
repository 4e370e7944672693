"""A pool of workers that calls an HTTP server through a circuit breaker, while the server dies.

::

    pip install .                             # nothing else is needed
    python examples/circuit_pool.py
    python examples/circuit_pool.py --recovery 2 --workers 16

The server is a real one, on a port of this machine. Requests come in at a steady pace, and each is
one task of the pool. After a while the program stops the server, and later starts it again. What to
look for:

- *The breaker opens*: after three requests in a row have failed.
- *Fast rejections*: while it is open, requests fail at once, and nobody knocks at the dead port.
- *A trial*: when the recovery timeout has passed, one request is let through. It fails, since the
  server is still down, so the breaker opens again.
- *Recovery*: the next trials meet a server that is back. Two of them succeed, the breaker closes.
- *One line*: ``Pool(..., task_wrapper=breaker.wrap)``. The tasks know nothing of the breaker.

Exit code: 0, or 1 if the requests do not add up or the breaker does not recover, 2 for wrong
arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import http.server
import io
import itertools
import logging
import math
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ion_actors import Cancelled, CircuitOpen, Context, Pool
from ion_actors.circuit import CircuitBreaker, CircuitMetrics, CircuitState

HOST = "127.0.0.1"
PACE = 0.005  # seconds from one request to the next
REQUEST_TIMEOUT = 5.0  # seconds
PATIENCE = 60.0  # seconds to wait for any act of the play to end

ANSWERED, FAILED, REJECTED = "answered", "failed", "rejected"


# --- the server that dies -----------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request."""

    def do_GET(self) -> None:
        """One request."""
        body = b"in stock\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as inherited
        """Say nothing: the story is told elsewhere."""


class Listening(http.server.ThreadingHTTPServer):
    """The server, with room for as many callers at once as there may be workers."""

    request_queue_size = 256


class Server:
    """An HTTP server that can be stopped, and started again on the same port."""

    def __init__(self) -> None:
        self.port = 0  # any; the first start finds one
        self._running: tuple[Listening, threading.Thread] | None = None

    def start(self) -> None:
        """Listen."""
        listening = Listening((HOST, self.port), Handler)
        self.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), name="server")
        thread.start()
        self._running = listening, thread

    def stop(self) -> None:
        """Close the port; does nothing if it is closed."""
        if self._running is not None:
            (listening, thread), self._running = self._running, None
            listening.shutdown()
            thread.join()
            listening.server_close()


def fetch(port: int, item: int) -> bytes:
    """The task: one request to the server."""
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_TIMEOUT)
    try:
        connection.request("GET", f"/items/{item}")
        return connection.getresponse().read()
    finally:
        connection.close()


# --- what happened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One request that is over. Times are seconds since the beginning."""

    outcome: str
    ended: float
    took: float


class Story:
    """Keeps what happened and tells the highlights. Safe from any thread."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._changed = threading.Condition()  # guards all below
        self.requests: list[Request] = []
        self.states = [(0.0, CircuitState.CLOSED)]  # since when which
        self.server = [(0.0, False)]  # since when up or down

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, who: str, what: str) -> None:
        """One line of the story."""
        sys.stdout.write(f"{self.now():7.2f} s  {who:<8} {what}\n")

    def on_server(self, up: bool, what: str) -> None:
        """The server came or went."""
        with self._changed:
            self.server.append((self.now(), up))
        self.say("server", what)

    def on_state_change(self, old: CircuitState, new: CircuitState) -> None:
        """The breaker's callback."""
        if old is CircuitState.OPEN:
            self._say_how_many_were_rejected()
        self.say("breaker", f"{word(old)} -> {word(new)}")
        with self._changed:
            self.states.append((self.now(), new))
            self._changed.notify_all()

    def on_end(self, item: int, submitted: float, future: Future[bytes]) -> None:
        """A request is over: the done-callback of its task."""
        error = future.exception()
        outcome = ANSWERED if error is None else FAILED
        if isinstance(error, CircuitOpen):
            outcome = REJECTED
        elif error is not None:
            self.say("request", f"{item} failed: {type(error).__name__}")
        now = self.now()
        with self._changed:
            self.requests.append(Request(outcome, now, now - submitted))
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], bool], meaning: str) -> None:
        """Block until it is so; a play that stands still for too long fails."""
        with self._changed:
            if not self._changed.wait_for(what, PATIENCE):
                raise TimeoutError(f"waited {PATIENCE:g} s for {meaning}")

    def count(self, outcome: str) -> int:
        """How many requests ended like that."""
        return sum(request.outcome == outcome for request in self.requests)

    def changes(self, old: CircuitState, new: CircuitState) -> int:
        """How often the breaker went from one state to the other."""
        states = [state for _, state in self.states]
        return sum(pair == (old, new) for pair in itertools.pairwise(states))

    def _say_how_many_were_rejected(self) -> None:
        with self._changed:
            since, _ = self.states[-1]
            ended = [request for request in self.requests if request.ended >= since]
        took = [request.took for request in ended if request.outcome == REJECTED]
        if took:
            self.say("requests", f"{len(took)} rejected meanwhile, {spell(took)} each")


def word(state: CircuitState) -> str:
    """The state in words."""
    return state.value.replace("_", "-")


def spell(took: Sequence[float]) -> str:
    """The median of some durations."""
    return f"{statistics.median(took) * 1000:.2f} ms"


# --- the picture at the end ---------------------------------------------------------------------

WIDTH = 64
BARS = " ▁▂▃▄▅▆▇█"
STATE_MARKS = {CircuitState.CLOSED: "─", CircuitState.OPEN: "x", CircuitState.HALF_OPEN: "½"}


def picture(story: Story, end: float) -> str:
    """The whole run on one screen: a column is a moment, a row is who did what."""
    column = end / WIDTH
    up = "".join("█" if one else "░" for one in lane(story.server, column))
    states = "".join(strongest(story.states, index * column, column) for index in range(WIDTH))
    counted = Counter(
        (request.outcome, min(WIDTH - 1, int(request.ended / column))) for request in story.requests
    )
    most = max(counted.values(), default=1)
    rows = [("server", up), ("breaker", states)]
    for outcome in (ANSWERED, FAILED, REJECTED):
        heights = [counted[outcome, index] / most for index in range(WIDTH)]
        rows.append((outcome, "".join(BARS[math.ceil(one * 8)] for one in heights)))
    scale = f"{'0 s':<{WIDTH - 8}}{end:6.2f} s"
    legend = "server █ up ░ down · breaker ─ closed x open ½ half-open · bars: requests that ended"
    return "\n".join([f"{'':10}{scale}", *(f"{name:<10}{row}" for name, row in rows), "", legend])


def lane(history: Sequence[tuple[float, bool]], column: float) -> list[bool]:
    """What was so at the end of each column."""
    return [
        [value for since, value in history if since <= (index + 1) * column][-1]
        for index in range(WIDTH)
    ]


def strongest(history: Sequence[tuple[float, CircuitState]], start: float, length: float) -> str:
    """The mark of the state in a column; half-open is mostly short, so it wins if it occurs."""
    before = [state for since, state in history if since <= start][-1:]
    within = [state for since, state in history if start < since <= start + length]
    seen = before + within
    return STATE_MARKS[CircuitState.HALF_OPEN if CircuitState.HALF_OPEN in seen else seen[-1]]


# --- the run ------------------------------------------------------------------------------------


def customers(pool: Pool, story: Story, port: int, opening_hours: Context) -> None:
    """Submit requests at a steady pace, until the context ends."""
    item = 0
    try:
        while True:
            item += 1
            ended = functools.partial(story.on_end, item, story.now())
            pool.submit(fetch, port, item).add_done_callback(ended)
            opening_hours.sleep(PACE)
    except Cancelled:
        return


def play(server: Server, breaker: CircuitBreaker, story: Story, options: argparse.Namespace) -> int:
    """Run the acts; returns how many requests were submitted."""
    opening_hours = Context()
    with Pool(options.workers, name="clients", task_wrapper=breaker.wrap) as pool:
        crowd = threading.Thread(
            target=customers, args=(pool, story, server.port, opening_hours), name="customers"
        )
        crowd.start()
        try:
            acts(server, story, options.requests)
        finally:
            opening_hours.cancel("closing time")
            crowd.join()
    return pool.metrics().submitted


def acts(server: Server, story: Story, requests: int) -> None:
    """What happens to the server, and what it waits for each time."""
    story.wait_for(lambda: story.count(ANSWERED) >= requests, "requests to be answered")
    took = [request.took for request in story.requests if request.outcome == ANSWERED]
    story.say("requests", f"{len(took)} answered, {spell(took)} each")

    server.stop()
    story.on_server(False, "STOPPED: nobody listens on its port any more")
    failed_trial = (CircuitState.HALF_OPEN, CircuitState.OPEN)
    story.wait_for(lambda: story.changes(*failed_trial) > 0, "a trial to fail")

    server.start()
    story.on_server(True, "STARTED again; the breaker finds out by its next trial")
    recovery = (CircuitState.HALF_OPEN, CircuitState.CLOSED)
    story.wait_for(lambda: story.changes(*recovery) > 0, "the breaker to close")

    answered = story.count(ANSWERED)
    story.wait_for(lambda: story.count(ANSWERED) >= answered + requests, "more answers")
    story.say("requests", f"{story.count(ANSWERED) - answered} more answered")


def show(options: argparse.Namespace) -> int:
    """Play, then the picture and the sums; returns the exit code."""
    logging.getLogger("ion_actors.circuit").setLevel(logging.ERROR)  # the story tells of changes
    story, server = Story(), Server()
    breaker = CircuitBreaker(
        "server",
        failure_threshold=3,
        recovery_timeout=options.recovery,
        half_open_success_threshold=2,
        is_failure=(OSError, http.client.HTTPException),
        on_state_change=story.on_state_change,
    )
    server.start()
    story.on_server(True, f"listens on {HOST}:{server.port}")
    story.say("breaker", "closed: requests go through")
    try:
        submitted = play(server, breaker, story, options)
    finally:
        server.stop()
    print(f"\n{picture(story, story.now())}\n")
    return 0 if add_up(submitted, breaker.metrics(), story) else 1


def add_up(submitted: int, numbers: CircuitMetrics, story: Story) -> bool:
    """Print what became of all requests. Returns whether none is missing, and all is well again."""
    counts = [story.count(outcome) for outcome in (ANSWERED, FAILED, REJECTED)]
    answered, failed, rejected = counts
    print(f"{submitted} requests = {answered} answered + {failed} failed + {rejected} rejected")
    print(f"{numbers.requests} were let through by the breaker, {numbers.rejected} turned away;")
    print(f"the dead server was called {failed} times instead of {failed + rejected}")
    ledger = [numbers.succeeded, numbers.failed, numbers.rejected]
    return sum(counts) == submitted and counts == ledger and numbers.state is CircuitState.CLOSED


# --- the command line ---------------------------------------------------------------------------


def between(minimum: int, maximum: int) -> Callable[[str], int]:
    """An argument type: a whole number in this range."""

    def number(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{value} is not in {minimum}..{maximum}")
        return value

    return number


def duration(text: str) -> float:
    """An argument type: some seconds."""
    value = float(text)
    if not 0.05 <= value <= 30:
        raise argparse.ArgumentTypeError(f"{text} is not in 0.05..30")
    return value


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="A pool behind a circuit breaker.")
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    parser.add_argument(
        "--requests", type=between(1, 10_000), default=60,
        help="answers to wait for before the server dies, and after it is back (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--recovery", type=duration, default=0.8, metavar="SECONDS",
        help="the breaker's recovery timeout (%(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = command_line().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know the bars
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        return show(options)
    except (TimeoutError, OSError) as error:
        print(f"circuit_pool: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the pool is closed, the server is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
