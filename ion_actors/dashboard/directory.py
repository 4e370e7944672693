"""The directory with the sockets of a user's programs: where it is, and that nobody else is in it.

::

    $ION_ACTORS_RUNTIME_DIR        if it is set
    $XDG_RUNTIME_DIR/ion_actors    if that is set, and the user's own
    TMPDIR/ion_actors-UID          otherwise

Who reads looks in all the others unless the first one is set: a service often has other variables
than a shell. The directory is the user's own, has the mode 0700, and is no symbolic link. It is
opened once, and all that is done in it goes by its descriptor, so that nobody can put another one
in its place meanwhile.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Self

__all__ = ["Directory", "places"]

_GIVEN = "ION_ACTORS_RUNTIME_DIR"
_BY_DESCRIPTOR = "/proc/self/fd"
_OPEN = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Directory:
    """An open directory, which was checked.

    Args:
        path: where it is.
        uid: whose it is.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it is somebody else's, or others may use it.
        OSError: it is a symbolic link, or no directory.
    """

    def __init__(self, path: Path, uid: int) -> None:
        self.path = path
        self.uid = uid
        self._fd = os.open(path, _OPEN)
        try:
            _check(path, os.fstat(self._fd), uid)
        except BaseException:
            self.close()
            raise

    @classmethod
    def own(cls) -> Self:
        """The directory where this process publishes; made, if it is not there.

        Raises:
            OSError: there can be none, or the one that is there is not safe.
        """
        path, uid = _own_place(), os.geteuid()
        path.mkdir(mode=0o700, exist_ok=True)
        return cls(path, uid)

    def address(self, name: str) -> str:
        """The address of a socket in it. It is short, however long the path is."""
        if Path(_BY_DESCRIPTOR).is_dir():
            return f"{_BY_DESCRIPTOR}/{self._fd}/{name}"
        return str(self.path / name)

    def names(self) -> list[str]:
        """The names of the sockets in it."""
        found = os.listdir(self._fd)  # noqa: PTH208
        return sorted(one for one in found if one.endswith(".sock") and one[0] != ".")

    def rename(self, old: str, new: str) -> None:
        """Rename a socket, in place of one of that name."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a socket; nothing happens if it is gone."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return

    def close(self) -> None:
        """Close it. The sockets stay."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def places(uid: int) -> list[Path]:
    """Where a program of this user may have published."""
    found = [Path(f"/run/user/{uid}/ion_actors"), Path(f"/tmp/ion_actors-{uid}")]
    if uid == os.geteuid():
        if (given := _variable(_GIVEN)) is not None:
            return [given]
        if (runtime := _variable("XDG_RUNTIME_DIR")) is not None:
            found.append(runtime / "ion_actors")
        found.append(_temporary())
    return list(dict.fromkeys(found))


def _own_place() -> Path:
    if (given := _variable(_GIVEN)) is not None:
        return given
    runtime = _variable("XDG_RUNTIME_DIR")
    # That of another user is left behind in the environment by su and sudo.
    return runtime / "ion_actors" if runtime is not None and _is_own(runtime) else _temporary()


def _variable(name: str) -> Path | None:
    found = os.environ.get(name, "")
    if os.path.isabs(found):  # noqa: PTH117 - "" is no path
        return Path(found)
    if found and name == _GIVEN:
        raise OSError(f"{name} must be an absolute path, not {found!r}")
    return None


def _temporary() -> Path:
    return Path(tempfile.gettempdir(), f"ion_actors-{os.geteuid()}")


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _check(path: Path, found: os.stat_result, uid: int) -> None:
    if found.st_uid != uid:
        raise PermissionError(f"{path} belongs to the user {found.st_uid}, not to {uid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise PermissionError(f"{path} is open to other users (mode {mode:04o}): chmod 700 {path}")
