"""Every way in which a table can be checked: both depths, both routes, both localities."""

from __future__ import annotations

from itertools import product

from consistency.model.reading import CHECKED_DEPTHS, ONE_REPLICA, Route
from tests.support.figures import LONG

MODES = list(product(CHECKED_DEPTHS, Route, ONE_REPLICA))
PAIRS = MODES if LONG else [mode for i, mode in enumerate(MODES) if i.bit_count() % 2 == 0]
"""Half of them, in which every two of the three meet; all of them in the long variants."""
