"""A run in parts: together they are one whole run, alone none is consistent."""

from __future__ import annotations

import json
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from consistency.api import check as check_by_library
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import main
from consistency.cluster.throttle import Politeness
from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.ledger.part_account import PartAccount
from consistency.model.part import MOST_PARTS, Part
from consistency.model.ring import MURMUR3, Arc, Replication, Ring
from consistency.model.tokens import MAX_TOKEN, TokenRange, merged
from consistency.results.report import Report
from consistency.results.verdict import Verdict
from tests.simulation.cases import run_case
from tests.simulation.parting import in_parts
from tests.simulation.scenario import Scenario
from tests.support.figures import LONG
from tests.unit.fake_cluster import FakeCluster, Version, nodes, opener

FIGURES = ("full_name", "rows", "divergent_rows", "unsettled_rows", "verdict", "depth", "route", "locality", "strip",
           "tracks", "held", "alone", "scheme")  # fmt: skip
"""What of a table does not depend on how its ranges are cut."""


@given(st.integers(1, 400))
def test_parts_tile_the_ring(of: int) -> None:
    """Whatever their number: no token is in none of them, and none in two."""
    pieces = [Part(number, of).token_range for number in range(1, of + 1)]
    assert merged(pieces) == (TokenRange.full_ring(),)
    assert tuple(pieces) == TokenRange.full_ring().split(of)


def test_one_of_many_parts_is_cut_without_the_others() -> None:
    """Each arc of a large ring asks for it: a tenth of a second each would be minutes."""
    began = time.process_time()
    assert all(Part(MOST_PARTS, MOST_PARTS).token_range.end == MAX_TOKEN for _ in range(500))
    assert time.process_time() - began < 5


def test_a_part_is_named_from_one_or_from_zero() -> None:
    """0/N is N/N: who counts from 0 to N-1 and who counts from 1 to N both name all."""
    assert {Part.parse(f"{i}/4") for i in range(4)} == {Part.parse(f"{i}/4") for i in range(1, 5)}
    assert str(Part.parse("2/3")) == "2 of 3"


@pytest.mark.parametrize("text", ["", "1", "5/4", "1/0", "0/0", "-1/4", "a/b", "1/4/2", f"1/{MOST_PARTS + 1}", "٣/٤"])
def test_what_is_no_part_is_refused(text: str) -> None:
    """In one line that names it."""
    with pytest.raises(UsageError, match="part"):
        Part.parse(text)


@pytest.mark.parametrize("seed", range(60 if LONG else 24))
def test_parts_together_equal_one_whole_run(seed: int) -> None:
    """Findings, counts, figures, violations and verdict, one after the other and at once, on every kind of cluster."""
    alone = run_case(seed)
    if alone.case.options.sample is not None or alone.case.options.run_time_s is not None:
        pytest.skip("a sample or a slice of time has no parts")
    changes = alone.case.ring_changes_at_s is not None or alone.case.schema_changes_at_s is not None
    for of, at_once in ((2, True), (4, False)):
        split = run_case(seed, in_parts(of, at_once=at_once))
        # Parts that ended before a change are right about the time before it.
        about_before = ("called clean", "none is") if changes else ()
        assert [text for text in split.broken if not any(words in text for words in about_before)] == []
        if alone.case.exact and alone.traffic is None:
            assert _alike(alone.report, split.report, all_listed=alone.case.options.scan.max_findings is None) == []


def _alike(alone: Report, split: Report, *, all_listed: bool) -> list[Any]:
    out: list[Any] = [
        (name, getattr(alone, name), getattr(split, name))
        for name in ("verdict", "exit_code", "findings_by_kind", "violations", "likely_causes")
        if getattr(alone, name) != getattr(split, name)
    ]
    for one, other in zip(alone.tables, split.tables, strict=True):
        # If not all rows are listed, those that are need not be the same in two runs.
        told = [name for name in FIGURES if all_listed or name not in ("rows", "tracks")]
        values = ((name, getattr(one, name), getattr(other, name)) for name in told)
        out += [each for each in values if each[1] != each[2]]
        if one.verdict is Verdict.CONSISTENT and any(tree.root is None for tree in other.trees):
            out.append("a tree without a root")
    return out


@pytest.mark.parametrize("seed", range(30 if LONG else 12))
def test_without_one_of_its_parts_a_run_is_never_consistent(seed: int) -> None:
    """Its piece is unread on every replica, and its trees have no root."""
    options = run_case(seed).case.options
    if options.sample is not None or options.run_time_s is not None:
        pytest.skip("a sample or a slice of time has no parts")
    report = run_case(seed, in_parts(3, without=[2])).report
    assert report.verdict in (Verdict.UNKNOWN, Verdict.DIVERGENT)
    assert report.parts is not None
    assert 2 in report.parts.missing
    for table in report.tables:
        if table.depth:
            assert table.coverage.failed
            assert any("part 2 of 3 of the run is missing" in unread.reason for unread in table.unread)
            assert "?" in table.strip.replace("x", "?")


def test_leaves_of_a_part_are_as_large_as_those_of_a_whole_run() -> None:
    """Rows are estimated over the whole ring, a little of it: a part alone would be counted row by row."""

    def leaves(chosen: Part | None) -> int:
        scenario = Scenario()
        scenario.fill(400, 1)
        return scenario.check(part=chosen, scan=ScanOptions(leaf_rows=10)).tables[0].ranges

    assert leaves(None) <= sum(leaves(Part(number, 4)) for number in range(1, 5)) <= leaves(None) + 4


def test_what_is_not_compared_is_counted_in_one_part() -> None:
    """Whole ranges, each in the part in which it ends."""
    ring = Ring("test", MURMUR3, nodes(7))
    (arc, *_) = ring.arcs(Replication("SimpleStrategy", (("", 7),)))
    whole = Arc(arc.replicas, TokenRange.full_ring().split(11))
    kept = [found for number in range(1, 5) if (found := Part(number, 4).ending_in(whole)) is not None]
    assert sorted(owned for found in kept for owned in found.ranges) == list(whole.ranges)
    assert Part(1, 100).ending_in(Arc(arc.replicas, (TokenRange(0, 5),))) is None


# As a person types it.


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    """Return the cluster that commands reach, of rows all over the ring."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster = FakeCluster().fill(60)
    monkeypatch.setattr("consistency.cluster.session.open_cluster", opener(cluster))
    monkeypatch.setattr("consistency.api.open_cluster", opener(cluster))
    return cluster


def run(*words: object) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, [*map(str, words)])


def part(text: str, ledger: Path, *more: object) -> Result:
    """Check a part, without a wait for writes to settle."""
    return run("check", "--settle", "0", "--part", text, "--ledger", ledger, *more)


def merge(*words: object) -> tuple[int, dict[str, Any]]:
    """Merge parts; return exit code and report."""
    result = run("ledger", "merge", *words, "--json", "-")
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


def two_parts(folder: Path, *more: object) -> list[Path]:
    """Check both halves; return their ledgers."""
    paths = [folder / "p1", folder / "p2"]
    for number, path in enumerate(paths, start=1):
        assert part(f"{number}/2", path, *more).exit_code in (0, 1)
    return paths


def differ(cluster: FakeCluster) -> None:
    """Have rows of both halves differ."""
    held = cluster.rows["10.0.0.2:9042"]
    for number in (3, -5, 20):
        held[number] = Version("another", writetime=1)
        for rows in cluster.rows.values():
            rows.setdefault(number, Version("one"))


def test_a_clean_part_says_so_and_lets_a_job_succeed(cluster: FakeCluster, tmp_path: Path) -> None:
    """Exit code 0, and neither the report nor its JSON calls it consistent."""
    result = part("1/2", tmp_path / "p1", "--json", tmp_path / "r.json")
    assert result.exit_code == 0
    assert "PART  Consistent in its part 1 of 2: all replicas hold the same" in result.output
    told = json.loads((tmp_path / "r.json").read_text())
    assert (told["verdict"], told["part"]) == ("part", {"number": 1, "of": 2, "run": None})
    assert [table["verdict"] for table in told["tables"]] == ["part"]
    result = part("1/2", tmp_path / "p1", "--nagios")
    assert result.output.startswith("CONSISTENCY OK - all replicas hold the same")
    assert "in part 1 of 2 of the run" in result.output


def test_merged_parts_are_one_consistent_run(cluster: FakeCluster, tmp_path: Path) -> None:
    """And the ledger has it as one, with every range clean."""
    into = tmp_path / "ledger"
    code, told = merge(*two_parts(tmp_path), "--ledger", into)
    assert (code, told["verdict"], told["parts"]) == (0, "consistent", {"of": 2, "missing": [], "run": None})
    assert told["tables"][0]["rows"] == 60
    assert told["tables"][0]["trees"][0]["root"] is not None
    history = run("history", "--ledger", into, "--json", "-")
    assert history.exit_code == 0
    seen = json.loads(history.stdout)
    assert (seen["tables"][0]["never_clean"], [r["verdict"] for r in seen["runs"]]) == (0, ["consistent"])


def test_rows_of_all_parts_are_in_one_file_and_known_again(cluster: FakeCluster, tmp_path: Path) -> None:
    """As if one check had found them: the ledger of the whole keys them by its own secret, every night."""
    differ(cluster)
    into, findings = tmp_path / "ledger", tmp_path / "all.jsonl"
    parts = two_parts(tmp_path)
    code, told = merge(*parts, "--ledger", into, "--findings", findings)
    assert (code, told["verdict"], told["findings_by_kind"]) == (1, "divergent", {"stale": 3})
    assert stat.S_IMODE(findings.stat().st_mode) == 0o600
    assert len(findings.read_text().splitlines()) == 4
    assert run("explain", findings).exit_code == 1
    for _ in range(2):
        merge(*two_parts(tmp_path), "--ledger", into)
    result = run("check", "--settle", "0", "--ledger", into)
    assert result.exit_code == 1
    with open_ledger(into) as ledger:
        (age,) = ledger.past().tables(1)
        assert dict(age.states) == {"still there": 3}
        runs = ledger.past().runs(1)
        assert [dict(run.states)["still there"] for run in runs] == [3, 3, 3, 0]
        assert [dict(run.states)["new"] for run in runs] == [0, 0, 0, 3]


def test_a_part_leaves_history_alone_until_it_is_merged(cluster: FakeCluster, tmp_path: Path) -> None:
    """A part alone is no run, so nothing counts as checked by it; one ledger may keep all parts and the whole."""
    ledger = tmp_path / "ledger"
    assert [part(text, ledger).exit_code for text in ("1/2", "2/2")] == [0, 0]
    with open_ledger(ledger) as opened:
        assert opened.past().known_clusters() == ()
    code, told = merge(ledger, "--ledger", ledger)
    assert (code, told["verdict"]) == (0, "consistent")
    with open_ledger(ledger) as opened:
        assert len(opened.past().runs(1)) == 1


def test_the_same_parts_merged_twice_are_one_run(cluster: FakeCluster, tmp_path: Path) -> None:
    """A job that is tried again enters nothing twice."""
    parts, into = two_parts(tmp_path), tmp_path / "ledger"
    first, second = merge(*parts, "--ledger", into), merge(*reversed(parts), "--ledger", into)
    assert first == second
    with open_ledger(into) as opened:
        assert len(opened.past().runs(1)) == 1


def test_a_missing_part_is_unknown_and_named(cluster: FakeCluster, tmp_path: Path) -> None:
    """Also one whose ledger is not there at all; once it is, the whole is."""
    parts, into = two_parts(tmp_path), tmp_path / "ledger"
    code, told = merge(parts[0], tmp_path / "absent", "--ledger", into)
    assert (code, told["verdict"], told["parts"]["missing"]) == (3, "unknown", [2])
    assert {unread["reason"] for unread in told["tables"][0]["unread"]} == {
        "part 2 of 2 of the run is missing: run it, then merge again"
    }
    code, told = merge(*parts, "--ledger", into)
    assert (code, told["verdict"]) == (0, "consistent")
    assert run("ledger", "merge", tmp_path / "absent").exit_code == 2
    assert run("ledger", "merge").exit_code == 2


def test_parts_of_runs_of_different_names_are_not_mixed(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest run is merged, or the one that is named, by option or environment."""
    paths = two_parts(tmp_path, "--run", "monday")
    monkeypatch.setenv("CONSISTENCY_RUN", "tuesday")
    assert part("1/2", tmp_path / "p1").exit_code == 0
    code, told = merge(*paths)
    assert (code, told["verdict"], told["parts"]) == (3, "unknown", {"of": 2, "missing": [2], "run": "tuesday"})
    monkeypatch.delenv("CONSISTENCY_RUN")
    code, told = merge(*paths)
    assert (code, told["parts"]["missing"]) == (3, [2])
    assert any("another run, monday" in note for note in told["notes"])
    code, told = merge(*paths, "--run", "monday")
    assert (code, told["verdict"]) == (0, "consistent")
    assert run("ledger", "merge", *paths, "--run", "sunday").exit_code == 2
    assert run("check", "--run", "monday").exit_code == 2


def test_a_part_of_last_night_is_not_taken_for_one_of_tonight(cluster: FakeCluster, tmp_path: Path) -> None:
    """Without names, too: parts that made a whole run are used up together."""
    paths, into = two_parts(tmp_path), tmp_path / "ledger"
    assert merge(*paths, "--ledger", into)[0] == 0
    assert part("1/2", paths[0]).exit_code == 0
    code, told = merge(*paths, "--ledger", into)
    assert (code, told["verdict"], told["parts"]["missing"]) == (3, "unknown", [2])
    assert any("belongs to a run that was merged before" in note for note in told["notes"])


def test_the_newer_of_two_readings_of_a_part_counts(cluster: FakeCluster, tmp_path: Path) -> None:
    """A job tries a part again and writes another ledger: one of them is left out, and named."""
    paths = two_parts(tmp_path)
    differ(cluster)
    assert part("2/2", tmp_path / "again").exit_code == 1
    code, told = merge(tmp_path / "again", *paths)
    assert (code, told["verdict"]) == (1, "divergent")
    assert any(f"part 2 of 2 in {paths[1]} is left out" in note for note in told["notes"])


def test_a_part_of_another_ring_schema_or_other_options_is_missing(cluster: FakeCluster, tmp_path: Path) -> None:
    """It read something else, or in another way."""
    paths = two_parts(tmp_path)
    assert part("1/2", paths[0], "--depth", "versions").exit_code == 0
    assert any("another --depth" in note for note in merge(*paths)[1]["notes"])
    assert part("1/2", paths[0], "shop.orders").exit_code == 0
    assert any("another scope" in note for note in merge(*paths)[1]["notes"])
    assert part("1/3", paths[0]).exit_code == 0
    assert any("newest run has 3 parts" in note for note in merge(*paths)[1]["notes"])
    cluster.shop = replace(cluster.shop, table_id="id-other")
    assert part("1/2", paths[0]).exit_code == 0
    assert any("schema has changed" in note for note in merge(*paths)[1]["notes"])
    cluster.rings(replace(cluster._ring, nodes=nodes(4)))
    cluster.rows["10.0.0.4:9042"] = dict(cluster.rows["10.0.0.1:9042"])
    assert part("1/2", paths[0]).exit_code == 0
    code, told = merge(*paths)
    assert (code, told["verdict"]) == (3, "unknown")
    assert any("ring has changed" in note for note in told["notes"])


def test_without_the_findings_of_a_part_nothing_is_merged(cluster: FakeCluster, tmp_path: Path) -> None:
    """Missing, of another run, or cut short: one line says which, and no run is entered."""
    differ(cluster)
    paths, into = two_parts(tmp_path), tmp_path / "ledger"
    file = tmp_path / "p2.part-2-of-2.jsonl"
    text = file.read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = elsewhere / "p2"
    moved.write_bytes(paths[1].read_bytes())
    (elsewhere / file.name).write_text(text)
    (elsewhere / file.name).chmod(0o600)
    file.unlink()
    refused = run("ledger", "merge", *paths, "--ledger", into)
    assert refused.exit_code == 2
    assert "p2.part-2-of-2.jsonl is missing" in refused.output
    file.write_text(text.replace('"run_id":"', '"run_id":"x'))
    file.chmod(0o600)
    assert "is of another run" in run("ledger", "merge", *paths, "--ledger", into).output
    file.write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert "run it again" in run("ledger", "merge", *paths).output
    assert not into.exists() or not open_ledger(into).past().known_clusters()
    file.unlink()
    assert merge(paths[0], moved)[0] == 1  # beside the ledger is a place too


def test_an_interrupted_part_leaves_its_piece_unknown(cluster: FakeCluster, tmp_path: Path) -> None:
    """Whatever it had read: it did not see whether ring and schema changed meanwhile."""
    path = two_parts(tmp_path)
    cancel = threading.Event()
    cancel.set()
    options = CheckOptions(part=Part(2, 2), settle_window_s=0.0)
    report = check_by_library(options=options, ledger=path[1], cancel=cancel)
    assert report.interrupted
    with open_ledger(path[1]) as ledger:
        assert ledger.parts()[-1].report.interrupted
    code, told = merge(*path)
    assert (code, told["verdict"]) == (3, "unknown")
    assert any("interrupted" in unread["reason"] for unread in told["tables"][0]["unread"])


def test_a_complete_part_that_was_interrupted_is_not_believed(cluster: FakeCluster, tmp_path: Path) -> None:
    """All digests may be there when the signal comes."""
    paths = two_parts(tmp_path)
    with open_ledger(paths[1]) as ledger:
        (account,) = ledger.parts()
        changed = replace(account, report=replace(account.report, interrupted=True))
        recorder = ledger.part_recorder(Part(2, 2), "", account.terms)
        recorder.begin(replace(account.facts, started_us=account.facts.started_us + 1))
        recorder.end(changed.report)
    assert merge(*paths)[1]["verdict"] == "unknown"


async def _killed(*_: object) -> Report:
    raise RuntimeError


def test_a_part_that_is_killed_is_missing_whatever_it_read_the_night_before(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last night another part was killed: what the two nights read must not make one whole run."""
    paths = two_parts(tmp_path)
    with monkeypatch.context() as stopped:
        stopped.setattr("consistency.cli.check.run_check", _killed)
        assert part("1/2", paths[0]).exit_code == 4
    code, told = merge(*paths)
    assert (code, told["verdict"], told["parts"]["missing"]) == (3, "unknown", [1])


def test_merge_waits_for_parts_that_come(cluster: FakeCluster, tmp_path: Path) -> None:
    """And takes what there is once the time is over."""
    paths = two_parts(tmp_path)
    late = tmp_path / "late"
    timer = threading.Timer(0.3, lambda: paths[1].rename(late))
    timer.start()
    code, told = merge(paths[0], late, "--wait", "30s")
    assert (code, told["verdict"]) == (0, "consistent")
    began = time.monotonic()
    assert merge(paths[0], "--wait", "0.2s")[0] == 3
    assert 0.2 <= time.monotonic() - began < 10


def test_a_part_needs_a_ledger_and_goes_with_no_other_part(cluster: FakeCluster, tmp_path: Path) -> None:
    """Refused before anything is read, in one line."""
    for words in (["--part", "1/2"], ["--part", "3/2", "--ledger", tmp_path / "l"]):
        assert run("check", *words).exit_code == 2
    for more in (["--sample", "2%"], ["--within", "5s"], ["--run-time", "5"], ["--repair"]):
        assert part("1/2", tmp_path / "l", *more).exit_code == 2
    with pytest.raises(UsageError, match="ledger"):
        check_by_library(options=CheckOptions(part=Part(1, 2)))
    assert not (tmp_path / "l").exists()


def test_what_is_no_account_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    """Of another version, or damaged: the part is to be run again."""
    (path, _) = two_parts(tmp_path)
    with open_ledger(path) as ledger:
        (account,) = ledger.parts()
    text = account.as_text()
    assert PartAccount.from_text(text).as_text() == text
    for other in (text.replace('"schema":1', '"schema":9', 1), "{}", "no JSON", text[:-5]):
        with pytest.raises(UsageError):
            PartAccount.from_text(other)
    with open_ledger(path) as ledger, ledger._store.transaction() as db:
        db.execute("UPDATE parts SET body = x'00'")
    refused = run("ledger", "merge", path)
    assert (refused.exit_code, "run this part again" in refused.output) == (2, True)


def test_an_account_holds_no_key(cluster: FakeCluster, tmp_path: Path) -> None:
    """The ledger never does: keys are in the findings file alone."""
    differ(cluster)
    (path, _) = two_parts(tmp_path)
    with open_ledger(path) as ledger:
        (account,) = ledger.parts()
    assert account.report.findings_by_kind
    assert not {'"key"', '"key_hex"'} & set(account.as_text().replace(":", ",").split(","))


def test_the_limits_on_the_load_are_those_of_the_whole_run() -> None:
    """N parts at once burden a node as one run does."""
    whole = Politeness(rate=1_000, share=0.03)
    assert (whole.divided(4).rate, whole.divided(4).share) == (250, 0.0075)
    assert Politeness(rate=None).divided(4).rate is None
