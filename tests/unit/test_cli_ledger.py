"""The ledger, the lock and slices of time as a person types them."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consistency.cli import main
from consistency.cluster.settings import load_ledger_path
from consistency.errors import LockedError, UsageError
from consistency.ledger import open_ledger
from consistency.ledger.lock import lock_path, one_run
from consistency.model.ring import MURMUR3, Replication, Ring
from consistency.model.schema import Keyspace
from tests.unit.fake_cluster import FakeCluster, nodes, opener, table

RING = Ring("test", MURMUR3, nodes())


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the machine's own files and variables out; return the home directory."""
    for name in [n for n in os.environ if n.startswith(("CONSISTENCY_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Return the cluster that commands reach."""
    cluster = FakeCluster().fill(20)
    monkeypatch.setattr("consistency.cluster.session.open_cluster", opener(cluster))
    return cluster


def check(*words: object) -> Result:
    """Run a check that does not wait for writes to settle."""
    return CliRunner().invoke(main, ["check", "--settle", "0", *map(str, words)])


def runs(path: Path) -> list[str]:
    """Return the verdicts in a ledger, the oldest first."""
    with open_ledger(path, create=False) as ledger:
        past = ledger.past()
        return [run.verdict for cluster, _ in past.clusters() for run in past.runs(cluster)][::-1]


def test_a_ledger_is_kept_only_where_one_was_asked_for(
    cluster: FakeCluster, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By option, by environment, by file, in this order; without any, no ledger is written anywhere."""
    assert check().exit_code == 0
    assert list(tmp_path.rglob("*.ledger")) == []
    config = home / ".config" / "consistency" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[ledger]\npath = "~/c.ledger"\n')
    assert check().exit_code == 0
    monkeypatch.setenv("CONSISTENCY_LEDGER", str(tmp_path / "e.ledger"))
    assert check().exit_code == 0
    assert check("--ledger", tmp_path / "o.ledger").exit_code == 0
    for path in (home / "c.ledger", tmp_path / "e.ledger", tmp_path / "o.ledger"):
        assert runs(path) == ["consistent"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["ledger = 1", "[ledger]\npath = 1", '[ledger]\nfile = "x"'])
def test_a_ledger_entry_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    """Exit code 2, before anything is read."""
    config = tmp_path / "c.toml"
    config.write_text(text)
    result = check("--config", config)
    assert (result.exit_code, "[ledger]" in result.stderr) == (2, True)
    assert len(result.stderr.splitlines()) == 1


def test_an_empty_variable_names_no_ledger() -> None:
    """A script that unsets it by emptying it gets none."""
    assert load_ledger_path(None, None, {"CONSISTENCY_LEDGER": ""}) is None
    assert load_ledger_path("~/x", None, {}) == Path.home() / "x"


def test_a_ledger_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """Exit code 2 with the option's name."""
    for path in (tmp_path / "no" / "such" / "l", tmp_path):
        result = check("--ledger", path)
        assert (result.exit_code, "--ledger" in result.stderr) == (2, True)


def test_a_damaged_ledger_is_said_in_a_line_and_the_check_goes_on(cluster: FakeCluster, tmp_path: Path) -> None:
    """The result is the cluster's; the ledger begins anew."""
    path = tmp_path / "l"
    assert check("--ledger", path, "--quiet").exit_code == 0
    path.write_bytes(b"no ledger any more" * 100)
    result = check("--ledger", path, "--quiet")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: the ledger")
    assert "everything is unchecked" in line
    assert runs(path) == ["consistent"]


def test_a_run_that_could_not_be_recorded_does_not_exit_0(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is printed all the same; what differs is still said by exit code 1."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("consistency.ledger.recorder._prune", full)
    result = check("--ledger", tmp_path / "l")
    assert result.exit_code == 4
    assert result.stdout.startswith("CONSISTENT")
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("warning:"))
    assert "could not be written (database or disk is full): this run does not count" in line
    del cluster.rows["10.0.0.3:9042"][7]
    assert check("--ledger", tmp_path / "l").exit_code == 1
    assert runs(tmp_path / "l") == ["", ""]


def test_slices_need_a_ledger_and_say_how_far_they_came(cluster: FakeCluster, tmp_path: Path) -> None:
    """No time reads one range: exit code 3; enough reads all of them: exit code 0."""
    replication = Replication.parse({"class": "NetworkTopologyStrategy", "dc1": "3"})
    cluster.extra = {"other": Keyspace("other", replication, {"orders": table("other")})}
    result = check("--run-time", "5")
    assert result.exit_code == 2
    assert "--run-time needs --ledger" in result.stderr
    one = check("--run-time", "0", "--ledger", tmp_path / "l")
    assert one.exit_code == 3
    assert "1 of 2 ranges this time, oldest first; the next run" in " ".join(one.stdout.split())
    assert "could not be read" not in one.stdout
    every = check("--run-time", "600", "--ledger", tmp_path / "l", "--json", tmp_path / "r.json")
    assert every.exit_code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["run_time"] == 600
    assert [(told["ranges"], told["ranges_read"]) for told in report["tables"]] == [(1, 1), (1, 1)]


# Samples.


def test_a_sample_says_what_it_proves_and_stays_out_of_the_ledger(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own word and mark, the bound in words and in JSON, the seed to draw it again; what differs is exit code 1."""
    monkeypatch.setenv("CONSISTENCY_LEDGER", str(tmp_path / "l"))
    page = tmp_path / "page.html"
    result = check("--sample", "50%", "--seed", "7", "--json", tmp_path / "r.json", "--html", page)
    told = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert told.startswith("SAMPLED No difference was found in a sample of ")
    assert "With 95% confidence fewer than " in told
    assert "(50%), drawn at random; --seed 7 draws the same ones." in told
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["verdict"], report["sample"]["asked"], report["sample"]["seed"]) == ("sampled", "50%", 7)
    assert report["sample"]["bound"]["ranges"] >= 1
    assert "With 95% confidence fewer than " in page.read_text()
    assert "not in the sample" not in page.read_text()
    assert not (tmp_path / "l").exists()
    timed = check("--within", "1m", "--nagios")
    assert timed.exit_code == 0
    assert "all replicas hold the same a sample of" not in timed.stdout
    assert "the same sample of" in timed.stdout
    hurried = check("--within", "0.000001")
    assert hurried.exit_code == 3
    assert "the time was over before every set of replicas had its share: give --within more" in " ".join(
        hurried.stdout.split()
    )
    del cluster.rows["10.0.0.3:9042"][7]
    found = check("--sample", "100%")
    assert found.exit_code == 1
    assert "It is a sample: what was not read may differ too." in " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sample", "2"), "'2' is not a share above 0% and up to 100%"),
        (("--sample", "0%"), "'0%' is not a share"),
        (("--sample", "120%"), "'120%' is not a share"),
        (("--within", "soon"), "'soon' is not a time above 0, such as 90s"),
        (("--within", "0s"), "'0s' is not a time above 0"),
        (("--sample", "2%", "--within", "5s"), "--sample and --within: give one"),
        (("--seed", "3"), "--seed draws a sample again"),
        (("--sample", "2%", "--ledger", "/tmp/l"), "--ledger keeps what whole ranges"),
        (("--sample", "2%", "--repair"), "--repair mends what a whole check finds"),
        (("--sample", "2%", "--non-owners"), "a sample goes neither with --non-owners"),
    ],
)
def test_what_a_sample_cannot_be_or_go_with_is_one_line(
    cluster: FakeCluster, words: tuple[str, ...], says: str
) -> None:
    """The option at fault, and the way out."""
    result = check(*words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


# The lock.


def test_a_second_run_on_a_cluster_exits_5_and_names_the_first(cluster: FakeCluster, tmp_path: Path) -> None:
    """With and without a ledger: one line with the pid and since when."""
    for ledger in (None, tmp_path / "l"):
        words = () if ledger is None else ("--ledger", ledger)
        with one_run(RING, ledger):
            result = check(*words)
            assert result.exit_code == 5
            (line,) = result.stderr.splitlines()
            assert "another run on cluster test is under way" in line
            assert f"pid {os.getpid()} since 20" in line
        assert check(*words).exit_code == 0


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Also where that was killed: nobody has to remove a file."""
    ledger = tmp_path / "l"
    program = (
        "import pathlib, sys, time\n"
        "from consistency.ledger.lock import one_run\n"
        "from tests.unit.test_cli_ledger import RING\n"
        "with one_run(RING, pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(ledger)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"pid {holder.pid} since"), one_run(RING, ledger):
            pass
        holder.kill()
        holder.wait()
    with one_run(RING, ledger):
        pass


def test_clusters_do_not_lock_each_other(tmp_path: Path) -> None:
    """Neither by another name nor, of the same name, by other nodes; each is locked itself all the same."""
    other, twin, third = Ring("other", MURMUR3, nodes()), renamed("twin"), renamed("third")
    for ledger in (None, tmp_path / "l"):
        with one_run(RING, ledger), one_run(other, ledger), one_run(twin, ledger), one_run(third, ledger):
            for ring in (RING, other, twin, third):
                with pytest.raises(LockedError, match=f"pid {os.getpid()} since"), one_run(ring, ledger):
                    pass


def renamed(word: str, *places: int) -> Ring:
    """Return the cluster with other nodes in these places, in all where none is named."""
    found = nodes()
    wanted = places or range(len(found))
    return Ring(
        "test", MURMUR3, tuple(replace(n, host_id=f"{word}-{i}") if i in wanted else n for i, n in enumerate(found))
    )


@pytest.mark.parametrize("place", range(3))
def test_a_node_that_was_replaced_leaves_the_cluster_locked(tmp_path: Path, place: int) -> None:
    """Whichever it is: the cluster is known by any of its nodes; also by one that answers elsewhere now."""
    moved = Ring("test", MURMUR3, tuple(replace(n, address=f"10.9.9.{i}") for i, n in enumerate(nodes())))
    for ledger in (None, tmp_path / "l"):
        with one_run(RING, ledger):
            for ring in (renamed("new", place), moved, Ring("test", MURMUR3, nodes()[place:])):
                with pytest.raises(LockedError), one_run(ring, ledger):
                    pass


def test_a_lock_file_that_is_free_hides_no_other_that_is_held(tmp_path: Path) -> None:
    """The cluster of the second file is locked still when the first one's holder has gone."""
    first = one_run(RING, tmp_path / "l")
    first.__enter__()
    with one_run(renamed("twin"), tmp_path / "l"):
        first.__exit__(None, None, None)
        with pytest.raises(LockedError), one_run(renamed("twin"), tmp_path / "l"):
            pass
        with one_run(RING, tmp_path / "l"):
            pass


def test_a_holder_that_does_not_say_on_which_cluster_locks_all_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file still names the nodes of whoever held it before; these are not believed."""
    with one_run(renamed("twin"), tmp_path / "l"):
        pass

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with one_run(RING, tmp_path / "l"), pytest.raises(LockedError), one_run(renamed("third"), tmp_path / "l"):
        pass


def test_a_lock_that_says_nothing_yet_still_locks(tmp_path: Path) -> None:
    """Its holder may be about to write its name."""
    with one_run(RING, tmp_path / "l"):
        lock_path(RING, tmp_path / "l").write_text("")
        with pytest.raises(LockedError, match="just started"), one_run(RING, tmp_path / "l"):
            pass


def test_without_a_state_directory_a_check_still_runs(
    cluster: FakeCluster, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is a courtesy where no ledger is at stake."""
    (home / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    assert check().exit_code == 0


def test_a_ledger_beside_which_no_lock_can_be_made_is_refused(tmp_path: Path) -> None:
    """Two runs at once would write to it."""
    ledger = tmp_path / "l"
    lock_path(RING, ledger).mkdir()
    with pytest.raises(UsageError, match="cannot be made"), one_run(RING, ledger):
        pass


def test_a_full_disk_takes_no_lock_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held all the same, and a second run is told so, if not by whom."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with one_run(RING), pytest.raises(LockedError, match="it has just started"), one_run(RING):
        pass


@pytest.mark.parametrize(
    ("error", "way_out"),
    [
        ("database is locked", "wait until no other process uses it"),
        ("disk I/O error", "look for a full or failing disk"),
    ],
)
def test_a_ledger_that_cannot_be_opened_says_what_may_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, way_out: str
) -> None:
    """Somebody else at work, and a disk that is full, need different things."""

    def fail(_: object, **more: object) -> None:
        raise sqlite3.OperationalError(error)

    monkeypatch.setattr("consistency.ledger.store._opened", fail)
    with pytest.raises(UsageError, match=f"{error}; {way_out}, or name another file"):
        open_ledger(tmp_path / "l")
