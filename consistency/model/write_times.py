"""Write times as text: a moment, and a period."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TO_THE_SECOND = timedelta(minutes=10)


def window_text(first_us: int, last_us: int) -> str:
    """Return a period as `2026-07-14 02:10 to 02:25 UTC`, to the second if it is short."""
    first, last = _moment(first_us), _moment(last_us)
    if first is None or last is None:
        return f"{first_us} to {last_us} us"
    clock = "%H:%M:%S" if last - first < _TO_THE_SECOND else "%H:%M"
    start, end = first.strftime(f"%Y-%m-%d {clock}"), last.strftime(clock)
    if first.date() != last.date():
        end = last.strftime(f"%Y-%m-%d {clock}")
    return f"{start} UTC" if start.endswith(end) else f"{start} to {end} UTC"


def minute_text(us: int) -> str:
    """Return a moment as `2031-01-02 10:20 UTC`; a number beyond the calendar stays a number."""
    when = _moment(us)
    return f"{us} us" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"


def _moment(us: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None
