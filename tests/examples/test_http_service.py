"""The HTTP service, loaded by real clients."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from PIL import Image

from tests.examples.programs import PATIENCE, Program, Refused, Start


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Service:
    """The program, and what a client does to it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        found = program.expect(r"Serving on http://127\.0\.0\.1:(\d+)")
        self.port = int(found[1])

    def connect(self) -> contextlib.closing[http.client.HTTPConnection]:
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, PATIENCE))

    def ask(self, path: str, body: bytes | None = None) -> Answer:
        with self.connect() as connection:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def until(self, **wanted: int) -> None:
        """Ask for the pool's metrics until they are at least so."""
        now: dict[str, int] = {}
        while any(now.get(name, 0) < value for name, value in wanted.items()):
            now = json.loads(self.ask("/metrics").body)


@pytest.fixture
def serve(example: Start) -> Callable[..., Service]:
    """Starts the service on a port that is free."""
    return lambda *arguments: Service(example("http_service.py", "--port", 0, *arguments))


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    """Sixteen at a time."""
    with ThreadPoolExecutor(16, thread_name_prefix="client") as executor:
        yield executor


@functools.cache
def photo(side: int = 300) -> bytes:
    target = io.BytesIO()
    Image.effect_noise((side, side), 80).save(target, "PNG")
    return target.getvalue()


SLOW = "/thumbnail?style=painted&size=240"  # takes about a second
SLOWER = "/thumbnail?style=painted&size=400"  # takes some


def test_it_makes_thumbnails_and_names_what_is_wrong(serve: Callable[..., Service]) -> None:
    service = serve()
    good = service.ask("/thumbnail?style=polaroid&size=64", photo())
    assert (good.status, good.headers["Content-Type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(good.body)) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))
    assert service.ask("/thumbnail", b"GIF89a, they said").status == 400
    assert service.ask("/thumbnail", photo()[:-9000]).status == 400
    assert b"must be one of whole, square" in service.ask("/thumbnail?style=x", photo()).body
    assert service.ask("/thumbnail?size=9999", photo()).status == 422
    assert service.ask("/thumbnail", bytes(20_000_001)).status == 413
    assert service.ask("/elsewhere").status == 404
    assert json.loads(service.ask("/metrics").body)["completed"] == 1
    service.program.terminate()
    said = service.program.end()
    assert "1 of 200 thumbnails" in said
    assert "6 requests, 6 answered" in said


def test_when_the_queue_is_full_clients_are_told_when_to_come_back(
    serve: Callable[..., Service], clients: ThreadPoolExecutor
) -> None:
    service = serve("--workers", 1, "--queue", 2)
    together = threading.Barrier(12)

    def post(_: int) -> Answer:
        together.wait(PATIENCE)
        return service.ask("/thumbnail?style=painted&size=100", photo())

    answers = [*clients.map(post, range(12))]
    refused = [one for one in answers if one.status == 503]
    assert len(refused) >= 5  # one is worked on, two wait
    assert {one.status for one in answers} == {200, 503}
    assert all(int(one.headers["Retry-After"]) >= 1 for one in refused)
    service.program.terminate()
    said = service.program.end()
    assert f"{len(refused)} of 503 the queue was full" in said
    assert "12 requests, 12 answered" in said


@pytest.mark.slow
def test_sigterm_answers_every_request_that_was_accepted(
    serve: Callable[..., Service], clients: ThreadPoolExecutor
) -> None:
    service = serve("--workers", 1, "--queue", 20)
    answers = [
        clients.submit(service.ask, "/thumbnail?style=painted&size=100", photo()) for _ in range(10)
    ]
    service.until(submitted=10)
    service.program.terminate()
    service.program.expect("Stopping; ")
    assert [one.result().status for one in answers] == [200] * 10
    said = service.program.end()
    assert "10 requests, 10 answered" in said
    assert "10 submitted = 0 queued + 0 running + 10 completed" in said
    with pytest.raises(ConnectionRefusedError):
        service.ask("/metrics")


def test_the_work_of_a_client_that_goes_away_is_cancelled(serve: Callable[..., Service]) -> None:
    service = serve("--workers", 1, "--queue", 5)
    with service.connect() as running, service.connect() as queued:
        running.request("POST", SLOWER, photo())
        service.until(running=1)
        queued.request("POST", SLOWER, photo())
        service.until(queued=1)
        queued.close()
        service.program.expect("499 .*client went away")  # while the other goes on
        service.until(cancelled=1, running=1)
    service.program.expect("499 .*client went away")
    assert service.ask("/thumbnail", photo()).status == 200
    service.program.terminate()
    said = service.program.end()
    assert "3 submitted = 0 queued + 0 running + 1 completed + 0 failed + 0 panicked + 2" in said


@pytest.mark.slow
def test_what_takes_too_long_is_answered_in_time(serve: Callable[..., Service]) -> None:
    service = serve("--workers", 1, "--timeout", 1)
    with service.connect() as first:
        first.request("POST", SLOWER, photo())
        service.until(submitted=1)
        assert service.ask(SLOWER, photo()).status == 504  # in the queue
        assert first.getresponse().status in {200, 504}  # machines differ
    service.program.terminate()
    service.program.end()


def test_ctrl_c_ends_it_like_sigterm_and_a_second_one_at_once(
    serve: Callable[..., Service], clients: ThreadPoolExecutor
) -> None:
    service = serve("--workers", 1)
    answer = clients.submit(service.ask, SLOW, photo())
    service.until(submitted=1)
    service.program.interrupt()
    assert answer.result().status == 200
    assert "1 requests, 1 answered" in service.program.end(code=130)

    service = serve("--workers", 1)
    answers = [clients.submit(service.ask, SLOW, photo()) for _ in range(8)]
    service.until(submitted=8)
    service.program.interrupt()
    service.program.expect(r"Stopping; \d requests are still to be answered")
    service.program.interrupt()
    said = service.program.end(code=130, traceback=True)
    assert re.search(r"8 submitted = 0 queued \+ 0 running .* [1-8] cancelled", said)
    for one in answers:
        assert one.exception() is not None or one.result().status in {200, 500, 503}


@pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="the photographs are in scikit-image"
)
def test_it_brings_clients_of_its_own(example: Start) -> None:
    program = example("http_service.py", "--port", 0, "--load", 24, "--queue", 2)
    said = program.end()
    assert "16 clients got 24 of 24 thumbnails" in said
    assert "24 of 200 thumbnails" in said


def test_wrong_arguments_are_named(
    example: Start, refused: Refused, serve: Callable[..., Service]
) -> None:
    assert "70000 is not in 0..65535" in refused("http_service.py", "--port", 70000)
    taken = serve()
    assert "ddress already in use" in example("http_service.py", "--port", taken.port).end(code=2)
