"""Numbers, spans and moments for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return `1 row`, `2,000 rows`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def short(count: float) -> str:
    """Return a count in four or five characters: `999`, `12.3k`, `1.2M`."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 999.5 or unit == "G":
            digits = 1 if unit and abs(count) < 99.95 else 0
            return f"{count:.{digits}f}{unit}"
        count /= 1000
    return ""


def span(seconds: float) -> str:
    """Return a time span: `0.4s`, `12s`, `2m 05s`, `1h 03m`, `2d 4h`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def moment(us: int, *, micros: bool = False) -> str:
    """Return a write time as UTC; a number beyond the calendar stays a number."""
    try:
        when = _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return f"{us} us"
    return f"{when:%Y-%m-%d %H:%M:%S.%f}" if micros else f"{when:%Y-%m-%d %H:%M:%S} UTC"
