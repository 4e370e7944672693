"""The page in a real browser: what a person sees, and what a page elsewhere does not get."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Cancelled, Pool, current_context
from ion_actors.dashboard import DashboardServer, serve
from ion_actors.futures import Future
from tests.dashboard.browser import Browser, Page

Occupy = Callable[[Pool], list[Future[Any]]]
Until = Callable[[Callable[[], object]], None]

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"


def unfolded(page: Page, pools: int = 1) -> None:
    """Wait for the first frame, and unfold every pool."""
    page.wait(f"document.querySelectorAll('.pool').length === {pools}")
    page.run("document.querySelectorAll('.pool').forEach((pool) => { pool.open = true; })")


def click(page: Page, label: str) -> None:
    """Click the button of that name or label."""
    page.wait(
        "[...document.querySelectorAll('button')].some((one) => !one.hidden && !one.disabled && "
        f"(one.textContent === '{label}' || one.getAttribute('aria-label') === '{label}') && "
        "(one.click(), true))"
    )


def test_a_stuck_task_is_seen_at_the_top(
    browser: Browser, board: DashboardServer, gate: threading.Event
) -> None:
    def waits_for_ever() -> None:
        gate.wait()

    with Pool(1, name="pictures", stuck_after=0.01) as pool:
        pool.submit(waits_for_ever)
        page = browser.page()
        page.open(board.url)
        page.wait("!document.getElementById('stuck').hidden")
        text = page.text()
        assert "One task is stuck." in text
        assert "gate.wait()" in text  # its stack
        assert "waits_for_ever" in text
        assert text.index("Stuck tasks") < text.index("Pools")
        title = page.run("document.title")
        assert title.startswith("(1 stuck)")
        gate.set()
        page.wait("document.getElementById('stuck').hidden")
    assert page.complaints() == []


def test_a_stuck_task_is_cancelled_where_it_is_seen(
    browser: Browser, board: DashboardServer
) -> None:
    with Pool(1, name="pictures", stuck_after=0.01) as pool:
        task = pool.options(name="listens").submit(lambda: current_context().sleep(60))
        page = browser.page()
        page.open(board.url)
        page.wait("document.querySelector('#stuck td button')?.textContent === 'cancel'")
        page.run("document.querySelector('#stuck td button').click()")
        page.wait("document.getElementById('stuck').hidden")
        assert isinstance(task.exception(), Cancelled)
    assert page.complaints() == []


def test_the_address_loses_the_token_and_no_script_gets_at_it(
    browser: Browser, board: DashboardServer
) -> None:
    page = browser.page()
    page.open(board.url)
    page.wait("document.getElementById('live').textContent === 'live'")
    assert page.run("location.href") == board.url.partition("?")[0]
    assert page.run("document.cookie") == ""
    page.open(board.url.partition("?")[0])  # the cookie is enough
    page.wait("document.getElementById('live').textContent === 'live'")
    assert page.complaints() == []


def test_names_and_errors_are_no_markup(
    browser: Browser, board: DashboardServer, occupy: Occupy
) -> None:
    def fails() -> None:
        raise ValueError(HOSTILE)

    with Pool(1, name=HOSTILE) as pool:
        occupy(pool)
        for _ in range(3):
            pool.options(name=HOSTILE, key=HOSTILE, ttl=60).submit(fails)
        pool.options(name=HOSTILE).submit(fails)
        pool.purge(lambda task: task.key is None)
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        page.wait(f"document.body.innerText.includes({HOSTILE!r})")
        page.wait("document.body.innerText.includes('Dead letters')")
        assert page.run("document.querySelectorAll('img, main script').length") == 0
        assert "taken" not in page.run("document.title").partition(" ")[0]
        pool.close(0)
    assert page.complaints() == []


def test_markup_is_refused_by_the_browser_itself(browser: Browser, board: DashboardServer) -> None:
    """Even if the page were wrong: no text becomes markup, and nothing inline runs."""
    page = browser.page()
    page.open(board.url)
    page.wait("document.getElementById('live').textContent === 'live'")
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        page.run("document.body.innerHTML = '<b>'")
    with pytest.raises(RuntimeError, match="TrustedScript"):
        page.run("document.body.setAttribute('onclick', 'alert(1)')")
    with pytest.raises(RuntimeError, match="TrustedScript"):
        page.run("document.createElement('script').text = 'alert(1)'")


def test_history_survives_a_reload(
    browser: Browser, board: DashboardServer, until: Until, occupy: Occupy
) -> None:
    with Pool(1, name="plots") as pool:
        occupy(pool)
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        points = "(document.querySelector('figure path').getAttribute('d').match(/[ML]/g)?.length)"
        page.wait(f"{points} >= 3")
        page.call("Page.reload")
        page.wait("document.readyState === 'complete'")
        unfolded(page)
        assert page.wait(points) >= 3  # and not a single one
        assert page.wait(
            "document.querySelector('figure svg').getAttribute('aria-label').includes('queued')"
        )
        pool.close(0)


def test_actions(
    browser: Browser, board: DashboardServer, until: Until, occupy: Occupy, gate: threading.Event
) -> None:
    with Pool(1, name="a/b ?", queue_size=10) as pool:
        (running,) = occupy(pool)
        waits = pool.options(name="waits").submit(int)
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        click(page, "pause")
        until(lambda: pool.is_paused)
        click(page, "resume")
        until(lambda: not pool.is_paused)
        click(page, "cancel waits")
        until(waits.cancelled)
        page.run("document.querySelector('input').value = 3")
        click(page, "resize")
        until(lambda: pool.size == 3)
        page.wait("document.getElementById('said').textContent === 'a/b ?: resize: done'")
        assert not running.done()
        gate.set()
    assert page.complaints() == []


def test_a_dead_letter_is_replayed(browser: Browser, board: DashboardServer, until: Until) -> None:
    ran = threading.Event()
    with Pool(1, name="letters") as pool:
        pool.pause()
        pool.options(name="lost").submit(ran.set)
        pool.purge()
        pool.resume()
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        click(page, "replay lost")
        until(ran.is_set)
    assert page.complaints() == []


def test_without_actions_there_is_no_button(browser: Browser, occupy: Occupy) -> None:
    with serve() as board, Pool(1, name="looked at") as pool:
        occupy(pool)
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        page.wait("document.body.innerText.includes('Workers')")
        assert page.run("[...document.querySelectorAll('button, form')].every((one) => one.hidden)")
        pool.close(0)


def test_the_keyboard_is_enough(browser: Browser, board: DashboardServer, until: Until) -> None:
    with Pool(1, name="first"), Pool(1, name="second") as second:
        page = browser.page()
        page.open(board.url)
        page.wait("document.querySelectorAll('.pool').length === 2")
        page.run("document.querySelectorAll('.pool > summary')[1].focus()")
        page.press("Enter", 13)
        page.wait("document.querySelectorAll('.pool')[1].querySelectorAll('button').length >= 3")
        for _ in range(3):
            page.press("Tab", 9)
        assert page.run("document.activeElement.textContent") == "pause"
        page.press("Enter", 13)
        until(lambda: second.is_paused)
        page.wait("document.activeElement.textContent === 'resume'")  # the focus has stayed
        second.resume()


@pytest.mark.parametrize("width", [1100, 390])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, board: DashboardServer, occupy: Occupy, width: int, tmp_path: Path
) -> None:
    with Pool(2, name="a-name-that-is-longer-than-any-phone-is-wide-" * 3) as pool:
        occupy(pool)
        pool.options(name="x" * 200).submit(int)
        page = browser.page(width, 800, dark=width < 600)
        page.open(board.url)
        unfolded(page)
        page.wait("document.querySelectorAll('td').length > 3")
        assert page.run("document.documentElement.scrollWidth") <= width
        page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
        pool.close(0)


def test_a_screen_reader_finds_its_way(
    browser: Browser, board: DashboardServer, occupy: Occupy
) -> None:
    with Pool(1, name="read") as pool:
        occupy(pool)
        page = browser.page()
        page.open(board.url)
        unfolded(page)
        page.wait("document.querySelector('.pool table') !== null")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {node["role"]["value"] for node in nodes if not node["ignored"]}
        assert {"main", "banner", "status", "table", "columnheader", "caption"} <= {
            role.lower() for role in roles
        }
        assert page.run(
            "[...document.querySelectorAll('svg')].every((one) => one.getAttribute('aria-label'))"
        )
        assert page.run("document.documentElement.lang") == "en"
        pool.close(0)


# -- pages elsewhere -----------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The address of another server of this machine: a page that anybody may have written."""
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


FETCH = """fetch('{url}', {{credentials: 'include', mode: '{mode}', method: '{method}',
    headers: {{'Content-Type': '{kind}'}}, {body}}}).then((found) => found.text()).then(
    (text) => text || 'nothing', () => 'refused')"""


@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_a_page_elsewhere_reads_and_changes_nothing(
    browser: Browser, board: DashboardServer, elsewhere: str, mode: str
) -> None:
    with Pool(1, name="mine") as pool:
        page = browser.page()
        page.open(board.url)  # this browser has the cookie
        page.open(elsewhere)
        base = board.url.partition("?")[0].replace("127.0.0.1", "localhost")
        for target in (base, board.url.partition("?")[0]):
            get = FETCH.format(url=f"{target}api/snapshot", mode=mode, method="GET",
                               kind="text/plain", body="")  # fmt: skip
            assert page.run(get) in ("refused", "nothing")
            for kind in ("application/json", "text/plain"):
                post = FETCH.format(url=f"{target}api/pools/mine/pause", mode=mode,
                                    method="POST", kind=kind, body="body: '{}'")  # fmt: skip
                assert page.run(post) in ("refused", "nothing")
        assert not pool.is_paused


def test_a_page_elsewhere_cannot_show_it_in_a_frame(
    browser: Browser, board: DashboardServer, elsewhere: str
) -> None:
    page = browser.page()
    page.open(elsewhere)
    page.run(
        "new Promise((done) => { const frame = document.createElement('iframe'); "
        f"frame.src = '{board.url}'; frame.onload = done; document.body.append(frame); }})"
    )
    assert page.run("window.frames[0].length") == 0
    until = "frames[0].location.href"
    with pytest.raises(RuntimeError, match="cross-origin"):
        page.run(until)
    assert any("frame-ancestors" in one or "401" in one or "403" in one or "X-Frame" in one
               for one in page.complaints())  # fmt: skip


def test_a_rebound_name_gets_nothing(browser: Browser, board: DashboardServer) -> None:
    """The browser takes the name for 127.0.0.1: the page there has the dashboard's own origin."""
    page = browser.page()
    page.open(board.url.replace("127.0.0.1", "rebound.example"))
    assert "the host name is none of this dashboard's" in page.text()
    assert page.run("fetch('/api/snapshot').then((found) => found.status)") == 403


def test_a_person_without_the_token_is_told(browser: Browser, board: DashboardServer) -> None:
    page = browser.page()
    page.open(board.url.partition("?")[0])
    assert "This dashboard wants a token" in page.text()


def test_a_link_from_elsewhere_leads_to_the_page(
    browser: Browser, board: DashboardServer, elsewhere: str
) -> None:
    """The browser holds a new SameSite=Strict cookie back then, until the person goes on."""
    page = browser.page()
    page.open(elsewhere)
    page.run(f"void (location.href = '{board.url}')")
    page.wait("document.body.innerText.includes('go on')")
    page.run("document.querySelector('a').click()")
    page.wait("document.getElementById('live')?.textContent === 'live'")
