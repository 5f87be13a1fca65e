"""The sample that a command is asked to read."""

from __future__ import annotations

import secrets
from typing import Any

from consistency.checking.sampling import Sample
from consistency.errors import UsageError


def take_sample(given: dict[str, Any]) -> Sample | None:
    """Return the sample that --sample or --within asks for, drawn by --seed; None if all is to be read."""
    if given["sample"] is None and given["within"] is None:
        if given["seed"] is not None:
            raise UsageError("--seed draws a sample again: name its size too, with --sample or --within")
        return None
    if given["sample"] is not None and given["within"] is not None:
        raise UsageError("--sample and --within: give one of the two")
    seed = secrets.randbelow(1_000_000) if given["seed"] is None else given["seed"]
    return Sample(given["sample"], given["within"], seed)
