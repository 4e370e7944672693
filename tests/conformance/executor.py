"""A pool that is made like a ``ThreadPoolExecutor``, to stand in for one in CPython's own tests.

Only the constructor differs. :func:`install` puts it, and our future, where those tests (and the
programs that they start) look for CPython's.
"""

from __future__ import annotations

import concurrent.futures
import logging
from concurrent.futures import _base

import ion_actors


class ThreadPoolExecutor(ion_actors.Pool):
    """``Pool`` under the names of arguments that CPython's tests use."""

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()):
        try:
            super().__init__(
                max_workers,
                name=thread_name_prefix or None,
                logger=logging.getLogger("concurrent.futures"),
                initializer=initializer,
                initargs=initargs,
            )
        except ValueError as error:
            said = str(error).replace(
                "size must be at least 1", "max_workers must be greater than 0"
            )
            raise ValueError(said) from error


REPLACED = [
    (concurrent.futures, "ThreadPoolExecutor", ThreadPoolExecutor),
    (concurrent.futures, "Future", ion_actors.Future),
    (_base, "Future", ion_actors.Future),
]


def install(set_attribute=setattr):
    """Replace CPython's classes by ours."""
    for place in REPLACED:
        set_attribute(*place)
