"""A real browser, spoken to by the DevTools protocol: Chromium, headless, over a pair of pipes."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE = 30.0

# Chromium reads commands from descriptor 3 and answers on 4.
_START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); " \
         "os.execv(sys.argv[3], sys.argv[3:])"  # fmt: skip

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-pipe", "--host-resolver-rules=MAP rebound.example 127.0.0.1",
)  # fmt: skip


class Browser:
    """Chromium. One command at a time; events are kept until somebody asks for them."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = _high(*os.pipe())
        self._read, answers = _high(*os.pipe())
        ends = [commands, answers]
        self._log = (profile.parent / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", _START, *map(str, ends), program, *_FLAGS,
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends, stdout=self._log, stderr=self._log,
            env={**os.environ, "HOME": str(profile)},
        )  # fmt: skip
        for end in ends:
            os.close(end)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command, and wait for its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while (found := self._receive(until)).get("id") != self._number:
            self.events.append(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser does not answer; see chromium.log")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def page(self, width: int = 1100, height: int = 900, *, dark: bool = False) -> Page:
        """A new page in a profile of its own: it knows no cookie of another one."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.call("Emulation.setEmulatedMedia", features=scheme)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def close(self) -> None:
        """End it."""
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send this page a command."""
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        """Go there."""
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            raise RuntimeError(f"{url}: {error}")
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns; a promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait until a piece of JavaScript returns something true, and return that."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(RuntimeError):  # it is between two documents
                if found := self.run(condition):
                    return found
            select.select([], [], [], 0.05)
        raise AssertionError(f"it never came true: {condition}; the page says {self.text()!r}")

    def text(self) -> str:
        """What a person reads."""
        found: str = self.run("document.body?.innerText ?? ''")
        return found

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, **text,
            )  # fmt: skip

    def complaints(self) -> list[str]:
        """Errors that the page has logged, its blocked scripts included."""
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return found

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Take a picture."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


def _high(*descriptors: int) -> list[int]:
    """The same, with other numbers than those that Chromium wants."""
    found = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 50) for one in descriptors]
    for one in descriptors:
        os.close(one)
    return found
