"""What proves the lines of a journal: each ends with a checksum of itself and of all lines before it.

A byte that changed would be written to the cluster by an undo, and a line that was lost would let a row that was begun
pass for one that was not. Journals of earlier versions have no checksums: their lines are believed.
"""

from __future__ import annotations

import zlib

_TAIL = b',"check":"%08x"}\n'
_LENGTH = len(_TAIL % 0)
_END = b"}\n"


def first_check(first: bytes) -> int:
    """Return the checksum of a journal's first line, on which those of the others rest."""
    return zlib.crc32(first)


def chained(line: bytes, before: int) -> tuple[bytes, int]:
    """Return a line with its checksum, and that checksum; `before` is the one of the line before it."""
    body = line.removesuffix(_END)
    check = zlib.crc32(body, before)
    return body + _TAIL % check, check


def check_of(line: bytes, before: int | None) -> int | None:
    """Return a line's checksum; ValueError if it does not fit, None in a journal without any."""
    if before is None:
        return None
    check = zlib.crc32(line[:-_LENGTH], before)
    if line[-_LENGTH:] != _TAIL % check:
        raise ValueError(check)
    return check
