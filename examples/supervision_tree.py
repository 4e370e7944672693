"""A small shop as a supervision tree, while its server dies, and while its table is dropped.

::

    pip install .                             # nothing else is needed
    python examples/supervision_tree.py
    python examples/supervision_tree.py --orders 100 --outage 3

The tree::

    shop  rest_for_one            who comes later needs who comes first
    ├── stock    an actor that holds a TCP connection to the stock server
    ├── orders   a pool: each order is a task
    └── books    a supervisor, one_for_one
        ├── journal   an actor that holds an SQLite database
        └── greeter   an actor that has nothing to do with it

The server is a real one, on a port of this machine, and so is the database. What to look for:

- *The server dies*: the next order fails, and with it the actor ``stock``. Everything after it is
  stopped in reverse order, since it is of no use without it.
- *It stays away*: ``stock`` cannot start; it is tried again, with growing pauses.
- *It comes back*: ``stock`` starts, and then what was stopped, in order.
- *Somebody drops the table*: ``journal`` fails and is restarted, alone, and makes the table anew.
- *The end*: everything is stopped in the reverse order of its start.

Exit code: 0, or 1 if the story does not go like that, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import socket
import socketserver
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pykka

from ion_actors import Backoff, ChildUnavailable, Future, Pool
from ion_actors.supervision import Lifecycle, LifecycleEvent, Supervisor, child

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds to wait for any act of the play to end


# --- the server that dies -----------------------------------------------------------------------


class Counter(socketserver.StreamRequestHandler):
    """Answers each line, the name of an item, with how many there are."""

    def handle(self) -> None:
        """One customer, until it hangs up or the server dies."""
        assert isinstance(self.server, Listening)
        self.server.customers.add(self.connection)
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.wfile.write(b"%d\n" % len(line))


class Listening(socketserver.ThreadingTCPServer):
    """The server, which knows its customers."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.customers: set[socket.socket] = set()
        super().__init__((HOST, port), Counter)


class Server:
    """A TCP server that can be killed, and started again on the same port."""

    def __init__(self) -> None:
        self.port = 0  # any; the first start finds one
        self._running: tuple[Listening, threading.Thread] | None = None

    def start(self) -> None:
        """Listen."""
        listening = Listening(self.port)
        self.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), name="server")
        thread.start()
        self._running = listening, thread

    def kill(self) -> None:
        """Close the port and every connection; does nothing if that is done."""
        if self._running is None:
            return
        (listening, thread), self._running = self._running, None
        listening.shutdown()
        thread.join()
        for customer in listening.customers:
            with contextlib.suppress(OSError):  # it has hung up already
                customer.shutdown(socket.SHUT_RDWR)
        listening.server_close()


# --- the actors: plain pykka, they know nothing of supervision ----------------------------------


class Servant(pykka.ThreadingActor):
    """Does what it is asked to. If that fails, who asked is told, and this actor is done for."""

    def on_receive(self, message: tuple[Any, Future[Any]]) -> None:
        """A request, and where the answer goes."""
        request, reply = message
        try:
            reply.set_result(self.serve(request))
        except Exception as error:
            reply.set_exception(error)
            raise

    def serve(self, request: Any) -> Any:
        """What it does."""
        return request


class Stock(Servant):
    """Asks the server how many there are of an item."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._address = (HOST, port)

    def on_start(self) -> None:
        """Connect."""
        self._connection = socket.create_connection(self._address, timeout=5.0)
        self._answers = self._connection.makefile("rb")

    def serve(self, request: str) -> int:
        """Ask."""
        self._connection.sendall(request.encode() + b"\n")
        answer = self._answers.readline()
        if not answer:
            raise ConnectionResetError("the server hung up")
        return int(answer)

    def on_stop(self) -> None:
        """Hang up."""
        self._answers.close()
        self._connection.close()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Hang up, too."""
        self.on_stop()


class Journal(Servant):
    """Writes orders into a database."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def on_start(self) -> None:
        """Open the database; make the table if there is none."""
        self._database = sqlite3.connect(self._path)
        self._database.execute("CREATE TABLE IF NOT EXISTS orders (item TEXT, stock INTEGER)")
        self._database.commit()

    def serve(self, request: tuple[str, int]) -> None:
        """Write one order."""
        self._database.execute("INSERT INTO orders VALUES (?, ?)", request)
        self._database.commit()

    def on_stop(self) -> None:
        """Close it."""
        self._database.close()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Close it, too."""
        self.on_stop()


class Greeter(Servant):
    """Has nothing to do with it."""


def ask(servant: pykka.ActorRef[Any], request: Any) -> Any:
    """Have an actor do something, and wait for the answer."""
    reply: Future[Any] = Future()
    servant.tell((request, reply))
    return reply.result(PATIENCE)


# --- the tree -----------------------------------------------------------------------------------


def books(path: Path) -> Supervisor:
    """The supervisor of the books."""
    children = [child(Journal, id="journal", args=(path,)), child(Greeter, id="greeter")]
    return Supervisor(children, name="books", max_restarts=5, within=10.0)


def shop(port: int, path: Path) -> Supervisor:
    """The whole tree."""
    return Supervisor(
        [
            child(Stock, id="stock", args=(port,)),
            child(Pool, id="orders", kwargs={"size": 4, "name": "orders"}),
            child(books, args=(path,)),
        ],
        name="shop",
        strategy="rest_for_one",
        max_restarts=200,
        within=10.0,
        backoff=Backoff(initial=0.05, maximum=0.4, retries=100),
    )


def order(tree: Supervisor, item: str) -> None:
    """The task. It asks the tree each time: after a restart, there are other children."""
    left = ask(tree["stock"], item)
    ask(tree["books"]["journal"], (item, left))


# --- the story ----------------------------------------------------------------------------------


class Story:
    """Tells what happens, and waits for it. Safe from any thread."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._changed = threading.Condition()  # guards the events
        self._events: list[LifecycleEvent] = []
        self.booked = self.failed = self.turned_away = 0

    def say(self, who: str, what: str) -> None:
        """One line of the story."""
        sys.stdout.write(f"{time.monotonic() - self._began:7.2f} s  {who:<16} {what}\n")

    def on_event(self, event: LifecycleEvent) -> None:
        """The subscription at the root hears the whole tree."""
        because = f", because of {event.because}" if event.because else ""
        error = f": {type(event.error).__name__}" if event.error is not None else ""
        self.say("/".join(event.path[1:]), event.kind.value + because + error)
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def count(self, kind: Lifecycle, who: str) -> int:
        """How often that happened to this child."""
        return sum(one.kind is kind and one.child == who for one in self._events)

    def wait_for(self, kind: Lifecycle, who: str, times: int = 1) -> None:
        """Block until it has happened so often; a play that stands still for too long fails."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(kind, who) >= times, PATIENCE):
                raise TimeoutError(f"waited {PATIENCE:g} s until {who} {kind.value}")

    def place(self, tree: Supervisor, orders: int) -> None:
        """Place some orders, and see what becomes of them."""
        before = self.booked
        futures = []
        for number in range(orders):
            try:
                futures.append(tree["orders"].submit(order, tree, f"item {number}"))
            except ChildUnavailable as error:
                self.turned_away += 1
                self.say("an order", f"is turned away: {error}")
        for future in futures:
            try:
                future.result(PATIENCE)
                self.booked += 1
            except (OSError, sqlite3.Error, ChildUnavailable, CancelledError) as error:
                self.failed += 1
                self.say("an order", f"fails: {type(error).__name__}")
        if self.booked > before:
            self.say("the orders", f"{self.booked - before} booked")


def show(tree: Supervisor) -> None:
    """Print the tree."""
    sys.stdout.write("\n" + "\n".join(f"    {line}" for line in str(tree).splitlines()) + "\n\n")


def acts(
    tree: Supervisor, story: Story, server: Server, path: Path, orders: int, tries: int
) -> None:
    """What happens to the shop."""
    story.place(tree, orders)
    show(tree)

    server.kill()
    story.say("THE SERVER", "is killed")
    story.place(tree, 1)
    story.wait_for(Lifecycle.START_FAILED, "stock", tries)
    story.place(tree, 1)
    show(tree)

    server.start()
    story.say("THE SERVER", "is back")
    story.wait_for(Lifecycle.RESTARTED, "books")
    story.place(tree, orders)

    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE orders")
    story.say("THE TABLE", "is dropped")
    story.place(tree, 1)
    story.wait_for(Lifecycle.RESTARTED, "journal")
    story.place(tree, orders)
    show(tree)


def play(orders: int, outage: int) -> int:
    """Run the shop; returns the exit code."""
    logging.getLogger("ion_actors").setLevel(logging.CRITICAL)  # the story tells
    logging.getLogger("pykka").setLevel(logging.CRITICAL)
    story, server = Story(), Server()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "books.sqlite"
        server.start()
        story.say("THE SERVER", f"listens on {HOST}:{server.port}")
        tree = shop(server.port, path)
        tree.subscribe(story.on_event)
        try:
            with tree:
                acts(tree, story, server, path, orders, outage)
        finally:
            server.kill()
    print(f"\n{story.booked} booked, {story.failed} failed, {story.turned_away} turned away")
    expected = (3 * orders, 2, 1)
    return 0 if (story.booked, story.failed, story.turned_away) == expected else 1


# --- the command line ---------------------------------------------------------------------------


def between(minimum: int, maximum: int) -> Callable[[str], int]:
    """An argument type: a whole number in this range."""

    def number(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{value} is not in {minimum}..{maximum}")
        return value

    return number


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="A small shop as a supervision tree.")
    parser.add_argument(
        "--orders", type=between(1, 10_000), default=40, help="in each act (%(default)s)"
    )
    parser.add_argument(
        "--outage", type=between(1, 50), default=4, metavar="TRIES",
        help="the server comes back when stock could not start so often (%(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = command_line().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know the lines of the tree
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        return play(options.orders, options.outage)
    except (TimeoutError, OSError) as error:
        print(f"supervision_tree: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the tree is closed, the server is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
