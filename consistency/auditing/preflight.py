"""May this node go down now? Judges what `preflight_facts` has just read of the cluster; nothing here reads.

No: a range of the node would lose its quorum (of all replicas, or of its DC's own), ranges change hands, the nodes
disagree on the schema, or too many of the other replicas are known to be behind. Unknown: one of these cannot be
told, for example whether a node that does not answer us is alive for the others. Otherwise yes, with notes.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from consistency.auditing.nodes import ON_THE_MOVE
from consistency.auditing.placement import Live, Placement, may_serve, quorum, serves
from consistency.errors import UsageError
from consistency.ledger import Behind
from consistency.model.cqltext import some_of
from consistency.model.ring import Node, Replication, Ring
from consistency.model.schema import SYSTEM_KEYSPACES, Keyspace
from consistency.results.figures import counted
from consistency.results.verdict import ExitCode

SCHEMA_VERSION = 1
_LEFT = frozenset({"LEFT", "REMOVED"})


class Answer(str, Enum):
    """Whether the node may go down."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was just read of the cluster.

    `versions`: each live node's schema version as the node tells it or, if it does not answer us, as another node
    does; None if neither tells. `gossip`: each node's state by its internode `address:port`; None if the servers do
    not show it. `hints`: whether a live node keeps hints; None if it does not tell. `logins`: whether the servers ask
    for a login.
    """

    ring: Ring
    schema: Mapping[str, Keyspace]
    versions: Mapping[Node, str | None]
    gossip: Mapping[str, str] | None
    hints: Mapping[Node, bool | None]
    logins: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of rows that differ; `note` says why it knows nothing."""

    behind: Sequence[Behind] = ()
    note: str = "whether other replicas are behind is not known: give --ledger"


@dataclass(frozen=True, slots=True)
class Reason:
    """One point and the answer that it demands; a note does not contradict a yes."""

    kind: str
    answer: Answer
    detail: str
    keyspace: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"kind": self.kind, "answer": self.answer.value, "keyspace": self.keyspace, "detail": self.detail}


@dataclass(frozen=True)
class Preflight:
    """The answer and all its reasons, gravest first."""

    cluster: str
    node: Node
    keyspaces: tuple[str, ...]
    reasons: tuple[Reason, ...] = field(default=())

    @property
    def answer(self) -> Answer:
        """No beats unknown beats yes."""
        given = {reason.answer for reason in self.reasons}
        return next((a for a in (Answer.NO, Answer.UNKNOWN) if a in given), Answer.YES)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        return ExitCode.of(wrong=self.answer is Answer.NO, unknown=self.answer is Answer.UNKNOWN)

    @property
    def against(self) -> tuple[Reason, ...]:
        """The points that decide the answer; empty for yes."""
        return tuple(r for r in self.reasons if r.answer is self.answer is not Answer.YES)

    @property
    def line(self) -> str:
        """The answer's reason in one line."""
        against = self.against
        if not against:
            count = len(self.keyspaces)
            return f"every range keeps a quorum without it, in {count} keyspace{'' if count == 1 else 's'}"
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        return against[0].detail + more

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA_VERSION,
            "cluster": self.cluster,
            "node": self.node.name,
            "host_id": self.node.host_id,
            "answer": self.answer.value,
            "exit_code": int(self.exit_code),
            "reason": self.line,
            "keyspaces": list(self.keyspaces),
            "reasons": [reason.as_json() for reason in self.reasons],
        }


def find_node(ring: Ring, text: str) -> Node:
    """Return the node of this `address:port`, address or host id; UsageError if no node or several have it."""
    found = [n for n in ring.nodes if text.lower() in {n.name, n.host_id.lower(), n.address, n.broadcast}]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(node.name for node in found)
        msg = f"{text} names {counted(len(found), 'node')}; name one by its port or host id: {several}"
        raise UsageError(msg)
    names = [name for node in ring.nodes for name in (node.name, node.host_id)]
    close = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the nodes are {', '.join(n.name for n in ring.nodes[:6])}"
    msg = f"no node of {ring.cluster} is called {text!r}; {hint}"
    raise UsageError(msg)


def judge(facts: Facts, node: Node, known: Known, *, keyspaces: Sequence[str] = (), settled: bool = False) -> Preflight:
    """Judge whether `node` may go down; `settled` assumes that no node joins, leaves or moves."""
    scope = _scope(facts, keyspaces)
    placements = _placements(facts, scope)
    found = [
        *_moves(facts, settled=settled),
        *_schema_versions(facts),
        *_disputes(facts),
        *(reason for name in scope for reason in _keyspace(facts.schema[name], placements.get(name), node)),
        *_behind(facts, node, known, placements),
        *_already_down(node),
        *_others_down(facts, node),
        *_unreachable(facts),
        *_hints(facts, node),
    ]
    order = [Answer.NO, Answer.UNKNOWN, Answer.YES]
    found.sort(key=lambda reason: order.index(reason.answer))
    return Preflight(facts.ring.cluster, node, scope, tuple(found))


def _scope(facts: Facts, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the keyspaces to judge: those named, or all user keyspaces and, if logins are on, system_auth."""
    for name in wanted:
        if name not in facts.schema:
            msg = f"there is no keyspace {name!r}"
            raise UsageError(msg)
    if wanted:
        return tuple(dict.fromkeys(wanted))
    own = {"system_auth"} if facts.logins else set()
    names = [name for name in sorted(facts.schema) if name not in SYSTEM_KEYSPACES or name in own]
    return tuple(name for name in names if facts.schema[name].replication.strategy not in {"LocalStrategy", ""})


def _placements(facts: Facts, scope: Iterable[str]) -> dict[str, Placement]:
    """Place each keyspace's replicas; keyspaces with the same replication share the work."""
    alike: dict[Replication, Placement] = {}
    found: dict[str, Placement] = {}
    for name in scope:
        replication = facts.schema[name].replication
        if replication.replicated:
            found[name] = alike.setdefault(replication, Placement(facts.ring, replication))
    return found


def _moves(facts: Facts, *, settled: bool) -> Iterator[Reason]:
    """While ranges change hands, writes need more replicas than the ring shows."""
    states = {node.broadcast or node.name: node.state for node in facts.ring.nodes} | dict(facts.gossip or {})
    names = {node.broadcast: node.name for node in facts.ring.nodes if node.broadcast}
    for place, state in sorted(states.items()):
        doing = next((words for words, known in ON_THE_MOVE.items() if state.upper() in known), None)
        name = names.get(place, place)
        if doing is not None:
            detail = f"{name} {doing}: wait for it (nodetool netstats there)"
            yield Reason("ring_changes", Answer.NO, detail)
        elif state.upper() == "UNKNOWN":
            detail = f"gossip does not say whether {name} has joined: see nodetool status"
            yield Reason("state_unknown", Answer.UNKNOWN, detail)
    if facts.gossip is None and not settled:
        detail = (
            "whether a node joins, leaves or moves is not shown: before 5.0 see nodetool status and give "
            "--assume-settled, later GRANT SELECT ON KEYSPACE system_views to our role"
        )
        yield Reason("moves_not_shown", Answer.UNKNOWN, detail)


def _schema_versions(facts: Facts) -> Iterator[Reason]:
    silent = sorted(node.name for node, version in facts.versions.items() if version is None)
    versions = {version for version in facts.versions.values() if version is not None}
    if len(versions) > 1:
        detail = f"the nodes disagree on the schema ({len(versions)} versions): see nodetool describecluster"
        yield Reason("schema_disagreement", Answer.NO, detail)
    if silent:
        yield Reason("schema_unread", Answer.UNKNOWN, f"{_named(silent)} would not tell its schema version")


def _disputes(facts: Facts) -> Iterator[Reason]:
    """If the nodes disagree on who owns what, the replicas of a range are not known."""
    for doubt in facts.ring.doubts:
        if doubt.kind != "schema_disagreement":
            answer = Answer.UNKNOWN if facts.ring.disputed else Answer.YES
            yield Reason(doubt.kind, answer, f"{doubt.detail}; {doubt.remedy}")


def _keyspace(keyspace: Keyspace, placement: Placement | None, node: Node) -> Iterator[Reason]:
    replication = keyspace.replication
    if placement is None:
        detail = f"{keyspace.name}: {replication.strategy} places replicas in a way that is not known here"
        yield Reason("unknown_strategy", Answer.UNKNOWN, detail, keyspace.name)
        return
    if replication.transient:
        detail = f"{keyspace.name}: transient replicas count for some requests only, which is not judged here"
        yield Reason("transient_replication", Answer.UNKNOWN, detail, keyspace.name)
        return
    losses: dict[tuple[str, bool], _Loss] = {}
    for replicas, share in placement.shares:
        for level, members, rf in _levels(placement, replicas, node) if node in replicas else ():
            live = Live.of((n for n in members if n != node), share)
            if live.sure < quorum(rf):
                certain = live.most < quorum(rf)
                losses.setdefault((level, certain), _Loss(rf, live.sure)).add(live)
    if len(placement.groups) == 1:  # the same replicas, said once
        losses = {(level, certain): loss for (level, certain), loss in losses.items() if level == "QUORUM"}
    for (level, certain), loss in losses.items():
        if certain:
            yield Reason("quorum_lost", Answer.NO, f"{keyspace.name}: {level} {loss.certain}", keyspace.name)
        else:
            yield Reason("quorum_not_known", Answer.UNKNOWN, f"{keyspace.name}: {loss.doubt(level)}", keyspace.name)


@dataclass(slots=True)
class _Loss:
    """A consistency level that would, or may, have too few replicas: the part of the ring, the fewest live replicas."""

    rf: int
    live: int
    share: float = 0.0
    down: set[Node] = field(default_factory=set)
    silent: set[Node] = field(default_factory=set)

    def add(self, live: Live) -> None:
        self.share += live.share
        self.live = min(self.live, live.sure)
        self.down.update(live.down)
        self.silent.update(live.not_known)

    @property
    def certain(self) -> str:
        return f"would be lost for {self.share:.1%} of the ring: {self._figures}"

    def doubt(self, level: str) -> str:
        return f"whether {level} would be kept for {self.share:.1%} of the ring is not known: {self._figures}"

    @property
    def _figures(self) -> str:
        text = f"{self.live} of {counted(self.rf, 'replica')} live, {quorum(self.rf)} needed"
        if self.down:
            text += f"; down already: {_named(sorted(n.name for n in self.down))}"
        if self.silent:
            text += f"; whether alive is not known: {_silent(self.silent)}"
        return text


def _levels(placement: Placement, replicas: Sequence[Node], node: Node) -> Iterator[tuple[str, Sequence[Node], int]]:
    """Yield the consistency levels that clients may use: name, counted replicas, replication factor."""
    yield "QUORUM", replicas, sum(rf for _, rf in placement.replication.factors)
    for group in placement.groups:
        if group.dc == node.dc:
            yield "LOCAL_QUORUM", group.members(replicas), group.rf


def _behind(facts: Facts, node: Node, known: Known, placements: Mapping[str, Placement]) -> Iterator[Reason]:
    """Every quorum of the other replicas must contain a current copy of each row."""
    if known.note:
        yield Reason("divergence_not_known", Answer.YES, known.note)
    lost: Counter[str] = Counter()
    untold: Counter[str] = Counter()
    harmless: Counter[str] = Counter()
    for row in known.behind:
        placement = placements.get(row.keyspace)
        replicas = facts.ring.replicas_of(row.token, placement.replication) if placement else ()
        if placement is None or node not in replicas:
            continue
        if row.by_address:
            untold[f"{row.keyspace}.{row.table}"] += 1
            continue
        stale = [n for n in replicas if n != node and serves(n) and n.host_id in row.replicas]
        unseen = any(
            sum(n in members for n in stale) >= quorum(rf) for _, members, rf in _levels(placement, replicas, node)
        )
        if unseen and node.host_id not in row.replicas:
            lost[f"{row.keyspace}.{row.table}"] += 1
        elif stale:
            harmless[f"{row.keyspace}.{row.table}"] += 1
    for name, count in sorted(lost.items()):
        detail = f"{name}: {_rows(count)} current here but not on enough others for every quorum to see: repair first"
        yield Reason("current_copy", Answer.NO, detail, name.partition(".")[0])
    for name, count in sorted(untold.items()):
        detail = (
            f"{name}: {_rows(count)} noted by address alone, as before this version: whether the current copy is here "
            f"is not known; check {name} again with this ledger"
        )
        yield Reason("behind_not_known", Answer.UNKNOWN, detail, name.partition(".")[0])
    for name, rows in sorted(harmless.items()):
        detail = f"{name}: {_rows(rows)} not current on some other replica; a quorum of the others still sees it"
        yield Reason("divergence_known", Answer.YES, detail, name.partition(".")[0])


def _rows(count: int) -> str:
    return counted(count, "row is", "rows are")


def _already_down(node: Node) -> Iterator[Reason]:
    if not may_serve(node):
        yield Reason("down_already", Answer.YES, f"{node.name} is down already")


def _others_down(facts: Facts, node: Node) -> Iterator[Reason]:
    others = [n for n in facts.ring.nodes if n != node and n.state.upper() not in _LEFT]
    down = [n.name for n in others if not may_serve(n)]
    if down:
        yield Reason("others_down", Answer.YES, f"down already: {_named(sorted(down))}")


def _unreachable(facts: Facts) -> Iterator[Reason]:
    """Note nodes that do not answer us and are not down; the ranges judge what depends on them."""
    silent = [n for n in facts.ring.nodes if not n.up and may_serve(n) and n.state.upper() not in _LEFT]
    for alive, said in ((True, "the other nodes take it for alive"), (None, "whether it is down is not known")):
        for reason, nodes in _by_reason(n for n in silent if n.alive is alive).items():
            answer = f"do{'es' if len(nodes) == 1 else ''} not answer us{reason}"
            them = said if len(nodes) == 1 else said.replace("it is", "they are").replace("take it", "take them")
            yield Reason("unreachable", Answer.YES, f"{_named(nodes)} {answer}; {them}")


def _by_reason(nodes: Iterable[Node]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda n: n.name):
        found.setdefault(f": {node.silence}" if node.silence else "", []).append(node.name)
    return found


def _silent(nodes: Collection[Node]) -> str:
    """Name nodes that do not answer us; give the reason if all have the same one."""
    names, reasons = _named(sorted(n.name for n in nodes)), {str(n.silence or "") for n in nodes}
    return f"{names} ({reasons.pop()})" if len(reasons) == 1 and any(reasons) else names


def _hints(facts: Facts, node: Node) -> Iterator[Reason]:
    others = {n: on for n, on in facts.hints.items() if n != node}
    off = sorted(n.name for n, on in others.items() if on is False)
    silent = sorted(n.name for n, on in others.items() if on is None)
    if off:
        detail = (
            f"hints are off on {_named(off)}: {node.name} will lack what is written while it is down; "
            "check and repair afterwards"
        )
        yield Reason("hints_off", Answer.YES, detail)
    if silent:
        yield Reason("hints_not_known", Answer.YES, f"{_named(silent)} does not show whether it keeps hints")


def _named(names: Sequence[str]) -> str:
    return some_of(names, 3)
