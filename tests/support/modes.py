"""Every way in which a table can be checked: both depths, both routes, both localities."""

from __future__ import annotations

from itertools import product

from consistency.model.reading import Depth, Locality, Route

MODES = list(product(Depth, Route, Locality))
