"""Types of option values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import click

if TYPE_CHECKING:
    _Floats = click.ParamType[float]
    _Counts = click.ParamType[int | None]
else:  # older releases of click have no type parameter here
    _Floats = click.ParamType
    _Counts = click.ParamType


class Number(_Floats):
    """A finite number of a kind: `what` says in an error which ones are meant."""

    def __init__(self, name: str, what: str, accepts: Callable[[float], bool]) -> None:
        self.name = name
        self._what = what
        self._accepts = accepts

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self._accepts(number)):
            self.fail(f"{value!r} is not {self._what}", param, ctx)
        return number


class CountOrAll(_Counts):
    """A number of things, or all of them, which is None."""

    name = "count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read the number."""
        if value is None or value == "all":
            return None
        if not str(value).isascii() or not str(value).isdigit():
            self.fail(f"{value!r} is neither a whole number, zero or more, nor 'all'", param, ctx)
        return int(str(value))


class Percent(_Floats):
    """A share in percent, such as `2%`; converted to a number up to 1."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the share."""
        try:
            share = float(str(value).removesuffix("%")) / 100
        except ValueError:
            share = math.nan
        if not str(value).endswith("%") or not 0 < share <= 1:
            self.fail(f"{value!r} is not a share above 0% and up to 100%, such as 2%", param, ctx)
        return share


class Duration(_Floats):
    """A time: a number of seconds, or with its unit: 90s, 5m, 1h. Converted to seconds."""

    name = "duration"
    _UNITS: ClassVar[dict[str, int]] = {"s": 1, "m": 60, "h": 3600}

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the time."""
        text = str(value)
        unit = self._UNITS.get(text[-1:], 0)
        try:
            seconds = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            self.fail(f"{value!r} is not a time above 0, such as 90s, 5m or 1h", param, ctx)
        return seconds


COUNT_OR_ALL = CountOrAll()
DURATION = Duration()
PERCENT = Percent()
FACTOR = Number("factor", "a number above 1", lambda number: number > 1)
PER_SECOND = Number("rate", "a number above 0", lambda number: number > 0)
SECONDS = Number("seconds", "a number of seconds, zero or more", lambda number: number >= 0)
