"""The Prometheus adapters, scraped over HTTP and parsed by Prometheus's own parser."""

from __future__ import annotations

import gc
import re
import threading
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ion_actors import Pool
from ion_actors.observe.prometheus import PoolCollector, PrometheusMetrics, register

PATIENCE = 30.0  # seconds

Scrape = Callable[[], dict[tuple[str, ...], float]]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Iterator[Scrape]:
    """Reads a real endpoint; a series is its name and the values of its labels, sorted by label."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def read() -> dict[tuple[str, ...], float]:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            text = response.read().decode()
        found: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = (sample.name, *(value for _, value in sorted(sample.labels.items())))
                assert series not in found, f"{series} is there twice"
                found[series] = sample.value
        return found

    yield read
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


def assert_identity(found: dict[tuple[str, ...], float], pool: str) -> None:
    ended = sum(found["ion_pool_tasks_ended_total", how, pool] for how in OUTCOMES)
    now = found["ion_pool_tasks_queued", pool] + found["ion_pool_tasks_running", pool]
    assert found["ion_pool_tasks_submitted_total", pool] == now + ended


OUTCOMES = ("completed", "failed", "panicked", "cancelled")


def exit_with(code: int) -> None:
    raise SystemExit(code)


# -- the collector -------------------------------------------------------------------------


def test_a_scrape_shows_what_the_pool_knows(registry: CollectorRegistry, scrape: Scrape) -> None:
    gate, running = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        assert gate.wait(PATIENCE)

    with Pool(1, queue_size=2, name="p") as pool:
        register(pool, registry)
        pool.submit(pow, 2, 2).result(PATIENCE)
        pool.submit(divmod, 1, 0).exception(PATIENCE)
        pool.submit(exit_with, 1).exception(PATIENCE)
        pool.submit(hold)
        assert running.wait(PATIENCE)
        pool.submit(pow, 2, 2).cancel()
        pool.submit(pow, 2, 2)
        pool.submit(pow, 2, 2)
        with pytest.raises(Exception, match="full"):
            pool.try_submit(pow, 2, 2)
        found = scrape()
        gate.set()
    assert {name[0].removeprefix("ion_pool_"): value for name, value in found.items()
            if len(name) == 2} == {
        "workers": 1, "queue_limit": 2, "tasks_queued": 2, "tasks_running": 1,
        "tasks_submitted_total": 7, "tasks_rejected_total": 1, "worker_restarts_total": 1,
    }  # fmt: skip
    assert [found["ion_pool_tasks_ended_total", how, "p"] for how in OUTCOMES] == [1, 1, 1, 1]
    assert_identity(found, "p")
    assert scrape()["ion_pool_tasks_ended_total", "completed", "p"] == 4


def test_the_identity_holds_in_every_scrape(registry: CollectorRegistry, scrape: Scrape) -> None:
    stop = threading.Event()

    def load(pool: Pool) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            task = divmod if number % 3 else exit_with
            future = pool.submit(task, *((1, number % 2) if number % 3 else (0,)))
            future.add_done_callback(lambda one: one.cancelled() or one.exception())
            if number % 5 == 0:
                future.cancel()

    with Pool(2, 50, name="busy") as pool, Pool(2, 5, name="other") as other:
        register(pool, registry)
        register(other, registry)
        loads = [threading.Thread(target=load, args=(one,)) for one in (pool, other, other)]
        for thread in loads:
            thread.start()
        try:
            for _ in range(40):
                found = scrape()
                assert_identity(found, "busy")
                assert_identity(found, "other")
        finally:
            stop.set()
            for thread in loads:
                thread.join(PATIENCE)


@pytest.mark.usefixtures("without_gc")
def test_a_forgotten_pool_is_not_kept_alive_and_is_gone_from_the_next_scrape(
    registry: CollectorRegistry, scrape: Scrape
) -> None:
    pool, other = Pool(1, name="p"), Pool(1, name="other")
    collector = register(pool, registry)
    assert register(other, registry) is collector
    pool.drain()
    assert scrape()["ion_pool_workers", "p"] == 1, "a pool that has ended keeps its last numbers"
    there = weakref.ref(pool)
    del pool
    assert there() is None
    names = {series[-1] for series in scrape()}
    assert "p" not in names
    assert "other" in names
    assert list(collector._pools) == ["other"]
    other.drain()


def test_a_pool_may_be_taken_out(registry: CollectorRegistry, scrape: Scrape) -> None:
    with Pool(1, name="p") as pool, Pool(1, name="p") as stranger:
        collector = register(pool, registry)
        collector.remove(stranger)
        assert ("ion_pool_workers", "p") in scrape()
        collector.remove(pool)
        collector.remove(pool)
        assert ("ion_pool_workers", "p") not in scrape()


def test_two_live_pools_of_one_name_are_refused_and_a_successor_is_not(
    registry: CollectorRegistry, scrape: Scrape
) -> None:
    with Pool(1, name="p") as first:
        register(first, registry)
        register(first, registry)
        with Pool(1, name="p") as second, pytest.raises(ValueError, match="another pool named 'p'"):
            register(second, registry)
        first.submit(pow, 2, 2).result(PATIENCE)
    with Pool(1, name="p") as third:
        register(third, registry)
        assert scrape()["ion_pool_tasks_submitted_total", "p"] == 0


def test_pools_that_come_at_once_share_a_collector(
    registry: CollectorRegistry, threads: ThreadPoolExecutor, scrape: Scrape
) -> None:
    together = threading.Barrier(8)
    pools = [Pool(1, name=f"p{number}") for number in range(8)]

    def come(pool: Pool) -> PoolCollector:
        together.wait(PATIENCE)
        return register(pool, registry)

    assert len({id(one) for one in threads.map(come, pools)}) == 1
    assert sum(series[0] == "ion_pool_workers" for series in scrape()) == 8
    for pool in pools:
        pool.drain()


def test_registries_have_collectors_of_their_own(registry: CollectorRegistry) -> None:
    with Pool(1, name="p") as pool:
        assert register(pool, registry) is not register(pool, CollectorRegistry())


def test_a_registry_can_be_collected() -> None:
    registry = CollectorRegistry()
    with Pool(1, name="p", metrics=PrometheusMetrics(registry)) as pool:
        register(pool, registry)
        pool.submit(pow, 2, 2).result(PATIENCE)
        there = weakref.ref(registry)
        del registry
    del pool
    gc.collect()
    assert there() is None


# -- metrics -------------------------------------------------------------------------------


def test_metrics_and_collector_go_together(registry: CollectorRegistry, scrape: Scrape) -> None:
    with Pool(1, name="p", metrics=PrometheusMetrics(registry)) as pool:
        register(pool, registry)
        pool.submit(pow, 2, 2).result(PATIENCE)
        pool.submit(divmod, 1, 0).exception(PATIENCE)
        pool.submit(exit_with, 1).exception(PATIENCE)
    found = scrape()
    assert found["ion_workerpool_tasks_submitted_total", "p"] == 3
    for status in ("success", "error", "panic"):
        assert found["ion_workerpool_tasks_completed_total", "p", status] == 1
    assert found["ion_workerpool_queue_size", "p"] == 0
    assert found["ion_workerpool_task_run_seconds_count", "p"] == 3
    assert found["ion_workerpool_task_run_seconds_bucket", "+Inf", "p"] == 3
    assert ("ion_workerpool_task_queue_seconds_bucket", "0.0001", "p") in found
    assert_identity(found, "p")


def test_names_that_prometheus_does_not_allow_are_changed(
    registry: CollectorRegistry, scrape: Scrape
) -> None:
    metrics = PrometheusMetrics(registry, buckets=(1, 2))
    metrics.inc("circuit.requests_total", circuit="c")
    metrics.inc("circuit.requests_failed", circuit="c")
    metrics.histogram("circuit.request_duration", 1.5, circuit="c")
    metrics.histogram("sizes", 1.5)
    metrics.add("bytes_total", 2.5)
    found = scrape()
    assert found["circuit_requests_total", "c"] == 1
    assert found["circuit_requests_failed_total", "c"] == 1
    assert found["circuit_request_duration_bucket", "c", "2.0"] == 1
    assert ("circuit_request_duration_bucket", "c", "5.0") not in found
    assert ("sizes_bucket", "5.0") in found
    assert found["bytes_total",] == 2.5


def test_the_labels_of_a_metric_are_those_of_the_first_time(
    registry: CollectorRegistry, scrape: Scrape
) -> None:
    metrics = PrometheusMetrics(registry)
    metrics.inc("requests_total", limiter="l", result="ok")
    metrics.inc("requests_total", result="ok", limiter="l")
    metrics.inc("requests_total", limiter="l")
    with pytest.raises(ValueError, match=re.escape("requests_total has the labels")):
        metrics.inc("requests_total", limiter="l", route="/")
    with pytest.raises(TypeError, match="requests_total is a Counter, and not a Gauge"):
        metrics.gauge("requests_total", 1, limiter="l", result="ok")
    found = scrape()
    assert found["requests_total", "l", "ok"] == 2
    assert found["requests_total", "l", ""] == 1


def test_several_may_share_a_registry_from_many_threads(
    registry: CollectorRegistry, threads: ThreadPoolExecutor, scrape: Scrape
) -> None:
    together = threading.Barrier(8)

    def measure(number: int) -> None:
        metrics = PrometheusMetrics(registry)
        together.wait(PATIENCE)
        for _ in range(200):
            metrics.inc("counted_total", pool=f"p{number % 2}")
            metrics.histogram("waited_seconds", 0.1)

    list(threads.map(measure, range(8)))
    found = scrape()
    assert found["counted_total", "p0"] == found["counted_total", "p1"] == 800
    assert found["waited_seconds_count",] == 1600


def test_a_name_that_somebody_else_has_taken_harms_nothing(
    registry: CollectorRegistry, scrape: Scrape, caplog: pytest.LogCaptureFixture
) -> None:
    class Squatter(Collector):
        def describe(self) -> Iterable[Metric]:
            return PoolCollector().describe()

        def collect(self) -> Iterable[Metric]:
            return []

    registry.register(Squatter())
    with Pool(1, name="p") as pool, pytest.raises(ValueError, match="Duplicated"):
        register(pool, registry)
    taken = CollectorRegistry()
    Counter("ion_workerpool_tasks_started_total", "mine", registry=taken)
    with Pool(1, name="p", metrics=PrometheusMetrics(taken)) as pool:
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    assert "a hook failed in inc('ion_workerpool_tasks_started_total'," in caplog.text
    assert scrape() == {}


def test_no_name_makes_a_scrape_fail(registry: CollectorRegistry, scrape: Scrape) -> None:
    evil = 'a\ud800\n"} 1\nforged 1'
    metrics = PrometheusMetrics(registry)
    metrics.inc("mine", who=evil)
    with Pool(1, name=evil, metrics=metrics) as pool:
        register(pool, registry)
        pool.submit(int).result(PATIENCE)
        found = scrape()
    shown = r'a\ud800\n"} 1\nforged 1'
    assert found["mine_total", shown] == 1
    assert found["ion_pool_workers", shown] == 1
    assert found["ion_workerpool_tasks_submitted_total", shown] == 1
    assert not [name for name, *_ in found if "forged" in name]
