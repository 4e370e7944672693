"""The one place that knows pykka's internals: inboxes that close, loops that survive exceptions.

From the top down, each importing only from below::

    stateful  actors that live in workers: the public Worker
    watched   a user's actor whose start, failure and end are reported
    actor     an actor whose loop survives exceptions
    hosted    an actor without a thread of its own
    inbox     inboxes that close; messages that are answered later
    thread    a thread whose end is always reported
"""

from ion_actors.actors.actor import IsolatedActor, unregister
from ion_actors.actors.hosted import attribute_of, made_with_inbox, receive
from ion_actors.actors.inbox import (
    ActorStop,
    ControlLane,
    Envelope,
    Inbox,
    Request,
    refuse,
    settle,
)
from ion_actors.actors.thread import ActorThread, Flag
from ion_actors.actors.watched import Watch, start_watched
from ion_actors.standby import NO_MORE_THREADS

__all__ = [
    "NO_MORE_THREADS",
    "ActorStop",
    "ActorThread",
    "ControlLane",
    "Envelope",
    "Flag",
    "Inbox",
    "IsolatedActor",
    "Request",
    "Watch",
    "attribute_of",
    "made_with_inbox",
    "receive",
    "refuse",
    "settle",
    "start_watched",
    "unregister",
]
