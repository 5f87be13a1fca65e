"""What a run may claim (consistent < sampled < part < unknown < divergent), and how much of its plan was read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from consistency.errors import InternalError


class Verdict(str, Enum):
    """The claim of a run or of one table.

    `sampled`: no difference was found in ranges that were drawn at random. `part`: everything agrees in one part of a
    run whose other parts are read by others; all of them together may be consistent.
    """

    CONSISTENT = "consistent"
    SAMPLED = "sampled"
    PART = "part"
    UNKNOWN = "unknown"
    DIVERGENT = "divergent"

    @property
    def agreed(self) -> bool:
        """Whether all was read that was asked for, and nothing differs in it."""
        return self not in (Verdict.UNKNOWN, Verdict.DIVERGENT)

    @property
    def of_a_part(self) -> Verdict:
        """The verdict on a part of a run that judges it so: it is never consistent by itself."""
        return Verdict.PART if self is Verdict.CONSISTENT else self


class ExitCode(IntEnum):
    """The exit code of a command."""

    CONSISTENT = 0
    DIVERGENT = 1
    USAGE = 2
    INCOMPLETE = 3
    COULD_NOT_RUN = 4
    LOCKED = 5
    INTERRUPTED = 130

    @classmethod
    def of(cls, *, wrong: bool, unknown: bool) -> ExitCode:
        """Return the code of an answer: what is known to be wrong comes before what is not known."""
        if wrong:
            return cls.DIVERGENT
        return cls.INCOMPLETE if unknown else cls.CONSISTENT


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts digests, one per leaf and replica; at the end `planned` is the sum of the other three."""

    planned: int = 0
    completed: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.planned + other.planned,
            self.completed + other.completed,
            self.skipped + other.skipped,
            self.failed + other.failed,
        )

    @property
    def complete(self) -> bool:
        """Whether everything that was planned was digested."""
        return self.planned == self.completed and not self.skipped and not self.failed

    def closed(self) -> Coverage:
        """Return the coverage with every planned digest that was not reached counted as failed."""
        missing = self.planned - self.completed - self.skipped - self.failed
        if missing < 0:
            msg = f"coverage does not add up: {self}"
            raise InternalError(msg)
        return Coverage(self.planned, self.completed, self.skipped, self.failed + missing)


def judge(coverage: Coverage, *, findings: int, unsettled: int, left_out: int | None = None) -> Verdict:
    """Return the only verdict that these counts allow; nothing planned proves nothing.

    `findings` are settled differences; `unsettled` are rows that kept changing in every reading. `left_out` are the
    digests, among the skipped ones, that a sample did not ask for; None of a run that is none.
    """
    asked = coverage + Coverage(planned=-(left_out or 0), skipped=-(left_out or 0))
    if findings:
        return Verdict.DIVERGENT
    if unsettled or not asked.complete or not asked.planned:
        return Verdict.UNKNOWN
    return Verdict.CONSISTENT if left_out is None else Verdict.SAMPLED


def exit_code(verdict: Verdict, *, violations: int, interrupted: bool = False, lost: bool = False) -> ExitCode:
    """Return the exit code; divergence and violations beat incompleteness, an interrupt beats both.

    `lost` says that findings could not be written: whoever reads them must not take that for a run without any.
    """
    if interrupted:
        return ExitCode.INTERRUPTED
    code = ExitCode.of(wrong=verdict is Verdict.DIVERGENT or violations > 0, unknown=verdict is Verdict.UNKNOWN)
    return ExitCode.COULD_NOT_RUN if lost and code is not ExitCode.DIVERGENT else code
