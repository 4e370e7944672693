"""Look inside a running program: in the browser, or with ``python -m ion_actors top``.

::

    serving    app() to be mounted, serve() beside the program: the page in the browser
    web        the ASGI app: page, events, snapshot, actions     extra: dashboard
    access     who gets in, decided from the headers of a request
    feed       samples the process for all viewers together
    history    the last minutes of each pool
    commands   what a request asks for, checked and logged
    actions    what somebody who looks may do: cancel, resize, pause, drain, replay
    terminal/  python -m ion_actors top
    reader     reads what other processes publish
    publisher  publishes snapshots of this process on a Unix socket: publish()
    directory  the directory with the sockets, and that nobody else is in it
    overview   what there is in the process at one moment: ion_actors.snapshot()
    trees      supervision trees at one moment
    letters    keeps dead letters while somebody may look at them

The page itself, HTML, CSS and JavaScript, is in the folder page/.

Each name is imported when it is first used: what serves a page is not paid for by who has none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ion_actors.dashboard.publisher import Publication, publish
    from ion_actors.dashboard.serving import DashboardServer, app, serve

__all__ = ["DashboardServer", "Publication", "app", "publish", "serve"]

_HOMES = {
    "DashboardServer": "serving",
    "Publication": "publisher",
    "app": "serving",
    "publish": "publisher",
    "serve": "serving",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if (home := _HOMES.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
