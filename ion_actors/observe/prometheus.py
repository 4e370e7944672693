"""Prometheus: the numbers of pools, read at scrape time; and metrics. Needs extra ``prometheus``.

::

    register(pool) ──▶ PoolCollector ──pool.metrics()──▶ ion_pool_…    costs nothing per task
    Pool(metrics=PrometheusMetrics()) ──per task──▶ ion_workerpool_…   has histograms

The names differ, so that a pool may have both.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ion_actors.forking import on_fork, renew_after_fork
from ion_actors.naming import printable
from ion_actors.observe.conventions import SECONDS, is_in_seconds

__all__ = ["PoolCollector", "PrometheusMetrics", "register"]

M = TypeVar("M", bound=MetricWrapperBase)


class _Pool(Protocol):
    """See :class:`ion_actors.Pool`, which is in a layer above this one."""

    @property
    def name(self) -> str: ...
    @property
    def is_closed(self) -> bool: ...
    def metrics(self) -> object: ...


_GAUGES = {
    "ion_pool_workers": ("Workers of the pool.", "size"),
    "ion_pool_queue_limit": ("Tasks that may wait.", "queue_size"),
    "ion_pool_tasks_queued": ("Tasks that wait now.", "queued"),
    "ion_pool_tasks_running": ("Tasks that run now.", "running"),
}
_COUNTERS = {
    "ion_pool_tasks_submitted": ("Tasks that were accepted.", "submitted"),
    "ion_pool_tasks_rejected": ("Submissions that were refused.", "rejected"),
    "ion_pool_worker_restarts": ("Workers that were replaced.", "restarts"),
}
_OUTCOMES = ("completed", "failed", "panicked", "cancelled")


class PoolCollector(Collector):
    """Reads ``pool.metrics()`` of some pools at each scrape. A registry needs only one.

    Every scrape is a snapshot, in which
    ``ion_pool_tasks_submitted_total = ion_pool_tasks_queued + ion_pool_tasks_running +
    sum(ion_pool_tasks_ended_total)`` for each pool. Pools are referenced weakly: one that the
    program has dropped is missing from the next scrape.
    """

    def __init__(self) -> None:
        self._pools: dict[str, weakref.ref[_Pool]] = {}
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may hold the lock."""
        self._lock = threading.Lock()  # guards the dictionary

    def add(self, pool: _Pool) -> None:
        """Report this pool from now on, labelled with its name.

        Raises:
            ValueError: another pool of that name is reported, and has not ended.
        """
        with self._lock:
            known = self._pools.get(pool.name, _no_pool)()
            if known is not None and known is not pool and not known.is_closed:
                raise ValueError(f"there is another pool named {pool.name!r}; give one a name")
            self._pools[pool.name] = weakref.ref(pool)

    def remove(self, pool: _Pool) -> None:
        """Do not report this pool any more; nothing happens if it is not reported."""
        with self._lock:
            known = self._pools.get(pool.name, _no_pool)()
            if known is pool:
                del self._pools[pool.name]

    def describe(self) -> Iterable[Metric]:
        """The families without samples, for the registry to know their names."""
        return _families([])

    def collect(self) -> Iterable[Metric]:
        """The families, with the current numbers."""
        return _families([(name, pool.metrics()) for name, pool in self._alive()])

    def _alive(self) -> Iterator[tuple[str, _Pool]]:
        with self._lock:
            known = list(self._pools.items())
        for name, ref in known:
            pool = ref()
            if pool is not None:
                yield name, pool
                continue
            with self._lock:
                if self._pools.get(name) is ref:
                    del self._pools[name]


def _no_pool() -> None:
    """A replacement for the reference to a missing pool."""


def _families(found: Sequence[tuple[str, object]]) -> list[Metric]:
    families: list[Metric] = []
    for name, (text, field) in _GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=["pool"])
        for pool, numbers in found:
            gauge.add_metric([pool], getattr(numbers, field))
        families.append(gauge)
    for name, (text, field) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=["pool"])
        for pool, numbers in found:
            counter.add_metric([pool], getattr(numbers, field))
        families.append(counter)
    ended = CounterMetricFamily(
        "ion_pool_tasks_ended", "Tasks that are over, by how.", labels=["pool", "outcome"]
    )
    for pool, numbers in found:
        for outcome in _OUTCOMES:
            ended.add_metric([pool, outcome], getattr(numbers, outcome))
    return [*families, ended]


_sharing = threading.Lock()  # guards the two dictionaries below
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, PoolCollector] = (
    weakref.WeakKeyDictionary()
)


def _after_fork() -> None:
    global _sharing  # noqa: PLW0603  # the old one may be held by a thread that is not here
    _sharing = threading.Lock()


on_fork(_after_fork)


def register(pool: _Pool, registry: CollectorRegistry = REGISTRY) -> PoolCollector:
    """Report a pool to a registry at each scrape, as long as the program keeps the pool.

    Args:
        pool: the pool; give it a name, which becomes the label ``pool``.
        registry: by default that of ``prometheus_client`` itself.

    Returns:
        The registry's collector, which all its pools share.

    Raises:
        ValueError: another pool of that name is reported, and has not ended.
    """
    with _sharing:
        collector = _collectors.get(registry)
        if collector is None:
            collector = PoolCollector()
            registry.register(collector)
            _collectors[registry] = collector
    collector.add(pool)
    return collector


class _Store:
    """The metrics of one registry, which rejects duplicates."""

    def __init__(self) -> None:
        self.metrics: dict[str, tuple[MetricWrapperBase, list[str]]] = {}  # with their labels
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may hold the lock."""
        self.lock = threading.Lock()  # held while a metric is made, once


_stores: weakref.WeakKeyDictionary[CollectorRegistry, _Store] = weakref.WeakKeyDictionary()


class PrometheusMetrics:
    """A :class:`~ion_actors.observe.Metrics` whose measurements go to ``prometheus_client``.

    A metric is registered at its first use. Its labels are those of the first use: a label that is
    missing later counts as empty, and a new one is an error. Characters that
    Prometheus does not allow in names become underscores. Several of these may share a registry.

    Args:
        registry: by default that of ``prometheus_client`` itself.
        buckets: upper bounds of histograms of seconds; by default from 0.1 ms to 10 s.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, buckets: Sequence[float] = SECONDS
    ) -> None:
        self._registry = registry
        self._buckets = tuple(buckets)
        with _sharing:
            self._store = _stores.setdefault(registry, _Store())
        # By name and labels, so that the usual case is one look-up.
        self._counters: dict[tuple[object, ...], Counter] = {}
        self._gauges: dict[tuple[object, ...], Gauge] = {}
        self._histograms: dict[tuple[object, ...], Histogram] = {}

    def inc(self, name: str, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.inc`."""
        self.add(name, 1, **labels)

    def add(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.add`."""
        key = (name, *labels.items())
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._child(Counter, name, labels)
        counter.inc(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.gauge`."""
        key = (name, *labels.items())
        gauge = self._gauges.get(key)
        if gauge is None:
            gauge = self._gauges[key] = self._child(Gauge, name, labels)
        gauge.set(value)

    def histogram(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.histogram`."""
        key = (name, *labels.items())
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = self._histograms[key] = self._child(Histogram, name, labels)
        histogram.observe(value)

    def _child(self, kind: type[M], name: str, labels: dict[str, str]) -> M:
        metric, names = self._metric(kind, name, labels)
        if not isinstance(metric, kind):
            raise TypeError(f"{name} is a {type(metric).__name__}, and not a {kind.__name__}")
        if unknown := labels.keys() - set(names):
            raise ValueError(f"{name} has the labels {names}, and not {sorted(unknown)}")
        # Text that UTF-8 cannot encode would fail each scrape.
        values = [printable(str(labels.get(one, ""))) for one in names]
        return metric.labels(*values) if names else metric

    def _metric(
        self, kind: type[M], name: str, labels: dict[str, str]
    ) -> tuple[MetricWrapperBase, list[str]]:
        valid = re.sub(r"[^a-zA-Z0-9_:]", "_", name)
        with self._store.lock:
            known = self._store.metrics.get(valid)
            if known is None:
                buckets = kind is Histogram and is_in_seconds(name)
                options: dict[str, Any] = {"buckets": self._buckets} if buckets else {}
                text, names = f"{name}, as reported by ion_actors.", sorted(labels)
                metric = kind(valid, text, names, registry=self._registry, **options)
                known = self._store.metrics[valid] = (metric, names)
            return known
