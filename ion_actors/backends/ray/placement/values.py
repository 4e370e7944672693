"""A call with object references, on its way to a child process.

Ray replaces references by what they refer to, in the actor. The child gets those values beside the
call. The call itself stays bytes until then, and so its variables are beside it, too.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from ion_actors.backends.process.transport.pickling import (
    Packed,
    not_rebuilt,
    pack_call,
    pack_simply,
    unpack,
)
from ion_actors.backends.ray.wire import put_in_place

__all__ = ["pack_apart", "with_values"]


def pack_apart(packed: Packed, extra: object) -> Packed:
    """A call for :func:`with_values`.

    Args:
        packed: the call, with places instead of references, and without variables.
        extra: its variables and its time, which hold nothing of the user's but bytes.
    """
    return pack_simply((*_in_buffers(packed), extra))


def with_values(packed: Packed, values: Sequence[Any]) -> Packed:
    """The content of a TASK message for a child.

    Args:
        packed: by :func:`pack_apart`.
        values: what the references refer to.

    Raises:
        TaskNotPicklable: one of them cannot be sent on.
    """
    header, buffers, extra = unpack(*packed)
    args = *_in_buffers((header, buffers)), tuple(values)
    return pack_call(str, _call_with, args, None, extra)


def _in_buffers(packed: Packed) -> tuple[Any, list[Any]]:
    header, buffers = packed
    return pickle.PickleBuffer(header), [pickle.PickleBuffer(one) for one in buffers]


def _call_with(header: Any, buffers: Sequence[Any], values: Sequence[Any]) -> Any:
    """In the child: make the call."""
    try:
        fn, args, kwargs, _ = unpack(header, buffers)
    except BaseException as error:
        raise not_rebuilt("", "the call", error) from error
    names = kwargs or {}
    given = put_in_place([*args, *names.values()], values)
    return fn(*given[: len(args)], **dict(zip(names, given[len(args) :], strict=True)))
