"""Rates and limits: so many tokens per so many seconds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ion_actors._arguments import make_plain, number, whole_number

__all__ = ["Limit", "Rate", "per", "per_hour", "per_minute", "per_second"]


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """A number of tokens per a number of seconds.

    Both numbers are kept exactly, so a third of a token per second is possible. Rates are equal if
    they are equally fast: 60 per minute is 1 per second.

    Args:
        tokens: zero or more. A rate of zero lets nothing flow.
        seconds: more than zero.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    tokens: float
    seconds: float = 1.0

    def __post_init__(self) -> None:
        number("tokens", self.tokens, minimum=0)
        if number("seconds", self.seconds, minimum=0) == 0:
            raise ValueError(f"seconds must be more than 0, not {self.seconds!r}")
        make_plain(self, "tokens", "seconds")

    @property
    def exact(self) -> Fraction:
        """Tokens per second, without rounding."""
        return Fraction(self.tokens) / Fraction(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, rounded to a float."""
        return float(self.exact)

    def __eq__(self, other: object) -> bool:
        return self.exact == other.exact if isinstance(other, Rate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.exact)

    def __str__(self) -> str:
        return (
            f"{self.tokens:g}/s" if self.seconds == 1 else f"{self.tokens:g} per {self.seconds:g} s"
        )


def per(tokens: float, seconds: float) -> Rate:
    """So many tokens per so many seconds."""
    return Rate(tokens, seconds)


def per_second(tokens: float) -> Rate:
    """So many tokens per second."""
    return Rate(tokens)


def per_minute(tokens: float) -> Rate:
    """So many tokens per minute."""
    return Rate(tokens, 60)


def per_hour(tokens: float) -> Rate:
    """So many tokens per hour."""
    return Rate(tokens, 3600)


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate, and how many tokens may be taken at once after a pause.

    Args:
        rate: how fast tokens flow in.
        burst: how many can gather, a whole number of at least 1.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    rate: Rate
    burst: int

    def __post_init__(self) -> None:
        if not isinstance(self.rate, Rate):
            raise TypeError(f"rate must be a Rate, as made by per_second(), not {self.rate!r}")
        whole_number("burst", self.burst, minimum=1)
        make_plain(self, "burst")
