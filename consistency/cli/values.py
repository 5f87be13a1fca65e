"""Types of option values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _Floats = click.ParamType[float]
else:  # older releases of click have no type parameter here
    _Floats = click.ParamType


class Factor(_Floats):
    """A number above 1."""

    name = "factor"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        try:
            factor = float(str(value))
        except ValueError:
            factor = math.nan
        if not (math.isfinite(factor) and factor > 1):
            self.fail(f"{value!r} is not a number above 1", param, ctx)
        return factor


class Seconds(_Floats):
    """A span of time in seconds, zero or more."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is not a number of seconds, zero or more", param, ctx)
        return seconds


class PerSecond(_Floats):
    """A rate above 0."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        try:
            rate = float(str(value))
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rate > 0):
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return rate


FACTOR = Factor()
PER_SECOND = PerSecond()
SECONDS = Seconds()
