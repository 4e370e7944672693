"""Reads the server's rate limit from the headers of an HTTP response.

Three families of fields are in use, and many servers send more than one:

* ``Retry-After`` of RFC 9110, in seconds or as a date;
* the fields of the IETF draft *RateLimit header fields for HTTP*, whose syntax changed twice:
  ``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` up to draft 06, the dictionary
  ``RateLimit: limit=…, remaining=…, reset=…`` in draft 07, and from draft 08 on
  ``RateLimit: "name";r=…;t=…`` beside ``RateLimit-Policy: "name";q=…;w=…``;
* ``X-RateLimit-*``, whose meaning depends on the server: the reset is a moment at GitHub, and a
  number of seconds elsewhere; Discord adds a bucket and a scope.

This module reads the small part of the structured fields (RFC 9651) that these need: strings and
numbers in a list. A full parser must refuse a whole field for one flaw in it, and servers still
send all three drafts; what both accept, both read alike, as tests check.

A server may be hostile, or broken. So every number has an upper bound (:class:`HeaderBounds`), no
field is read beyond a length, and reading takes time in proportion to that length.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import NamedTuple, TypeVar

from ion_actors._arguments import make_plain, number, whole_number

__all__ = ["HeaderBounds", "ServerLimits", "parse_headers"]

logger = logging.getLogger("ion_actors.ratelimit")

N = TypeVar("N", int, float)

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)

# A reset this large is a moment (seconds since 1970, from 2001 on), since no window lasts 31 years;
# a thousand times more is in milliseconds.
_EPOCH = 1e9
_EPOCH_MILLISECONDS = 1e12

_REDIRECTS = range(300, 400)

# The fields that are read, by their names in lower case.
_COUNTS = ("ratelimit-{}", "x-ratelimit-{}", "x-rate-limit-{}")
_READ = frozenset(
    [form.format(what) for form in _COUNTS for what in ("limit", "remaining", "reset")]
    + ["retry-after", "date", "ratelimit", "ratelimit-policy", "x-ratelimit-reset-after"]
    + ["x-ratelimit-global", "x-ratelimit-scope", "x-ratelimit-bucket", "x-ratelimit-resource"]
)
_LONGEST_NAME = 64  # characters, with the spaces around it: more than any of these has
_LONGEST_DATE = 64

# A separator inside a quoted string does not separate. None of these ever goes back.
_WELL_QUOTED = re.compile(r'(?:"(?:\\.|[^"\\])*+"|[^"])*+', re.DOTALL)
_MEMBER = re.compile(r'(?:"(?:\\.|[^"\\])*+"|[^",])++', re.DOTALL)
_PARAMETER = re.compile(r'(?:"(?:\\.|[^"\\])*+"|[^";])++', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """A server's report on its limit; None for what it did not report.

    Attributes:
        limit: how many requests it allows per window.
        remaining: how many of them are left.
        reset_after: seconds until the window starts anew.
        retry_after: seconds to wait before the next request.
        is_global: the report is about all requests, not just this route.
        bucket: the server's name for the limit; routes with the same name share it.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    retry_after: float | None = None
    is_global: bool = False
    bucket: str | None = None


@dataclass(frozen=True, slots=True)
class HeaderBounds:
    """Upper bounds for the numbers in a server's rate-limit headers.

    A larger number counts as the bound. A name or a field that is too long is ignored.

    Args:
        retry_after: seconds of pause that one response can request.
        reset_after: seconds to the end of a server's window.
        requests: how many requests a window can have, or have left.
        name: characters of a bucket's name.
        field: characters of one field, repeats included.

    Raises:
        TypeError, ValueError: a bound is no number, not finite, or negative.
    """

    retry_after: float = 3600.0
    reset_after: float = 86_400.0
    requests: int = 1_000_000_000
    name: int = 256
    field: int = 8192

    def __post_init__(self) -> None:
        number("retry_after", self.retry_after, minimum=0)
        number("reset_after", self.reset_after, minimum=0)
        for name in ("requests", "name", "field"):
            whole_number(name, getattr(self, name), minimum=1)
        make_plain(self, "retry_after", "reset_after", "requests", "name", "field")


_AS_TOLD = HeaderBounds(retry_after=1e15, reset_after=1e15, requests=10**15)


def parse_headers(
    headers: Mapping[str, str],
    *,
    status: int | None = None,
    now: float | None = None,
    bounds: HeaderBounds = _AS_TOLD,
) -> ServerLimits:
    """Read a response's report on the server's limit.

    Args:
        headers: the response's fields, as any HTTP client has them. Case does not matter.
        status: the response's status. ``Retry-After`` of a redirect is not about limits; a 429
            means that nothing remains until ``Retry-After``, or the reset.
        now: seconds since 1970, to count dates and moments from. By default the response's own
            ``Date``, so that the two clocks need not agree; without either, such a field is
            ignored.
        bounds: upper bounds. By default numbers are taken as they are (though none has more than
            15 digits before the point), and lengths have the default bounds.

    Returns:
        The report, within the bounds. An invalid field is ignored, and logged at level DEBUG. Of
        several limits, the one with the least left counts; of several families of fields, the
        newest.

    Raises:
        TypeError: ``headers`` has no ``items()``, ``now`` is not a number, or ``bounds`` are none.
        ValueError: ``now`` is negative or not finite.
    """
    if not isinstance(bounds, HeaderBounds):
        raise TypeError(f"bounds must be HeaderBounds, not {bounds!r}")
    fields = _gathered(headers, bounds.field)
    since = _date(fields, "date") if now is None else number("now", now, minimum=0)
    told = _structured(fields)
    reset = _reset_after(fields, since) if told.reset_after is None else told.reset_after
    retry = None if status in _REDIRECTS else _retry_after(fields, since)
    limits = ServerLimits(
        limit=_count(fields, "limit") if told.limit is None else told.limit,
        remaining=_count(fields, "remaining") if told.remaining is None else told.remaining,
        reset_after=reset,
        retry_after=retry,
        is_global=_is_global(fields),
        bucket=_bucket(fields) or told.bucket,
    )
    return _bounded(_refused(limits) if status == 429 else limits, bounds)


def _bounded(told: ServerLimits, bounds: HeaderBounds) -> ServerLimits:
    bucket = told.bucket
    if bucket is not None and len(bucket) > bounds.name:
        _ignored("the bucket's name", bucket)
        bucket = None
    return replace(
        told,
        limit=_at_most("limit", told.limit, bounds.requests),
        remaining=_at_most("remaining", told.remaining, bounds.requests),
        reset_after=_at_most("reset_after", told.reset_after, bounds.reset_after),
        retry_after=_at_most("retry_after", told.retry_after, bounds.retry_after),
        bucket=bucket,
    )


def _at_most(what: str, told: N | None, bound: N) -> N | None:
    if told is None or told <= bound:
        return told
    logger.debug("the server's %s of %g counts as %g, its bound", what, told, bound)
    return bound


def _refused(told: ServerLimits) -> ServerLimits:
    return replace(
        told,
        remaining=0 if told.remaining is None else told.remaining,
        retry_after=told.reset_after if told.retry_after is None else told.retry_after,
    )


def _gathered(headers: Mapping[str, str], longest: int) -> dict[str, str]:
    """The relevant fields, by their names in lower case.

    A field sent twice is one list (RFC 9110, 5.3).
    """
    if not hasattr(headers, "items"):
        raise TypeError(f"headers must be a mapping of names to values, not {headers!r}")
    found: dict[str, list[str]] = {}
    pairs: Iterable[tuple[object, object]] = headers.items()  # what is not text is ignored
    for name, value in pairs:
        if not (isinstance(name, str) and isinstance(value, str)):
            _ignored(name, value)
        elif len(name) <= _LONGEST_NAME and (key := name.strip().lower()) in _READ:
            found.setdefault(key, []).append(value)
    fields: dict[str, str] = {}
    for key, values in found.items():
        if sum(len(value) + 2 for value in values) - 2 > longest:
            _ignored(key, values[0])
        else:
            fields[key] = ", ".join(value.strip() for value in values)
    return fields


def _ignored(name: object, value: object) -> None:
    shown = value[:200] if isinstance(value, str) else value
    logger.debug("the header %r makes no sense or is too long, and is ignored: %.200r", name, shown)


# -- single values -------------------------------------------------------------------------


def _first_number(fields: dict[str, str], *names: str) -> float | None:
    """The number at the start of the first of these fields; parameters and repeats are ignored."""
    for name in names:
        if (text := fields.get(name)) is not None:
            if (found := _number(re.split("[,;]", text, maxsplit=1)[0])) is not None:
                return found
            _ignored(name, text)
    return None


def _number(text: str | None) -> float | None:
    """A number that is zero or more; some servers write counts with a decimal point."""
    found = _NUMBER.fullmatch((text or "").strip())
    return float(found[0]) if found else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _count(fields: dict[str, str], what: str) -> int | None:
    return _whole(_first_number(fields, *[form.format(what) for form in _COUNTS]))


def _date(fields: dict[str, str], name: str) -> float | None:
    """A date as seconds since 1970; one without a zone is in UTC."""
    if (text := fields.get(name)) is None:
        return None
    if len(text) <= _LONGEST_DATE and text.isascii():
        with contextlib.suppress(Exception):  # its parser raises undocumented errors
            found = email.utils.parsedate_to_datetime(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    _ignored(name, text)
    return None


def _retry_after(fields: dict[str, str], since: float | None) -> float | None:
    if (delay := _number(fields.get("retry-after"))) is not None:
        return delay
    return _until(_date(fields, "retry-after"), since)


def _reset_after(fields: dict[str, str], since: float | None) -> float | None:
    found = _first_number(
        fields,
        "ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit-reset",
        "x-rate-limit-reset",
    )
    if found is None or found < _EPOCH:
        return found
    return _until(found / 1000 if found >= _EPOCH_MILLISECONDS else found, since)


def _until(moment: float | None, since: float | None) -> float | None:
    if moment is None:
        return None
    if since is None:
        logger.debug("the time of the server is unknown: its moment %r is ignored", moment)
        return None
    return max(0.0, moment - since)


def _is_global(fields: dict[str, str]) -> bool:
    flag = fields.get("x-ratelimit-global", "").lower()
    return flag == "true" or fields.get("x-ratelimit-scope", "").lower() == "global"


def _bucket(fields: dict[str, str]) -> str | None:
    return fields.get("x-ratelimit-bucket") or fields.get("x-ratelimit-resource") or None


# -- structured fields ---------------------------------------------------------------------


class _Member(NamedTuple):
    """One member of a list or of a dictionary: its name or value, and its parameters."""

    value: str
    parameters: dict[str, str]


def _members(fields: dict[str, str], name: str) -> list[_Member]:
    text = fields.get(name)
    if text is None:
        return []
    if _WELL_QUOTED.fullmatch(text) is None:
        _ignored(name, text)
        return []
    return [_member(found) for found in _MEMBER.findall(text)]


def _member(text: str) -> _Member:
    value, *rest = (part.strip() for part in _PARAMETER.findall(text) or [""])
    return _Member(_unquoted(value), dict(_pairs(rest)))


def _pairs(texts: list[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, _, value = text.partition("=")
        yield key.strip(), value.strip()


def _unquoted(text: str) -> str:
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _structured(fields: dict[str, str]) -> ServerLimits:
    """The content of ``RateLimit``; empty if there is none."""
    members = _members(fields, "ratelimit")
    quotas = _quotas(fields)
    found = [limits for member in members if (limits := _service_limit(member, quotas))]
    told = min(found, key=_tightness) if found else _draft_07(members)
    if members and told == ServerLimits():
        _ignored("ratelimit", fields["ratelimit"])
    return told


def _tightness(told: ServerLimits) -> tuple[int, float]:
    return told.remaining or 0, -(told.reset_after or 0)


def _quotas(fields: dict[str, str]) -> dict[str, int | None]:
    """The quotas of the policies, by their names: ``"name";q=100;w=60``."""
    return {
        member.value: _whole(_number(member.parameters.get("q")))
        for member in _members(fields, "ratelimit-policy")
    }


def _service_limit(member: _Member, quotas: dict[str, int | None]) -> ServerLimits | None:
    """Draft 08 and later: ``"name";r=50;t=30``."""
    if (remaining := _whole(_number(member.parameters.get("r")))) is None:
        return None
    return ServerLimits(
        limit=quotas.get(member.value),
        remaining=remaining,
        reset_after=_number(member.parameters.get("t")),
        bucket=member.value or None,
    )


def _draft_07(members: list[_Member]) -> ServerLimits:
    """``limit=100, remaining=50, reset=30``; parameters, if any, do not matter."""
    told = dict(_pairs([member.value for member in members]))
    return ServerLimits(
        limit=_whole(_number(told.get("limit"))),
        remaining=_whole(_number(told.get("remaining"))),
        reset_after=_number(told.get("reset")),
    )
