"""An HTTP service that makes thumbnails, in front of a supervised pool.

::

    pip install '.[examples]'
    python examples/http_service.py                 # serves until Ctrl-C or SIGTERM
    python examples/http_service.py --load 200      # and is loaded by real clients, then ends
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/thumbnail?style=sepia' -o thumbnail.jpg

A Starlette application under uvicorn: its event loop only reads and answers, the pool does the
work. What to look for:

- *Load shedding*: the queue is bounded. When it is full, ``try_submit`` raises ``QueueFull`` and
  the client is told so at once: 503, with a ``Retry-After`` that grows with the work in the queue.
- *Cancellation*: when a client disconnects, the context of its task ends. A queued task goes at
  once, a running one at its next step.
- *Deadlines*: a task that takes longer than ``--timeout`` is answered with 504.
- *Shutdown*: on SIGTERM the service accepts nothing more, answers every request that it has
  accepted, and only then drains the pool and ends.

Exit code: 0 (also after SIGTERM), 2 for wrong arguments, 130 after Ctrl-C, which ends it in the
same way. A second Ctrl-C does not wait for the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import io
import math
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from extras import require

require("PIL", "rich", "starlette", "uvicorn", extra="examples", about=__doc__)

import uvicorn
from PIL import Image
from rich.console import Console
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from httpload import Load, clients
from ion_actors import Cancelled, Context, DeadlineExceeded, Pool, QueueFull, current_context
from photolab.samples import PhotosNotFoundError, find_photos
from photolab.styles import STYLES, picture
from support import between, metrics_sum, metrics_table

LARGEST = 20_000_000  # bytes of a picture
GONE = 499  # nginx's code for a client that did not wait; no one will read it

MEANING = {
    200: "thumbnails",
    400: "not a picture",
    413: "too large",
    422: "wrong parameters",
    500: "faults of the service",
    GONE: "client went away, its task was cancelled",
    503: "the queue was full, or the service ended",
    504: "took too long",
}


# --- the work -----------------------------------------------------------------------------------


class PictureError(Exception):
    """The body is no picture that can be read; the message says why."""


def thumbnail(body: bytes, style: str, size: int) -> tuple[bytes, float]:
    """A task: a JPEG of the picture in this style, and the seconds it took.

    It ends early if its context has ended.
    """
    begun = time.perf_counter()
    try:
        image = picture(
            io.BytesIO(body), style=style, size=size, checkpoint=current_context().check
        )
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(str(error)) from error
    target = io.BytesIO()
    image.save(target, format="JPEG", quality=90)
    return target.getvalue(), time.perf_counter() - begun


# --- the application ----------------------------------------------------------------------------


class Service:
    """The handlers. All of them run on the event loop, so the counts need no lock."""

    def __init__(self, pool: Pool, console: Console, timeout: float) -> None:
        self.accepted = 0
        self.answers: collections.Counter[int] = collections.Counter()
        self.life = Context()  # of all requests
        self._pool = pool
        self._console = console
        self._timeout = timeout
        self._seconds = 0.1  # that a thumbnail takes, lately
        self.app = Starlette(
            routes=[
                Route("/thumbnail", self.thumbnail, methods=["POST"]),
                Route("/metrics", self.metrics),
            ]
        )

    async def metrics(self, _: Request) -> Response:
        """The pool's numbers of this moment."""
        return JSONResponse(dataclasses.asdict(self._pool.metrics()))

    async def thumbnail(self, request: Request) -> Response:
        """The picture in the body as a thumbnail."""
        self.accepted += 1
        begun = time.perf_counter()
        try:
            response = await self._answer(request)
        except HTTPException as error:
            response = PlainTextResponse(error.detail + "\n", error.status_code, error.headers)
        except ClientDisconnect:  # while it sent the body
            response = Response(status_code=GONE)
        except Exception:  # a fault of ours: Starlette answers, and uvicorn logs it
            self.answers[500] += 1
            raise
        code = response.status_code
        self.answers[code] += 1
        took = time.perf_counter() - begun
        self._console.print(f"{code}  {took * 1000:6.0f} ms  {MEANING[code]}", highlight=False)
        return response

    async def _answer(self, request: Request) -> Response:
        style, size = parameters(request)
        body = await read(request)
        context = Context(self.life)
        submitter = self._pool.options(context=context, timeout=self._timeout)
        try:
            future = submitter.try_submit(thumbnail, body, style, size)
        except QueueFull:
            raise HTTPException(
                503, "the queue is full", {"Retry-After": str(self._retry_after())}
            ) from None
        watcher = asyncio.create_task(cancel_when_gone(request, context))
        try:
            jpeg, seconds = await future
        except Cancelled:
            if self.life.cancelled:
                raise HTTPException(503, "the service ends") from None
            return Response(status_code=GONE)
        except DeadlineExceeded:
            raise HTTPException(504, f"it took longer than {self._timeout:g} s") from None
        except PictureError as error:
            raise HTTPException(400, str(error)) from None
        finally:
            watcher.cancel()
        self._seconds += (seconds - self._seconds) / 8
        return Response(jpeg, media_type="image/jpeg")

    def _retry_after(self) -> int:
        """Whole seconds until there should be room again."""
        now = self._pool.metrics()
        return math.ceil(self._seconds * (now.queued + 1) / now.size)


def parameters(request: Request) -> tuple[str, int]:
    """The style and the size that the client asks for.

    Raises:
        HTTPException: there is no such thing.
    """
    style = request.query_params.get("style", "square")
    size = request.query_params.get("size", "160")
    if style not in STYLES:
        raise HTTPException(422, f"style must be one of {', '.join(STYLES)}")
    if not (size.isdecimal() and size.isascii() and 32 <= int(size[:9]) <= 512):
        raise HTTPException(422, "size must be in 32..512")
    return style, int(size)


async def read(request: Request) -> bytes:
    """The body.

    Raises:
        HTTPException: it is too large.
        ClientDisconnect: the client went away before it had sent it.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise HTTPException(413, f"more than {LARGEST} bytes", {"Connection": "close"})
    return bytes(body)


async def cancel_when_gone(request: Request, context: Context) -> None:
    """End the context when the client disconnects. The body was read, so nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
    context.cancel("the client went away")


# --- the run ------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """uvicorn's, which says what it does when it is told to stop."""

    def __init__(self, service: Service, console: Console) -> None:
        super().__init__(
            uvicorn.Config(
                service.app, lifespan="off", log_config=None, access_log=False,
                timeout_keep_alive=60,
            )
        )  # fmt: skip
        self._service = service
        self._console = console

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The handler of SIGINT and SIGTERM while it serves."""
        super().handle_exit(sig, frame)
        # Not here: a handler may have interrupted another print.
        asyncio.get_running_loop().call_soon_threadsafe(self._say)

    def _say(self) -> None:
        if self.force_exit:  # where uvicorn still waits for its connections, from Python 3.12 on
            self._service.life.cancel("the service does not wait any more")
            return
        open_requests = self._service.accepted - self._service.answers.total()
        self._console.print(f"Stopping; {open_requests} requests are still to be answered.")


@contextlib.contextmanager
def stopped_by_sigterm(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM ends the server in good order, whenever it comes.

    uvicorn sees to that while it serves. Before that it does not listen yet; and afterwards it
    sends the signal on to whoever listened before, which would kill the process by default.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(options: argparse.Namespace, listener: socket.socket, console: Console) -> int:
    """Serve until told to stop; returns the exit code."""
    pool = Pool(options.workers, options.queue, name="thumbnails")
    service = Service(pool, console, options.timeout)
    server = Server(service, console)
    code = 0
    load = Load(address(listener), options.load, [one.path for one in options.photos])
    try:
        with stopped_by_sigterm(server), pool, clients(load, server):
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        code = 130
    report(service, pool, load, console)
    return code


def report(service: Service, pool: Pool, load: Load, console: Console) -> None:
    """What was answered."""
    console.print(metrics_table(pool))
    lines = [f"{n:>7} of {code} {MEANING[code]}" for code, n in sorted(service.answers.items())]
    lines += [metrics_sum(pool), f"{service.accepted} requests, {service.answers.total()} answered"]
    if load.requests:
        lines.append(str(load))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def address(listener: socket.socket) -> tuple[str, int]:
    """Where it listens: the port may have been chosen by the system."""
    host, port = listener.getsockname()[:2]
    return host, port


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="Thumbnails over HTTP, made by a pool.")
    parser.add_argument("--host", default="127.0.0.1", help="(%(default)s)")
    parser.add_argument(
        "--port", type=between(0, 65535), default=8000, help="0 takes any (%(default)s)"
    )
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    parser.add_argument(
        "--queue", type=between(0, 10_000), default=8, help="requests that may wait (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=between(1, 3600), default=30, metavar="SECONDS", help="(%(default)s)"
    )
    parser.add_argument(
        "--load", type=between(1, 1_000_000), default=0, metavar="REQUESTS",
        help="send it so many requests, then end",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        options.photos = find_photos(None) if options.load else []
        listener = socket.create_server((options.host, options.port))
    except (PhotosNotFoundError, OSError) as error:
        parser.error(str(error))
    with listener:
        host, port = address(listener)
        url = f"http://{host}:{port}"
        console.print(f"Serving on {url}", highlight=False, soft_wrap=True)
        hint = f"  curl --data-binary @photo.jpg '{url}/thumbnail?style=sepia' -o thumbnail.jpg"
        console.print(hint, style="dim", highlight=False, soft_wrap=True)
        return serve(options, listener, console)


if __name__ == "__main__":
    sys.exit(main())
