"""Reads what other processes of this user publish: who is there, and what each of them does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ion_actors.dashboard.directory import Directory, places
from ion_actors.dashboard.publisher import peer_of

__all__ = ["Unreadable", "everybody", "snapshot_of"]

_PATIENCE = 5.0  # seconds for an answer: a snapshot may take one, and others may be before us


class Unreadable(Exception):
    """Why a process cannot be read, in a line for people.

    Args:
        why: the line.
        gone: it will not come back.
    """

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


def snapshot_of(pid: int, *, stacks: bool = True) -> dict[str, Any]:
    """The snapshot of a process that publishes itself.

    Raises:
        Unreadable: it is gone, is somebody else's, does not publish, or does not answer.
    """
    uid = _owner(pid)
    for directory in _directories(uid):
        with directory:
            answer = _ask(directory, f"{pid}.sock", {"what": "snapshot", "stacks": stacks})
        if answer is not None:
            found = answer.get("snapshot")
            if not isinstance(found, dict):
                raise Unreadable(f"process {pid} said {_error_in(answer)}")
            return found
    raise Unreadable(
        f"process {pid} does not publish itself: start it with ION_ACTORS_PUBLISH=1, or have it "
        "call ion_actors.dashboard.publish()",
        gone=True,
    )


def everybody() -> list[dict[str, Any]]:
    """Who publishes, of this user: what each says of itself. What has ended is cleaned up."""
    found: dict[str, dict[str, Any]] = {}
    for directory in _directories(os.geteuid()):
        with directory:
            for name in directory.names():
                try:
                    answer = _ask(directory, name, {"what": "who"})
                except Unreadable as error:
                    found[name] = {"pid": _pid(name), "error": str(error)}
                    continue
                if answer is not None and isinstance(who := answer.get("who"), dict):
                    found[name] = who
    return sorted(found.values(), key=lambda one: str(one.get("since", "")))


def _directories(uid: int) -> Iterator[Directory]:
    for path in places(uid):
        with contextlib.suppress(OSError):  # there is none, or it is not safe
            yield Directory(path, uid)


def _owner(pid: int) -> int:
    """The user of a process that this user may read."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        raise Unreadable(f"there is no process {pid}", gone=True) from None
    except PermissionError:
        raise Unreadable(f"process {pid} belongs to {_user_of(pid)}") from None
    except OverflowError:
        raise Unreadable(f"there is no process {pid}", gone=True) from None
    if os.geteuid() != 0:
        return os.geteuid()
    return _uid(pid) or 0  # root may read everybody's


def _user_of(pid: int) -> str:
    uid = _uid(pid)
    if uid is None:
        return "another user"
    import pwd  # noqa: PLC0415 - Windows has none

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _uid(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def _pid(name: str) -> int:
    number = name.removesuffix(".sock")
    return int(number) if number.isdecimal() else 0


def _ask(directory: Directory, name: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """Its answer; None if nobody is there any more.

    Raises:
        Unreadable: it does not answer.
    """
    pid = _pid(name)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(directory.address(name))
        except FileNotFoundError:
            return None
        except ConnectionRefusedError:  # it was killed
            directory.remove(name)
            return None
        except OSError as error:
            raise Unreadable(f"process {pid} cannot be read: {error}") from None
        peer = peer_of(connection)
        if peer is not None and peer[1] != directory.uid:
            raise Unreadable(f"process {pid} is not what it says: the user {peer[1]} serves it")
        return _talk(connection, pid, request)


def _talk(connection: socket.socket, pid: int, request: dict[str, Any]) -> dict[str, Any]:
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answer:
            found = json.loads(answer.readline())
    except TimeoutError:
        raise Unreadable(f"process {pid} does not answer: is it stopped?") from None
    except (OSError, ValueError):
        raise Unreadable(f"process {pid} ended while it answered") from None
    if not isinstance(found, dict):
        raise Unreadable(f"process {pid} said something else than JSON")
    return found


def _error_in(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return str(error.get("text")) if isinstance(error, dict) else "nothing"
