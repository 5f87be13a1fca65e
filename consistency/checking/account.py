"""The account of one table's scan: every planned digest ends as completed or failed, with a reason."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Aside, Leaf, TablePlan
from consistency.checking.trees import BRANCH, differing, grow
from consistency.errors import ReplicaError
from consistency.ledger.port import RangeRead
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange, assert_tiles, merged
from consistency.results.figures import counted
from consistency.results.report import NOT_IN_SAMPLE, Unread
from consistency.results.sample import SampledTable
from consistency.results.strip import STRIP_CELLS, crossed, fill, strip_cell
from consistency.results.tree_report import TreeReport
from consistency.results.verdict import Coverage


@dataclass
class Account:
    """The account of one table: every planned digest ends as completed or failed, with a reason."""

    plan: TablePlan
    asides: tuple[Aside, ...] = ()
    """What was set aside before anything was read."""
    results: dict[Leaf, LeafResult] = field(default_factory=dict)
    failures: dict[tuple[Leaf, Node], str] = field(default_factory=dict)
    joined: dict[Leaf, int] = field(default_factory=dict)
    """How many distinct rows the leaves hold whose rows were read."""
    divergent: set[int] = field(default_factory=set)
    """The cells of the strip in which a row differs."""
    behind: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The same for each replica that is behind there."""
    told_apart: set[Leaf] = field(default_factory=set)
    """The leaves whose digests differ."""
    unlike: set[Leaf] = field(default_factory=set)
    """The leaves in which a row differs."""
    unjudged: set[Leaf] = field(default_factory=set)
    """The leaves in which a row could not be judged."""
    put_off: str = ""
    """Why leaves that were not reached are left out on purpose; empty if they are not."""
    _parts: dict[Leaf, tuple[Leaf, ...]] = field(default_factory=dict)
    """What stands now for leaves that were cut."""

    def record(self, result: LeafResult) -> None:
        """Enter a leaf's result; a later one replaces an earlier one."""
        self.results[result.leaf] = result
        for node in result.leaf.replicas:
            self.failures.pop((result.leaf, node), None)
            if node in result.errors:
                self.failures[result.leaf, node] = str(result.errors[node])

    def compare_branch(self, leaf: Leaf) -> list[LeafResult] | None:
        """Compare the branch of trees that a leaf is on; what differs, None if it was not read whole yet."""
        arc, place = self._places[leaf]
        branch = self.plan.arcs[arc][place - place % BRANCH :][:BRANCH]
        if any(other not in self.results or self.results[other].errors for other in branch):
            return None
        return self._compare(branch)

    def compare(self) -> list[LeafResult]:
        """Compare the trees of every replica set over all that was read; what differs, in ring order."""
        return [result for arc in self.plan.arcs for result in self._compare(arc)]

    def _compare(self, leaves: Sequence[Leaf]) -> list[LeafResult]:
        found = differing([self.results[leaf] for leaf in leaves if leaf in self.results])
        self.told_apart.update(result.leaf for result in found)
        return found

    def cut(self, leaf: Leaf, parts: Sequence[TokenRange]) -> tuple[Leaf, ...]:
        """Put leaves of these ranges, which tile a leaf, in its place.

        What it was digested to is forgotten, and what failed with that. In which part a row differs, or could not be
        judged, is not known any more: it may be in each.
        """
        assert_tiles(parts, [leaf.token_range])
        leaves = self._parts[leaf] = tuple(Leaf(part, leaf.replicas) for part in parts)
        arcs = (tuple(new for old in arc for new in (leaves if old == leaf else (old,))) for arc in self.plan.arcs)
        self.plan = replace(self.plan, arcs=tuple(arcs))
        self.__dict__.pop("_by_end", None)
        self.__dict__.pop("_places", None)
        self.results.pop(leaf, None)
        self.joined.pop(leaf, None)
        for node in leaf.replicas:
            self.failures.pop((leaf, node), None)
        self.told_apart.discard(leaf)
        for marked in (self.unlike, self.unjudged):
            if leaf in marked:
                marked.remove(leaf)
                marked.update(leaves)
        return leaves

    def set_apart(
        self, leaf: Leaf, parts: Sequence[LeafResult], refused: Mapping[int, ReplicaError]
    ) -> tuple[Leaf, ...]:
        """Put leaves that were digested anew in the place of one of which some partitions were refused, by token.

        The others were compared, on the replicas that were digested then: what failed on others stays so. Differences
        that have come since are for the next run to judge.
        """
        stood = {node: reason for node in leaf.replicas if (reason := self.failures.get((leaf, node)))}
        leaves = self.cut(leaf, [digested.leaf.token_range for digested in parts])
        for digested in parts:
            part = digested.leaf
            self.record(digested)
            self.failures.update(((part, node), reason) for node, reason in stood.items())
            if part.token_range.width == 1 and part.token_range.end in refused:
                self.fail(part, str(refused[part.token_range.end]))
        self.unjudged.update(each.leaf for each in differing(parts))
        return leaves

    def count_rows(self, leaf: Leaf, rows: int) -> None:
        """Say how many distinct rows a leaf holds, all of which were read."""
        self.joined[leaf] = rows

    def put_off_rest(self, reason: str) -> None:
        """Say that the leaves that were not reached are left out on purpose, and why."""
        self.put_off = reason

    def fail(self, leaf: Leaf, reason: str, *, instead: bool = False) -> None:
        """Say that a leaf's rows could not be compared after all, on any replica; `instead` of what was said before.

        Whoever says so may have begun before the leaf was cut: then it holds for all its parts.
        """
        for part in self._parts.get(leaf, ()):
            self.fail(part, reason, instead=instead)
        if leaf not in self._parts:
            for node in leaf.replicas:
                if instead or (leaf, node) not in self.failures:
                    self.failures[leaf, node] = reason

    def fail_within(self, ranges: Sequence[TokenRange], reason: str) -> None:
        """Say so of every leaf that has a token in some ranges, also of those that failed: this is why they did."""
        for leaf in self.plan.leaves:
            if any(leaf.token_range.overlaps(moved) for moved in ranges):
                self.fail(leaf, reason, instead=True)

    def mark_divergent(self, token: int, behind: Iterable[str] = ()) -> None:
        """Say that a row at this token differs, and which replicas are behind in it."""
        self.divergent.add(strip_cell(token))
        for name in behind:
            self.behind[name].add(strip_cell(token))

    def mark_unlike(self, token_range: TokenRange) -> None:
        """Say that the owners of a row of a range differ in it."""
        self.unlike.update(self._leaves_of(token_range))

    def leave_unjudged(self, token_range: TokenRange, reason: str = "") -> None:
        """Say that a row of a range could not be judged; a reason holds for its whole leaf, which has failed."""
        leaves = self._leaves_of(token_range)
        self.unjudged.update(leaves)
        if reason:
            for leaf in leaves:
                self.fail(leaf, reason)

    def _leaves_of(self, token_range: TokenRange) -> list[Leaf]:
        """Return the leaves that a range lies in: its leaf may have been cut meanwhile."""
        ends, leaves = self._by_end
        first, last = bisect.bisect_right(ends, token_range.start), bisect.bisect_left(ends, token_range.end)
        return leaves[first : last + 1]

    @property
    def alone(self) -> int:
        """How many ranges have one replica in scope, which there is nothing to compare with."""
        return sum(len(aside.arc.ranges) for aside in self.asides if aside.skipped)

    @cached_property
    def _by_end(self) -> tuple[list[int], list[Leaf]]:
        leaves = sorted(self.plan.leaves, key=lambda leaf: leaf.token_range)
        return [leaf.token_range.end for leaf in leaves], leaves

    @cached_property
    def _places(self) -> dict[Leaf, tuple[int, int]]:
        """Where each leaf is: the number of its arc, and its place among the leaves of that."""
        return {leaf: (number, at) for number, arc in enumerate(self.plan.arcs) for at, leaf in enumerate(arc)}

    def ranges_read(self, *, waiting: bool) -> list[RangeRead]:
        """Return every leaf that was reached, in ring order; with `waiting` those that differ are not judged yet."""
        failed = {leaf for leaf, _ in self.failures}
        out: list[RangeRead] = []
        for result in sorted(self.results.values(), key=lambda r: r.leaf.token_range):
            leaf = result.leaf
            complete = leaf not in failed and leaf not in self.unjudged and not (waiting and leaf in self.told_apart)
            clean = complete and leaf not in self.unlike
            out.append(RangeRead(leaf.token_range, leaf.replicas, result.now_s * 1_000_000, complete, clean))
        return out

    @property
    def coverage(self) -> Coverage:
        """The coverage so far; what has no result yet is planned only."""
        digested = sum(len(r.leaf.replicas) for r in self.results.values())
        lost = sum(leaf in self.results for leaf, _ in self.failures)
        account = Coverage(
            self.plan.digests, completed=digested - lost, skipped=self.left_out, failed=len(self.failures)
        )
        for aside in self.asides:
            count = aside.digests
            account += Coverage(count, skipped=count) if aside.skipped else Coverage(count, failed=count)
        return account

    @property
    def left_out(self) -> int:
        """How many digests were not asked for on purpose."""
        return sum(len(leaf.replicas) for leaf in self._not_reached()) if self.put_off else 0

    @property
    def sampled(self) -> SampledTable:
        """How much was read, as a sample of the table; a set of replicas that was not reached is none of its own.

        A leaf that had to be cut is one draw of the sample all the same, and read once all of its parts are.
        """
        failed = {leaf for leaf, _ in self.failures}
        read = self.results.keys() - failed
        cut_from = {part: leaf for leaf, parts in self._parts.items() for part in parts}
        shares = []
        for arc in filter(None, self.plan.arcs):
            whole = {leaf: _first(leaf, cut_from) for leaf in arc}
            drawn = set(whole.values())
            shares.append(len(drawn - {whole[leaf] for leaf in arc if leaf not in read}) / len(drawn))
        share = min(shares, default=0.0)
        return SampledTable(share, self.left_out if share else 0, self.plan.estimated_rows)

    def _asked_for(self) -> Sequence[Leaf]:
        """Return the leaves that were to be read: a sample leaves others out."""
        left_out = set(self._not_reached()) if self.put_off == NOT_IN_SAMPLE else ()
        return [leaf for leaf in self.plan.leaves if leaf not in left_out]

    def _not_reached(self) -> list[Leaf]:
        failed = {leaf for leaf, _ in self.failures}
        return [leaf for leaf in self.plan.leaves if leaf not in self.results and leaf not in failed]

    @property
    def rows(self) -> int:
        """The rows of the table: of each leaf, those of the replica that holds most, or all that a join saw."""
        return sum(max(r.rows, self.joined.get(leaf, 0)) for leaf, r in self.results.items())

    @property
    def note(self) -> str:
        """Say how many leaves the server could not digest, empty if it managed them all."""
        fallen = [r.fell_back for r in self.results.values() if r.fell_back]
        if not fallen:
            return ""
        return f"{len(fallen)} of {counted(len(self.plan.leaves), 'leaf', 'leaves')} hashed on the client: {fallen[0]}"

    def unread(self) -> tuple[Unread, ...]:
        """Name what was not read: ranges by replica and reason, touching ranges joined."""
        found: dict[tuple[str, str], list[Leaf]] = defaultdict(list)
        for (leaf, node), reason in self.failures.items():
            found[node.name, reason].append(leaf)
        why = self.put_off or "not reached before the run ended"
        for leaf in self._not_reached():
            for node in leaf.replicas:
                found[node.name, why].append(leaf)
        unread = [
            Unread(name, merged(leaf.token_range for leaf in leaves), reason)
            for (name, reason), leaves in sorted(found.items())
        ]
        return (*unread, *(Unread(n.name, a.arc.ranges, a.reason) for a in self.asides for n in a.arc.replicas))

    def trees(self) -> tuple[TreeReport, ...]:
        """Return each replica set's trees over its leaves: a replica has no root where one of them was not read."""
        return tuple(self._tree(arc) for arc in self.plan.arcs if arc)

    def _tree(self, arc: tuple[Leaf, ...]) -> TreeReport:
        results = [self._believed(leaf) for leaf in arc]
        trees = grow(results)
        hashes = tuple(
            (leaf.token_range, tuple(trees[node].levels[0][at] for node in arc[0].replicas))
            for at, leaf in enumerate(arc)
        )
        scheme = next((result.scheme for result in results if result.scheme), "")
        return TreeReport(arc[0].replicas, scheme, hashes, len(differing(results)))

    def _believed(self, leaf: Leaf) -> LeafResult:
        """Return what a leaf was digested to, of the replicas of which that can be believed."""
        result = self.results.get(leaf) or LeafResult(leaf, 0, {}, {})
        kept = {node: digest for node, digest in result.digests.items() if (leaf, node) not in self.failures}
        return replace(result, digests=kept)

    def strip(self) -> str:
        """Draw the ring in 64 cells: `=` agreed, `x` divergent, `?` not read, blank if nothing was asked for."""
        cells = [" "] * STRIP_CELLS
        failed = Counter(leaf for leaf, _ in self.failures)
        for leaf in self._asked_for():
            fill(cells, leaf.token_range, "?" if leaf not in self.results or failed[leaf] else "=")
        for aside in self.asides:
            for token_range in aside.arc.ranges:
                fill(cells, token_range, "?")
        return crossed(cells, self.divergent)

    def tracks(self) -> dict[str, str]:
        """Draw each replica's own ranges: `=` read, `x` behind in a row, `?` not read, blank if it owns nothing."""
        tracks: dict[str, list[str]] = defaultdict(lambda: [" "] * STRIP_CELLS)
        for leaf in self._asked_for():
            for node in leaf.replicas:
                unread = leaf not in self.results or (leaf, node) in self.failures
                fill(tracks[node.name], leaf.token_range, "?" if unread else "=")
        for aside in self.asides:
            for node in aside.arc.replicas:
                for token_range in aside.arc.ranges:
                    fill(tracks[node.name], token_range, "?")
        for name in self.behind:  # a node may hold rows of ranges that it does not own
            tracks[name]
        return {name: crossed(cells, self.behind.get(name, ())) for name, cells in tracks.items()}


def _first(leaf: Leaf, cut_from: Mapping[Leaf, Leaf]) -> Leaf:
    """Return the planned leaf that a leaf was cut from, itself if it was not."""
    while leaf in cut_from:
        leaf = cut_from[leaf]
    return leaf
