"""Figures that tests measure: printed at the end of the session, whatever was captured.

CONSISTENCY_FIGURES=FILE also appends each to a file as soon as it is known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LONG = bool(os.environ.get("CONSISTENCY_SOAK"))
"""Whether the long variants run too: `make soak`."""
SOAK = pytest.mark.skipif(not LONG, reason="a long variant: make soak")


@dataclass
class Figures:
    """What was measured, in the order in which it was."""

    lines: list[str] = field(default_factory=list)

    def add(self, what: str, figure: str) -> None:
        """Keep one figure."""
        self.lines.append(f"{what}: {figure}")
        if path := os.environ.get("CONSISTENCY_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(self.lines[-1] + "\n")


FIGURES = Figures()
"""Those of this session."""
