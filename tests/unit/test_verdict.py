"""The verdict and the exit code, over every combination of what they depend on."""

from __future__ import annotations

import itertools

import pytest

from consistency.errors import InternalError
from consistency.results.verdict import Coverage, ExitCode, Verdict, exit_code, judge

COVERAGES = [Coverage(3, 3), Coverage(3, 2, 1), Coverage(3, 2, 0, 1), Coverage(3, 2), Coverage()]


@pytest.mark.parametrize(("coverage", "findings", "unsettled"), list(itertools.product(COVERAGES, (0, 2), (0, 1))))
def test_consistent_needs_everything(coverage: Coverage, findings: int, unsettled: int) -> None:
    """Divergent with the first finding; consistent only where all that was planned was read, and all agreed."""
    verdict = judge(coverage, findings=findings, unsettled=unsettled)
    if findings:
        assert verdict is Verdict.DIVERGENT
    elif coverage == Coverage(3, 3) and not unsettled:
        assert verdict is Verdict.CONSISTENT
    else:
        assert verdict is Verdict.UNKNOWN


ENDINGS = list(itertools.product(Verdict, (0, 1), (False, True)))


@pytest.mark.parametrize(("verdict", "violations", "interrupted"), ENDINGS)
def test_the_exit_code_follows_from_verdict_and_violations(
    verdict: Verdict, violations: int, interrupted: bool
) -> None:
    """Divergence and violations beat incompleteness, an interrupt beats both; 0 is consistent, or a sample."""
    code = exit_code(verdict, violations=violations, interrupted=interrupted)
    if interrupted:
        assert code is ExitCode.INTERRUPTED
    elif verdict is Verdict.DIVERGENT or violations:
        assert code is ExitCode.DIVERGENT
    else:
        assert code is (ExitCode.INCOMPLETE if verdict is Verdict.UNKNOWN else ExitCode.CONSISTENT)


def test_what_was_never_reached_is_closed_as_failed() -> None:
    """A closed coverage adds up; one that counts more than was planned is our own fault."""
    assert Coverage(5, 2, 1, 1).closed() == Coverage(5, 2, 1, 2)
    assert Coverage(1, 1) + Coverage(2, 0, 1, 1) == Coverage(3, 1, 1, 1)
    with pytest.raises(InternalError):
        Coverage(1, 2).closed()
