"""How a storage has failed, by the error of its client: a few words that can label a metric."""

from __future__ import annotations

import re

__all__ = ["kind_of"]

# By the names of classes, since clients of several storages have them, and none may be installed.
_BY_CLASS = {
    "AuthenticationError": "authentication",
    "AuthenticationWrongNumberOfArgsError": "authentication",
    "AuthorizationError": "authentication",
    "NoPermissionError": "authentication",
    "ReadOnlyError": "read_only",
    "OutOfMemoryError": "out_of_memory",
    "NoScriptError": "script",
    "AskError": "cluster",  # MovedError is one
    "ClusterError": "cluster",
    "TryAgainError": "cluster",
    "RedisClusterException": "cluster",
    "ConnectionError": "unreachable",
    "TimeoutError": "unreachable",
    "OSError": "unreachable",
}

# By the code that Redis puts first, or quotes as what has failed inside a script.
_BY_CODE = {
    "NOAUTH": "authentication",
    "WRONGPASS": "authentication",
    "NOPERM": "authentication",
    "READONLY": "read_only",
    "MISCONF": "read_only",  # it does not write, since it cannot save
    "OOM": "out_of_memory",
    "NOSCRIPT": "script",
    "MOVED": "cluster",
    "ASK": "cluster",
    "CLUSTERDOWN": "cluster",
    "CROSSSLOT": "cluster",
    "MASTERDOWN": "cluster",
}
_CODE = re.compile(rf"\b(?:{'|'.join(_BY_CODE)})\b")
_OF_SCRIPT = re.compile(r"\bscript\b|\beval(?:sha)?\b", re.IGNORECASE)


def kind_of(error: BaseException) -> str:
    """One of the words of :attr:`ion_actors.StorageUnavailable.kind`."""
    error = getattr(error, "storage_error", error)  # what `limits` wraps, if it was told to
    text = str(error)
    if (code := _CODE.search(text)) is not None:
        return _BY_CODE[code[0]]
    names = [kind.__name__ for kind in type(error).__mro__]
    for name in names:
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    if "ResponseError" in names:
        return "script" if _OF_SCRIPT.search(text) else "refused"
    return "other"
