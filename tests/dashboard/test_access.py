"""Who gets in: decided from headers alone, so tested without a server."""

from __future__ import annotations

import dataclasses
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ion_actors.dashboard.access import Gate, Verdict, Visitor, checked_hosts, checked_token

TOKEN = "t0ken-that-is-hard-to-guess_42"
GATE = Gate(TOKEN)
BEARER = Visitor(hosts=["127.0.0.1:8000"], authorizations=[f"Bearer {TOKEN}"])
COOKIE = dataclasses.replace(BEARER, authorizations=[], cookies=[f"{GATE.cookie}={TOKEN}"])
POST = dataclasses.replace(BEARER, method="POST", content_types=["application/json"])
ACTION = dataclasses.replace(
    COOKIE, method="POST", content_types=["application/json"], origins=["http://127.0.0.1:8000"]
)

LETTERS = string.ascii_lowercase + string.digits + "-."
HOSTS = st.text(LETTERS, min_size=1, max_size=20)
TEXTS = st.text(max_size=40)
HEADERS = st.lists(
    st.one_of(
        TEXTS, st.just(f"Bearer {TOKEN}"), st.just(f"{GATE.cookie}={TOKEN}"), st.just("localhost"),
        st.just("http://localhost"), st.just("application/json"),
    ),
    max_size=2,
)  # fmt: skip
VISITORS = st.builds(
    Visitor,
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"]),
    scheme=st.sampled_from(["http", "https"]),
    query=st.one_of(st.just(""), st.just(f"token={TOKEN}"), st.just("token=wrong"), TEXTS),
    hosts=HEADERS, origins=HEADERS, sites=HEADERS, navigates=st.booleans(),
    authorizations=HEADERS, cookies=HEADERS, content_types=HEADERS,
)  # fmt: skip


def changed(visitor: Visitor, **changes: object) -> Visitor:
    return dataclasses.replace(visitor, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("visitor", "verdict"),
    [
        (BEARER, Verdict.ENTER),
        (COOKIE, Verdict.ENTER),
        (POST, Verdict.ENTER),
        (ACTION, Verdict.ENTER),
        (changed(BEARER, method="HEAD"), Verdict.ENTER),
        (changed(BEARER, authorizations=[f"bearer  {TOKEN}"]), Verdict.ENTER),
        (changed(BEARER, hosts=["LOCALHOST."]), Verdict.ENTER),
        (changed(BEARER, hosts=["[::1]:80"]), Verdict.ENTER),
        (changed(BEARER, hosts=["127.9.9.9"]), Verdict.ENTER),
        (changed(COOKIE, cookies=[f'a={{"; {GATE.cookie}={TOKEN}; c=1']), Verdict.ENTER),
        (changed(COOKIE, sites=["same-origin"]), Verdict.ENTER),
        (changed(COOKIE, sites=["none"], navigates=True), Verdict.ENTER),
        (changed(COOKIE, sites=["cross-site"], navigates=True), Verdict.ENTER),
        (changed(ACTION, content_types=["Application/JSON; charset=utf-8"]), Verdict.ENTER),
        # A proxy has taken the encryption off; ports that are not named are those of the scheme.
        (changed(ACTION, hosts=["localhost"], origins=["https://localhost"]), Verdict.ENTER),
        (changed(ACTION, hosts=["localhost:443"], origins=["https://localhost"]), Verdict.ENTER),
        (Visitor(hosts=["localhost"], query=f"token={TOKEN}"), Verdict.REMEMBER),
        (Visitor(hosts=["localhost"], query=f"a=1&token={TOKEN}"), Verdict.REMEMBER),
        # rebound, or not ours
        (changed(BEARER, hosts=["evil.example:8000"]), Verdict.HOST),
        (changed(BEARER, hosts=["127.0.0.1.evil.example"]), Verdict.HOST),
        (changed(BEARER, hosts=["localhost@evil.example"]), Verdict.HOST),
        (changed(BEARER, hosts=["192.168.1.5"]), Verdict.HOST),
        (changed(BEARER, hosts=["localhost", "localhost"]), Verdict.HOST),
        (changed(BEARER, hosts=[]), Verdict.HOST),
        (changed(BEARER, hosts=[""]), Verdict.HOST),
        # pages elsewhere
        (changed(BEARER, origins=["http://evil.example"]), Verdict.ORIGIN),
        (changed(BEARER, origins=["null"]), Verdict.ORIGIN),
        (changed(BEARER, origins=["http://127.0.0.1:9999"]), Verdict.ORIGIN),
        (changed(BEARER, origins=["http://localhost:8000"]), Verdict.ORIGIN),
        (changed(BEARER, origins=["file://"]), Verdict.ORIGIN),
        (changed(BEARER, scheme="https", origins=["http://127.0.0.1:8000"]), Verdict.ORIGIN),
        (changed(COOKIE, sites=["cross-site"]), Verdict.ORIGIN),
        (changed(COOKIE, sites=["same-site"]), Verdict.ORIGIN),
        (changed(ACTION, sites=["cross-site"], navigates=True), Verdict.ORIGIN),
        (changed(ACTION, origins=[]), Verdict.ORIGIN),
        # no token
        (changed(BEARER, authorizations=[]), Verdict.TOKEN),
        (changed(BEARER, authorizations=["Bearer"]), Verdict.TOKEN),
        (changed(BEARER, authorizations=[f"Basic {TOKEN}"]), Verdict.TOKEN),
        (changed(BEARER, authorizations=[f"Bearer {TOKEN}"] * 2), Verdict.TOKEN),
        (changed(COOKIE, cookies=[f"ion_actors={TOKEN}"]), Verdict.TOKEN),
        (changed(COOKIE, cookies=[f"{GATE.cookie}=x; {GATE.cookie}={TOKEN}"]), Verdict.TOKEN),
        (changed(BEARER, query="token=wrong"), Verdict.TOKEN),
        (changed(BEARER, query="token="), Verdict.TOKEN),
        (Visitor(hosts=["localhost"], query=f"token={TOKEN}&token={TOKEN}"), Verdict.TOKEN),
        (Visitor(method="POST", hosts=["localhost"], query=f"token={TOKEN}"), Verdict.TOKEN),
        # by accident
        (changed(BEARER, method="OPTIONS"), Verdict.METHOD),
        (changed(BEARER, method="DELETE"), Verdict.METHOD),
        (changed(POST, content_types=[]), Verdict.CONTENT),
        (changed(POST, content_types=["text/plain"]), Verdict.CONTENT),
        (changed(POST, content_types=["application/json", "text/plain"]), Verdict.CONTENT),
        (changed(ACTION, content_types=["text/plain; application/json"]), Verdict.CONTENT),
    ],
)
def test_who_gets_in(visitor: Visitor, verdict: Verdict) -> None:
    assert GATE.judge(visitor) is verdict


@given(VISITORS)
def test_nobody_gets_in_without_the_token(visitor: Visitor) -> None:
    told = [*visitor.authorizations, *visitor.cookies, visitor.query]
    assume(not any(TOKEN in one for one in told))
    assert GATE.judge(visitor) not in (Verdict.ENTER, Verdict.REMEMBER)


@given(VISITORS, HOSTS)
def test_a_foreign_host_gets_nothing_whatever_else_it_knows(visitor: Visitor, host: str) -> None:
    assume(host.removesuffix(".") != "localhost" and not host.startswith("127."))
    assert GATE.judge(changed(visitor, hosts=[host])) is Verdict.HOST


@given(VISITORS, HOSTS, st.sampled_from(["http", "https"]))
def test_a_page_elsewhere_gets_nothing(visitor: Visitor, host: str, scheme: str) -> None:
    assume(host.removesuffix(".") != "localhost")
    visitor = changed(visitor, hosts=["localhost"], origins=[f"{scheme}://{host}"])
    assert GATE.judge(visitor) is Verdict.ORIGIN


@given(VISITORS)
def test_what_changes_something_is_deliberate(visitor: Visitor) -> None:
    if GATE.judge(changed(visitor, method="POST")) is Verdict.ENTER:
        assert [one.partition(";")[0] for one in visitor.content_types] == ["application/json"]
        by_cookie = not any(one.lower().startswith("bearer") for one in visitor.authorizations)
        assert visitor.origins or not by_cookie


@given(
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=5),
    st.binary(max_size=40),
)
def test_any_bytes_can_be_judged(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    headers = [*headers, (b"Host", b"localhost")]
    assert GATE.judge(Visitor.of("GET", "http", query, headers)).status in (401, 403)


def test_headers_are_read_as_a_server_sends_them() -> None:
    headers = [
        (b"host", b"localhost:1"), (b"Origin", b"http://localhost:1"), (b"cookie", b"a=1"),
        (b"cookie", b"b=2"), (b"authorization", b"Bearer x"), (b"content-type", b"text/plain"),
        (b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate"),
        (b"sec-fetch-dest", b"document"),
    ]  # fmt: skip
    assert Visitor.of("POST", "https", b"a=b", headers) == Visitor(
        method="POST", scheme="https", query="a=b", hosts=["localhost:1"],
        origins=["http://localhost:1"], sites=["none"], navigates=True,
        authorizations=["Bearer x"], cookies=["a=1", "b=2"], content_types=["text/plain"],
    )  # fmt: skip


def test_names_of_its_own_are_accepted() -> None:
    gate = Gate(TOKEN, checked_hosts(["Ops.Example.org"]))
    assert gate.judge(changed(BEARER, hosts=["ops.example.org:8443"])) is Verdict.ENTER
    assert gate.judge(changed(BEARER, hosts=["example.org"])) is Verdict.HOST


def test_a_server_for_other_machines_is_called_by_any_address_and_by_no_name() -> None:
    gate = Gate(TOKEN, any_address=True)
    assert gate.judge(changed(BEARER, hosts=["192.168.1.5:8000"])) is Verdict.ENTER
    assert gate.judge(changed(BEARER, hosts=["[fe80::1]"])) is Verdict.ENTER
    assert gate.judge(changed(BEARER, hosts=["evil.example"])) is Verdict.HOST


def test_the_cookie_is_for_browsers_only_and_for_this_dashboard() -> None:
    name, _, rest = GATE.cookie_header("http").partition("=")
    assert rest == f"{TOKEN}; HttpOnly; SameSite=Strict"
    assert GATE.cookie_header("https").endswith("; SameSite=Strict; Secure")
    assert TOKEN not in name
    assert Gate(TOKEN + "2").cookie != name


def test_no_repr_shows_the_token() -> None:
    assert TOKEN not in repr([GATE, BEARER, COOKIE, Visitor(query=f"token={TOKEN}")])


def test_tokens_are_random_and_fit_into_an_address() -> None:
    tokens = {checked_token(None) for _ in range(100)}
    assert len(tokens) == 100
    assert all(checked_token(one) == one and len(one) >= 43 for one in tokens)


@pytest.mark.parametrize("token", ["", "short", "x" * 513, "with space and more", "ümlaut" * 4])
def test_tokens_that_would_be_no_good(token: str) -> None:
    with pytest.raises(ValueError, match="token must have 16 to 512 characters"):
        checked_token(token)


def test_arguments_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="token must be a str or None, not int"):
        checked_token(5)
    with pytest.raises(TypeError, match="hosts must be several names, not str"):
        checked_hosts("ops.example.org")
    with pytest.raises(TypeError, match="hosts must be several names, not int"):
        checked_hosts(5)


@pytest.mark.parametrize("host", ["http://a", "a:80", "a/b", "", "a b", 5])
def test_names_that_are_none(host: object) -> None:
    with pytest.raises(ValueError, match="hosts must be names without scheme and port, not"):
        checked_hosts([host])
