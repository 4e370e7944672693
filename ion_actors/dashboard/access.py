"""Who gets in: decided from the headers of a request alone.

A server on loopback is no secret: every page in a browser of this machine can send requests to it,
and so can every other program. Hence four questions, each of which is enough to refuse:

==================  =================================================================
is the host ours?   a page elsewhere whose name was rebound to 127.0.0.1 sends its own name
is the origin ours? a page elsewhere that sends requests from a browser is named by the browser
is the token there? other users and programs of this machine do not know it
is it deliberate?   what changes something is a POST with JSON, which no form and no link can send
==================  =================================================================
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl

__all__ = ["Gate", "Verdict", "Visitor", "checked_hosts", "checked_token", "is_loopback"]

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,512}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ELSEWHERE = ("cross-site", "same-site")  # another port of this machine is the same site


class Verdict(Enum):
    """What becomes of a request: the status of its answer, and the reason."""

    ENTER = (200, "")
    #: The token was in the address: from now on it is in a cookie.
    REMEMBER = (303, "")
    HOST = (403, "the host name is none of this dashboard's; see its argument hosts")
    ORIGIN = (403, "the request comes from a page elsewhere")
    TOKEN = (401, "the token is missing or wrong: open the address that the program has shown")
    METHOD = (405, "GET, or POST for actions")
    CONTENT = (415, "an action takes application/json")

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # it may have the token
class Visitor:
    """What a request says of its sender. The lists are for headers that are sent repeatedly."""

    method: str = "GET"
    scheme: str = "http"
    query: str = ""
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    sites: Sequence[str] = ()  #: Sec-Fetch-Site
    navigates: bool = False  #: a person opens the page: Sec-Fetch-Mode and Sec-Fetch-Dest
    authorizations: Sequence[str] = ()
    cookies: Sequence[str] = ()
    content_types: Sequence[str] = ()

    @classmethod
    def of(
        cls, method: str, scheme: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> Visitor:
        """The sender of a request with these parts, as ASGI has them."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        modes = found.get("sec-fetch-mode"), found.get("sec-fetch-dest")
        return cls(
            method=method,
            scheme=scheme,
            query=query.decode("latin-1"),
            hosts=found.get("host", ()),
            origins=found.get("origin", ()),
            sites=found.get("sec-fetch-site", ()),
            navigates=modes == (["navigate"], ["document"]),
            authorizations=found.get("authorization", ()),
            cookies=found.get("cookie", ()),
            content_types=found.get("content-type", ()),
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides on requests.

    Args:
        token: what a visitor has to know.
        hosts: names of this server, besides those of loopback.
        any_address: the server may also be called by any IP address. No name can be rebound then:
            a page whose host is an address was loaded from that address.
    """

    token: str = field(repr=False)
    hosts: frozenset[str] = frozenset()
    any_address: bool = False

    @property
    def cookie(self) -> str:
        """The cookie's name. Cookies know no ports, so each dashboard has one of its own."""
        return f"ion_actors_{hashlib.sha256(self.token.encode()).hexdigest()[:12]}"

    def cookie_header(self, scheme: str) -> str:
        """The value of Set-Cookie for a visitor with the token.

        It names no path: browsers then take the folder of the page, also behind a proxy that has
        cut a part of the path off.
        """
        secure = "; Secure" if scheme == "https" else ""
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict{secure}"

    def judge(self, visitor: Visitor) -> Verdict:
        """What becomes of a request."""
        if len(visitor.hosts) != 1 or not self._is_ours(visitor.hosts[0]):
            return Verdict.HOST
        if not _is_from_here(visitor):
            return Verdict.ORIGIN
        if visitor.method not in ("GET", "HEAD", "POST"):
            return Verdict.METHOD
        return self._judge_token(visitor)

    def _judge_token(self, visitor: Visitor) -> Verdict:
        if visitor.method == "GET" and (given := _tokens_in_query(visitor.query)):
            return Verdict.REMEMBER if self._knows(given) else Verdict.TOKEN
        bearers = _bearers(visitor.authorizations)
        if not self._knows(bearers or _values(visitor.cookies, self.cookie)):
            return Verdict.TOKEN
        if visitor.method == "POST":
            return _judge_action(visitor, by_cookie=not bearers)
        return Verdict.ENTER

    def _is_ours(self, host: str) -> bool:
        if (found := _split(host)) is None:
            return False
        name = found[0]
        return name in self.hosts or is_loopback(name) or (self.any_address and _is_address(name))

    def _knows(self, given: Sequence[str]) -> bool:
        if len(given) != 1:
            return False
        # In the same time, however much of it is right.
        return hmac.compare_digest(given[0].encode("utf-8", "replace"), self.token.encode())


def _judge_action(visitor: Visitor, *, by_cookie: bool) -> Verdict:
    kinds = [one.partition(";")[0].strip().lower() for one in visitor.content_types]
    if kinds != ["application/json"]:
        return Verdict.CONTENT
    # Browsers send cookies on their own, but they name the origin of each POST.
    if by_cookie and not visitor.origins:
        return Verdict.ORIGIN
    return Verdict.ENTER


def _is_from_here(visitor: Visitor) -> bool:
    """Whether no page elsewhere has sent it, as far as the browser says."""
    # A person may follow a link to the page, and to nothing else.
    is_link = visitor.method == "GET" and visitor.navigates
    if not is_link and any(one in _ELSEWHERE for one in visitor.sites):
        return False
    return all(_is_same_origin(one, visitor) for one in visitor.origins)


def _is_same_origin(origin: str, visitor: Visitor) -> bool:
    scheme, found, authority = origin.lower().partition("://")
    if not found or scheme not in _DEFAULT_PORTS or "https" == visitor.scheme != scheme:
        return False
    # A proxy may have taken the encryption off, so a port that is not named is that of the origin.
    default = _DEFAULT_PORTS[scheme]
    theirs, ours = _split(authority), _split(visitor.hosts[0])
    if theirs is None or ours is None:
        return False
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)


def _split(authority: str) -> tuple[str, int | None] | None:
    """The name and the port; None if it is neither."""
    if (found := _AUTHORITY.fullmatch(authority.lower())) is None:
        return None
    name, port = found.groups()
    return name.strip("[]").removesuffix("."), None if port is None else int(port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a host name or IP address is one of this machine that no other can reach."""
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _tokens_in_query(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "token"]


def _bearers(authorizations: Sequence[str]) -> list[str]:
    return [
        value.strip()
        for kind, _, value in (one.strip().partition(" ") for one in authorizations)
        if kind.lower() == "bearer"
    ]


def _values(cookies: Sequence[str], name: str) -> list[str]:
    # Not http.cookies: it reads nothing more after another program's cookie that it dislikes.
    pairs = (pair.strip().partition("=") for one in cookies for pair in one.split(";"))
    return list({value for found, _, value in pairs if found == name})


def checked_token(token: object) -> str:
    """The token to use.

    Raises:
        TypeError, ValueError: it is no text that fits into an address and is hard to guess.
    """
    if token is None:
        return secrets.token_urlsafe(32)
    if not isinstance(token, str):
        raise TypeError(f"token must be a str or None, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise ValueError("token must have 16 to 512 characters from A-Z, a-z, 0-9, - and _")
    return token


def checked_hosts(hosts: object) -> frozenset[str]:
    """The names to use.

    Raises:
        TypeError, ValueError: they are no names of hosts.
    """
    if isinstance(hosts, str) or not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be several names, not {type(hosts).__name__}")
    names = set()
    for one in hosts:
        found = _split(one) if isinstance(one, str) else None
        if found is None or found[1] is not None:
            raise ValueError(f"hosts must be names without scheme and port, not {one!r}")
        names.add(found[0])
    return frozenset(names)
