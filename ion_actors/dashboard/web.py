"""The dashboard as an ASGI app: the page, its events, the snapshot, and actions.

::

    GET  /                          the page, with page.css and page.js
    GET  /api/snapshot              a snapshot, taken for this request
    GET  /api/events                server-sent events: "history" once, then a "frame" each second
    POST /api/pools/{name}/{verb}   an action, if there are to be any

Every request passes the gate first, and every answer has the same strict headers.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ion_actors.dashboard.access import Gate, Verdict, Visitor
from ion_actors.dashboard.commands import CommandRefused
from ion_actors.dashboard.feed import Feed

__all__ = ["Dashboard"]

# Seconds after which a stream of events ends, and is opened again by the browser. A server that is
# told to stop waits for its streams to end, and tells nobody.
_STREAM = 5.0

# Seconds between two looks at whether there is a new frame.
_GLANCE = 0.1

# A browser that comes back and has missed no more frames than that keeps the history that it has.
_MISSED = 30

_NUMBER = re.compile("[0-9]{1,15}")

# Bytes that the body of an action may have.
_LARGEST = 10_000

_HEADERS = {
    # Nothing inline, nothing from elsewhere, in no frame; and no text becomes markup.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}

# For a person whose browser sends no token. After a link from elsewhere it holds the cookie back,
# until the person has followed a link of this server.
_DOOR = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ion_actors</title>
<h1>This dashboard wants a token</h1>
<p>Open the address that the program has shown. If you have just done that: <a href="./">go on</a>.
"""

Act = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
Look = Callable[[], Mapping[str, Any]]
T = TypeVar("T")


class Dashboard:
    """The ASGI app.

    Args:
        gate: who gets in.
        look: returns a snapshot, as a dictionary for JSON.
        feed: the frames for viewers.
        act: does what an action asks for, given the pool's name, the verb and the body; None if
            there are no actions. It raises :class:`CommandRefused`.
        on_close: called by :meth:`close`.
    """

    def __init__(
        self, gate: Gate, look: Look, feed: Feed, act: Act | None, on_close: Callable[[], object]
    ) -> None:
        self._gate = gate
        self._feed = feed
        self._look = look
        self._act = act
        self._on_close = on_close
        self._name = secrets.token_hex(4)
        self._threads: anyio.CapacityLimiter | None = None
        self._app = Starlette(routes=[*self._pages(), *self._api()])

    @property
    def token(self) -> str:
        """What a visitor has to know."""
        return self._gate.token

    def close(self) -> None:
        """End the streams of all viewers, and the thread that samples."""
        self._feed.close()
        self._on_close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            send = partial(_send_strictly, send)
            if (answer := self._refusal(scope)) is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        visitor = Visitor.of(
            scope["method"], scope["scheme"], scope["query_string"], scope["headers"]
        )
        verdict = self._gate.judge(visitor)
        if verdict is Verdict.ENTER:
            return None
        if verdict is Verdict.REMEMBER:
            answer: Response = RedirectResponse(_here(scope["path"]), HTTPStatus.SEE_OTHER)
            answer.headers["set-cookie"] = self._gate.cookie_header(visitor.scheme)
        elif verdict is Verdict.TOKEN:
            is_person = visitor.navigates
            answer = HTMLResponse(_DOOR, verdict.status) if is_person else _refused(verdict)
            answer.headers["www-authenticate"] = "Bearer"
        else:
            answer = _refused(verdict)
        return answer

    # -- what there is ---------------------------------------------------------------------

    def _pages(self) -> list[Route]:
        folder = importlib.resources.files("ion_actors.dashboard") / "page"

        def route(path: str, name: str) -> Route:
            content = (folder / name).read_bytes()

            async def answer(_request: Request) -> Response:
                return Response(content, media_type=_KINDS[name])

            return Route(path, answer)

        names = ("page.css", "page.js")
        return [route("/", "index.html"), *(route(f"/{name}", name) for name in names)]

    def _api(self) -> list[Route]:
        routes = [Route("/api/snapshot", self._snapshot), Route("/api/events", self._events)]
        if self._act is not None:
            # A name may have slashes.
            routes.append(Route("/api/pools/{name:path}/{verb}", self._perform, methods=["POST"]))
        return routes

    async def _snapshot(self, _request: Request) -> Response:
        return await self._in_thread(lambda: _json(self._look()))

    async def _events(self, request: Request) -> Response:
        known = request.headers.get("last-event-id", "")
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(self._stream(known), 200, headers, "text/event-stream")

    async def _stream(self, last_event: str) -> AsyncIterator[str | bytes]:
        feed, until = self._feed, anyio.current_time() + _STREAM
        with feed.viewer():
            yield "retry: 500\n\n"
            if (shown := self._seen(last_event)) is None:
                shown = 0
                yield f"event: history\ndata: {await self._in_thread(self._history)}\n\n"
            while anyio.current_time() < until and not feed.closed:
                if (frame := feed.frame).number > shown and frame.data:
                    shown = frame.number
                    head = f"id: {self._birth()}{shown}\nevent: frame\ndata: ".encode()
                    yield b"".join((head, frame.data, b"\n\n"))
                await anyio.sleep(_GLANCE)

    def _history(self) -> str:
        found = {**self._feed.history(), "actions": self._act is not None}
        return json.dumps(found, separators=(",", ":"))

    def _birth(self) -> str:
        # Each process, forked ones too, numbers its frames anew.
        return f"{self._name}-{os.getpid()}-"

    def _seen(self, last_event: str) -> int | None:
        """The last frame that a viewer has seen, if it may go on with that."""
        number = last_event.removeprefix(self._birth())
        if number == last_event or not _NUMBER.fullmatch(number):
            return None
        missed = self._feed.frame.number - int(number)
        return int(number) if 0 <= missed <= _MISSED else None

    async def _perform(self, request: Request) -> Response:
        assert self._act is not None
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST:
                return _json({"error": f"an action has at most {_LARGEST} bytes"}, 413)
        try:
            found = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            return _json({"error": "that is no JSON"}, 400)
        if not isinstance(found, dict):
            return _json({"error": "an action is a JSON object"}, 400)
        names = request.path_params
        perform = partial(self._act, names["name"], names["verb"], found)
        return await self._in_thread(partial(_answer, perform))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # The program's own calls may take up all of the usual threads.
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(4)
        return await run_sync(call, limiter=self._threads)


async def _send_strictly(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
    await send(message)


def _here(path: str) -> str:
    """The address of what is asked for, relative to itself.

    So it is right in the browser, whatever a proxy has cut off the path.
    """
    return f"./{quote(path.rpartition('/')[2])}"


def _json(found: Mapping[str, Any], status: int = 200) -> Response:
    # Starlette's own does not escape the halves of surrogate pairs.
    text = json.dumps(found, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def _refused(verdict: Verdict) -> Response:
    return _json({"error": verdict.reason}, verdict.status)


def _answer(perform: Callable[[], Mapping[str, Any]]) -> Response:
    try:
        return _json(perform())
    except CommandRefused as refused:
        return _json({"error": str(refused)}, refused.status)
