"""The types of calls to workers with state. ``make check`` reads it, and it also runs.

An error that has to be reported is ignored here: one that is not reported makes the comment
superfluous, which is an error, too.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from typing_extensions import override

from ion_actors import Future, Pool, Worker, WorkerProxy, worker_method


class Image:
    """What it is does not matter."""


class ImageWorker(Worker):
    """Its methods are known to proxies."""

    @worker_method
    def resize(self, image: Image, width: int = 100) -> Image:
        assert_type(self.name_of(image), str | None)  # no future: this is the worker itself
        return image

    @worker_method
    def name_of(self, image: Image) -> str | None:
        return type(image).__qualname__

    @worker_method
    async def fetch(self, url: str) -> bytes:
        return url.encode()

    @worker_method
    def same(self, value: Any) -> Any:
        return value

    def plain(self, number: int) -> str:
        return str(number)


class NamedWorker(ImageWorker):
    """A method may be overridden by one that returns less."""

    @worker_method
    @override
    def name_of(self, image: Image) -> str:
        return f"{super().name_of(image)} {ImageWorker.name_of(self, image)}"


def through_a_proxy(pool: Pool, image: Image) -> None:
    images = pool.proxy(ImageWorker)
    assert_type(images.resize(image), Future[Image])
    assert_type(images.resize(image, width=3).result(), Image)
    assert_type(images.name_of(image), Future[str | None])
    assert_type(pool.proxy(NamedWorker).name_of(image), Future[str])
    assert_type(pool.proxy(NamedWorker).resize(image), Future[Image])
    assert_type(pool.options(timeout=30).proxy(ImageWorker).fetch("url"), Future[bytes])
    assert_type(images.same(1), Future[Any])
    assert_type(images.resize.defer(image), None)
    assert_type(pool.proxy(), WorkerProxy)


def by_name(pool: Pool, image: Image) -> None:
    assert_type(pool.call(ImageWorker.resize, image, width=3), Future[Image])
    assert_type(pool.call(ImageWorker.fetch, "url"), Future[bytes])
    assert_type(pool.call(NamedWorker.name_of, image), Future[str])
    assert_type(pool.call(ImageWorker.plain, 3), Future[str])
    assert_type(list(pool.map(pool.method(NamedWorker.name_of), [image])), list[str])
    method: Callable[[str], Coroutine[Any, Any, bytes]] = pool.method(ImageWorker.fetch)
    assert_type(pool.submit(method, "url"), Future[bytes])


async def awaited(pool: Pool, image: Image) -> None:
    assert_type(await pool.proxy(ImageWorker).resize(image), Image)


def run() -> None:
    with Pool(1, worker=NamedWorker) as pool:
        through_a_proxy(pool, Image())
        by_name(pool, Image())
        asyncio.run(awaited(pool, Image()))


def mistakes(pool: Pool, image: Image) -> None:
    """This is never called."""
    images = pool.proxy(ImageWorker)
    images.resize("image")  # type: ignore[call-overload]
    images.resize(image, height=3)  # type: ignore[call-overload]
    images.rezise(image)  # type: ignore[attr-defined]
    images.plain(3)  # type: ignore[call-arg, arg-type]  # it is not decorated
    images.resize.defer()  # type: ignore[call-arg]
    pool.call(ImageWorker.resize, "image")  # type: ignore[call-overload]
    pool.call(ImageWorker.resize, image, height=3)  # type: ignore[call-arg]
