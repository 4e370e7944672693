"""How this process imports Ray, connects to a cluster, and leaves it.

Ray has one connection for the whole process. All of this is done by the thread of a
:class:`~ion_actors.backends.ray.site.RaySite`, which lives as long as the connection: the kernel
ends the processes of a local cluster together with the thread that has started them.

What Ray does by itself, and what is done about it:

=============================================  ====================================================
Any call starts a cluster if there is none     switched off before Ray is imported, if that is here
``ray.init()`` joins whatever cluster runs     it is always given an address
An address that nobody answers: no error       a TCP connection is tried first, for 5 seconds
After a failed ``init``, the next "succeeds"   the failure is remembered
A local cluster listens on all interfaces      its cluster mode is switched off while it starts
Its workers run at niceness 15                 set to 0
Log lines about tokens, metrics, signals       Ray's logger is quiet meanwhile
It prints that a process or a node has died    that is left out: the pool reports it
=============================================  ====================================================
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ion_actors.backends.protocol import Hopeless
from ion_actors.raised import in_a_line

__all__ = ["WANTS_TOKEN", "Connection", "connect", "engine"]

_PREFLIGHT = 5.0  # seconds in which the head must take a TCP connection

_QUIET = {"configure_logging": False, "logging_level": logging.ERROR, "log_to_driver": False}
_LOCAL = {**_QUIET, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}

# For the processes of a local cluster: they inherit these.
_LOCAL_VARIABLES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}

_INSTALL = "Install the versions of Ray and Python here that the cluster has"
_START = "Start one on this machine with 'ray start --head', or give address='host:port'"
#: What to do if a head that can be reached lets nobody in: Ray only says so in its own log.
WANTS_TOKEN = "If it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here, too"

_TOO_LATE = (
    "ship= sends code when this process connects to Ray, and it has connected before: give its own "
    "ray.init the argument runtime_env=dict({})"
)

_failures: dict[str, str] = {}  # of ``ray.init``, by address; only the site's thread uses it


class Connection(NamedTuple):
    """A connection of this process."""

    ray: Any  # the module
    address: str  # of the cluster's head
    own: bool  # made here, so it is closed here
    local: bool  # the cluster was started here, and ends with it
    relays: bool = False  # Ray does not show what tasks print, so it is relayed

    def close(self) -> None:
        """Close it, if it was made here."""
        if self.own and self.ray.is_initialized():
            with _quiet():
                self.ray.shutdown()
        if self.own:
            _print_deaths()


def engine() -> Any:
    """The module ``ray``."""
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    return importlib.import_module("ray")


def connect(address: str | None, init: Mapping[str, Any], ship: Sequence[str] = ()) -> Connection:
    """Use the connection that there is, or make one.

    Args:
        address: the cluster's; see :class:`~ion_actors.backends.ray.backend.RayBackend`.
        init: further arguments of ``ray.init``.
        ship: paths of modules that the nodes get.

    Raises:
        Hopeless: there is none, and can be none.
    """
    ray = engine()
    if ray.is_initialized():
        if ship:
            raise Hopeless(_TOO_LATE.format(f"py_modules={[*ship]}"))
        return _existing(ray, address)
    if ship:
        init = _with_modules(init, ship)
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted == "local":
        return _start_local(ray, init)
    return _join(ray, wanted, init)


def _with_modules(init: Mapping[str, Any], ship: Sequence[str]) -> Mapping[str, Any]:
    environment = dict(init.get("runtime_env") or {})
    environment["py_modules"] = [*environment.get("py_modules", ()), *ship]
    return {**init, "runtime_env": environment}


def _existing(ray: Any, address: str | None) -> Connection:
    found = str(ray.get_runtime_context().gcs_address)
    if address not in (None, "auto", found):
        raise Hopeless(
            f"this process is connected to the Ray cluster at {found}, and Ray has one connection "
            f"for each process; address={address!r} needs another process"
        )
    return Connection(ray, found, own=False, local=False)


def _start_local(ray: Any, init: Mapping[str, Any]) -> Connection:
    try:
        with _quiet(), _on_loopback():
            ray.init(address="local", **{**_LOCAL, **init})
            _leave_out_deaths()
    except Exception as error:
        raise Hopeless(f"no local Ray cluster can be started: {in_a_line(error)}") from error
    return _made(ray, init, local=True)


def _join(ray: Any, address: str, init: Mapping[str, Any]) -> Connection:
    if (failure := _failures.get(address)) is not None:
        raise Hopeless(f"{failure} (Ray cannot try that again in the same process)")
    _check_reachable(address)
    try:
        with _quiet():
            ray.init(address=address, **{**_QUIET, **init})
            _leave_out_deaths()
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        advice = _advice(words)
        _failures[address] = (
            f"there is no connection to the Ray cluster at {address}: {words}. {advice}"
        )
        with contextlib.suppress(Exception), _quiet():
            ray.shutdown()
        raise Hopeless(_failures[address]) from (error if advice is WANTS_TOKEN else None)
    return _made(ray, init, local=False)


def _advice(words: str) -> str:
    if "ersion mismatch" in words:
        return _INSTALL
    return _START if "not find any running Ray" in words else WANTS_TOKEN


def _made(ray: Any, init: Mapping[str, Any], *, local: bool) -> Connection:
    address = str(ray.get_runtime_context().gcs_address)
    return Connection(ray, address, True, local, not init.get("log_to_driver"))


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # "auto": Ray looks for it on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PREFLIGHT).close()
    except OSError as error:
        raise Hopeless(
            f"no Ray cluster can be reached at {address}: {in_a_line(error)}. Is its head running, "
            "and is this the port of its GCS (6379 by default)?"
        ) from None


# How what it prints of an actor's process, and of a node, begins.
_DEATHS = (
    "A worker died or was killed",
    "Raylet is terminated",
    "The node with node id",
)
_print = "print_to_stdstream"  # Ray's function for what it prints


def _leave_out_deaths() -> None:
    """Have Ray not print, for each actor or node that dies, that it has died."""
    worker = importlib.import_module("ray._private.worker")
    before: Any = getattr(worker, _print, None)
    if before is None or hasattr(before, "before"):  # another version of Ray; or done already
        return

    def print_others(data: Any, *args: Any, **kwargs: Any) -> None:
        if not any(str(line).startswith(_DEATHS) for line in data.get("lines", ())):
            before(data, *args, **kwargs)

    print_others.before = before  # type: ignore[attr-defined]
    setattr(worker, _print, print_others)


def _print_deaths() -> None:
    worker = importlib.import_module("ray._private.worker")
    if (before := getattr(getattr(worker, _print, None), "before", None)) is not None:
        setattr(worker, _print, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The block in which Ray's logger tells errors only."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if logger.level == logging.ERROR:  # else it was set meanwhile
            logger.setLevel(before)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """The block in which a cluster starts that only this machine can reach."""
    before = {name: os.environ.get(name) for name in _LOCAL_VARIABLES}
    os.environ.update(_LOCAL_VARIABLES)
    # Ray has read the first variable when it was imported.
    constants = importlib.import_module("ray._private.ray_constants")
    clusters: object = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    constants.ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters  # type: ignore[attr-defined]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
