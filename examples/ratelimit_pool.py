"""A pool of workers that calls an HTTP server with a limit, and learns the limit from its answers.

::

    pip install .                             # nothing else is needed
    python examples/ratelimit_pool.py
    python examples/ratelimit_pool.py --limit 50 --window 1 --workers 16

The server is a real one, on a port of this machine. It answers so many requests per window, refuses
the rest with 429 and ``Retry-After``, and tells in each answer what remains, as public APIs do. The
client's own limit is set much too high on purpose. What to look for:

- *Learning*: in the first window the workers run into the limit, and requests are refused. The
  limiter reads when to come again, and holds all workers back until then.
- *No more refusals*: from then on it hands out as many tokens per window as the server allows.
  Those who wait are served in order.
- *The rate*: what was achieved, beside what the server allows and what the client had configured.
- *Nothing lost*: a task whose request was refused waits for its next token and tries again.

Exit code: 0, or 1 if a request was refused after the limit had been learnt or the requests do not
add up, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import io
import logging
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ion_actors import Pool
from ion_actors.ratelimit import Limit, MultiTierLimiter, RequestLimiter, per_second

HOST = "127.0.0.1"
CONFIGURED = Limit(per_second(1000), 100)  # by the client, who knows no better
REQUEST_TIMEOUT = 30.0  # seconds

OK, TOO_MANY = 200, 429


# --- the server with a limit --------------------------------------------------------------------


class Window:
    """So many requests per window; a window begins with its first request."""

    def __init__(self, limit: int, length: float) -> None:
        self.limit = limit
        self.length = length
        self._lock = threading.Lock()  # guards the two below
        self._used = 0
        self._ends = 0.0

    def enter(self) -> tuple[bool, int, float]:
        """Count a request. Returns whether it is within the limit, what remains, until when."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._used, self._ends = 0, now + self.length
            within = self._used < self.limit
            self._used += within
            return within, self.limit - self._used, self._ends - now


class Server(http.server.ThreadingHTTPServer):
    """An HTTP server that goes by a window."""

    request_queue_size = 256

    def __init__(self, window: Window) -> None:
        super().__init__((HOST, 0), Handler)
        self.window = window


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request, or refuses it; tells what remains either way."""

    def do_GET(self) -> None:
        """One request."""
        assert isinstance(self.server, Server)
        window = self.server.window
        within, remaining, reset_after = window.enter()
        self.send_response(OK if within else TOO_MANY)
        self.send_header("X-RateLimit-Limit", str(window.limit))
        self.send_header("X-RateLimit-Remaining", str(remaining))
        self.send_header("X-RateLimit-Reset-After", f"{math.ceil(reset_after * 1000) / 1000:.3f}")
        if not within:
            self.send_header("Retry-After", str(math.ceil(reset_after)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as inherited
        """Say nothing: the story is told elsewhere."""


# --- what happened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that was answered. Times are seconds since the beginning."""

    sent: float
    status: int


class Story:
    """Keeps what happened and tells the highlights. Safe from any thread."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()  # guards the two below
        self.attempts: list[Attempt] = []
        self.learnt: float | None = None  # when the first window that was told of was over

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, who: str, what: str) -> None:
        """One line of the story."""
        sys.stdout.write(f"{self.now():7.2f} s  {who:<8} {what}\n")

    def on_answer(self, attempt: Attempt, reset_after: float | None) -> None:
        """A request was answered; the server said when its window ends."""
        with self._lock:
            first_refusal = attempt.status == TOO_MANY and not self.refused()
            self.attempts.append(attempt)
            if first := self.learnt is None and reset_after is not None:
                self.learnt = self.now() + (reset_after or 0.0)
        if first:
            self.say("limiter", f"reads the first answer: the window ends in {reset_after:.3f} s")
        if first_refusal:
            self.say("server", "refuses a request: 429; all workers wait for their next token")

    def refused(self) -> list[Attempt]:
        """The requests that were refused."""
        return [one for one in self.attempts if one.status == TOO_MANY]


def picture(story: Story, window: float) -> str:
    """What became of the requests, one row per window."""
    rows = Counter((int(one.sent / window), one.status) for one in story.attempts)
    most = max(rows.values(), default=1)
    scale = max(1, math.ceil(most / 60))
    lines = []
    for row in range(max((row for row, _ in rows), default=-1) + 1):
        good, bad = rows[row, OK], rows[row, TOO_MANY]
        bars = "█" * math.ceil(good / scale) + "x" * math.ceil(bad / scale)
        lines.append(f"{row * window:7.2f} s  {bars} {good}{f' + {bad} refused' if bad else ''}")
    return "\n".join(lines)


# --- the run ------------------------------------------------------------------------------------


def fetch(port: int, item: int, request: RequestLimiter, story: Story) -> int:
    """The task: one request to the server, until it is answered. Returns how often it was sent."""
    for attempt in range(1, sys.maxsize):
        request.wait()
        sent = story.now()
        connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_TIMEOUT)
        try:
            connection.request("GET", f"/items/{item}")
            response = connection.getresponse()
            told = request.learn(dict(response.headers), status=response.status)
        finally:
            connection.close()
        story.on_answer(Attempt(sent, response.status), told.reset_after)
        if response.status == OK:
            return attempt
    raise AssertionError("unreachable")


def run(server: Server, story: Story, options: argparse.Namespace) -> int:
    """Fetch all items; returns how many requests that took."""
    limiter = MultiTierLimiter(CONFIGURED, CONFIGURED, name="api")
    port = server.server_address[1]
    with Pool(options.workers, name="clients") as pool:
        futures = [
            pool.submit(fetch, port, item, limiter.for_(route=f"GET /items/{item}"), story)
            for item in range(options.requests)
        ]
        return sum(future.result() for future in futures)


def show(options: argparse.Namespace) -> int:
    """Run, then the picture and the sums; returns the exit code."""
    logging.getLogger("ion_actors.ratelimit").setLevel(logging.ERROR)  # the story tells of pauses
    story = Story()
    window = Window(options.limit, options.window)
    with Server(window) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="server")
        thread.start()
        story.say("server", f"allows {options.limit} requests per {options.window:g} s")
        story.say("client", f"would send {CONFIGURED.rate} with {options.workers} workers")
        try:
            sent = run(server, story, options)
        finally:
            server.shutdown()
            thread.join()
    print(f"\n{picture(story, options.window)}\n")
    return 0 if add_up(sent, story, options) else 1


def add_up(sent: int, story: Story, options: argparse.Namespace) -> bool:
    """Print the sums. Returns whether nothing is missing, and nothing was refused once learnt."""
    refused = story.refused()
    learnt = math.inf if story.learnt is None else story.learnt
    late = [one for one in refused if one.sent > learnt]
    answered = len(story.attempts) - len(refused)
    allowed = options.limit / options.window
    print(f"{sent} requests = {answered} answered + {len(refused)} refused")
    print(f"{len(refused) - len(late)} refused while it learnt, {len(late)} after")
    print(
        f"{answered / story.now():.1f}/s over the whole run, the server allows {allowed:.1f}/s in"
        f" each full window, the client was configured for {CONFIGURED.rate}"
    )
    return sent == len(story.attempts) and answered == options.requests and not late


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
    if not 0.1 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text} is not in 0.1..60")
    return value


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="A pool that learns a server's rate limit.")
    parser.add_argument("--workers", type=between(1, 256), default=8, help="(%(default)s)")
    parser.add_argument(
        "--requests", type=between(1, 100_000), default=120, help="to be answered (%(default)s)"
    )
    parser.add_argument(
        "--limit", type=between(1, 10_000), default=20,
        help="requests that the server answers per window (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=duration, default=0.5, metavar="SECONDS",
        help="length of the server's window (%(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = command_line().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know the bars
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        return show(options)
    except OSError as error:
        print(f"ratelimit_pool: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the pool is closed, the server is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
