"""The page for users of ion has all of ion's names, and names of ours that exist."""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import inspect
import logging
import re
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import pytest

import ion_actors
from ion_actors import Context, Pool, PoolMetrics, circuit, observe, ratelimit, semaphore
from tests.docs.test_pages import DOCS

PAGE = DOCS / "coming-from" / "ion.md"

_OBSERVE = "Logger Metrics Tracer NopLogger NopMetrics NopTracer Observability"
_WITH = "WithLogger WithMetrics WithTracer"
_ERROR = "Op Err Error Unwrap"

#: The exported names of each package, from ion's source.
NAMES = {
    "workerpool": f"""
        Pool New Option Task Submit TrySubmit Drain Close IsClosed IsDraining GetName GetSize
        GetQueueSize Metrics WithName WithBaseContext WithDrainTimeout {_WITH} WithPanicRecovery
        WithTaskWrapper PoolMetrics Size Queued Running Completed Failed Panicked PoolError PoolName
        {_ERROR} NewPoolClosedError NewQueueFullError
    """,
    "semaphore": f"""
        Semaphore NewWeighted Option Acquire TryAcquire Release Current Fairness FIFO LIFO None
        String WithName WithFairness WithAcquireTimeout {_WITH} ErrInvalidWeight SemaphoreError Name
        {_ERROR} NewWeightExceedsCapacityError NewAcquireTimeoutError
    """,
    "ratelimit": f"""
        Limiter AllowN WaitN Rate TokensPerSec NewRate Per PerSecond PerMinute PerHour String Clock
        Now Sleep AfterFunc Timer Stop Option WithName WithClock WithJitter {_WITH} TokenBucket
        NewTokenBucket Tokens Burst SetRate SetBurst SetTemporaryLimit ClearTemporaryLimit DrainTo
        LeakyBucket NewLeakyBucket Level Capacity Available MultiTierLimiter NewMultiTierLimiter
        MultiTierConfig DefaultMultiTierConfig GlobalRate GlobalBurst DefaultRouteRate
        DefaultRouteBurst DefaultResourceRate DefaultResourceBurst QueueSize EnablePreemptive
        EnableBucketMapping BucketTTL RoutePatterns RouteConfig MajorParameters MultiTierMetrics
        TotalRequests GlobalLimitHits RouteLimitHits ResourceLimitHits QueuedRequests
        DroppedRequests AvgWaitTime MaxWaitTime BucketsActive Request Method Endpoint ResourceID
        SubResourceID UserID Priority Context Allow Wait UpdateRateLimitFromHeaders GetMetrics Reset
        PauseUntil PauseFor Resume IsPaused PausedUntil RateLimitError LimiterName RetryAfter Global
        Bucket Remaining Limit IsRetryable {_ERROR} NewRateLimitExceededError
        NewGlobalRateLimitError NewBucketLimitError
    """,
    "circuit": f"""
        CircuitBreaker New Option Execute Call State Metrics Reset Close Closed Open HalfOpen String
        WithFailureThreshold WithRecoveryTimeout WithHalfOpenMaxRequests
        WithHalfOpenSuccessThreshold WithFailurePredicate WithStateChangeCallback WithObservability
        {_WITH} WithName QuickFailover Conservative Aggressive CircuitMetrics Name TotalRequests
        TotalFailures TotalSuccesses ConsecutiveFails StateChanges LastFailure LastSuccess
        LastStateChange FailureRate SuccessRate IsHealthy Config FailureThreshold RecoveryTimeout
        HalfOpenMaxRequests HalfOpenSuccessThreshold IsFailure OnStateChange DefaultConfig Validate
        CircuitError CircuitName {_ERROR} IsCircuitOpen NewCircuitOpenError NewCircuitTimeoutError
    """,
    "observe": f"{_OBSERVE} {_WITH} New Debug Info Warn Error Inc Add Gauge Histogram Start",
    "shared": f"""
        ErrInvalidWeight ErrContextCanceled PoolError NewPoolClosedError NewQueueFullError
        SemaphoreError SemaphoreName NewWeightExceedsCapacityError NewAcquireTimeoutError
        RateLimitError NewRateLimitExceededError NewGlobalRateLimitError NewBucketLimitError
        {_OBSERVE} NewObservability {_WITH}
    """,
}


class Section(NamedTuple):
    """What a section of the page is about."""

    package: Any
    about: tuple[type, ...]  # whose arguments are `x=`
    variables: dict[str, type]


SECTIONS = {
    "workerpool": Section(ion_actors, (Pool,), {"pool": Pool, "metrics": PoolMetrics}),
    "semaphore": Section(
        semaphore, (semaphore.WeightedSemaphore,), {"sem": semaphore.WeightedSemaphore}
    ),
    "ratelimit": Section(
        ratelimit,
        (ratelimit.TokenBucket, ratelimit.MultiTierLimiter),
        {
            "bucket": ratelimit.TokenBucket,
            "leaky": ratelimit.LeakyBucket,
            "limiter": ratelimit.MultiTierLimiter,
            "request": ratelimit.RequestLimiter,
            "rate": ratelimit.Rate,
        },
    ),
    "circuit": Section(
        circuit,
        (circuit.CircuitBreaker,),
        {"breaker": circuit.CircuitBreaker, "metrics": circuit.CircuitMetrics},
    ),
    "observe": Section(observe, (), {}),
    "shared": Section(ion_actors, (), {}),
}


def rows(package: str) -> Iterator[tuple[list[str], list[str]]]:
    """The code in both columns of the package's table, row by row."""
    _, _, table = PAGE.read_text("utf-8").partition(f"| ion (Go), `{package}` |")
    assert table, f"there is no table of {package}"
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        ours, theirs = (re.findall(r"`([^`]+)`", one) for one in line.strip("| ").split(" | ", 1))
        yield ours, theirs


@pytest.mark.parametrize("package", NAMES)
def test_every_name_of_ion_is_there(package: str) -> None:
    listed = {
        word for ours, _ in rows(package) for code in ours for word in re.findall(r"\w+", code)
    }
    assert set(NAMES[package].split()) - listed == set()


def counterparts() -> list[tuple[str, str]]:
    found = [(package, code) for package in NAMES for _, codes in rows(package) for code in codes]
    return sorted(set(found))


@pytest.mark.parametrize(("package", "code"), counterparts())
def test_every_counterpart_exists(package: str, code: str) -> None:
    check(SECTIONS[package], code)


@pytest.mark.parametrize(
    "code", ["Pol", "pool.submitt(fn)", "sizes=", "Pool(sizes=3)", "PoolClosed.pol", "metrics.siz"]
)
def test_a_counterpart_that_does_not_exist_is_found(code: str) -> None:
    with pytest.raises((AttributeError, AssertionError, ImportError)):
        check(SECTIONS["workerpool"], code)


def check(section: Section, code: str) -> None:
    """Raise an error if there is no such thing."""
    if code.startswith("{"):
        return
    if (argument := re.match(r"(\w+)=", code)) is not None:
        assert any(argument[1] in inspect.signature(one).parameters for one in section.about) or (
            argument[1] == "timeout"
        )
        code = code.partition("=")[2]
        if not code or not re.match(r"[A-Z]\w+\(", code):
            return
    path = code.partition("(")[0].strip().split(".")
    found = resolved(section, path)
    for keyword in re.findall(r"(\w+)=", code.partition("(")[2]):
        assert keyword in inspect.signature(found).parameters, f"{path} takes no {keyword}"


def resolved(section: Section, path: list[str]) -> Any:
    first, *rest = path
    for place in (section.package, ion_actors, builtins):
        if first not in section.variables and hasattr(place, first):
            return reduce(attribute, rest, getattr(place, first))
    if first in section.variables:
        return reduce(attribute, rest, section.variables[first])
    if first == "logging":
        return reduce(getattr, rest, logging)
    return reduce(attribute, rest, importlib.import_module(f"ion_actors.{first}"))


def attribute(owner: Any, name: str) -> Any:
    """An attribute of a class: of it, of its instances, or that it documents."""
    fields = (
        {one.name for one in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else ()
    )
    if name in fields:
        return None
    if isinstance(owner, type) and issubclass(owner, BaseException) and not hasattr(owner, name):
        # Its attributes are those that its constructor has by name.
        assert name in inspect.signature(owner).parameters, f"{owner.__name__} has no {name}"
        return None
    return getattr(owner, name)


def test_the_context_of_the_page_is_ours() -> None:
    assert resolved(SECTIONS["workerpool"], ["Context", "check"]) is Context.check
