"""What the headers of a response say of the server's limit, whoever wrote them."""

from __future__ import annotations

import email.message
import logging
from email.utils import formatdate
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.ratelimit.headers import ServerLimits, parse_headers

NOW = 1_700_000_000.0

DIALECTS = [
    pytest.param(
        {"Retry-After": "120"}, ServerLimits(retry_after=120.0), id="RFC 9110, delay in seconds"
    ),
    pytest.param(
        {"Retry-After": formatdate(NOW + 90, usegmt=True)},
        ServerLimits(retry_after=90.0),
        id="RFC 9110, date",
    ),
    pytest.param(
        {"retry-after": "Wednesday, 15-Nov-23 22:13:20 GMT"},
        ServerLimits(retry_after=86400.0),
        id="RFC 9110, obsolete RFC 850 date",
    ),
    pytest.param(
        {"retry-after": "Wed Nov 15 22:13:20 2023"},
        ServerLimits(retry_after=86400.0),
        id="RFC 9110, obsolete asctime date",
    ),
    pytest.param(
        {"Retry-After": formatdate(NOW - 90, usegmt=True)},
        ServerLimits(retry_after=0.0),
        id="a date that has passed",
    ),
    pytest.param(
        {
            "RateLimit-Limit": "100, 100;w=10, 1000;w=3600",
            "RateLimit-Remaining": "50",
            "RateLimit-Reset": "5",
        },
        ServerLimits(limit=100, remaining=50, reset_after=5.0),
        id="draft 02",
    ),
    pytest.param(
        {
            "RateLimit-Policy": "100;w=10",
            "RateLimit-Limit": "100",
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": "5",
        },
        ServerLimits(limit=100, remaining=0, reset_after=5.0),
        id="draft 06",
    ),
    pytest.param(
        {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
        ServerLimits(limit=100, remaining=50, reset_after=5.0),
        id="draft 07",
    ),
    pytest.param(
        {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
        ServerLimits(limit=100, remaining=50, reset_after=30.0, bucket="default"),
        id="draft 08",
    ),
    pytest.param(
        {
            "RateLimit": '"burst, a";r=9;t=5 , "daily; b" ; r=3 ; t=80000;pk=:cw==:, "h";r=3;t=9',
            "RateLimit-Policy": '"burst, a";q=10;w=60,"daily; b";q=1000;w=86400',
        },
        ServerLimits(limit=1000, remaining=3, reset_after=80000.0, bucket="daily; b"),
        id="draft 10, several limits: the tightest counts",
    ),
    pytest.param(
        {"RateLimit": '"a";r=5'},
        ServerLimits(remaining=5, bucket="a"),
        id="draft 10, no reset and no policy",
    ),
    pytest.param(
        {
            "x-ratelimit-limit": "5000",
            "x-ratelimit-remaining": "4999",
            "x-ratelimit-reset": str(int(NOW) + 3000),
            "x-ratelimit-used": "1",
            "x-ratelimit-resource": "core",
        },
        ServerLimits(limit=5000, remaining=4999, reset_after=3000.0, bucket="core"),
        id="GitHub: the reset is a moment",
    ),
    pytest.param(
        {"x-rate-limit-limit": "15", "x-rate-limit-reset": str(int(NOW + 60) * 1000)},
        ServerLimits(limit=15, reset_after=60.0),
        id="a moment in milliseconds, and a hyphen more",
    ),
    pytest.param(
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1470173023.123",
            "X-RateLimit-Reset-After": "1.25",
            "X-RateLimit-Bucket": "abcd1234",
        },
        ServerLimits(limit=5, remaining=0, reset_after=1.25, bucket="abcd1234"),
        id="Discord: the reset in seconds is the better one",
    ),
    pytest.param(
        {"Retry-After": "65", "X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"},
        ServerLimits(retry_after=65.0, is_global=True),
        id="Discord: global",
    ),
    pytest.param(
        {"X-RateLimit-Scope": "global"}, ServerLimits(is_global=True), id="Discord: scope only"
    ),
    pytest.param(
        {"X-RateLimit-Remaining": "598.0", "X-RateLimit-Reset": "24"},
        ServerLimits(remaining=598, reset_after=24.0),
        id="a count with a decimal point, and a reset in seconds",
    ),
    pytest.param(
        {
            "RateLimit": '"new";r=1;t=2',
            "RateLimit-Limit": "30",
            "RateLimit-Remaining": "31",
            "X-RateLimit-Remaining": "32",
        },
        ServerLimits(limit=30, remaining=1, reset_after=2.0, bucket="new"),
        id="the newest family counts, the others fill in",
    ),
    pytest.param({"Content-Type": "text/html"}, ServerLimits(), id="nothing said"),
]


@pytest.mark.parametrize(("headers", "said"), DIALECTS)
def test_each_dialect_is_understood(headers: dict[str, str], said: ServerLimits) -> None:
    assert parse_headers(headers, now=NOW) == said


@pytest.mark.parametrize(("headers", "said"), DIALECTS)
def test_upper_and_lower_case_are_one(headers: dict[str, str], said: ServerLimits) -> None:
    assert parse_headers({name.upper(): text for name, text in headers.items()}, now=NOW) == said
    assert parse_headers({name.lower(): text for name, text in headers.items()}, now=NOW) == said


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "soon"},
        {"Retry-After": "-1"},
        {"Retry-After": "Fri, 99 Nov 2023 22:13:20 GMT"},
        {"Retry-After": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"},
        {"RateLimit-Remaining": "-1"},
        {"RateLimit-Remaining": "9" * 5000},
        {"RateLimit-Limit": "unlimited"},
        {"RateLimit-Limit": "\N{ARABIC-INDIC DIGIT ONE}"},
        {"X-RateLimit-Reset": "nan"},
        {"X-RateLimit-Reset": "inf"},
        {"RateLimit": '"open;r=5'},
        {"RateLimit": '"a";t=5'},
        {"RateLimit": "limit=many"},
        {"RateLimit-Policy": '"open'},
    ],
    ids=str,
)
def test_nonsense_is_ignored_and_said_to_be(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "ion_actors.ratelimit"):
        assert parse_headers(headers, now=NOW) == ServerLimits()
    [name] = headers
    assert name.lower() in caplog.text


def test_a_broken_field_does_not_hide_a_sound_one() -> None:
    headers = {"RateLimit-Remaining": "?", "X-RateLimit-Remaining": "3", "Retry-After": "x"}
    assert parse_headers(headers, now=NOW) == ServerLimits(remaining=3)


def test_dates_count_from_the_servers_own_clock_unless_told_otherwise() -> None:
    headers = {"Date": formatdate(NOW, usegmt=True), "X-RateLimit-Reset": str(int(NOW) + 30)}
    assert parse_headers(headers).reset_after == 30.0
    assert parse_headers(headers, now=NOW + 10).reset_after == 20.0


def test_without_any_clock_a_moment_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ion_actors.ratelimit"):
        assert parse_headers({"X-RateLimit-Reset": str(int(NOW))}) == ServerLimits()
    assert "the time of the server is unknown" in caplog.text


def test_the_retry_after_of_a_redirect_is_not_about_limits() -> None:
    assert parse_headers({"Retry-After": "5"}, status=301) == ServerLimits()
    assert parse_headers({"Retry-After": "5"}, status=503) == ServerLimits(retry_after=5.0)


def test_a_refusal_says_that_nothing_remains_and_when_to_come_again() -> None:
    assert parse_headers({}, status=429) == ServerLimits(remaining=0)
    assert parse_headers({"RateLimit-Reset": "7"}, status=429) == ServerLimits(
        remaining=0, reset_after=7.0, retry_after=7.0
    )
    told = parse_headers({"RateLimit": '"a";r=2;t=7', "Retry-After": "9"}, status=429)
    assert (told.remaining, told.retry_after) == (2, 9.0)  # what the server says is not corrected


def test_a_message_of_the_standard_library_will_do_and_repeats_are_one_list() -> None:
    message = email.message.Message()
    message["RateLimit"] = '"minute";r=7;t=5'
    message["RateLimit"] = '"day";r=2;t=500'
    assert parse_headers(message).remaining == 2  # type: ignore[arg-type]


def test_what_is_no_mapping_and_a_time_that_is_none_are_refused() -> None:
    with pytest.raises(TypeError, match="headers must be a mapping of names to values, not None"):
        parse_headers(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="now must be a number, not 'x'"):
        parse_headers({}, now="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="now must be"):
        parse_headers({}, now=float("nan"))


def test_headers_that_are_not_text_are_ignored() -> None:
    assert parse_headers({b"Retry-After": b"5", "Retry-After": None, 3: "x"}) == ServerLimits()  # type: ignore[dict-item]


# -- properties ----------------------------------------------------------------------------

NAMES = [
    *("Retry-After", "Date", "RateLimit", "RateLimit-Policy", "RateLimit-Limit"),
    *("RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Limit", "X-RateLimit-Remaining"),
    *("X-RateLimit-Reset", "X-RateLimit-Reset-After", "X-RateLimit-Bucket", "X-RateLimit-Scope"),
]
NEARLY = st.text('";=,\\: \tabrtqw0159.-GMT', max_size=60)
VALUES = st.one_of(
    st.text(max_size=40),
    NEARLY,
    st.integers(-10, 2 * 10**13).map(str),
    st.floats().map(str),
    st.datetimes().map(lambda when: when.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    NEARLY.map('"a";r={};t=3'.format),
    NEARLY.map("limit=4, remaining={}".format),
)


@given(
    headers=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=10), VALUES, max_size=8),
    status=st.none() | st.integers(100, 599),
    now=st.none() | st.floats(0, 4e9),
)
def test_no_garbage_raises_and_what_is_told_makes_sense(
    headers: dict[str, str], status: int | None, now: float | None
) -> None:
    told = parse_headers(headers, status=status, now=now)
    for number in (told.limit, told.remaining, told.reset_after, told.retry_after):
        assert number is None or 0 <= number < 1e15
    assert told.bucket != ""


SF_STRING = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
SF_COUNT = st.integers(0, 10**9)
SF_OTHER = SF_COUNT | st.binary(max_size=6) | SF_STRING | st.just(True) | st.just(1.5)
SF_PARAMETERS = st.fixed_dictionaries(
    {}, optional={"pk": st.binary(max_size=6), "x": SF_OTHER, "r": SF_COUNT, "t": SF_COUNT}
)


@given(st.lists(st.tuples(SF_STRING, SF_PARAMETERS), min_size=1, max_size=4))
def test_a_sound_structured_field_reads_as_in_a_full_parser(
    members: list[tuple[str, dict[str, Any]]],
) -> None:
    text = http_sf.ser(members)
    read: Any = http_sf.parse(text.encode(), tltype="list")
    told = parse_headers({"RateLimit": text})
    limits = [
        (parameters["r"], -parameters.get("t", 0), parameters.get("t"), name or None)
        for name, parameters in read
        if "r" in parameters
    ]
    if limits:
        tightest = min(limits, key=lambda limit: limit[:2])
        assert (told.remaining, told.reset_after, told.bucket) == (tightest[0], *tightest[2:])
    else:
        assert told.remaining is None
