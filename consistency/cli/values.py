"""Types of option values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

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


COUNT_OR_ALL = CountOrAll()
FACTOR = Number("factor", "a number above 1", lambda number: number > 1)
PER_SECOND = Number("rate", "a number above 0", lambda number: number > 0)
SECONDS = Number("seconds", "a number of seconds, zero or more", lambda number: number >= 0)
