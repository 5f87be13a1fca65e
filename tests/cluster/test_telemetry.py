"""Metrics, log, plugin line and watch on a real cluster: they tell the true story, and hold no key and no value."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import RunningCluster, eventually
from tests.unit.test_metrics import figures

pytestmark = pytest.mark.cluster

CANARY = "canary-7316240958"


def fill(cluster: RunningCluster, keyspace: str) -> None:
    """Make a table whose keys and values are canaries, the same on every node."""
    cluster.keyspace(keyspace)
    cluster.ddl(f"CREATE TABLE {keyspace}.t (id text PRIMARY KEY, v text)")
    rows = ((f"{CANARY}-{i}", CANARY) for i in range(300))
    cluster.load(f"INSERT INTO {keyspace}.t (id, v) VALUES (?, ?)", rows)


def damage(cluster: RunningCluster, keyspace: str, row: int = 7) -> None:
    """Delete one row on node 3 alone."""
    cluster.on(3, f"DELETE FROM {keyspace}.t WHERE id = '{CANARY}-{row}'")


def test_files_and_plugin_line_tell_the_story_of_three_runs(cluster: RunningCluster, tmp_path: Path) -> None:
    """Clean, divergent, could not run: each in metrics, log, exit code and plugin line, and never a canary."""
    fill(cluster, "nights")
    prom, log, findings = tmp_path / "c.prom", tmp_path / "c.log", tmp_path / "f.jsonl"
    files = ["--metrics", str(prom), "--log-file", str(log), "--log-level", "debug", "--findings", str(findings)]
    check = ["check", "nights", "--settle", "0.3", "--quiet"]

    done = cluster.command(*check, *files)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = figures(prom.read_text())
    assert (told["consistency_verdict", "consistent"], told["consistency_divergent_rows", "nights", "t"]) == (1, 0)

    damage(cluster, "nights")
    done = cluster.command(*check, *files)
    assert done.returncode == 1, done.stderr
    told = figures(prom.read_text())
    assert (told["consistency_last_run_exit_code",], told["consistency_divergent_rows", "nights", "t"]) == (1, 1)
    assert told["consistency_digests", "completed"] == told["consistency_digests_planned",] > 0
    assert CANARY in findings.read_text()

    plugin = cluster.command("check", "nights", "--settle", "0.3", "--nagios")
    assert (plugin.returncode, plugin.stderr) == (2, "")
    assert "CRITICAL - replicas differ in 1 row of nights.t | divergent_rows=1;;0;0 " in plugin.stdout

    done = cluster.command("check", "no_such_keyspace", "--quiet", *files)
    assert done.returncode == 2
    told = figures(prom.read_text())
    assert told["consistency_last_run_exit_code",] == 2
    assert ("consistency_divergent_rows", "nights", "t") not in told

    events = [json.loads(line) for line in log.read_text().splitlines()]
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        runs.setdefault(event["run_id"], []).append(event)
    assert [run[-1]["event"] for run in runs.values()] == ["run.ended", "run.ended", "run.failed"]
    for run in runs.values():
        assert [event["seq"] for event in run] == list(range(1, len(run) + 1))
    assert CANARY not in log.read_text() + prom.read_text() + plugin.stdout


def test_a_watch_sees_damage_come_and_go(cluster: RunningCluster, tmp_path: Path) -> None:
    """Consistent, then one row differs and the hook is told, then it is mended; SIGTERM ends it with 0."""
    fill(cluster, "watched")
    hook = tmp_path / "hook.py"
    hook.write_text("import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')")
    told = tmp_path / "told.jsonl"
    words = [sys.executable, "-m", "consistency", "watch", "watched", *cluster.host_options, "--period", "1"]
    words += ["--settle", "0.3", "--listen", "127.0.0.1:0", "--findings-dir", str(tmp_path)]
    words += ["--hook", f"{sys.executable} {hook} {told}", "--log-format", "json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONSISTENCY_")}
    with (tmp_path / "log").open("w+") as log, subprocess.Popen(words, stderr=log, env=environ) as process:
        try:
            eventually(lambda: "watch.started" in (tmp_path / "log").read_text(), 30, "the watch's start")
            address = json.loads((tmp_path / "log").read_text().splitlines()[0])["address"]

            def differing() -> float | None:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                    text: str = answer.read().decode()
                return figures(text).get(("consistency_divergent_rows", "watched", "t"))

            eventually(lambda: differing() == 0, 60, "a clean visit")
            damage(cluster, "watched")
            eventually(lambda: differing() == 1, 60, "the damage being seen")
            eventually(lambda: told.exists() and told.read_text().endswith("\n"), 30, "the hook being told")
            cluster.everywhere(f"INSERT INTO watched.t (id, v) VALUES ('{CANARY}-7', '{CANARY}')")
            eventually(lambda: differing() == 0, 60, "the repair being seen")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
        log.seek(0)
        text = log.read()
    message = json.loads(told.read_text().splitlines()[0])
    assert message["tables"] == [{"keyspace": "watched", "table": "t", "divergent_rows": 1}]
    assert message["findings"] == str(tmp_path / "watched.t.jsonl")
    assert json.loads(text.splitlines()[-1])["event"] == "watch.stopped"
    assert CANARY not in text + told.read_text()
