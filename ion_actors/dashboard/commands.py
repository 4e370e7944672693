"""What a request from outside asks for: checked, done, and logged. Nothing here waits for a pool.

==========  =====================  ==================================================
verb        body                   answer
==========  =====================  ==================================================
``resize``  ``{"size": 4}``        ``{"size": 4}``
``pause``   ``{}``                 ``{"paused": true}``
``resume``  ``{}``                 ``{"paused": false}``
``drain``   ``{"timeout": 30}``    ``{"draining": true}``; the timeout may be left out
``cancel``  ``{"task": id}``       ``{"cancelled": true}``; false: it runs, and was asked to stop
``replay``  ``{"letter": id}``     ``{"replayed": true}``
==========  =====================  ==================================================

With ``{"pool": id}`` besides, the pool is found by its id: several may have one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ion_actors._arguments import whole_number
from ion_actors.dashboard import actions
from ion_actors.errors import BrokenPool, PoolClosed, QueueFull
from ion_actors.logs import Logger
from ion_actors.naming import printable
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.model.metrics import PoolState

__all__ = ["CommandRefused", "command"]

logger = Logger("ion_actors.dashboard", later=True)


class CommandRefused(Exception):
    """A command that is not carried out. Its text is for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status  #: of HTTP


def command(pool: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is asked for.

    Args:
        pool: the pool's name.
        verb: see the module.
        body: the same.

    Returns:
        The answer.

    Raises:
        CommandRefused: it makes no sense, or not now.
    """
    if (act := _VERBS.get(verb)) is None:
        raise CommandRefused(404, f"there is no action '{printable(verb)}'")
    try:
        core = _find(pool, verb, body)
        answer = act(core, body)
    except LookupError as error:
        raise CommandRefused(404, str(error.args[0])) from error
    except (TypeError, ValueError) as error:
        raise CommandRefused(400, str(error)) from error
    except (QueueFull, PoolClosed, BrokenPool) as error:
        raise CommandRefused(409, str(error)) from error
    details = ", ".join(f"{name} {value!r}" for name, value in body.items() if name != "pool")
    logger.warning("somebody at the dashboard asked pool %r to %s%s", core.spec.name, verb,
               f" ({details})" if details else "")  # fmt: skip
    return answer


def _find(name: str, verb: str, body: Mapping[str, Any]) -> PoolCore:
    core = actions.find_pool(_text(body, "pool") if "pool" in body else name)
    ending = core.phase is PoolState.DRAINING and verb in _FOR_ITS_END
    if core.phase is not PoolState.RUNNING and not ending:
        raise CommandRefused(409, f"pool {core.spec.name!r} accepts nothing any more")
    return core


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {value!r}")
    return value


def _resize(core: PoolCore, body: Mapping[str, Any]) -> dict[str, Any]:
    size = whole_number("size", body.get("size"), minimum=1)
    actions.resize(core, size)
    return {"size": size}


def _pause(core: PoolCore, _body: Mapping[str, Any]) -> dict[str, Any]:
    actions.pause(core)
    return {"paused": True}


def _resume(core: PoolCore, _body: Mapping[str, Any]) -> dict[str, Any]:
    actions.resume(core)
    return {"paused": False}


def _drain(core: PoolCore, body: Mapping[str, Any]) -> dict[str, Any]:
    actions.drain(core, body.get("timeout"))
    return {"draining": True}


def _cancel(core: PoolCore, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"cancelled": actions.cancel(core, _text(body, "task"))}


def _replay(core: PoolCore, body: Mapping[str, Any]) -> dict[str, Any]:
    actions.replay(core, _text(body, "letter"))
    return {"replayed": True}


# A drain that takes too long may get a deadline, or be helped.
_FOR_ITS_END = ("cancel", "drain")

_VERBS: dict[str, Callable[[PoolCore, Mapping[str, Any]], dict[str, Any]]] = {
    "resize": _resize,
    "pause": _pause,
    "resume": _resume,
    "drain": _drain,
    "cancel": _cancel,
    "replay": _replay,
}
