"""OTP's ``supervisor``, told once more as it is written there: blocking, one thing at a time.

It stops and starts children by calling, and what happens meanwhile waits in its mailbox. It is
slow, knows nothing of the machine under test, and is what that is compared with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ion_actors.supervision import Restart, Strategy


class Shutdown(Exception):
    """The supervisor ends."""


class Otp:
    """One supervisor. ``start(id)`` returns whether a child's start succeeds.

    Args:
        children: (id, restart, significant).
        start, stop: what is done to the world.
        now: the time.
    """

    def __init__(
        self,
        strategy: Strategy,
        intensity: int,
        period: float,
        auto_shutdown: str,
        children: list[tuple[str, Restart, bool]],
        start: Callable[[str], bool],
        stop: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self.strategy, self.intensity, self.period = strategy, intensity, period
        self.auto_shutdown = auto_shutdown
        self.ids = [child for child, _, _ in children]
        self.kind = {child: kind for child, kind, _ in children}
        self.significant = {child for child, _, significant in children if significant}
        self.pid: dict[str, str | None] = dict.fromkeys(self.ids)  # "alive", "restarting", None
        self._start, self._stop, self.now = start, stop, now
        self.restarts: list[float] = []
        self.mailbox: deque[tuple[str, str, bool]] = deque()
        self.dead: set[str] = set()  # pid is set, but the process is gone
        self.over: str | None = None
        self.gave_up: str | None = None

    # -- init and the mailbox ---

    def init(self) -> None:
        if self._start_all(self.ids) is not None:
            self._terminate_all("start failed")

    def exit(self, child: str, failed: bool) -> None:
        """A child's process ends."""
        self.dead.add(child)
        self.mailbox.append(("exit", child, failed))

    def pump(self) -> None:
        while self.mailbox and self.over is None:
            what, child, failed = self.mailbox.popleft()
            try:
                if what == "exit" and self.pid.get(child) == "alive" and child in self.dead:
                    self._on_exit(child, failed)
                elif what == "again" and self.pid.get(child) == "restarting":
                    self._restart(child)
            except Shutdown as why:
                self._terminate_all(str(why))

    def terminate(self) -> None:
        if self.over is None:
            self._terminate_all("asked")

    # -- what it does ---

    def _on_exit(self, child: str, failed: bool) -> None:
        kind = self.kind[child]
        if kind is Restart.PERMANENT or (kind is Restart.TRANSIENT and failed):
            self._restart(child)
            return
        self._delete(child)
        if child in self.significant and self.auto_shutdown != "never":
            alive = any(self.pid.get(one) for one in self.ids if one in self.significant)
            if self.auto_shutdown == "any_significant" or not alive:
                raise Shutdown("significant")

    def _restart(self, child: str) -> None:
        now = self.now()
        self.restarts = [at for at in self.restarts if at > now - self.period] + [now]
        if len(self.restarts) > self.intensity:
            self.gave_up = child
            self._delete(child)
            raise Shutdown("gave up")
        if self.strategy is Strategy.ONE_FOR_ONE:
            group = [child]
        elif self.strategy is Strategy.ONE_FOR_ALL:
            group = list(self.ids)
        else:
            group = self.ids[self.ids.index(child) :]
        self.pid[child] = None
        self.dead.discard(child)
        for one in reversed(group):
            self._terminate(one)
        failed = self._start_all([one for one in group if one in self.ids])
        if failed is not None:
            self.pid[failed] = "restarting"
            self.mailbox.append(("again", failed, True))

    def _terminate(self, child: str) -> None:
        if self.pid[child] == "alive" and child not in self.dead:
            self._stop(child)
        self.dead.discard(child)
        self.mailbox = deque(one for one in self.mailbox if one[:2] != ("exit", child))
        self._delete(child)

    def _delete(self, child: str) -> None:
        self.pid[child] = None
        self.dead.discard(child)
        if self.kind[child] is Restart.TEMPORARY:
            self.ids.remove(child)
            del self.pid[child]

    def _start_all(self, ids: list[str]) -> str | None:
        """Start these in order; returns the first that fails."""
        for one in list(ids):
            if not self._start(one):
                return one
            self.pid[one] = "alive"
        return None

    def _terminate_all(self, why: str) -> None:
        self.over = why
        for one in reversed(self.ids):
            if self.pid[one] == "alive" and one not in self.dead:
                self._stop(one)
