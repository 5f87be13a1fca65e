"""The pipeline of a planned range, chunk by chunk: guard, read, decide, intent, merge, verify, outcome.

Rows that the servers' own merge puts right are merged by reads of token ranges at ALL. No such read touches a token of
which some row asks for anything else: what is a zombie suspect, too young or of the future is left as it is, and so are
its neighbours of the same token, since a merge of these passes deletes on that may take it along. Every row has its
evidence, its pre-image and its outcome, as a row of the plan has them; they are kept in the journal by the chunk, and
in memory no longer than that.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

from consistency.cluster.port import Clock
from consistency.errors import ReplicaError
from consistency.model.tokens import TokenRange
from repair.actions import Acted, Actor
from repair.case import CaseReader
from repair.chunk_lines import ChunkRecord, ChunkRow, merged_json, merging_json
from repair.chunks import Chunk, ChunkReader, Limits, is_simple
from repair.copies import Copies, copies
from repair.decide import Action, Rule
from repair.entries import Account, Fate, Outcome, Result
from repair.guard import Guard
from repair.outcomes import left_alone, may_have_vanished, proven
from repair.pace import Throttle
from repair.planfile import Plan, PlannedRow
from repair.policy import Zombies
from repair.range_work import Work, key_of
from repair.still_right import Begun, Row, carried_over, known_as_ours, look
from repair.verify import verify

_OLD_US = 2_000_000
"""Evidence older than this is read again before anything is done."""
_PAGE_ROWS = 1_000
"""Rows that a server takes at once where no reading of this run has told how many it can bear."""
_MOVED = "a row of its partition has changed since it was read: plan again"
TOO_MANY = "more rows of its partition differ than are merged together: plan again with --range-merge never"


class ChunkJournal(Protocol):
    """Where lines about chunks are kept."""

    async def note(self, data: Mapping[str, Any]) -> None:
        """Keep a line about a chunk; durable on return."""


class RangeMerger:
    """Brings the rows of planned ranges to their outcomes, which are durable before anybody hears of them."""

    def __init__(
        self,
        plan: Plan,
        cases: CaseReader,
        actor: Actor,
        guard: Guard,
        clock: Clock,
        journal: ChunkJournal,
        rows_of: Callable[[ChunkRecord], list[ChunkRow]],
        limits: Limits | None = None,
    ) -> None:
        # A row that the plan does not name is neither brought back nor purged, whatever it allows for those it names.
        self._plan = replace(plan, policy=replace(plan.policy, zombies=Zombies.QUARANTINE))
        self._cases = cases
        self._actor = actor
        self._guard = guard
        self._clock = clock
        self._journal = journal
        self._rows_of = rows_of
        self._limits = limits

    async def merge(
        self, number: int, known: Sequence[ChunkRecord], throttle: Throttle, ended: Callable[[Account], None]
    ) -> bool:
        """Merge a range: what is open of its known chunks, then what no chunk has come to; `ended` is told of each.

        Returns whether the range was read to its end. Raises a ReplicaError where a replica cannot be read.
        """
        found = self._plan.ranges[number]
        whole = found.token_range
        reader = ChunkReader(self._cases, found, self._plan.policy, self._clock, self._limits)
        at = whole.start
        for chunk in known:
            if chunk.open:
                if not _may_begin(throttle):
                    return False
                await self._guard.check()
                ended(await self._carried_out(reader, await self._begun_before(reader, chunk), throttle))
            at = chunk.token_range.end
        while at < whole.end and _may_begin(throttle):
            await self._guard.check()
            read = await reader.next(TokenRange(at, whole.end), max(1, throttle.breaker.room))
            ended(await self._carried_out(reader, _new(number, reader, read), throttle))
            at = read.token_range.end
        return at == whole.end

    async def _begun_before(self, reader: ChunkReader, chunk: ChunkRecord) -> Work:
        """Sort the rows of a chunk that an earlier attempt has begun with: those that have ended stay as they are."""
        work = Work(chunk.number, chunk.token_range, _PAGE_ROWS)
        work.rows = [Row(place, row.planned, row.entry) for place, row in enumerate(self._rows_of(chunk))]
        work.outcomes.update({row.number: row.entry for row in work.rows if not row.entry.open})
        halfway = [row for row in work.rows if row.entry.open and row.entry.pre_image is not None]
        named = {key_of(row.planned.ref) for row in halfway}
        named |= {key_of(work.rows[place].planned.ref) for place in work.outcomes}
        differing = await reader.again(chunk.token_range)
        cases = await self._cases.read_many([row.planned.ref for row in halfway]) if halfway else ()
        for row, case in zip(halfway, cases, strict=True):
            found = look(row, case, self._plan)
            if isinstance(found, Outcome):
                work.outcomes[row.number] = found
            else:
                work.begun.append(Begun(row, case, found))
        simple = {begun.case.name.key for begun in work.begun if is_simple(begun.decision)}
        work.around |= {each.token for each in differing if each.case.name.key in named - simple}
        work.sort(each for each in differing if each.case.name.key not in named)
        return work

    async def _carried_out(self, reader: ChunkReader, work: Work, throttle: Throttle) -> Account:
        """Bring the rows of a chunk to their outcomes, and keep these; return them counted."""
        before = work.intended
        if work.begun:
            columns = list(before[0].planned.ref.key_hex)
            await self._journal.note(merging_json(work.number, work.token_range, columns, before))
        await self._in_steps(reader, work, throttle)
        await self._look_at_young(work)
        account = work.account(before)
        by_us = self._clock.server_time().latest_us  # no server has stamped a later write by now
        await self._journal.note(merged_json(work.number, work.token_range, work.ended, account, by_us))
        return account

    async def _look_at_young(self, work: Work) -> None:
        """Leave the rows alone whose newest write may still be in flight, but for those that agree by now."""
        now = await self._cases.read_many([row.ref for row in work.young]) if work.young else ()
        for planned, case in zip(work.young, now, strict=True):
            if not case.agreed or case.unread:
                outcome = left_alone(planned, None)
                work.left.add(outcome.result, outcome.reason)

    async def _in_steps(self, reader: ChunkReader, work: Work, throttle: Throttle) -> None:
        """Act on the rows in ring order, those of a token together, as many at once as the breaker has room for."""
        waiting = deque([list(rows) for _, rows in groupby(sorted(work.begun, key=_token), key=_token)])
        breaker = throttle.breaker
        while waiting and not breaker.surprised_too_often:
            step: list[Begun] = []
            doubtful: list[Begun] = []
            while waiting and (not step or len(step) + len(waiting[0]) <= throttle.many):
                may_vanish = [begun for begun in waiting[0] if begun.risk.may_vanish]
                if may_vanish and not breaker.may_begin(len(may_vanish)):
                    break
                doubtful += may_vanish
                step += waiting.popleft()
            if step:
                begins = await throttle.together(len(step))
                if begins:
                    await self._step(reader, work, step)
                vanished = sum(may_have_vanished(_outcome(work, begun)) for begun in doubtful)
                await breaker.ended(len(doubtful), vanished)
                if not begins:
                    return
            elif not await breaker.wait():
                return

    async def _step(self, reader: ChunkReader, work: Work, step: Sequence[Begun]) -> None:
        """Act on some rows whose intents are durable, and prove what came of them."""
        await self._guard.check()
        if self._clock.now_us() - min(begun.case.now_us for begun in step) > _OLD_US:
            step = await self._still_so(reader, work, step)
        if not step:
            return
        acted = await self._act(work, step)
        keys = [begun.case.name.key for begun in step]
        seen: Mapping[Any, Copies] = {}
        try:
            seen = await reader.copies_of(_span(step), keys)
        except ReplicaError:
            seen = {}  # who does not answer is found out row by row
        rest: dict[Begun, Acted] = {}
        for begun in step:
            after = seen.get(begun.case.name.key)
            if after is None or len(set(after.values())) > 1:
                rest[begun] = acted[begun]
            else:
                outcome = Outcome(Result.VERIFIED, "", after)
                work.outcomes[begun.row.number] = _proven(begun, outcome, acted[begun].fate)
        for begun, outcome in (await verify(self._cases, self._clock, rest)).items():
            work.outcomes[begun.row.number] = _proven(begun, outcome, acted[begun].fate)

    async def _act(self, work: Work, step: Sequence[Begun]) -> dict[Begun, Acted]:
        """Have the servers merge the rows, in ranges that touch no token that is to be left."""
        acted: dict[Begun, Acted] = {}
        for rows in _runs(step, work.around):
            begun = rows[0]
            how = await self._actor.merge_range(begun.case, _span(rows), work.page_rows)
            acted.update(dict.fromkeys(rows, how))
        return acted

    async def _still_so(self, reader: ChunkReader, work: Work, step: Sequence[Begun]) -> list[Begun]:
        """Read rows again whose evidence is old; return those that are as they were. The others get their outcome."""
        try:
            now = {judged.case.name.key: judged for judged in await reader.again(_span(step))}
        except ReplicaError as error:
            for begun in step:
                fate = Fate.NONE if begun.row.entry.pre_image is None else Fate.UNKNOWN
                work.outcomes[begun.row.number] = Outcome(Result.UNKNOWN, str(error), fate=fate)
            return []
        same: list[Begun] = []
        moved: list[Begun] = []
        for begun in step:
            judged = now.pop(begun.case.name.key, None)
            if judged and judged.decision == begun.decision and copies(judged.case) == copies(begun.case):
                same.append(Begun(begun.row, judged.case, judged.decision))
            else:
                moved.append(begun)
        # What has come to differ since has no pre-image, and what has changed is no longer what was decided.
        work.around |= {judged.token for judged in now.values()} | set(map(_token, moved))
        cases = await self._cases.read_many([begun.row.planned.ref for begun in moved]) if moved else ()
        for begun, case in zip(moved, cases, strict=True):
            found = look(begun.row, case, self._plan)
            outcome = found if isinstance(found, Outcome) else Outcome(Result.SKIPPED, _MOVED)
            work.outcomes[begun.row.number] = carried_over(begun.row.entry, case, outcome)
        return work.without_around(same, _MOVED)


def _new(number: int, reader: ChunkReader, read: Chunk) -> Work:
    """Sort the rows of a chunk that nobody has begun with."""
    work = Work(number, read.token_range, read.page_rows)
    work.sort(read.rows)
    if read.too_many:
        outcome = left_alone(PlannedRow(reader.place, Rule.OUT_OF_REACH, Action.NONE, TOO_MANY, {}), None)
        work.left.add(outcome.result, outcome.reason, times=read.too_many)
    return work


def _runs(step: Sequence[Begun], around: Collection[int]) -> list[list[Begun]]:
    """Cut the rows that may be merged by the range, so that no token to be left lies between two of a run."""
    left = sorted(around)
    runs: list[list[Begun]] = []
    for begun in step:
        if runs and not _any_between(left, _token(runs[-1][-1]), _token(begun)):
            runs[-1].append(begun)
        else:
            runs.append([begun])
    return runs


def _any_between(tokens: Sequence[int], one: int, other: int) -> bool:
    """Whether any of the tokens, which are in order, lies between two others."""
    at = bisect.bisect_right(tokens, one)
    return at < len(tokens) and tokens[at] < other


def _span(rows: Sequence[Begun]) -> TokenRange:
    """Return the least range with the tokens of rows that are in ring order."""
    return TokenRange(_token(rows[0]) - 1, _token(rows[-1]))


def _token(begun: Begun) -> int:
    return begun.case.name.token


def _outcome(work: Work, begun: Begun) -> Outcome | None:
    found = work.outcomes.get(begun.row.number)
    return found if isinstance(found, Outcome) else None


def _proven(begun: Begun, outcome: Outcome, fate: Fate) -> Outcome:
    """Say what our writes have changed of a row since it was first begun with."""
    ours = known_as_ours(begun.row.entry, begun.case, merged=False)
    first = begun.row.entry.pre_image or copies(begun.case)
    return proven(outcome, begun.case.columns, first, fate if ours else Fate.UNKNOWN)


def _may_begin(throttle: Throttle) -> bool:
    return throttle.may_begin() and not throttle.breaker.open
