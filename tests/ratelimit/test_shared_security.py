"""A shared limit that fails open says so, and no error shows the password of its storage."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
import redis
from limits.storage import MemoryStorage, RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from ion_actors import Context, RateLimited, StorageUnavailable
from ion_actors.ratelimit import SharedLimiter, per, per_second
from ion_actors.ratelimit.store import Secrets, kind_of
from ion_actors.testing import RecordingMetrics, VirtualClock
from tests.ratelimit.test_shared import ClockedStorage, storage

__all__ = ["storage"]

SECRET = "hunter2/?#x@7:Z"
numbers = count()


def everything_said(error: BaseException) -> str:
    """All that any tool shows of an error: of its whole chain, also where that is suppressed."""
    found, said = [error], []
    for one in found:
        said += [str(one), repr(one), repr(vars(one)), *getattr(one, "__notes__", ())]
        found += [link for link in (one.__cause__, one.__context__) if link is not None]
    formatted = traceback.TracebackException.from_exception(error)
    return "".join([*said, *formatted.format()])


# -- passwords -----------------------------------------------------------------------------

ADDRESSES = [
    "redis://:{}@localhost:port/0",
    "redis://user:{}@localhost:99999999/0",
    "redis://:{}@[::1/0",
    "redis://:{}@localhost:6379/0?db=zero",
    "redis://:{}@ho\N{FULLWIDTH COMMERCIAL AT}st\N{ADDRESSED TO THE SUBJECT}/0",
    "redis://localhost:x/0?password={}",
    "redis+unix://:{}@/tmp/x?db=zero",
    "rediss://user:{}@localhost:port",
    "rediss://:{}@localhost:6379?ssl_cert_reqs=nonsense",
    "redis+cluster://:{}@localhost:port,localhost:2",
    "redis+sentinel://:{}@localhost:port",
    "redis+sentinel://:{}@localhost:26379",
    "valkey://:{}@localhost:port/0",
    "memcached://:{}@localhost:port",
    "pigeon://:{}@localhost",
    "//:{}@localhost",
    "{}@localhost:6379",
    "user:{}@localhost:6379",
    "redis:/:{}@localhost",
    "async+memory://:{}@localhost",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), "plain"])
def test_an_address_that_makes_no_sense_is_not_shown(
    address: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Exception) as caught:  # noqa: PT011
        # Some are only found out when they are used.
        SharedLimiter(per_second(1), storage=address.format(form), key="k").allow()
    assert isinstance(caught.value, ValueError | TypeError | StorageUnavailable)
    said = everything_said(caught.value) + caplog.text
    assert form not in said
    assert "hunter2" not in said


def test_no_address_of_another_type_is_shown() -> None:
    for address in (b"redis://:hunter2@localhost", ["redis://:hunter2@localhost"]):
        with pytest.raises(TypeError, match="storage must be an address") as caught:
            SharedLimiter(per_second(1), storage=address, key="k")  # type: ignore[arg-type]
        assert "hunter2" not in everything_said(caught.value)


def test_a_cluster_that_is_not_there_is_a_storage_that_does_not_answer() -> None:
    address = "redis+cluster://:hunter2@127.0.0.1:1"  # tracebacks show the lines of the call
    with pytest.raises(StorageUnavailable, match=r"redis\+cluster:// storage failed") as caught:
        SharedLimiter(per_second(1), storage=address, key="k", fail_open=True)
    assert "hunter2" not in everything_said(caught.value)


class Parrot(MemoryStorage):
    """Repeats what it was sent, as Redis does with the arguments of a command it does not know."""

    STORAGE_SCHEME: ClassVar[list[str]] = ["parrot"]  # type: ignore[misc]
    base_exceptions = ConnectionError  # type: ignore[assignment]

    def acquire_entry(self, *args: Any, **kwargs: Any) -> bool:
        cause = ValueError(f"AUTH {SECRET}")
        raise ConnectionError(f"unknown command 'AUTH', with args beginning: '{SECRET}'") from cause


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe="")])
def test_a_server_that_repeats_the_password_does_not_tell_it(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"parrot://user:{form}@localhost/0"
    limiter = SharedLimiter(per_second(1), storage=address, key="k")
    with pytest.raises(StorageUnavailable, match=r"beginning: '\*\*\*'") as caught:
        limiter.allow()
    assert "hunter2" not in everything_said(caught.value) + repr(limiter)
    SharedLimiter(per_second(1), storage=address, key="k", fail_open=True).wait()
    assert "lets everything through" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_is_secret_in_an_address() -> None:
    secrets = Secrets("redis://u:a%20b@host/0?password=c+d&sentinel_password=e#f")
    assert secrets.without("a b, a%20b, c d, c+d, e") == "***, ***, ***, ***, ***"
    assert Secrets("redis://host:1/0").without("redis://host:1/0") == "redis://host:1/0"
    assert Secrets("redis://user@host/0").without("user@host") == "user@host"


def test_keys_that_cannot_be_sent_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"key must be text that UTF-8 can encode, not 'a\\ud800'"):
        SharedLimiter(per_second(1), storage="memory://", key="a\ud800")
    limiter = SharedLimiter(per_second(1), storage="memory://", key="a\n\N{SNOWMAN}\u202e")
    assert [limiter.allow(), limiter.allow()] == [True, False]


# -- failing open --------------------------------------------------------------------------


def test_a_failure_that_lasts_is_said_again_but_not_often(
    storage: ClockedStorage, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = RecordingMetrics()
    with Context(clock=clock), caplog.at_level(logging.INFO, "ion_actors.ratelimit"):
        limiter = SharedLimiter(
            per(1, 60), storage=storage, key="k", fail_open=True, name="api", metrics=metrics,
            remind_after=30,
        )  # fmt: skip
        storage.down = True
        for _ in range(100):
            assert limiter.allow()
            clock.advance(1)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(": the storage")[0] for line in said] == [
        "api lets everything through",
        *["api lets everything through, 30 calls since the last message"] * 3,
    ]
    assert [record.count for record in caplog.records] == [1, 30, 30, 30]  # type: ignore[attr-defined]
    found = metrics.count("ion_ratelimit_fail_open_total", limiter="api", kind="other")
    assert found == 100


def test_a_storage_that_comes_and_goes_fills_no_log(
    storage: ClockedStorage, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with Context(clock=clock), caplog.at_level(logging.INFO, "ion_actors.ratelimit"):
        limiter = SharedLimiter(per(10**6, 60), storage=storage, key="k", fail_open=True)
        for _ in range(600):
            storage.down = not storage.down
            assert limiter.allow()
            clock.advance(0.25)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"] * 3  # 150 s, a minute between any two


def test_how_often_it_is_said_is_checked() -> None:
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="remind_after must be"):
            SharedLimiter(per_second(1), storage="memory://", key="k", remind_after=wrong)


def test_a_storage_that_only_cannot_tell_its_level_is_not_asked_without_pause(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    metrics = RecordingMetrics()
    with Context(clock=clock):
        limiter = SharedLimiter(
            per(1, 60), storage=storage, key="k", fail_open=True, name="api", metrics=metrics
        )
        assert limiter.allow()

        def fail(*args: object) -> Any:
            storage.down = True
            try:
                storage.fail_if_down()
            finally:
                storage.down = False

        storage.get_moving_window = fail  # type: ignore[method-assign]
        asked = storage.asked
        limiter.wait()
    assert storage.asked == asked + 1
    assert metrics.count("ion_ratelimit_fail_open_total", limiter="api", kind="other") == 1


# -- a real Redis that refuses -------------------------------------------------------------


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@contextlib.contextmanager
def wrong_password(admin: redis.Redis) -> Iterator[str]:
    yield "nobody:hunter2@"


@contextlib.contextmanager
def no_password(admin: redis.Redis) -> Iterator[str]:
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">right")
    try:
        yield ""
    finally:
        admin.execute_command("AUTH", "default", "right")
        admin.execute_command("ACL", "SETUSER", "default", "nopass")


@contextlib.contextmanager
def no_permission(admin: redis.Redis) -> Iterator[str]:
    admin.execute_command("ACL", "SETUSER", "guest", "on", ">hunter2", "~*", "-@all", "+hello")
    try:
        yield "guest:hunter2@"
    finally:
        admin.execute_command("ACL", "DELUSER", "guest")


@contextlib.contextmanager
def read_only(admin: redis.Redis) -> Iterator[str]:
    admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield ""
    finally:
        admin.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def no_memory(admin: redis.Redis) -> Iterator[str]:
    admin.config_set("maxmemory", "1")
    try:
        yield ""
    finally:
        admin.config_set("maxmemory", "0")


AILMENTS = [
    (wrong_password, "authentication"),
    (no_password, "authentication"),
    (no_permission, "authentication"),
    (read_only, "read_only"),
    (no_memory, "out_of_memory"),
]


@pytest.mark.parametrize(("ailment", "kind"), AILMENTS)
def test_what_people_must_mend_is_an_error_in_the_log_and_has_its_kind(
    ailment: Any, kind: str, redis_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = RecordingMetrics()
    with ailment(admin) as user, caplog.at_level(logging.INFO, "ion_actors.ratelimit"):
        address = redis_url.replace("//", f"//{user}")
        name = f"test-ailment-{next(numbers)}"
        options: dict[str, Any] = {"storage": address, "key": name, "name": "api"}
        with pytest.raises(StorageUnavailable) as caught:
            SharedLimiter(per_second(3), **options).allow()
        limiter = SharedLimiter(per_second(3), **options, fail_open=True, metrics=metrics)
        assert limiter.allow()
        limiter.wait()
    assert caught.value.kind == kind
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert metrics.count("ion_ratelimit_fail_open_total", limiter="api", kind=kind) == 2
    assert "hunter2" not in everything_said(caught.value) + caplog.text
    storage = limiter._store._counter.storage
    storage.get_connection().close()


def test_a_server_that_is_not_there_is_unreachable() -> None:
    nobody = RedisStorage("redis://127.0.0.1:1", retry=Retry(NoBackoff(), 0))  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailable) as caught:
        SharedLimiter(per_second(1), storage=nobody, key="k").allow()
    assert caught.value.kind == "unreachable"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.exceptions.MovedError("1 127.0.0.1:1"), "cluster"),
        (redis.exceptions.RedisClusterException("no slot"), "cluster"),
        (redis.exceptions.NoScriptError("No matching script"), "script"),
        (redis.ResponseError("Error running script (call to f_1): bad"), "script"),
        (redis.ResponseError("NOAUTH Authentication required."), "authentication"),
        (redis.ResponseError("ERR user_script:1: -READONLY You can't write"), "read_only"),
        (redis.ResponseError("WRONGTYPE Operation against a key"), "refused"),
        (redis.exceptions.TimeoutError("Timeout"), "unreachable"),
        (OSError("gone"), "unreachable"),
        (KeyError("x"), "other"),
    ],
)
def test_kinds_of_failures(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize("moment", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_storage_is_not_believed_beyond_its_window(
    moment: float, storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(1, 60), storage=storage, key="k")
    assert limiter.allow()
    storage.get_moving_window = lambda *args: (moment, 1)  # type: ignore[method-assign]
    with Context(clock=clock), pytest.raises(RateLimited) as caught:
        limiter.wait(timeout=0)
    assert caught.value.retry_after is not None
    assert 0.0 <= caught.value.retry_after <= 120.0
