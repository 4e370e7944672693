"""The password in a storage's address is for the storage alone: it is in no message."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

__all__ = ["Secrets"]

_USER = re.compile(r"://(.*)@", re.DOTALL)  # up to the last one: a password may have another
_QUERY = re.compile(r"[?&][a-z_]*password=([^&#]*)", re.IGNORECASE)


class Secrets:
    """What is secret in an address, in each form in which it may be shown."""

    def __init__(self, address: str) -> None:
        found = [*_QUERY.findall(address)]
        if (user := _USER.search(address)) is not None:
            found.append(user[1].partition(":")[2])
        forms = {form for one in found for form in (one, unquote(one), unquote_plus(one))}
        # The longest first, or what is left of it would be shown.
        self._forms = sorted(filter(None, forms), key=len, reverse=True)

    def without(self, text: str) -> str:
        """The text with ``***`` in place of what is secret."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text

    def are_told_by(self, error: BaseException) -> bool:
        """Whether the message of this error, or of one that it is chained to, shows one."""
        pending: list[BaseException | None] = [error]
        seen: set[int] = set()
        while pending:
            one = pending.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            text = f"{one} {one!r}"
            if any(form in text for form in self._forms):
                return True
            pending += [one.__cause__, one.__context__]
        return False
