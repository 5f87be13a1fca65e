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
from dataclasses import dataclass, replace
from typing import Any, Protocol

from consistency.cluster.port import Clock, Key
from consistency.errors import ConsistencyError, ReplicaError
from consistency.model.layout import token_in
from consistency.model.tokens import TokenRange
from consistency.rows.windows import KeyCells, RawCopies, WindowTooWide
from repair.applying.actions import Acted, Actor
from repair.applying.chunks import Chunk, ChunkReader, Held, Judged, Limits, is_simple
from repair.applying.guard import Guard
from repair.applying.outcomes import left_alone
from repair.applying.pace import Throttle
from repair.applying.range_work import Group, Work, key_of, planned_now
from repair.applying.still_right import OLD_US, Begun, Row, carried_over, look, proven_since
from repair.applying.verify import verify
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import copies, left_by_time
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import most_held
from repair.deciding.policy import Zombies
from repair.keeping.chunk_lines import ChunkRecord, ChunkRow, merged_json, merging_json
from repair.keeping.entries import Account, Entry, Fate, Outcome, Result
from repair.keeping.plain_lines import packed
from repair.keeping.planfile import Plan, PlannedRow

_READS = 64
"""Reads at ALL that a step may take: each goes around what is left, and evidence ages while they follow each other."""
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

        Returns whether the range was read to its end. Raises a ReplicaError if a replica cannot be read.
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

    async def lost(self, chunks: Sequence[ChunkRecord]) -> int:
        """Count the rows of chunks that most replicas held and that a killed run may have taken, as they are gone."""
        gone = 0
        for chunk in chunks:
            rows = self._rows_of(chunk) if chunk.open and chunk.waiting else ()
            held = [row for row in rows if row.entry.result is None and most_held(row.entry.pre_image or {})]
            cases = await self._cases.read_many([row.planned.ref for row in held]) if held else ()
            gone += sum(_may_have_been_taken(row, case) for row, case in zip(held, cases, strict=True))
        return gone

    async def _begun_before(self, reader: ChunkReader, chunk: ChunkRecord) -> Work:
        """Sort the rows of a chunk that an earlier attempt has begun with: those that have ended stay as they are."""
        work = Work(chunk.number, chunk.token_range, self._clock.server_time(), _PAGE_ROWS)
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
        if work.begun or len(work.plain):
            columns = [column.name for column in reader.reading.table.primary_key]
            hosts = [node.host_id for node in reader.owners]
            plain = packed(work.plain, reader.reading.layout, hosts, work.when.expiry_s) if len(work.plain) else None
            await self._journal.note(merging_json(work.number, work.token_range, columns, before, plain))
        try:
            await self._in_steps(reader, work, throttle)
            await self._look_at_young(work)
        except ConsistencyError:
            # What is proven of earlier steps must not be lost: undo knows rows by their outcomes alone.
            work.leave_young(work.young)
            await self._keep(work, before)
            raise
        return await self._keep(work, before)

    async def _keep(self, work: Work, before: Sequence[ChunkRow]) -> Account:
        """Keep what came of the rows of a chunk, and return them counted."""
        account = work.account(before)
        by_us = self._clock.server_time().latest_us  # no server has stamped a later write by now
        await self._journal.note(merged_json(work.number, work.token_range, work.ended, account, by_us))
        return account

    async def _look_at_young(self, work: Work) -> None:
        """Leave the rows alone whose newest write may still be in flight, but for those that agree by now."""
        now = await self._cases.read_many([row.ref for row in work.young]) if work.young else ()
        pairs = zip(work.young, now, strict=True)
        work.leave_young([planned for planned, case in pairs if not case.agreed or case.unread])

    async def _in_steps(self, reader: ChunkReader, work: Work, throttle: Throttle) -> None:
        """Act on the rows in ring order, those of a token together, as many at once as the breaker has room for."""
        waiting = deque(work.groups())
        breaker = throttle.breaker
        while waiting and not breaker.surprised_too_often:
            step: list[Group] = []
            rows, reads, left = 0, 1, sorted(work.around)
            while waiting and (not step or rows + waiting[0].rows <= throttle.many):
                reads += bool(step) and _any_between(left, step[-1].token, waiting[0].token)
                if reads > _READS:
                    break
                may_vanish = work.may_vanish(waiting[0])
                if may_vanish and not breaker.may_begin(len(may_vanish)):
                    break
                rows += waiting[0].rows
                step.append(waiting.popleft())
            if step:
                try:
                    begins = await throttle.together(rows)
                    if begins:
                        await self._step(reader, work, step)
                finally:
                    # Also after a failure: who waits for room must not wait for rows that will never end.
                    at_risk, vanished, stayed = map(sum, zip(*map(work.fate_of, step), strict=True))
                    await breaker.ended(at_risk, vanished, stayed)
                if not begins:
                    return
            elif not await breaker.wait():
                return

    async def _step(self, reader: ChunkReader, work: Work, step: Sequence[Group]) -> None:
        """Act on some rows whose intents are durable, and prove what came of them."""
        await self._guard.check()
        begun = [each for group in step for each in group.begun]
        plain = [place for group in step for place in group.plain]
        oldest = min([begun.case.now_us for begun in begun] + ([work.when.latest_us] if plain else []))
        if self._clock.now_us() - oldest > OLD_US:
            begun, plain = await self._still_so(reader, work, begun, plain)
        tokens = sorted({_token(each) for each in begun} | {work.token_at(place) for place in plain})
        if not tokens:
            return
        acted = await self._act(reader, work, tokens)
        sought: dict[KeyCells, int] = {each.case.name.key: _token(each) for each in begun}
        regulars = reader.reading.layout.regulars
        foreseen = {work.key_at(place): work.foreseen_at(place, regulars) for place in plain}
        span = TokenRange(tokens[0] - 1, tokens[-1])
        try:
            held: Held | None = await reader.held(span, work.when, sought, foreseen)
        except (ReplicaError, WindowTooWide):
            held = None  # who does not answer is found out row by row
        otherwise: list[int] = []
        for place in plain:
            done = acted[work.token_at(place)].fate is Fate.DONE
            if done and held and foreseen[work.key_at(place)] in held.as_foreseen:
                work.as_foreseen.add(place)
            else:
                otherwise.append(place)
        begun += await self._as_cases(reader, work, otherwise)
        await self._prove(reader, work, {each: acted[_token(each)] for each in begun}, held)

    async def _prove(self, reader: ChunkReader, work: Work, acted: Mapping[Begun, Acted], held: Held | None) -> None:
        """Tell what came of rows by what their replicas hold now; where these differ, or are not known, row by row."""
        rest: dict[Begun, Acted] = {}
        for begun, how in acted.items():
            after = reader.copies_in(held, begun.case.name.key, work.when) if held else {}
            if len(set(after.values())) != 1:
                rest[begun] = how
            else:
                outcome = Outcome(Result.VERIFIED, "", after)
                work.outcomes[begun.row.number] = proven_since(begun, outcome, how.fate, self._clock)
        for begun, outcome in (await verify(self._cases, self._clock, rest)).items():
            work.outcomes[begun.row.number] = proven_since(begun, outcome, acted[begun].fate, self._clock)

    async def _as_cases(self, reader: ChunkReader, work: Work, places: Sequence[int]) -> list[Begun]:
        """Make cases of plain rows that must be looked at one by one after all."""
        judged = await reader.judged({work.key_at(place): work.copies_at(place) for place in places}, work.when)
        return [
            Begun(Row(place, planned_now(each.case, each.decision), Entry()), each.case, each.decision)
            for place, each in zip(places, judged, strict=True)
        ]

    async def _act(self, reader: ChunkReader, work: Work, tokens: Sequence[int]) -> dict[int, Acted]:
        """Have the servers merge the rows of tokens, in ranges that touch no token that is to be left."""
        acted: dict[int, Acted] = {}
        evidence = await reader.of_no_row(work.when)
        for run in _runs(tokens, work.around):
            work.sent.update(run)
            how = await self._actor.merge_range(evidence, TokenRange(run[0] - 1, run[-1]), work.page_rows)
            acted.update(dict.fromkeys(run, how))
        return acted

    async def _still_so(
        self, reader: ChunkReader, work: Work, begun: Sequence[Begun], plain: Sequence[int]
    ) -> tuple[list[Begun], list[int]]:
        """Read rows again whose evidence is old; return those that are as they were. The others get their outcome."""
        try:
            now = await self._read_again(reader, work, begun, plain)
        except ReplicaError as error:
            for each in [*begun, *await self._as_cases(reader, work, plain)]:
                fate = Fate.NONE if each.row.entry.pre_image is None else Fate.UNKNOWN
                work.outcomes[each.row.number] = Outcome(Result.UNKNOWN, str(error), fate=fate)
            return [], []
        same: list[Begun] = []
        moved = await self._as_cases(reader, work, now.moved)
        for each in now.begun:
            found = now.judged.get(each.case.name.key)
            if found and found.decision == each.decision and copies(found.case) == copies(each.case):
                same.append(Begun(each.row, found.case, found.decision))
            else:
                moved.append(each)
        # What has come to differ since has no pre-image, and what has changed is no longer what was decided.
        work.around |= now.others | set(map(_token, moved))
        cases = await self._cases.read_many([each.row.planned.ref for each in moved]) if moved else ()
        for each, case in zip(moved, cases, strict=True):
            ended = look(each.row, case, self._plan)
            outcome = ended if isinstance(ended, Outcome) else Outcome(Result.SKIPPED, _MOVED)
            work.outcomes[each.row.number] = carried_over(each.row.entry, case, outcome)
        return work.without_around(same, _MOVED), work.plain_without_around(now.plain, _MOVED)

    async def _read_again(
        self, reader: ChunkReader, work: Work, begun: Sequence[Begun], plain: Sequence[int]
    ) -> _Again:
        """Read rows again, and what differs beside them: row by row if no window can hold their partition."""
        tokens = [*map(_token, begun), *map(work.token_at, plain)]
        span = TokenRange(min(tokens) - 1, max(tokens))
        try:
            now = (await reader.held(span, work.when, {}, {})).differing
        except WindowTooWide:
            all_begun = [*begun, *await self._as_cases(reader, work, plain)]
            walked = {each.case.name.key: each for each in await reader.again(span)}
            ours = {each.case.name.key for each in all_begun}
            return _Again(all_begun, [], [], walked, {each.token for key, each in walked.items() if key not in ours})
        same = [place for place in plain if now.pop(work.key_at(place), None) == work.copies_at(place)]
        moved = sorted(set(plain) - set(same))
        again: dict[KeyCells, RawCopies] = {
            each.case.name.key: now.pop(each.case.name.key) for each in begun if each.case.name.key in now
        }
        judged = {each.case.name.key: each for each in await reader.judged(again, work.when)}
        return _Again(begun, same, moved, judged, {token_in(next(filter(None, held))) for held in now.values()})


@dataclass(frozen=True, eq=False)
class _Again:
    """Rows of a step read again: what is begun with, the plain ones that are as they were and those that are not."""

    begun: Sequence[Begun]
    plain: list[int]
    moved: list[int]
    judged: Mapping[Key, Judged]
    """What differs now of the rows begun with, by key."""
    others: set[int]
    """The tokens of what differs beside them."""


def _new(number: int, reader: ChunkReader, read: Chunk) -> Work:
    """Sort the rows of a chunk that nobody has begun with."""
    work = Work(number, read.token_range, read.when, read.page_rows)
    work.sort(read.rows)
    work.take_plain(read.plain)
    if read.too_many:
        outcome = left_alone(PlannedRow(reader.place, Rule.OUT_OF_REACH, Action.NONE, TOO_MANY, {}), None)
        work.left.add(outcome.result, outcome.reason, times=read.too_many)
    return work


def _runs(tokens: Sequence[int], around: Collection[int]) -> list[list[int]]:
    """Cut tokens whose rows may be merged by the range, so that no token to be left lies between two of a run."""
    left = sorted(around)
    runs: list[list[int]] = []
    for token in tokens:
        if runs and not _any_between(left, runs[-1][-1], token):
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def _any_between(tokens: Sequence[int], one: int, other: int) -> bool:
    """Whether any of the tokens, which are in order, lies between two others."""
    at = bisect.bisect_right(tokens, one)
    return at < len(tokens) and tokens[at] < other


def _may_have_been_taken(row: ChunkRow, now: Case) -> bool:
    """Whether a row that most replicas held is gone, and not for its age."""
    lasting = left_by_time(row.entry.pre_image or {}, copies(now), now.when.expiry_s)
    return bool(now.states) and not now.present and most_held(lasting)


def _token(begun: Begun) -> int:
    return begun.case.name.token


def _may_begin(throttle: Throttle) -> bool:
    return throttle.may_begin() and not throttle.breaker.open
