"""Real servers on the loopback interface, with the programs of ``docs/how-to/servers.md``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "servers.md"

#: Seconds until a server has to be there, has to answer, has to be gone.
PATIENCE = 30.0

_BLOCK = re.compile(r"^```(?:python|py|ini)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"127\.0\.0\.1:([1-9]\d*)")


def programs() -> dict[str, str]:
    """The files that the page shows: each begins with a comment that is its name."""
    return dict(_BLOCK.findall(PAGE.read_text()))


class Server:
    """A server in a process group of its own."""

    def __init__(self, command: list[str], folder: Path, **env: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS")}
        self.lines: list[str] = []
        self.port = 0
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            command, cwd=folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**kept, "PYTHONPATH": f"{ROOT}:{folder}", "PYTHONUNBUFFERED": "1", **env},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line)
                if not self.port and (found := _ADDRESS.search(line)) is not None:
                    self.port = int(found[1])
                self._said.notify_all()
        with self._said:
            self.lines.append("(end)")
            self._said.notify_all()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def await_line(self, part: str, count: int = 1) -> None:
        """Wait until so many lines have this in them."""
        assert self._says(part, count, PATIENCE), self.output

    def await_reload(self, changed: Path, part: str, count: int = 1) -> None:
        """Change a file, again and again, until so many lines have this in them."""
        moment = time.time()
        for step in range(int(PATIENCE)):  # a reloader may look for the first time after a change
            os.utime(changed, (moment + step, moment + step))
            if self._says(part, count, 1.0):
                return
        pytest.fail(self.output)

    def _says(self, part: str, count: int, patience: float) -> bool:
        def enough() -> bool:
            return sum(part in line for line in self.lines) >= count

        with self._said:
            self._said.wait_for(lambda: enough() or self.lines[-1:] == ["(end)"], patience)
            return enough()

    def get(self, path: str = "/") -> str:
        """Ask the server, once it is there."""
        with self._said:
            self._said.wait_for(lambda: self.port or self.lines[-1:] == ["(end)"], PATIENCE)
        assert self.port, self.output
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                url = f"http://127.0.0.1:{self.port}{path}"
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                with error:
                    return f"{error.code} {error.read().decode()}"
            except OSError:  # it says where it will be before it is there
                if time.monotonic() > deadline or self.process.poll() is not None:
                    pytest.fail(self.output)
                time.sleep(0.01)

    def stop(self, signum: int = signal.SIGTERM) -> str:
        """Stop it, wait for its end. Returns what it said."""
        self.process.send_signal(signum)
        return self.end()

    def end(self) -> str:
        """Wait for its end. Returns what it said."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the server does not stop\n{self.output}")
        self.kill()
        return self.output

    def kill(self) -> None:
        """End the whole group: some servers leave children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server: ``serve(module, *arguments)`` runs a module of Python."""
    for name, source in programs().items():
        (tmp_path / name).write_text(source)
    started: list[Server] = []

    def serve(*command: str, **env: str) -> Server:
        started.append(Server([sys.executable, "-m", *command], tmp_path, **env))
        return started[-1]

    def serve_program(*command: str, **env: str) -> Server:
        started.append(Server([*command], tmp_path, **env))
        return started[-1]

    serve.program = serve_program  # type: ignore[attr-defined]
    yield serve
    for one in started:
        one.kill()
