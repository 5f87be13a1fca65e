"""Which counted ranges a plan keeps as ranges, how its file holds them, and what is printed of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consistency.checking.scan import ScanOptions
from consistency.cli import main
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.wire import ALL
from consistency.errors import ReplicaTimeout, UsageError
from consistency.model.ring import MURMUR3, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.findings import copy_findings, read_findings, read_ranges, require_replaceable
from consistency.results.forecast import Forecast
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.results.verdict import ExitCode
from repair.cli.repair import _plan_exit, repair
from repair.deciding.case import CaseReader
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import Change
from repair.deciding.mergeable import RangeMerge, why_by_rows
from repair.deciding.policy import Policy, Zombies
from repair.keeping.chunk_lines import ChunkRow, merged_json, merging_json
from repair.keeping.entries import Account, Entry, Outcome, Result
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan, PlannedRow, parse_plan, write_plan
from repair.keeping.record import read_journal
from repair.planning import dense, planner
from repair.planning.planner import PlanOptions, make_plan
from tests.simulation.values import make_table
from tests.unit.test_range_findings import COUNTED, OLD, PLAIN, damaged
from tests.unit.test_repair_files import STATE, plan_of

PLAN = plan_of()
ROW = PLAN.rows[0]
WHOLE = TokenRange(MIN_TOKEN, MAX_TOKEN)
FOUND = RangeFinding("ks", "t", TokenRange(5, 9), {Kind.MISSING: 3, Kind.STALE: 4}, {"n": RangeView(3, 4, "h")})


def planned(tmp_path: Path, options: PlanOptions, table: Any = PLAIN) -> Plan:
    """Check a damaged cluster, count its rows, and plan."""
    path = tmp_path / "findings"
    damaged(3, table=table).check(scan=COUNTED, findings=path)
    again = damaged(3, table=table)
    made: Plan = again.run(lambda: make_plan(again.cluster, again.clock, path, options))
    return made


@pytest.fixture(autouse=True)
def _not_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any number of rows be enough for a range."""
    monkeypatch.setattr(planner, "FEW", 0)


def test_few_rows_are_planned_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range is not read whole for a few of its rows, unless ranges alone are asked for."""
    monkeypatch.setattr(planner, "FEW", 500)
    assert not planned(tmp_path, PlanOptions()).ranges
    assert planned(tmp_path, PlanOptions(range_merge=RangeMerge.ONLY)).ranges


def test_a_range_stays_a_range_if_its_table_allows_it(tmp_path: Path) -> None:
    """By default a counted range is planned as it was counted, and its table is named for the guard."""
    made = planned(tmp_path, PlanOptions())
    assert not made.rows
    assert list(made.ranges) == list(read_ranges(tmp_path / "findings"))
    assert set(made.tables) == {"ks.t"}
    assert made.host_ids == {"host-1", "host-2", "host-3"}


@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(range_merge=RangeMerge.NEVER),
        PlanOptions(only=frozenset({Rule.LAST_WRITE})),
        PlanOptions(forecasts=frozenset({Forecast.UPDATE})),
        PlanOptions(max_rows=2),
    ],
)
def test_rows_that_are_chosen_are_planned_as_rows(tmp_path: Path, options: PlanOptions) -> None:
    """Who chooses rows by rule, forecast or number gets rows: nothing is done that was not asked for."""
    made = planned(tmp_path, options)
    assert made.rows
    assert not made.ranges


def dense_plan(tmp_path: Path, options: PlanOptions, seed: int = 3, **scenario: Any) -> Plan:
    """Check a damaged cluster, list its rows, and plan."""
    path = tmp_path / "listed"
    path.unlink(missing_ok=True)
    damaged(seed, **scenario).check(scan=ScanOptions(), findings=path)
    again = damaged(seed, **scenario)
    made: Plan = again.run(lambda: make_plan(again.cluster, again.clock, path, options))
    return made


@pytest.fixture
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any number of listed rows be many."""
    monkeypatch.setattr(dense, "MANY", 1)
    monkeypatch.setattr(dense, "FEW", 0)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("seed", range(6))
def test_rows_that_lie_densely_are_planned_as_if_they_had_been_counted(seed: int, tmp_path: Path) -> None:
    """The same ranges with the same counts by kind and replica as of a check that listed none, and it is said."""
    made = dense_plan(tmp_path, PlanOptions(), seed)
    damaged(seed).check(scan=COUNTED, findings=tmp_path / "counted")
    (as_planned,), (as_counted,) = made.ranges, read_ranges(tmp_path / "counted")
    assert (as_planned.token_range, as_planned.kinds) == (as_counted.token_range, as_counted.kinds)
    for name, view in as_counted.replicas.items():  # of a tie, listing alone tells who loses
        assert replace(as_planned.replicas[name], stale=view.stale) == view
        assert as_planned.replicas[name].stale >= view.stale
    assert not made.rows
    rows = len(list(read_findings(tmp_path / "listed")))
    assert any(f"{rows} listed rows of ks.t, which lie so densely" in warning for warning in made.warnings)
    assert made.rows_in_ranges == rows


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(range_merge=RangeMerge.NEVER),
        PlanOptions(max_rows=100),
        PlanOptions(Policy(Zombies.RESTORE)),
    ],
)
def test_listed_rows_are_planned_one_by_one_for_who_asks_for_it(options: PlanOptions, tmp_path: Path) -> None:
    """By the option, by choosing rows, or by a policy that acts on rows that ranges leave alone."""
    made = dense_plan(tmp_path, options)
    assert not made.ranges
    assert len(made.rows) == len(list(read_findings(tmp_path / "listed")))


def test_few_listed_rows_are_planned_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However densely they lie, unless many more are counted; and many where a leaf has many times as many."""
    monkeypatch.setattr(dense, "FEW", 0)
    assert not dense_plan(tmp_path, PlanOptions()).ranges
    listed = len(list(read_findings(tmp_path / "listed")))
    monkeypatch.setattr(dense, "cut", partial(dense.cut, leaf_rows=10))
    for counted, merged in ((5, False), (6, True)):
        monkeypatch.setattr(dense, "MANY", listed + 6)
        elsewhere = replace(FOUND, token_range=TokenRange(MAX_TOKEN - 1, MAX_TOKEN), kinds={Kind.STALE: counted})
        monkeypatch.setattr(planner, "read_ranges", lambda _, found=elsewhere: [found])
        made = dense_plan(tmp_path, PlanOptions())
        assert bool(made.ranges[1:]) is merged, counted
    monkeypatch.setattr(dense, "_DENSE", 0.9)
    assert not dense_plan(tmp_path, PlanOptions()).ranges[1:]


@pytest.mark.usefixtures("_many")
def test_a_range_that_was_counted_in_part_is_not_planned_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the list was full in the middle of a leaf, the rest of it alone is planned as the listed rows' range."""
    monkeypatch.setattr(dense, "cut", partial(dense.cut, leaf_rows=10))
    first, *_ = dense_plan(tmp_path, PlanOptions()).ranges
    (token, *_) = sorted({row.token for row in read_findings(tmp_path / "listed") if row.token in first.token_range})
    in_part = replace(FOUND, token_range=TokenRange.at(token))
    monkeypatch.setattr(planner, "read_ranges", lambda _: [in_part])
    made = dense_plan(tmp_path, PlanOptions())
    assert len(made.ranges) > 2
    assert not any(a.overlaps(b) for a, b in combinations([found.token_range for found in made.ranges], 2))
    assert {row.ref.token for row in made.rows} == {token}


@pytest.mark.usefixtures("_many")
def test_rows_that_somebody_chose_are_planned_one_by_one(tmp_path: Path) -> None:
    """By marking them, or with grep: the others of their ranges are none of this plan's."""
    assert dense_plan(tmp_path, PlanOptions()).ranges
    path, chosen = tmp_path / "listed", tmp_path / "chosen"
    copy_findings(path, chosen, [1, 2, 3], "--write")
    again = damaged(3)
    made = again.run(lambda: make_plan(again.cluster, again.clock, chosen, PlanOptions()))
    assert not made.ranges
    assert len(made.rows) == 3


@pytest.mark.usefixtures("_many")
def test_rows_of_an_unknown_density_are_planned_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table whose rows cannot be estimated now, and one of which no range can be merged."""
    none = make_table("t", ("int",), ("int",), ("int",), ("int", "text"))
    assert not dense_plan(tmp_path, PlanOptions(), table=none).ranges

    async def silent(*_: object) -> int:
        raise ReplicaTimeout("no answer")

    monkeypatch.setattr(dense, "estimate_rows", silent)
    made = dense_plan(tmp_path, PlanOptions())
    assert made.rows
    assert not made.ranges


def test_ranges_only_cannot_be_joined_with_a_choice_of_rows() -> None:
    """Both at once is a mistake, and is said before anything is read."""
    for chosen in ({"max_rows": 2}, {"only": frozenset({Rule.TIE})}, {"forecasts": frozenset({Forecast.UPDATE})}):
        with pytest.raises(UsageError, match="--range-merge only"):
            PlanOptions(range_merge=RangeMerge.ONLY, **chosen)  # type: ignore[arg-type]


def test_what_ranges_only_leaves_out_is_said(tmp_path: Path) -> None:
    """Ranges that cannot be merged as ranges are left out with the reason."""
    none = make_table("t", ("int",), ("int",), ("int",), ("int", "text"))
    made = planned(tmp_path, PlanOptions(range_merge=RangeMerge.ONLY), none)
    assert not made.rows
    assert not made.ranges
    assert any("left out: it has static columns" in warning for warning in made.warnings)
    assert made.left_out == sum(found.rows for found in read_ranges(tmp_path / "findings")) > 0
    assert parse_plan(made.text().encode(), "plan") == made


@pytest.mark.parametrize(("acts", "code"), [(True, ExitCode.INCOMPLETE), (False, ExitCode.DIVERGENT)])
def test_rows_that_are_left_out_are_shown_and_keep_every_command_from_exiting_with_0(
    acts: bool, code: ExitCode, tmp_path: Path
) -> None:
    """Neither planned nor read, they may still differ: counted in the plan, by apply, and in the journal."""
    row = replace(ROW, action=Action.RECONCILE if acts else Action.NONE)
    made = replace(PLAN, rows=(row,), left_out=1_200)
    assert _plan_exit(made) == code
    assert _plan_exit(replace(made, left_out=0)) == (ExitCode.CONSISTENT if acts else ExitCode.DIVERGENT)
    write_plan(tmp_path / "plan", made)
    assert "1,200 left out" in CliRunner().invoke(repair, ["show", str(tmp_path / "plan")]).output
    journal = Journal.create(tmp_path / "j", made)
    asyncio.run(journal.outcome(0, Outcome(Result.VERIFIED if acts else Result.LEFT, "why")))
    journal.close()
    for words in (["show", str(tmp_path / "j")], ["resume", str(tmp_path / "j")]):
        said = CliRunner().invoke(repair, words)
        assert said.exit_code == code, said.output
        assert "1,200 further rows of the findings left out of the plan" in said.output or words[0] == "resume"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"view_of": "base"}, "view"),
        ({"is_counter": True}, "counters"),
        ({"read_repair": "NONE"}, "read_repair"),
        ({"columns": make_table("t", ("int",), ("int",), ("int",), ("int",)).columns}, "static"),
        ({"columns": make_table("t", ("int",), ("varint",), (), ("int",)).columns}, "spelled"),
        ({"columns": tuple(replace(c, masked=c.kind == "regular") for c in PLAIN.columns)}, "masked"),
    ],
)
def test_a_table_that_cannot_be_merged_by_ranges(change: dict[str, Any], said: str) -> None:
    """Whatever a read of rows at ALL does not merge, or not by the rules, is planned row by row."""
    assert said in _why(table=replace(PLAIN, **change))
    assert not _why()


def test_a_cluster_in_which_no_range_can_be_merged() -> None:
    """A replica down, another view of the ring, missing nodes, forbidden levels: rows are decided one by one."""
    assert "down" in _why(down=True)
    assert "one set of replicas" in _why(viewed=True)
    assert "one set of replicas" in _why(within=WHOLE, rf=2)
    assert "needs 5 replicas" in _why(rf=5)
    assert "forbidden" in _why(guarded=True)
    assert "decides row by row" in _why(policy=Policy(Zombies.RESTORE), kinds={Kind.ZOMBIE_SUSPECT: 1})
    assert not _why(policy=Policy(Zombies.RESTORE))


def test_servers_that_do_not_tell_when_collections_were_written() -> None:
    """Before 5.0 a range is merged too, but not where single rows would be left for their collections' unknown age."""
    collections = make_table("t", ("int",), ("int",), (), ("int", "map<text, int>"))
    stale, missing = {Kind.STALE: 1, Kind.MISSING: 1}, {Kind.MISSING: 1}
    assert not _why(older=True, kinds=stale)
    assert "tells when they were written" in _why(older=True, table=collections, kinds=stale)
    assert not _why(older=True, table=collections, kinds=missing)
    assert not _why(table=collections, kinds=stale)


def _why(
    *,
    table: Any = PLAIN,
    rf: int = 3,
    down: bool = False,
    viewed: bool = False,
    guarded: bool = False,
    older: bool = False,
    within: TokenRange = WHOLE,
    policy: Policy | None = None,
    kinds: dict[Kind, int] | None = None,
) -> str:
    scenario = damaged(1, table=table, capabilities=OLD if older else None)
    nodes = tuple(replace(node, up=not down) for node in scenario.nodes)
    views = (Ring("simulated", MURMUR3, nodes[1:]),) if viewed else ()
    ring = Ring("simulated", MURMUR3, nodes, views)
    replication = Replication("NetworkTopologyStrategy", (("dc1", rf),))
    schema = {"ks": Keyspace("ks", replication, {"t": table})}
    if guarded:
        scenario.cluster.guarded = dict.fromkeys(nodes, Guardrails(reads={ALL: "reads at ALL are forbidden"}))
    found = RangeFinding("ks", "t", within, kinds or {Kind.STALE: 1}, {})

    async def why() -> str:
        return await why_by_rows(CaseReader(scenario.cluster, scenario.clock, ring, schema), found, policy or Policy())

    return str(scenario.run(why))


def test_a_plan_with_ranges_is_read_as_it_was_written() -> None:
    """Rows first, then ranges; a plan without ranges reads as it always did; a count that does not fit is refused."""
    made = replace(PLAN, ranges=(FOUND,))
    assert parse_plan(made.text().encode(), "plan") == made
    assert made.rows_in_ranges == 7
    assert "ranges" not in json.loads(PLAN.text().splitlines()[0])
    assert made.only(lambda _: True) == PLAN


def test_what_a_plan_says_of_ranges(tmp_path: Path) -> None:
    """How many rows of which kinds, and that a row which a replica lacks may be deleted."""
    write_plan(tmp_path / "plan", replace(PLAN, rows=(), ranges=(FOUND,)))
    said = CliRunner().invoke(repair, ["show", str(tmp_path / "plan")]).output
    assert "7 rows in 1 range: 4 stale, 3 missing" in said
    assert "3 rows that a replica lacks: each comes back there, or is deleted everywhere" in said
    asked = CliRunner().invoke(repair, ["apply", str(tmp_path / "plan"), "--journal", str(tmp_path / "j")])
    assert "merge about 7 rows by ranges (3 rows may be deleted)" in asked.output + str(asked.exception)


def test_what_a_journal_says_of_ranges(tmp_path: Path) -> None:
    """Rows of chunks are counted with all others; a range that has not ended makes the journal incomplete."""
    made = replace(PLAN, rows=(), ranges=(FOUND, replace(FOUND, token_range=TokenRange(9, 12))))
    journal = Journal.create(tmp_path / "j", made)
    row = ChunkRow(PlannedRow(ROW.ref, Rule.LAST_WRITE, Action.RECONCILE, "", {}), Entry({"h": STATE, "i": None}))
    outcome = Outcome(Result.VERIFIED, after={"h": STATE, "i": STATE}, change=Change.RESTORED)
    account = Account()
    account.add(Result.VERIFIED, "", Change.RESTORED)
    account.add(Result.LEFT, "zombie-suspect: old", times=2)

    async def work() -> None:
        await journal.note(merging_json(0, TokenRange(5, 9), list(ROW.ref.key_hex), [row]))
        await journal.note(merged_json(0, TokenRange(5, 9), [outcome], account, 1))

    asyncio.run(work())
    journal.close()
    record = read_journal(tmp_path / "j")
    ((chunk, (read,)),) = record.unpacked()
    assert chunk.account == account
    assert read.entry.before == row.entry.before
    assert read.entry.after == outcome.after
    said = CliRunner().invoke(repair, ["show", str(tmp_path / "j")])
    assert said.exit_code == ExitCode.INCOMPLETE
    for text in ("1 verified", "2 left-alone", "2: zombie-suspect: old", "1 restored", "1 range not ended"):
        assert text in said.output
    assert record.open_ranges == [1]


@pytest.mark.parametrize(
    "changed",
    [
        {"start": float("inf")},
        {"end": 4},
        {"kinds": {"stale": float("-inf")}},
        {"kinds": []},
        {"replicas": {"n": {"missing": float("inf"), "stale": 1, "host_id": "h"}}},
        "[" * 100_000,
    ],
    ids=lambda changed: str(changed)[:30],
)
def test_a_range_that_no_check_has_written_is_one_line(changed: dict[str, Any] | str, tmp_path: Path) -> None:
    """Whatever JSON can hold: infinite numbers, ranges that run backwards, lists without end."""
    line = changed if isinstance(changed, str) else json.dumps(FOUND.as_json() | changed)
    path = tmp_path / "findings.jsonl"
    path.write_text(json.dumps({"type": "findings", "schema": 1}) + f"\n{line}\n")
    path.chmod(0o600)
    result = CliRunner().invoke(main, ["repair", "plan", str(path), "--print-nodetool"])
    assert result.exit_code == 2, result.output
    assert "findings.jsonl line 2 is" in result.stderr
    assert "run the check again" in result.stderr


def test_a_file_of_no_named_type_is_one_line(tmp_path: Path) -> None:
    """Also if its type is a list: it is no findings file, and no check replaces it."""
    path = tmp_path / "findings.jsonl"
    path.write_text('{"type": [], "schema": 1}\n')
    path.chmod(0o600)
    for words in (["repair", "plan", str(path), "--print-nodetool"], ["explain", str(path)]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2, result.output
        assert "line 1 is not its header" in result.stderr
    with pytest.raises(UsageError, match="it is not replaced"):
        require_replaceable("--findings", str(path))
