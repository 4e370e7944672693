"""An actor without a thread of its own: its host makes it, and calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pykka
from pykka._introspection import get_attr_directly  # private; the tests watch over it

__all__ = ["attribute_of", "made_with_inbox", "receive"]


def made_with_inbox(
    actor_class: type[pykka.Actor], args: tuple[Any, ...], kwargs: Mapping[str, Any], inbox: Any
) -> pykka.Actor:
    """A new instance, with that inbox instead of pykka's queue.

    Raises:
        TypeError: its constructor does not call pykka's.
    """
    actor = actor_class.__new__(actor_class, *args, **kwargs)
    # It hides the method of its class, so that the inbox is in place, also in the ref, before
    # anything can be put into it.
    vars(actor)["_create_actor_inbox"] = lambda: inbox
    actor.__init__(*args, **kwargs)  # type: ignore[misc]
    del vars(actor)["_create_actor_inbox"]
    if getattr(actor, "_actor_ref", None) is None:
        name = actor_class.__qualname__
        raise TypeError(f"{name}.__init__() does not call super().__init__()")
    return actor


def receive(actor: pykka.Actor, message: Any) -> Any:
    """The actor's answer to a message, also to one of pykka's own, which proxies send."""
    return actor._handle_receive(message)


def attribute_of(actor: pykka.Actor, path: tuple[str, ...]) -> Any:
    """An attribute, also of an attribute, found as by pykka's proxies: no property is called."""
    return get_attr_directly(actor, path)
