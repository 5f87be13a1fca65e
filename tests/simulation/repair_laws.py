"""What no repair may break, whatever happened: each law names what it saw where it did not hold.

1. What a repair makes visible on a replica is what Cassandra's own merge of the replicas shows.
2. No visible cell's write time goes back.
3. What was visible and survives that merge stays visible, but for what a purge was asked to take.
4. Nothing that a delete covered comes back unless the operator asked for it, also where the delete is purged.
5. A live write that arrives before, during or after the repair of its row is never lost or changed.
6. A row that is reported as verified is the merge on every replica.
7. The journal ends complete, and every row that was left alone is as it was.
8. A row that is written back is whole on each replica, whatever was refused: all it lacked is there, or nothing of it.
9. What was forecast to stay or to come back does; what came back is counted as that.
10. Undo changes no row that the repair did not change, whatever was refused; what it undoes shows what it promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consistency.model.ring import Node
from consistency.results.forecast import Forecast
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.deciding.policy import Policy, Zombies
from repair.keeping.entries import Entry, Result
from repair.keeping.record import Record
from repair.undoing.undo import to_bring_back
from tests.simulation.storage import Key, Mutation, Stored, TableStorage, merge_row

Row = tuple[str, Key, "Key | None"]
Shown = dict[tuple[str, "bytes | None"], Stored] | None
Held = Mapping[Node, TableStorage]


@dataclass(frozen=True)
class Scene:
    """A repair as seen from outside: what every node held before and after, and what was written meanwhile."""

    case_down: frozenset[Node]
    alone: frozenset[Node]
    """The nodes that take writes by themselves."""
    disturbed: bool
    refused: bool
    policy: Policy
    rows: list[Row]
    owners: Mapping[Row, tuple[Node, ...]]
    before: Held
    after: Held
    traffic: tuple[Mutation, ...]
    touched: frozenset[Row]
    truth: Mapping[Row, Shown]
    """What the merge showed before any node purged a delete."""
    now_s: int
    ranged: frozenset[Row] = frozenset()
    """The rows of ranges that are merged as ranges: such a read takes live writes along."""


def shown(storage: TableStorage, row: Row, now_s: int) -> Shown:
    """Return what a read of the row shows; None where it shows no row."""
    _, key, clustering = row
    seen = storage.visible_static(key, now_s) if clustering is None else storage.visible_row(key, clustering, now_s)
    if seen is None:
        return None
    return {(name, path): cell for name, cells in seen.cells.items() for path, cell in cells.items()}


def merged(held: Held, nodes: Iterable[Node], row: Row, now_s: int, traffic: Iterable[Mutation] = ()) -> Shown:
    """Return what the row shows once these nodes' copies and these writes are merged."""
    storage = TableStorage(next(iter(held.values())).table)
    for node in nodes:
        if node in held:
            merge_row(held[node], storage, row[1], row[2])
    for mutation in traffic:
        if mutation.key == row[1]:
            mutation.apply(storage)
    return shown(storage, row, now_s)


def verdicts(scene: Scene, record: Record) -> list[str]:
    """Hold every row against the laws."""
    broken = []
    up = {node: storage for node, storage in scene.before.items() if node not in scene.case_down}
    for number, row in enumerate(scene.rows):
        planned, entry = record.plan.rows[number], record.entries.get(number, Entry())
        where = f"row {number} ({planned.rule.value}, {planned.action.value}, {entry.result})"
        merge = merged(up, scene.owners[row], row, scene.now_s, scene.traffic)
        for node in scene.owners[row]:
            was = _with_traffic(scene, node, row)
            now = shown(scene.after[node], row, scene.now_s)
            on = f"{where} on {node}"
            # Through a coordinator all replicas are written to at once: a hidden delete is found when what it covers is
            # on the others too. Where the server then refuses to have it passed on, that stays for a while: cells
            # that some replica showed, of a row that is not called verified.
            unsure = scene.refused and planned.action is Action.WRITE_BACK and entry.result is not Result.VERIFIED
            halfway = unsure and not scene.alone.issuperset(scene.owners[row])
            known = _held_before(scene, row) if halfway else set()
            taken = _held_before(scene, row) if planned.action is Action.PURGE else None
            # A row marker's write time cannot be seen: replicas that agree on a bare row may hold it at different
            # times, and a partition's delete that is spread by merging another row then hides it on some.
            # So is a copy of a row that is left alone, if another replica holds newer cells of it.
            hidden = was == {} or (planned.action is Action.NONE and entry.result is Result.LEFT)
            if not (hidden and now is None and _neighbour(scene, record, row)):
                broken += _laws(on, was, now, merge, taken, known)
            if scene.policy.zombies is not Zombies.RESTORE and not halfway:
                copies = [shown(scene.before[owner], row, scene.now_s) for owner in scene.owners[row]]
                broken += _raised(on, was, now, scene.truth.get(row), copies, scene)
            taken_along = _neighbour(scene, record, row) or (row in scene.ranged and row in scene.touched)
            if planned.action is Action.NONE and was != now and not taken_along:
                broken.append(f"{on}: was to be left alone and was changed: {was} -> {now}")
            proved = entry.result is Result.VERIFIED or (
                entry.result is Result.WAITING and not scene.disturbed and not scene.refused
            )
            acted = planned.action in (Action.RECONCILE, Action.WRITE_BACK) and entry.before is not None
            still = node not in scene.case_down and row not in scene.touched
            if acted and proved and still and (now or {}) != (merge or {}):
                broken.append(f"{on}: not the merge: {now} != {merge}")
        broken += _failed(where, scene, record, number, row)
    return broken


def _with_traffic(scene: Scene, node: Node, row: Row) -> Shown:
    """Return what a node would show of the row had nothing but the live writes happened."""
    return merged({node: scene.before[node]}, [node], row, scene.now_s, scene.traffic)


def _neighbour(scene: Scene, record: Record, row: Row) -> bool:
    """Whether another row of the partition was acted on: merging it spreads the deletes that cover both."""
    return any(
        other != row and other[1] == row[1] and record.plan.rows[number].action is not Action.NONE
        for number, other in enumerate(scene.rows)
    )


def _failed(where: str, scene: Scene, record: Record, number: int, row: Row) -> list[str]:
    planned, entry = record.plan.rows[number], record.entries.get(number, Entry())
    # A row marker newer than every cell cannot be seen, so no DELETE of ours reaches it: said, not hidden.
    bare = any(shown(scene.after[node], row, scene.now_s) == {} for node in scene.owners[row])
    excused = scene.case_down or scene.disturbed or scene.refused or row in scene.touched
    excused = excused or (planned.action is Action.WRITE_BACK and bare)
    failed = entry.result in (Result.UNKNOWN, Result.DIVERGENT, Result.REFUSED)
    if planned.action in (Action.RECONCILE, Action.WRITE_BACK) and failed and not excused:
        return [f"{where}: failed for no reason: {entry.reason}"]
    return []


def _held_before(scene: Scene, row: Row) -> set[tuple[tuple[str, bytes | None], Stored]]:
    """Return the cells that a purge may take: those that some replica showed before."""
    copies = (shown(scene.before[owner], row, scene.now_s) for owner in scene.owners[row])
    return {(name, cell) for copy in copies for name, cell in (copy or {}).items()}


def _laws(
    where: str,
    was: Shown,
    now: Shown,
    merge: Shown,
    taken: set[tuple[tuple[str, bytes | None], Stored]] | None,
    known: set[tuple[tuple[str, bytes | None], Stored]],
) -> list[str]:
    """`taken` are the cells that a purge may take, None where none was planned; `known` those that may be halfway."""
    out = []
    for name, cell in (now or {}).items():
        if (was or {}).get(name) != cell and (merge or {}).get(name) != cell and (name, cell) not in known:
            out.append(f"{where}: {name} shows {cell}, which is not what the merge shows")
        if was is not None and name in was and cell.ts < was[name].ts:
            out.append(f"{where}: {name} went back in time")
    for name, cell in (was or {}).items():
        survives = (merge or {}).get(name) == cell and (taken is None or (name, cell) not in taken)
        if survives and (now or {}).get(name) != cell:
            out.append(f"{where}: {name} was live and is gone")
    if was is not None and merge is not None and now is None and taken is None:
        out.append(f"{where}: the row was live and is gone")
    return out


def _raised(where: str, was: Shown, now: Shown, truth: Shown, copies: list[Shown], scene: Scene) -> list[str]:
    """Name cells that came to a replica though a purged delete covers them and a minority held any version."""
    out = []
    newest_live = {m.ts for m in scene.traffic}
    for name, cell in (now or {}).items():
        holders = sum(name in (copy or {}) for copy in copies)
        came = (was or {}).get(name) != cell and (truth or {}).get(name) != cell and cell.ts not in newest_live
        if came and holders <= len(copies) // 2:
            out.append(f"{where}: {name} was deleted and came back: {cell}")
    bare = sum(copy is not None for copy in copies)
    if now is not None and was is None and truth is None and bare <= len(copies) // 2 and not scene.traffic:
        out.append(f"{where}: the row was deleted and came back")
    return out


def forecast_laws(scene: Scene, record: Record) -> list[str]:
    """Nothing that was forecast to stay or to come back is gone; what came back is counted as that."""
    broken = []
    for number, row in enumerate(scene.rows):
        told, entry = record.plan.rows[number].forecast, record.entries.get(number, Entry())
        if told not in (Forecast.RESTORE, Forecast.UPDATE) or row in scene.touched:
            continue
        where = f"row {number}, forecast {told.value}"
        after = [shown(scene.after[node], row, scene.now_s) for node in scene.owners[row]]
        if all(state is None for state in after):
            broken.append(f"{where}: gone from every replica")
        failed = entry.result is Result.DIVERGENT and not scene.disturbed and not scene.refused
        counted = entry.change in (Change.RESTORED, None)
        if told is Forecast.RESTORE and (failed or (entry.result is Result.VERIFIED and not counted)):
            broken.append(f"{where}: {entry.result}, {entry.change}")
    return broken


def undo_laws(scene: Scene, applied: Record, record: Record, now: Held) -> list[str]:
    """An undone row shows the values that undo promised, on every replica; any other row is as apply left it."""
    broken = []
    for number, row in enumerate(scene.rows):
        entry = record.entries.get(number, Entry())
        was_undone = entry.undo is Result.UNDONE
        wanted = to_bring_back(record.plan.rows[number].action, entry.before or {}) if was_undone else None
        changed = any(
            shown(scene.before[node], row, scene.now_s) != shown(scene.after[node], row, scene.now_s)
            for node in scene.owners[row]
        )
        for node in scene.owners[row]:
            after = shown(now[node], row, scene.now_s)
            if not changed and after != shown(scene.after[node], row, scene.now_s):
                broken.append(f"row {number} on {node}: undo changed a row that the repair had not changed")
            if not was_undone and entry.undoing_us is None and after != shown(scene.after[node], row, scene.now_s):
                broken.append(f"row {number} on {node}: undo changed a row that it did not undo")
            if was_undone and row[2] is not None and (after is None) != (wanted is None):
                broken.append(f"row {number} on {node}: undone, and shows {after} for {wanted}")
    if any(applied.entries[n].result != entry.result for n, entry in record.entries.items()):
        broken.append("undo changed an outcome of apply")
    return broken


def torn(scene: Scene, record: Record) -> list[str]:
    """Name the replicas that show a part of what they lacked of a row that was written back, and lack the rest."""
    broken = []
    up = {node: storage for node, storage in scene.before.items() if node not in scene.case_down}
    for number, row in enumerate(scene.rows):
        if record.plan.rows[number].action is not Action.WRITE_BACK:
            continue
        merge = merged(up, scene.owners[row], row, scene.now_s) or {}
        for node in scene.owners[row]:
            was, now = (shown(held[node], row, scene.now_s) or {} for held in (scene.before, scene.after))
            lacked = {name for name, cell in merge.items() if was.get(name) != cell}
            got = {name for name in lacked if now.get(name) == merge[name]}
            if got and got != lacked:
                broken.append(f"row {number} on {node}: torn, {sorted(map(str, lacked - got))} are not there")
    return broken


def undone_ahead(record: Record, slowest_us: int) -> list[str]:
    """Name the rows that undo wrote to with a time that the slowest server's clock had not reached."""
    return [
        f"row {number}: undo wrote into a server's future"
        for number, entry in record.entries.items()
        if entry.undoing_us is not None and entry.undoing_us > slowest_us
    ]
