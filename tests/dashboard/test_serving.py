"""The dashboard as a server beside the program, and as an app in one's own."""

from __future__ import annotations

import gc
import http.client
import importlib.resources
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ion_actors import Pool
from ion_actors.dashboard import DashboardServer, app, serve

Until = Callable[[Callable[[], object]], None]


class Client:
    """Requests to one dashboard, over one connection."""

    def __init__(self, board: DashboardServer) -> None:
        address = urlsplit(board.url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        self.headers = {"Authorization": f"Bearer {board.token}"}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def open(self, path: str, body: Any = None) -> http.client.HTTPResponse:
        headers, method = dict(self.headers), "GET"
        if body is not None:
            method, headers["Content-Type"] = "POST", "application/json"
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, headers)
        return self._connection.getresponse()

    def get(self, path: str, body: Any = None) -> Any:
        with self.open(path, body) as answer:
            assert answer.status == 200, answer.read()
            return json.loads(answer.read())


def events(answer: http.client.HTTPResponse) -> Any:
    """The events of a stream: their names and data."""
    name = ""
    while line := answer.readline().decode().rstrip("\n"):
        pass
    while raw := answer.readline():
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_the_snapshot_over_http(board: DashboardServer) -> None:
    with Pool(3, 7, name="pictures") as pool, Client(board) as client:
        pool.submit(int).result()
        found = client.get("/api/snapshot")
        (one,) = [pool for pool in found["pools"] if pool["name"] == "pictures"]
        assert (one["size"], one["queue_size"], one["queued"]) == (3, 7, 0)
        assert found["pid"] == os.getpid()


def test_an_action_over_http(board: DashboardServer, until: Until) -> None:
    with Pool(1, name="pictures") as pool, Client(board) as client:
        assert client.get("/api/pools/pictures/resize", {"size": 2}) == {"size": 2}
        until(lambda: pool.size == 2)


def test_without_actions_nothing_can_be_changed() -> None:
    with serve() as board, Pool(1, name="pictures") as pool, Client(board) as client:
        with client.open("/api/pools/pictures/resize", {"size": 2}) as answer:
            assert answer.status in (403, 404)
        assert pool.size == 1


def test_events_are_the_history_and_then_frames(board: DashboardServer) -> None:
    with Pool(1, name="pictures") as pool, Client(board) as client:
        key = pool.snapshot().id
        with client.open("/api/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found = events(answer)
            name, history = next(found)
            assert (name, history["actions"]) == ("history", True)
            for _ in range(2):
                name, frame = next(found)
                assert name == "frame"
                assert [one["name"] for one in frame["snapshot"]["pools"]].count("pictures") == 1
                assert len(frame["points"]["pools"][key]) == len(frame["points"]["series"])


def test_a_viewer_that_comes_back_goes_on_with_its_history(board: DashboardServer) -> None:
    with Client(board) as client, client.open("/api/events") as answer:
        while not (line := answer.readline().decode()).startswith("id: "):
            pass
    with Client(board) as client:
        client.headers["Last-Event-ID"] = line.removeprefix("id: ").strip()
        with client.open("/api/events") as answer:
            assert next(events(answer))[0] == "frame"
    for other in ("x", "", "0", line.removeprefix("id: ").strip() + "000000"):
        with Client(board) as client:
            client.headers["Last-Event-ID"] = other
            with client.open("/api/events") as answer:
                assert next(events(answer))[0] == "history"


def test_it_closes_at_once_though_somebody_looks() -> None:
    board = serve()
    with Client(board) as client, client.open("/api/events") as answer:
        while b"event: frame" not in answer.readline():
            pass
        began = time.monotonic()
        board.close()
        assert time.monotonic() - began < 5
        answer.read()  # it was ended, and not cut off: that would raise
    board.close()
    with pytest.raises(ConnectionRefusedError):
        Client(board).open("/")


def test_it_needs_nothing_of_the_program(gate: threading.Event) -> None:
    """The main thread sleeps, all workers are busy: that is when one wants to look."""
    with Pool(1, name="hangs") as pool, serve() as board, Client(board) as client:
        pool.submit(gate.wait)
        for _ in range(3):
            pool.submit(int)
        (one,) = [one for one in client.get("/api/snapshot")["pools"] if one["name"] == "hangs"]
        assert (one["running"], one["queued"]) == (1, 3)
        gate.set()


def test_several_at_a_time_have_tokens_of_their_own() -> None:
    with serve() as one, serve() as other, Client(one) as client:
        assert one.token != other.token
        client.headers = {"Authorization": f"Bearer {other.token}"}
        with client.open("/") as answer:
            assert answer.status == 401


def test_a_token_of_ones_own() -> None:
    token = "a-token-of-my-own-123"
    with serve(token=token) as board, Client(board) as client:
        assert board.url.endswith(f"/?token={token}")
        assert "pools" in client.get("/api/snapshot")


def test_nothing_shows_the_token_but_the_address(
    board: DashboardServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    access = logging.getLogger("uvicorn.access")
    before = access.level, access.propagate, access.handlers[:]
    with Client(board) as client:
        client.headers = {}
        with client.open(f"/?token={board.token}") as answer:
            assert answer.status == 303
    assert board.token in board.url
    assert board.token not in repr(board)
    assert board.token not in caplog.text
    assert (access.level, access.propagate, access.handlers) == before


def test_signals_stay_as_they_are() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(one) for one in numbers]
    with serve():
        assert [signal.getsignal(one) for one in numbers] == before


def test_a_port_in_use() -> None:
    with serve() as board:
        port = urlsplit(board.url).port
        with pytest.raises(OSError, match="in use"):
            serve(port=port)  # type: ignore[arg-type]
    with serve(port=port) as again:  # type: ignore[arg-type]
        assert urlsplit(again.url).port == port


def test_other_machines_are_let_in_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="can be reached from other machines"):
        board = serve("0.0.0.0")
    with board, Client(board) as client:
        assert urlsplit(board.url).hostname == "127.0.0.1"
        assert "pools" in client.get("/api/snapshot")
        client.headers["Host"] = "192.168.1.5:80"
        assert "pools" in client.get("/api/snapshot")
        client.headers["Host"] = "evil.example"
        with client.open("/api/snapshot") as answer:
            assert answer.status == 403


def test_that_warning_as_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeWarning, match="not encrypted"):
        serve("0.0.0.0")


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve("::1") as board, Client(board) as client:
        assert board.url.startswith("http://[::1]:")
        assert "pools" in client.get("/api/snapshot")


def test_localhost() -> None:
    with serve("localhost") as board, Client(board) as client:
        assert "pools" in client.get("/api/snapshot")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"host": None}, TypeError), ({"host": 5}, TypeError), ({"port": "80"}, TypeError),
        ({"port": -1}, ValueError), ({"port": 65536}, ValueError), ({"actions": 1}, TypeError),
        ({"token": "short"}, ValueError), ({"token": 5}, TypeError), ({"hosts": "a"}, TypeError),
        ({"hosts": ["http://a"]}, ValueError),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        serve(**arguments)
    if not {"host", "port"} & arguments.keys():
        with pytest.raises(error, match=next(iter(arguments))):
            app(**arguments)


def test_a_host_that_there_is_not() -> None:
    with pytest.raises(OSError):  # noqa: PT011  # the text is the system's
        serve("nobody.invalid")


def test_letters_are_kept_while_it_is_served(until: Until) -> None:
    with Pool(1, name="letters") as pool:
        with serve() as board, Client(board) as client:
            pool.pause()
            pool.options(name="lost").submit(int)
            pool.purge()

            def names() -> list[str]:
                pools = client.get("/api/snapshot")["pools"]
                (one,) = [one for one in pools if one["name"] == "letters"]
                return [letter["name"] for letter in one["dead_letters"]]

            until(lambda: names() == ["lost"])
        assert pool.snapshot().dead_letters == ()


def test_an_app_that_nobody_asks_has_no_thread() -> None:
    before = threading.enumerate()
    mounted = app()
    assert threading.enumerate() == before
    assert len(mounted.token) >= 43
    mounted.close()


# -- programs ------------------------------------------------------------------------------


def run(program: str, *options: str) -> str:
    found = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.stderr == ""
    assert found.returncode == 0
    return found.stdout


def test_starlette_is_imported_when_it_is_needed() -> None:
    told = run("""
        import sys
        import ion_actors.dashboard
        ion_actors.snapshot()
        print(sorted({"starlette", "uvicorn", "anyio", "asyncio"} & sys.modules.keys()))
    """)
    assert told == "[]\n"


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "anyio"])
def test_a_missing_extra_is_one_clear_error(package: str) -> None:
    told = run(f"""
        import sys
        from ion_actors.dashboard import serve
        sys.modules["{package}"] = None
        try:
            serve()
        except ImportError as error:
            print(error)
    """)
    assert told.startswith(f"the dashboard needs '{package}")
    assert told.endswith("pip install 'ion_actors[dashboard]'\n")


def test_a_program_may_end_while_it_serves() -> None:
    told = run(
        """
        from urllib.request import Request, urlopen
        from ion_actors import Pool
        from ion_actors.dashboard import serve
        board = serve()
        with Pool(1) as pool:
            pool.submit(int).result()
        address, _, token = board.url.partition("?token=")
        with urlopen(Request(address, headers={"Authorization": f"Bearer {token}"})) as answer:
            print(answer.status)
        """,
        "-W",
        "error",
    )
    assert told == "200\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hold_the_port() -> None:
    told = run(
        """
        import os, signal, sys
        from ion_actors import Pool
        from ion_actors.dashboard import serve
        with Pool(1) as pool, serve() as board:
            pool.submit(int).result()
            port = int(board.url.split(":")[2].partition("/")[0])
            child = os.fork()
            if child == 0:
                board.close()  # at once, since there is nothing to wait for
                signal.pause()
        with serve(port=port):
            print("the port is free")
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    """,
        "-W",
        "ignore:This process:DeprecationWarning",
    )
    assert told == "the port is free\n"


def test_it_is_garbage_once_it_is_closed() -> None:
    import weakref

    board = serve()
    board.close()
    ref = weakref.ref(board)
    del board
    gc.collect()
    assert ref() is None


def test_top_can_look_meanwhile() -> None:
    from ion_actors.dashboard.reader import everybody

    with serve(), Pool(1, name="seen by top") as pool:
        (own,) = [one for one in everybody() if one["pid"] == os.getpid()]
        assert pool.name in own["pools"]
    assert [one for one in everybody() if one["pid"] == os.getpid()] == []


# -- in other people's applications ---------------------------------------------------------

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "look-inside.md"
_ASK = """
        import anyio, httpx2
        from ion_actors import Pool

        async def ask():
            headers = {"Authorization": f"Bearer {inside.token}"}
            transport = httpx2.ASGITransport(app=application)
            client = httpx2.AsyncClient(transport=transport, base_url="http://ops.example.org")
            async with client:
                for path in ("/ion/", "/ion/page.js", "/ion/api/snapshot", "/", "/ionic"):
                    answer = await client.get(path, headers=headers)
                    print(path, answer.status_code)
                cookie = await client.get(f"/ion/?token={inside.token}", follow_redirects=True)
                print(cookie.status_code, cookie.url)

        with Pool(1):
            anyio.run(ask)
"""
_TOLD = """\
/ion/ 200
/ion/page.js 200
/ion/api/snapshot 200
/ 404
/ionic 404
200 http://ops.example.org/ion/
"""


def test_mounted_in_fastapi() -> None:
    told = run(f"""
        from fastapi import FastAPI
        from ion_actors import dashboard
        inside = dashboard.app(hosts=["ops.example.org"])
        application = FastAPI()
        application.mount("/ion", inside)
        {_ASK}
    """)
    assert told == _TOLD


def test_mounted_in_django() -> None:
    """By the function of the docs."""
    (mount,) = re.findall(
        r"^def mount\(.*?^    return both$", _PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    told = run(f"""
        import logging
        logging.disable()
        from django.conf import settings
        from django.core.asgi import get_asgi_application
        settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"])
        import sys, types
        sys.modules["urls"] = types.SimpleNamespace(urlpatterns=[])
        from ion_actors import dashboard
{textwrap.indent(mount, " " * 8)}
        inside = dashboard.app(hosts=["ops.example.org"])
        application = mount("/ion", inside, get_asgi_application())
        {_ASK}
    """)
    assert told == _TOLD


def test_the_wheel_has_the_page() -> None:
    """What is in the folder of the package is in the wheel; and the folder has the page."""
    files = importlib.resources.files("ion_actors.dashboard") / "page"
    assert {one.name for one in files.iterdir()} == {"index.html", "page.css", "page.js"}
