"""Tell the story of one seed, or run many and name those that fail."""
# ruff: noqa: T201 - a command that prints

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing import Pool

from repair.keeping.entries import Result
from tests.simulation.cases import run_case
from tests.simulation.promises import Outcome
from tests.simulation.repairing import RepairOutcome, run_repair_case


def main() -> int:
    """Run what the command line asks for; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="the seed whose story to tell")
    parser.add_argument("--seeds", type=int, default=0, help="run this many seeds instead")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--repair", action="store_true", help="repairs instead of checks")
    parser.add_argument("--ranges", action="store_true", help="repairs of ranges, of more damage")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    if options.seeds:
        seeds = range(options.first, options.first + options.seeds)
        return many(seeds, options.jobs, repair=options.repair, ranges=options.ranges)
    if options.seed is None:
        parser.error("give a seed, or --seeds N")
    if options.repair or options.ranges:
        repaired = run_repair_case(options.seed, ranged=options.ranges)
        print("\n".join(repair_story(repaired)))
        return 1 if repaired.broken else 0
    outcome = run_case(options.seed)
    print("\n".join(story(outcome)))
    return 1 if outcome.broken else 0


def story(outcome: Outcome) -> list[str]:
    """Tell what happened, line by line."""
    case, report = outcome.case, outcome.report
    lines = [f"seed {case.seed}, {outcome.seconds:.2f} virtual seconds", "", "nodes"]
    lines += [f"  {n} {n.dc}/{n.rack} tokens {list(n.tokens)}" for n in outcome.cluster.ring_before.nodes]
    lines += ["tables"]
    for plan in outcome.plans:
        columns = ", ".join(f"{c.name} {c.type.cql}{' desc' * c.reversed} ({c.kind})" for c in plan.table.columns)
        lines.append(f"  {plan.table.full_name}: {columns}; {len(plan.leaves)} leaves")
    lines += ["case", f"  {case.capabilities}", f"  {case.options}", f"  {case.pace}"]
    lines += [f"  {case.clocks}", f"  {case.traffic}"]
    lines += [f"  {fault}" for fault in case.faults]
    lines += [f"  hit: {', '.join(f'{t.value} {n}' for t, n in outcome.cluster.hit.items())}"] if case.faults else []
    lines += [f"  stop at {case.stop_at_s}, ring changes {case.ring_changes_at_s}, schema {case.schema_changes_at_s}"]
    lines += ["damage", *(f"  {text}" for text in outcome.damage.told)]
    lines += ["rows that differ at the start", *(f"  {row}: {what}" for row, what in outcome.planted.items())]
    if outcome.traffic:
        lines.append(f"traffic: {outcome.traffic.writes} writes, {outcome.traffic.dropped} deliveries lost")
    lines += ["findings", *(f"  {f.kind.value} {f.table} {dict(f.key)} {dict(f.replicas)}" for f in outcome.findings)]
    for table in report.tables:
        lines.append(f"{table.full_name}: {table.verdict.value}, {table.depth}/{table.route}, {table.coverage}")
        lines.append(f"  [{table.strip}] {table.unsettled_rows} unsettled {table.note}")
        lines += [f"  unread {u.replica}: {len(u.ranges)} ranges, {u.reason}" for u in table.unread]
    lines.append(f"verdict {report.verdict.value}, exit code {int(report.exit_code)}")
    lines += ["BROKEN", *(f"  {text}" for text in outcome.broken)] if outcome.broken else ["every promise was kept"]
    return lines


def repair_story(outcome: RepairOutcome) -> list[str]:
    """Tell what a repair met, decided and left, line by line."""
    case, plan = outcome.case, outcome.plan
    lines = [f"policy {case.policy}, rate {case.rate}, killed and resumed {outcome.resumed} times"]
    lines += [f"  {fault}" for fault in case.faults]
    lines += [f"  {case.traffic}"] if case.traffic else []
    lines += [f"  {case.clocks}"]
    lines += [f"{len(plan.ranges)} ranges, {case.limits}"] if plan.ranges else []
    for row in plan.rows:
        lines.append(f"{row.ref.full_name} {dict(row.ref.key_hex)}: {row.rule.value} -> {row.action.value}")
    lines += [f"{count} {result.value}" for result, count in outcome.tally.results.items()]
    lines += [f"  {count} {result.value}: {reason}" for (result, reason), count in outcome.tally.reasons.items()]
    return lines + (["BROKEN", *(f"  {text}" for text in outcome.broken)] if outcome.broken else ["every law held"])


def range_repair_of(seed: int) -> tuple[int, Counter[str], list[str]]:
    """Run one repair by ranges."""
    return repair_of(seed, ranged=True)


def repair_of(seed: int, *, ranged: bool = False) -> tuple[int, Counter[str], list[str]]:
    """Run one repair; what it raises is a broken law too."""
    try:
        outcome = run_repair_case(seed, ranged=ranged)
    except Exception:  # noqa: BLE001 - whatever it raises is what is looked for
        return seed, Counter(["raised"]), [traceback.format_exc()]
    counts = Counter(f"{row.rule.value} {row.action.value}" for row in outcome.plan.rows)
    counts.update({result.value: count for result, count in outcome.tally.results.items()})
    counts.update({result.value: count for result, count in (outcome.undone.results if outcome.undone else {}).items()})
    counts.update(f"forecast {row.forecast.value}" for row in outcome.plan.rows if row.forecast is not None)
    counts["resumed"] += outcome.resumed
    counts["ranges merged"] += outcome.ranges_read
    counts["undone ranges"] += bool(outcome.undone and outcome.plan.ranges and outcome.undone.results[Result.UNDONE])
    return seed, counts, outcome.broken


def verdict_of(seed: int) -> tuple[int, str, list[str]]:
    """Run one seed; what it raises is a broken promise too."""
    try:
        outcome = run_case(seed)
    except Exception:  # noqa: BLE001 - whatever it raises is what is looked for
        return seed, "raised", [traceback.format_exc()]
    return seed, outcome.report.verdict.value, outcome.broken


def many(seeds: range, jobs: int, *, repair: bool = False, ranges: bool = False) -> int:
    """Run many seeds and print those that fail, with the command that replays each."""
    started = time.monotonic()
    seen: Counter[str] = Counter()
    failed = 0
    play: Callable[[int], tuple[int, str | Counter[str], list[str]]] = repair_of if repair else verdict_of
    again = "--ranges " if ranges else "--repair " if repair else ""
    if ranges:
        play = range_repair_of
    with Pool(jobs) as pool:
        for seed, what, broken in pool.imap_unordered(play, seeds, chunksize=50):
            seen.update([what] if isinstance(what, str) else what)
            if broken:
                failed += 1
                print(
                    f"seed {seed}: {broken[0][-600:]}\n  replay: python -m tests.simulation {again}{seed}", flush=True
                )
    seconds = time.monotonic() - started
    print(f"{len(seeds)} seeds, {failed} failed, {dict(seen)}, {len(seeds) / seconds:.0f} seeds/s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
