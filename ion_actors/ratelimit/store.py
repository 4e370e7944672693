"""One limit in a storage of the library `limits`, which several processes may share.

Its methods block until the storage answers. `limits` is imported when the first store is made: it
belongs to an extra. The password in a storage's address appears in no message. This module also
decides when a storage is asked again, and how long a call waits for tokens.
"""

from __future__ import annotations

import enum
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote, unquote_plus

from ion_actors.context import Context, Terms
from ion_actors.errors import RateLimited, RateLimitedPastDeadline, StorageUnavailable
from ion_actors.naming import printable
from ion_actors.ratelimit.rate import Rate

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.storage import Storage

__all__ = [
    "Level",
    "Secrets",
    "Store",
    "StoreWait",
    "WindowStrategy",
    "kind_of",
    "open_storage",
    "until_worth_asking",
]

T = TypeVar("T")

_USER = re.compile(r"://(.*)@", re.DOTALL)  # up to the last @: a password may contain one
_QUERY = re.compile(r"[?&][a-z_]*password=([^&#]*)", re.IGNORECASE)


class Secrets:
    """The secrets in an address, in each form in which they may be shown."""

    def __init__(self, address: str) -> None:
        found = [*_QUERY.findall(address)]
        if (user := _USER.search(address)) is not None:
            found.append(user[1].partition(":")[2])
        forms = {form for one in found for form in (one, unquote(one), unquote_plus(one))}
        # The longest first, or a rest of it would be shown.
        self._forms = sorted(filter(None, forms), key=len, reverse=True)

    def without(self, text: str) -> str:
        """The text with ``***`` instead of secrets."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text

    def are_told_by(self, error: BaseException) -> bool:
        """Whether the message of this error, or of one in its chain, shows a secret."""
        pending: list[BaseException | None] = [error]
        seen: set[int] = set()
        while pending:
            one = pending.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            text = f"{one} {one!r}"
            if any(form in text for form in self._forms):
                return True
            pending += [one.__cause__, one.__context__]
        return False


# By class names: several clients have these classes, and perhaps none is installed.
_BY_CLASS = {
    "AuthenticationError": "authentication",
    "AuthenticationWrongNumberOfArgsError": "authentication",
    "AuthorizationError": "authentication",
    "NoPermissionError": "authentication",
    "ReadOnlyError": "read_only",
    "OutOfMemoryError": "out_of_memory",
    "NoScriptError": "script",
    "AskError": "cluster",  # also the base of MovedError
    "ClusterError": "cluster",
    "TryAgainError": "cluster",
    "RedisClusterException": "cluster",
    "ConnectionError": "unreachable",
    "TimeoutError": "unreachable",
    "OSError": "unreachable",
}

# By the code at the start of Redis' message, or of the quoted error inside a script.
_BY_CODE = {
    "NOAUTH": "authentication",
    "WRONGPASS": "authentication",
    "NOPERM": "authentication",
    "READONLY": "read_only",
    "MISCONF": "read_only",  # it refuses to write, since it cannot save
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
    """One of the values of :attr:`ion_actors.StorageUnavailable.kind`."""
    error = getattr(error, "storage_error", error)  # the original error, if `limits` has wrapped it
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


# When the tokens are exhausted, the storage is asked again when it expects the next one; but not
# before about the time of one token, nor later than this, since another process may have cleared
# the limit.
_SHORTEST, _SHORTEST_FOR_SLOW = 0.005, 0.05
_LONGEST = 30.0

# Times from a storage are rounded, by Redis' Lua to a tenth of a millisecond.
_ROUNDING = 0.001


@dataclass(frozen=True, slots=True)
class Level:
    """A storage's report on a limit.

    Attributes:
        remaining: tokens that are left now.
        reset_after: seconds until there are more.
    """

    remaining: int
    reset_after: float


def until_worth_asking(level: Level, wanted: int, rate: Rate) -> float:
    """Seconds until a storage that refused so many tokens should be asked again."""
    step = min(max(rate.seconds / rate.tokens, _SHORTEST), _SHORTEST_FOR_SLOW)
    if level.remaining >= wanted:  # it has changed since the refusal: other processes ask as well
        return step
    return min(max(level.reset_after + _ROUNDING, step), _LONGEST)


class StoreWait:
    """One wait for tokens.

    Args:
        limiter: the name of the limiter.
        rate: its rate.
        n: tokens.
        context: its end ends the wait.
        timeout: seconds to wait at most, or None.

    Attributes:
        deadline: the deadline of the timeout by the clock, or None.
        level: the last report of the storage, or None.
    """

    def __init__(
        self, limiter: str, rate: Rate, n: int, context: Context, timeout: float | None
    ) -> None:
        self._limiter = limiter
        self._limit = int(rate.tokens)
        self.n = n
        self.context = context
        self.clock = context.clock
        self._began = self.clock.monotonic()
        self.deadline = None if timeout is None else self._began + timeout
        self.level: Level | None = None

    @property
    def waited(self) -> float:
        """Seconds since it began."""
        return self.clock.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until it must be over."""
        ends = [end for end in (self.deadline, self.context.deadline) if end is not None]
        return min(ends) - self.clock.monotonic() if ends else math.inf

    @property
    def hopeless(self) -> bool:
        """Whether there will not be enough tokens in time, by the storage's report."""
        left, level = self.left, self.level
        return left <= 0 or (
            level is not None and level.remaining < self.n and level.reset_after > left
        )

    def terms(self) -> Terms:
        """How to wait for its turn."""
        return Terms(self.context, self.clock, self.deadline, self.refusal)

    def refusal(self) -> RateLimited:
        """The error that there are not enough tokens in time."""
        level = self.level
        kind = RateLimitedPastDeadline if self._ends_with_context() else RateLimited
        return kind(
            f"{printable(self._limiter)} does not have {self.n} of {self._limit} tokens in time",
            limiter=self._limiter,
            retry_after=0.0 if level is None else level.reset_after,
            remaining=None if level is None else level.remaining,
            limit=self._limit,
        )

    def _ends_with_context(self) -> bool:
        outer = self.context.deadline
        return outer is not None and (self.deadline is None or outer <= self.deadline)


_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)

# This many seconds without an answer are a failure. (Older clients of Redis wait for ever.)
_TIMEOUT = 5.0


class WindowStrategy(enum.Enum):
    """How a storage counts, by the names in the library `limits`."""

    MOVING_WINDOW = "moving-window"
    """Remembers each token: exact over every window. Uses the clocks of the processes."""

    SLIDING_WINDOW_COUNTER = "sliding-window-counter"
    """Two counters, and an estimate between them. In Redis it uses the clock of Redis."""

    FIXED_WINDOW = "fixed-window"
    """One counter. Around the end of a window twice the rate can pass, and refused requests may
    count if another process asks at the same time."""


_NONE = Secrets("")


class Store:
    """The limit of one key. Every method asks the storage; any thread may call it.

    Args:
        rate: a whole number of tokens in a whole number of seconds.
        storage: the storage that keeps the count.
        key: what is limited.
        strategy: how it is counted.
        secrets: must not appear in any error.

    Raises:
        ImportError: `limits` is not installed.
        ValueError: the rate is not one of whole numbers, or the storage lacks this strategy.
    """

    def __init__(
        self,
        rate: Rate,
        storage: Storage,
        key: str,
        strategy: WindowStrategy,
        secrets: Secrets = _NONE,
    ) -> None:
        limits = _import_limits()
        self._item: RateLimitItem = limits.RateLimitItemPerSecond(
            _whole("tokens", rate.tokens, rate), _whole("seconds", rate.seconds, rate), "ion_actors"
        )
        self._key = key
        self._window = rate.seconds
        self._secrets = secrets
        self._errors = _errors_of(storage)
        try:
            self._counter = limits.strategies.STRATEGIES[strategy.value](storage)
        except NotImplementedError as error:
            raise ValueError(f"a {type(storage).__name__} cannot count by {strategy}") from error
        self._counts_refusals = strategy is WindowStrategy.FIXED_WINDOW

    def take(self, n: int) -> bool:
        """Take so many tokens, all or none.

        Raises:
            StorageUnavailable: the storage did not answer.
        """

        def take() -> bool:
            if self._counts_refusals and not self._counter.test(self._item, self._key, cost=n):
                return False
            return bool(self._counter.hit(self._item, self._key, cost=n))

        return self._ask(take)

    def level(self) -> Level:
        """How many tokens there are.

        Raises:
            StorageUnavailable: the storage did not answer.
        """
        stats = self._ask(lambda: self._counter.get_window_stats(self._item, self._key))
        after = stats.reset_time - time.time()
        # Reported times are bounded: waiting calls would wait for them.
        after = min(after, 2.0 * self._window) if after > 0 else 0.0
        return Level(max(0, stats.remaining), after)

    def clear(self) -> None:
        """Clear the count.

        Raises:
            StorageUnavailable: the storage did not answer.
        """
        self._ask(lambda: self._counter.clear(self._item, self._key))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except self._errors as error:
            failure = _unavailable(
                f"the storage of the limit {self._key!r} failed", error, self._secrets, self._key
            )
        # Outside of the handler: the error must not be chained, since it may show a secret.
        try:
            raise failure
        finally:
            del failure


def _unavailable(what: str, error: Exception, secrets: Secrets, key: str) -> StorageUnavailable:
    failure = StorageUnavailable(
        f"{what}: {printable(secrets.without(str(error)))}", key=key, kind=kind_of(error)
    )
    if not secrets.are_told_by(error):
        failure.__cause__ = error
    try:
        return failure
    finally:
        del failure, error


def open_storage(storage: Storage | str) -> Storage:
    """The storage at this address, or the storage itself.

    No error shows the address, since there may be a password in it.

    Raises:
        ImportError: `limits`, or the client that this storage needs, is not installed.
        TypeError: it is no storage, or one for asyncio.
        ValueError: there is no such kind of storage, or the address makes no sense.
        StorageUnavailable: it is contacted at once, and does not answer.
    """
    limits = _import_limits()
    found = _at_address(limits, storage) if isinstance(storage, str) else storage
    if isinstance(found, limits.storage.Storage):
        return cast("Storage", found)
    raise TypeError(
        "storage must be an address like 'redis://localhost:6379' or a storage of the library "
        f"limits, and not one for asyncio; a {type(found).__qualname__} is not"
    )


def _at_address(limits: Any, address: str) -> object:
    found = _SCHEME.match(address)
    scheme = "" if found is None else found[1]
    options: dict[str, float | str | bool] = {}
    if scheme.startswith("redis"):
        _import_redis()
    if scheme.startswith(("redis", "valkey")):
        options = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    failure: Exception
    try:
        return limits.storage.storage_from_string(address, **options)
    except (limits.errors.ConfigurationError, ValueError, LookupError, TypeError, AttributeError):
        failure = ValueError(
            "storage must be an address that the library limits can use, as redis://host:6379; "
            f"it cannot use {scheme}://, or this address makes no sense there, or what it needs "
            "is not installed (it is not shown, since there may be a password in it)"
        )
    except Exception as error:
        failure = _unavailable(f"the {scheme}:// storage failed", error, Secrets(address), "")
    raise failure  # outside of the handler: not chained to an error that shows the address


def _import_redis() -> None:
    try:
        import redis  # noqa: F401, PLC0415
    except ImportError as error:
        raise ImportError(
            "limits kept in Redis need its client: install ion_actors with its extra 'redis'"
        ) from error


def _import_limits() -> Any:
    try:
        import limits.errors  # noqa: PLC0415  # an extra, and heavy
        import limits.storage  # noqa: PLC0415
        import limits.strategies  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "limits that processes share need the library limits: "
            "install ion_actors with its extra 'redis'"
        ) from error
    return limits


def _errors_of(storage: Storage) -> tuple[type[Exception], ...]:
    from limits.errors import ConcurrentUpdateError, StorageError  # noqa: PLC0415

    own = storage.base_exceptions
    client = getattr(getattr(storage, "dependency", None), "exceptions", None)
    cluster = getattr(
        client, "RedisClusterException", None
    )  # it has no common base with the others
    return (
        *(own if isinstance(own, tuple) else (own,)),
        *(() if cluster is None else (cluster,)),
        StorageError,
        ConcurrentUpdateError,
        OSError,
    )


def _whole(name: str, value: float, rate: Rate) -> int:
    if value < 1 or value != int(value):
        raise ValueError(
            f"a shared rate must be of whole numbers, as per(3, 2) is, since storages count whole "
            f"tokens in whole seconds; {name} of {rate!r} is not"
        )
    return int(value)
