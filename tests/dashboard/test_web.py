"""The ASGI app, without a server and without pools: what it answers, and to whom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from ion_actors.dashboard.access import Gate
from ion_actors.dashboard.commands import CommandRefused
from ion_actors.dashboard.feed import Feed
from ion_actors.dashboard.web import Dashboard

TOKEN = "t0ken-that-is-hard-to-guess_42"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = "<script>alert(1)</script>\ud800"
SNAPSHOT = {"pools": [{"name": HOSTILE, "id": "@1", "size": 4, "queued": 1, "running": 2}]}

STRICT = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
}


def act(pool: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if pool == "gone":
        raise CommandRefused(404, "there is no pool 'gone'")
    return {"pool": pool, "verb": verb, **body}


def dashboard(*, actions: bool = False) -> Dashboard:
    def look() -> dict[str, Any]:
        return SNAPSHOT

    return Dashboard(Gate(TOKEN), look, Feed(look, look), act if actions else None, lambda: None)


def ask(
    method: str, path: str, app: Any = None, base: str = "http://127.0.0.1:8000", **more: Any
) -> httpx2.Response:
    """One request, without following redirects."""

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app or dashboard())
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **more)

    return anyio.run(send)


def post(path: str, app: Any = None, body: str = "{}", **headers: str) -> httpx2.Response:
    kind = {"Content-Type": "application/json"}
    every = {**BEARER, **kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return ask("POST", path, app or dashboard(actions=True), content=body, headers=every)


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html", "<title>ion_actors</title>"),
        ("/page.js", "text/javascript", "textContent"),
        ("/page.css", "text/css", "prefers-color-scheme"),
        ("/api/snapshot", "application/json", '"pools"'),
    ],
)
def test_what_there_is(path: str, kind: str, part: str) -> None:
    found = ask("GET", path, headers=BEARER)
    assert found.status_code == 200
    assert found.headers["content-type"].startswith(kind)
    assert part in found.text


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/snapshot", "/api/events"])
@pytest.mark.parametrize(
    ("status", "base", "headers"),
    [
        (401, "http://127.0.0.1:8000", {}),
        (401, "http://127.0.0.1:8000", {"Authorization": f"Bearer {TOKEN}x"}),
        (403, "http://rebound.example:8000", BEARER),
        (403, "http://127.0.0.1:8000", {**BEARER, "Origin": "http://evil.example"}),
        (403, "http://127.0.0.1:8000", {**BEARER, "Origin": "null"}),
        (403, "http://127.0.0.1:8000", {**BEARER, "Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_strangers_get_nothing(path: str, status: int, base: str, headers: dict[str, str]) -> None:
    found = ask("GET", path, base=base, headers=headers)
    assert found.status_code == status
    assert "pools" not in found.text
    assert found.json()["error"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/snapshot", "/nothing", "/api/pools/a/b"])
@pytest.mark.parametrize("headers", [{}, BEARER])
def test_every_answer_is_strict(path: str, headers: dict[str, str]) -> None:
    found = ask("GET", path, headers=headers)
    assert {name: found.headers[name] for name in STRICT} == STRICT
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in found.headers


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    page = ask("GET", "/", headers=BEARER).text
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in page.lower().replace(" on ", "").replace("ion_actors", "")
    assert page.count("<script") == 1 == page.count('<script src="page.js" defer></script>')
    texts = [page, *(ask("GET", f"/page.{kind}", headers=BEARER).text for kind in ("js", "css"))]
    for text in texts:
        assert "innerHTML" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_page_is_written_by_hand_and_short() -> None:
    texts = [ask("GET", f"/page.{kind}", headers=BEARER).text for kind in ("js", "css")]
    assert sum(len(text.splitlines()) for text in texts) <= 400


# -- the token -----------------------------------------------------------------------------


def test_the_token_of_the_address_goes_into_a_cookie() -> None:
    found = ask("GET", f"/?token={TOKEN}")
    assert found.status_code == 303
    assert found.headers["location"] == "./"
    cookie, *attributes = found.headers["set-cookie"].split("; ")
    assert set(attributes) == {"HttpOnly", "SameSite=Strict"}
    assert ask("GET", "/", headers={"Cookie": cookie}).status_code == 200
    assert found.text == ""


def test_a_wrong_token_in_the_address_sets_no_cookie() -> None:
    found = ask("GET", "/?token=wrong")
    assert found.status_code == 401
    assert "set-cookie" not in found.headers


def test_a_person_without_a_token_is_told_what_to_do() -> None:
    opens = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    found = ask("GET", "/", headers=opens)
    assert found.status_code == 401
    assert "Open the address that the program has shown" in found.text
    assert found.headers["www-authenticate"] == "Bearer"


def test_behind_encryption_the_cookie_is_for_encryption_only() -> None:
    found = ask("GET", f"/?token={TOKEN}", base="https://localhost")
    assert found.headers["set-cookie"].endswith("; Secure")


# -- mounted -------------------------------------------------------------------------------


def test_it_works_below_a_prefix() -> None:
    app = Starlette(routes=[Mount("/ops/ion", dashboard(actions=True))])
    for path in ("/ops/ion/", "/ops/ion/page.js", "/ops/ion/api/snapshot"):
        assert ask("GET", path, app, headers=BEARER).status_code == 200
    assert post("/ops/ion/api/pools/a/pause", app).json() == {"pool": "a", "verb": "pause"}
    found = ask("GET", f"/ops/ion/?token={TOKEN}", app)
    assert (found.status_code, found.headers["location"]) == (303, "./")
    assert "path" not in found.headers["set-cookie"].lower()  # the folder of the page, then


def test_a_prefix_without_its_slash_leads_to_the_page() -> None:
    async def by_hand(scope: Any, receive: Any, send: Any) -> None:
        await dashboard()({**scope, "root_path": "/ion"}, receive, send)

    found = ask("GET", "/ion", by_hand, headers=BEARER)
    assert found.status_code == 307
    assert found.headers["location"].endswith("/ion/")


def test_a_websocket_is_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]}
    anyio.run(dashboard(), scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


# -- actions -------------------------------------------------------------------------------


def test_an_action() -> None:
    found = post("/api/pools/pictures/resize", body='{"size": 3}')
    assert found.status_code == 200
    assert found.json() == {"pool": "pictures", "verb": "resize", "size": 3}


def test_a_name_may_have_slashes() -> None:
    assert post("/api/pools/a%2Fb/c%20%3F/pause").json() == {"pool": "a/b/c ?", "verb": "pause"}


def test_there_are_none_unless_they_were_wanted() -> None:
    assert post("/api/pools/pictures/resize", dashboard()).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_to_look_is_no_action(method: str) -> None:
    app = dashboard(actions=True)
    assert ask(method, "/api/pools/pictures/pause", app, headers=BEARER).status_code == 405


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, {"Authorization": "Bearer wrong"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "http://127.0.0.1:9999"}),
        (403, {"Sec-Fetch-Site": "same-site"}),
        (403, {"Host": "rebound.example"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
    ],
)
def test_an_action_by_a_stranger(status: int, headers: dict[str, str]) -> None:
    names = {name.replace("-", "_"): value for name, value in headers.items()}
    assert post("/api/pools/pictures/pause", **names).status_code == status


def test_a_cookie_alone_is_not_enough_for_an_action() -> None:
    cookie = f"{Gate(TOKEN).cookie}={TOKEN}"
    assert post("/api/pools/a/pause", Authorization="", Cookie=cookie).status_code == 403
    here = "http://127.0.0.1:8000"
    found = post("/api/pools/a/pause", Authorization="", Cookie=cookie, Origin=here)
    assert found.status_code == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, "{"), (400, "[]"), (400, "5"), (400, "[" * 9000), (400, "\xff"),
        (413, json.dumps({"a": "x" * 10_000})),
    ],
)  # fmt: skip
def test_a_body_that_makes_no_sense(status: int, body: str) -> None:
    found = post("/api/pools/pictures/resize", body=body)
    assert found.status_code == status
    assert found.json()["error"]


def test_an_action_that_is_refused_says_why() -> None:
    found = post("/api/pools/gone/pause")
    assert found.status_code == 404
    assert found.json() == {"error": "there is no pool 'gone'"}


# -- what is said --------------------------------------------------------------------------


def test_the_snapshot_is_data_whatever_is_in_it() -> None:
    found = ask("GET", "/api/snapshot", headers=BEARER)
    assert found.headers["content-type"] == "application/json"
    assert json.loads(found.text) == SNAPSHOT
    assert found.text.isascii()
