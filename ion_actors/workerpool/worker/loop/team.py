"""What the workers of one pool on an event loop share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ion_actors.actors import Envelope
from ion_actors.workerpool.model.metrics import SharedTally

if TYPE_CHECKING:
    from ion_actors.backends.protocol import LoopSite
    from ion_actors.workerpool.mailbox.mailbox import Mailbox
    from ion_actors.workerpool.spec import PoolSpec
    from ion_actors.workerpool.worker.inbox import SupervisorInbox

__all__ = ["LoopTeam"]


class LoopTeam:
    """The facts that each worker would otherwise have of its own: there may be ten thousand.

    Args:
        spec: the pool's.
        mailbox: the pool's.
        boss: the supervisor's inbox.
        site: the loop.
    """

    def __init__(
        self, spec: PoolSpec, mailbox: Mailbox, boss: SupervisorInbox, site: LoopSite
    ) -> None:
        self.spec = spec
        self.mailbox = mailbox
        self.boss = boss
        self.site = site
        self.loop = site.loop
        self.tally = SharedTally()
        self.hooks = spec.hooks
        self.refuses_generators = spec.dialect.refuses_generators
        self.wrapped = spec.task_wrapper is not None
        self.context = spec.context
        self.now = spec.context.clock.monotonic
        #: by seat: done when the actor that lived there has left, as long as it has not
        self.leaving: dict[int, asyncio.Future[Any]] = {}

    def tell(self, message: object) -> None:
        """Send the supervisor a message."""
        self.boss.put(Envelope(message))
