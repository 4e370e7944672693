"""One future that is a ``concurrent.futures.Future``, a ``pykka.Future`` and awaitable.

::

    PENDING ──start──▶ RUNNING ──result or exception──▶ FINISHED
       └──cancel──▶ CANCELLED ──announce──▶ CANCELLED_AND_NOTIFIED

Where the two base classes disagree:

=====================  ==========================  =====================  ========================
question               concurrent.futures          pykka                  here
=====================  ==========================  =====================  ========================
waiting, time is up    ``TimeoutError``            ``pykka.Timeout``      ``result()``: the former,
                                                                          ``get()``: the latter
a second outcome       ``InvalidStateError``       ``queue.Full``         an error that is both
``set_exception()``    an exception                ``exc_info`` or none   takes all three
``map``, ``join``, …   none                        on ``get()``           settle unasked, call once
get hook               none                        on ``get()``           also on ``result()``
``await``              ``asyncio.wrap_future``     blocks the loop        never blocks the loop
copying                fails                       copies                 fails
=====================  ==========================  =====================  ========================

A plain lock guards a future's state; it is reentrant, since a signal handler may settle a future
that its thread is using. The condition, which the base class builds for every future at a cost of a
microsecond and half a kilobyte, is built when somebody waits.

From the top down, each importing only from below::

    future      the public future: its state, waiting for it, both its interfaces
    derived     futures that are computed from others: map, filter, join, reduce
    get_hook    a future whose value is computed when somebody asks for it
    exceptions  the exception of a future: how it is given; that somebody should read it
    mistakes    hints for futures that are used as their values, or block an event loop
    callbacks   how done-callbacks are called; in which thread, ``future`` decides
    waiters     how threads wait for a future
    progress    the progress and the output of a task
"""

from ion_actors.futures.future import Future, get_all
from ion_actors.futures.progress import Output, Progress, report_progress

__all__ = ["Future", "Output", "Progress", "get_all", "report_progress"]
