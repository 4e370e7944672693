"""The dashboard for the browser: an app to mount, and a server beside the program.

What they need is imported when they are first called: see the extra ``dashboard``.
"""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import socket
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from ion_actors._arguments import boolean, whole_number
from ion_actors.dashboard.access import Gate, checked_hosts, checked_token, is_loopback
from ion_actors.dashboard.commands import command
from ion_actors.dashboard.feed import Feed
from ion_actors.dashboard.letters import letters_kept
from ion_actors.dashboard.overview import living_pools, snapshot, take
from ion_actors.dashboard.publisher import Publication, publish
from ion_actors.forking import check, renew_after_fork
from ion_actors.logs import Logger
from ion_actors.own_variables import daemon_thread
from ion_actors.workerpool.snapshot import pool_id

if TYPE_CHECKING:
    from uvicorn import Server

    from ion_actors.dashboard.web import Dashboard

__all__ = ["DashboardServer", "app", "serve"]

logger = Logger("ion_actors.dashboard")

# Waiting tasks of each pool that the page shows.
_SHOWN = 10

# Seconds that the server's thread may take to end. It takes a quarter of one.
_PATIENCE = 5.0


def app(*, actions: bool = False, token: str | None = None, hosts: Iterable[str] = ()) -> Dashboard:
    """The dashboard as an ASGI app, to be mounted in one of yours, or served as it is.

    Its ``token`` is what a visitor has to know: open the page with ``?token=...`` once, or send
    ``Authorization: Bearer ...``.

    Args:
        actions: whether visitors may also change something: cancel tasks, resize, pause and drain
            pools, replay dead letters.
        token: what visitors have to know, from 16 characters on; by default it is random. Processes
            that answer under one address need the same.
        hosts: names by which browsers reach it, besides those of loopback. Requests with another
            ``Host`` are refused.

    Raises:
        ImportError: Starlette is not installed.
        TypeError, ValueError: an argument makes no sense.
    """
    gate = Gate(checked_token(token), checked_hosts(hosts))
    return _dashboard(gate, always=False, actions=boolean("actions", actions))


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    actions: bool = False,
    token: str | None = None,
    hosts: Iterable[str] = (),
) -> DashboardServer:
    """Serve the dashboard in a thread of its own, from now until the block is left.

    It works beside any program, also one that has no event loop, and while the program's event loop
    is blocked. It takes no signals. Meanwhile the process is published, too: see :func:`publish`.

    Args:
        host: where to listen. From anywhere but this machine it is only reached if you name another
            address here; that gives a warning, since nothing is encrypted.
        port: where to listen; by default any that is free.
        actions: as for :func:`app`.
        token: as for :func:`app`.
        hosts: as for :func:`app`; the name of ``host`` is among them.

    Raises:
        ImportError: Starlette or uvicorn is not installed.
        OSError: it cannot listen there; the port may be in use.
        TypeError, ValueError: an argument makes no sense.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    if whole_number("port", port, minimum=0) > 65535:
        raise ValueError(f"port must be at most 65535, not {port}")  # it would be taken modulo that
    family, address = _resolve(host, port)
    names = checked_hosts(hosts) | {host.lower(), address[0]}
    gate = Gate(checked_token(token), names, any_address=_is_any(address[0]))
    actions = boolean("actions", actions)
    if not is_loopback(address[0]):
        warnings.warn(
            f"the dashboard can be reached from other machines, at {host!r}; it is not encrypted, "
            "so whoever sees the traffic sees the token",
            RuntimeWarning,
            stacklevel=2,
        )
    with contextlib.ExitStack() as undo:
        listener = _listen(family, address)
        undo.callback(listener.close)
        dashboard = _dashboard(gate, always=True, actions=actions)
        undo.callback(dashboard.close)
        server = DashboardServer(listener, dashboard)
        undo.pop_all()
    return server


class DashboardServer:
    """The server that :func:`serve` has started. Leaving the block, or :meth:`close`, ends it."""

    def __init__(self, listener: socket.socket, dashboard: Dashboard) -> None:
        self._listener = listener
        self._dashboard = dashboard
        self._address = _shown(listener)
        self._server = _server(dashboard)
        name = "ion_actors-dashboard-server"
        thread = daemon_thread(self._server.run, name, ([listener],))
        thread.start()
        self._thread: threading.Thread | None = thread
        self._publication = _publish()
        renew_after_fork(self)
        atexit.register(self.close)

    @property
    def url(self) -> str:
        """The page's address. It carries the token: whoever has it gets in."""
        return f"{self._address}?token={self._dashboard.token}"

    @property
    def token(self) -> str:
        """The token alone, for ``Authorization: Bearer ...``."""
        return self._dashboard.token

    def close(self) -> None:
        """End the server, and the streams of its viewers. To call it twice does no harm."""
        check()
        atexit.unregister(self.close)
        if self._publication is not None:
            self._publication.close()
        self._dashboard.close()
        self._server.should_exit = True
        if (thread := self._thread) is not None:
            thread.join(_PATIENCE)

    def after_fork(self) -> None:
        """In a forked child: the server is the parent's, and so is the port."""
        self._thread = None
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address}>"  # without the token


# -- parts --------------------------------------------------------------------------------------


def _dashboard(gate: Gate, *, always: bool, actions: bool) -> Dashboard:
    try:
        from ion_actors.dashboard.web import Dashboard  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    look = _Look()
    feed = Feed(look.closely, look.briefly, always=always)
    return Dashboard(gate, look.everything, feed, command if actions else None, look.close)


def _missing(error: ModuleNotFoundError) -> ImportError:
    if (error.name or "").partition(".")[0] == "ion_actors":
        return error
    return ImportError(
        f"the dashboard needs {error.name!r}: pip install 'ion_actors[dashboard]'", name=error.name
    )


class _Look:
    """What is seen; meanwhile dead letters are kept."""

    def __init__(self) -> None:
        self._closed = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: its own pools have letters, too."""
        self._kept = contextlib.ExitStack()
        if not self._closed:
            self._kept.enter_context(letters_kept())

    def everything(self) -> Mapping[str, Any]:
        """All there is."""
        return snapshot().as_dict()

    def closely(self) -> Mapping[str, Any]:
        """What the page shows."""
        return take(waiting=_SHOWN).as_dict()

    def briefly(self) -> Mapping[str, Any]:
        """What the history needs."""
        return {
            "pools": [{"id": pool_id(core), **asdict(core.metrics())} for core in living_pools()]
        }

    def close(self) -> None:
        """Keep no letters any more."""
        self._closed = True
        self._kept.close()


def _publish() -> Publication | None:
    """Let ``python -m ion_actors top`` look, too."""
    try:
        return publish()
    except (OSError, RuntimeError) as error:  # the page works all the same
        logger.info("python -m ion_actors top will not see this process: %s", error)
        return None


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    return found[0][0], found[0][4]


def _is_any(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_unspecified


def _listen(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # from now on nobody is refused, however soon they come
    except BaseException:
        listener.close()
        raise
    return listener


def _shown(listener: socket.socket) -> str:
    name, port = listener.getsockname()[:2]
    if _is_any(name):
        name = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def _server(dashboard: Dashboard) -> Server:
    try:
        import uvicorn  # noqa: PLC0415
        from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from error

    class Quiet(H11Protocol):
        """Logs no request: the first one has the token in its address."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.access_log = False

    # The settings of logging are the program's: its own uvicorn may be in this process, too.
    config = uvicorn.Config(
        dashboard, loop="asyncio", http=Quiet, ws="none", lifespan="off", log_config=None,
        server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    config.load()
    return uvicorn.Server(config)
