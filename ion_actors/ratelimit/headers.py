"""What the headers of an HTTP response say about the server's rate limit.

Three families of fields are in use, and many servers send more than one:

* ``Retry-After`` of RFC 9110, in seconds or as a date;
* the fields of the IETF draft *RateLimit header fields for HTTP*, whose syntax changed twice:
  ``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` up to draft 06, the dictionary
  ``RateLimit: limit=…, remaining=…, reset=…`` in draft 07, and from draft 08 on
  ``RateLimit: "name";r=…;t=…`` beside ``RateLimit-Policy: "name";q=…;w=…``;
* ``X-RateLimit-*``, which each server understands in its own way: the reset is a moment at GitHub,
  and a number of seconds elsewhere; Discord adds a bucket and a scope.

The small part of the structured fields (RFC 9651) that these need is read here: strings and
numbers in a list. A full parser has to refuse a whole field for one flaw in it, and servers in the
field still send all three drafts; what both accept, both read alike, as the tests say.
"""

from __future__ import annotations

import email.utils
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import NamedTuple

from ion_actors._arguments import number

__all__ = ["ServerLimits", "parse_headers"]

logger = logging.getLogger("ion_actors.ratelimit")

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)

# A reset this large is a moment (seconds since 1970, from 2001 on), since no window lasts 31 years;
# one that is a thousand times larger is in milliseconds.
_EPOCH = 1e9
_EPOCH_MILLISECONDS = 1e12

_REDIRECTS = range(300, 400)

# A separator inside a quoted string does not separate.
_WELL_QUOTED = re.compile(r'(?:"(?:\\.|[^"\\])*+"|[^"])*+')
_MEMBER = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^",])+')
_PARAMETER = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^";])+')


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server told about its limit; None where it told nothing.

    Attributes:
        limit: how many requests it allows per window.
        remaining: how many of them are left.
        reset_after: seconds until the window starts anew.
        retry_after: seconds until it wants to hear from us again.
        is_global: it speaks of all requests, not just of this route.
        bucket: the server's name for the limit; routes with the same name share it.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    retry_after: float | None = None
    is_global: bool = False
    bucket: str | None = None


def parse_headers(
    headers: Mapping[str, str], *, status: int | None = None, now: float | None = None
) -> ServerLimits:
    """Read what a response says about the server's limit.

    Args:
        headers: the response's fields, as any HTTP client has them. Upper and lower case are one.
        status: the response's status. ``Retry-After`` of a redirect is not about limits; a 429 says
            that nothing remains, and when to come again, even if only by the reset.
        now: seconds since 1970, to count dates and moments from. By default the response's own
            ``Date``, so that the two clocks need not agree; without either, such a field is
            ignored.

    Returns:
        What was understood. A field that makes no sense is ignored, and logged at level DEBUG.
        Where several limits are told, the one with the least left counts; where several families
        of fields are sent, the newest.

    Raises:
        TypeError: ``headers`` has no ``items()``, or ``now`` is not a number.
        ValueError: ``now`` is negative or not finite.
    """
    fields = _gathered(headers)
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
    return _refused(limits) if status == 429 else limits


def _refused(told: ServerLimits) -> ServerLimits:
    return replace(
        told,
        remaining=0 if told.remaining is None else told.remaining,
        retry_after=told.reset_after if told.retry_after is None else told.retry_after,
    )


def _gathered(headers: Mapping[str, str]) -> dict[str, str]:
    """All fields by their names in lower case; a field sent twice is one list (RFC 9110, 5.3)."""
    if not hasattr(headers, "items"):
        raise TypeError(f"headers must be a mapping of names to values, not {headers!r}")
    fields: dict[str, str] = {}
    pairs: Iterable[tuple[object, object]] = headers.items()  # others than text are ignored
    for name, value in pairs:
        if isinstance(name, str) and isinstance(value, str):
            key, text = name.strip().lower(), value.strip()
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        else:
            _ignored(name, value)
    return fields


def _ignored(name: object, value: object) -> None:
    logger.debug("the header %r makes no sense and is ignored: %.200r", name, value)


# -- single values -------------------------------------------------------------------------


def _first_number(fields: dict[str, str], *names: str) -> float | None:
    """The number that the first of these fields begins with, be there parameters or repeats."""
    for name in names:
        if (text := fields.get(name)) is not None:
            if (found := _number(re.split("[,;]", text, maxsplit=1)[0])) is not None:
                return found
            _ignored(name, text)
    return None


def _number(text: str | None) -> float | None:
    """A plain number that is zero or more; some servers write counts with a decimal point."""
    found = _NUMBER.fullmatch((text or "").strip())
    return float(found[0]) if found else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _count(fields: dict[str, str], what: str) -> int | None:
    names = (f"ratelimit-{what}", f"x-ratelimit-{what}", f"x-rate-limit-{what}")
    return _whole(_first_number(fields, *names))


def _date(fields: dict[str, str], name: str) -> float | None:
    """A date as seconds since 1970; one without a zone is in UTC."""
    if (text := fields.get(name)) is None:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
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
        logger.debug("nothing tells what time the server has: its moment %r is ignored", moment)
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
    """What ``RateLimit`` says; nothing, if it is not there."""
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
    """What the policies grant, by their names: ``"name";q=100;w=60``."""
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
