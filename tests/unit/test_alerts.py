"""Alert rules and dashboard: what they ask for exists, what exists is asked for, and promtool's stories come true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from consistency.watching.metrics import HELP, LABELS
from tests.house.source import ROOT, text_of

PROMETHEUS = ROOT / "deploy" / "prometheus"
NAME = re.compile(r"\bconsistency_[a-z_]+\b")


def rules() -> list[dict[str, Any]]:
    """Return every alert."""
    groups = yaml.safe_load(text_of("deploy", "prometheus", "rules.yml"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    board: dict[str, Any] = json.loads(text_of("deploy", "grafana", "consistency.json"))
    return board


def queries() -> list[str]:
    """Return every PromQL expression of rules and dashboard."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *panels]


def test_every_metric_that_is_asked_for_exists_and_every_one_that_exists_is_asked_for() -> None:
    """A metric that nobody looks at is not needed, one that does not exist never alarms."""
    assert {name for query in queries() for name in NAME.findall(query)} == set(HELP)


def test_every_label_that_is_asked_for_exists() -> None:
    """A matcher on a label that the metric lacks matches nothing, silently; `cluster` is the operator's own."""
    for query in queries():
        for name, matchers in re.findall(r"(consistency_[a-z_]+)\{([^}]*)\}", query):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers)) - {"cluster"}
            assert asked <= set(LABELS.get(name, ())), query
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            names = NAME.findall(target["expr"])
            known = {label for name in names for label in LABELS.get(name, ())}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, panel["title"]


def test_every_alert_says_what_to_do_and_where_to_read_on() -> None:
    """The link leads to a heading of its own name, and the page has no heading without an alert."""
    page = text_of("docs", "alerts.md")
    headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert notes["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_has_a_story_in_which_it_fires() -> None:
    """A rule that no test ever saw firing may never fire."""
    stories = yaml.safe_load(text_of("deploy", "prometheus", "rules.test.yml"))["tests"]
    fired = {t["alertname"] for s in stories for t in s.get("alert_rule_test", ()) if t["exp_alerts"]}
    for story in stories:
        for told in story.get("promql_expr_test", ()):
            if any(sample["value"] for sample in told["exp_samples"]):
                fired |= set(re.findall(r'alertname="(\w+)"', told["expr"]))
    assert fired == {rule["alert"] for rule in rules()}


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own, do not overlap, say what they mean and use the chosen data source."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["description"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@pytest.mark.parametrize("words", [("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")])
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    """Prometheus' own tool reads the rules and plays the nights of rules.test.yml."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; Debian's package prometheus has it")
    done = subprocess.run([promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_a_rule_that_is_wrong(tmp_path: Path) -> None:
    """The stories can fail: without the look back a night that could not read the table would end the alarm."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; Debian's package prometheus has it")
    looking_back = "last_over_time(consistency_divergent_rows[7d])"
    blunt = text_of("deploy", "prometheus", "rules.yml").replace(looking_back, "consistency_divergent_rows")
    (tmp_path / "rules.yml").write_text(blunt)
    (tmp_path / "rules.test.yml").write_text((PROMETHEUS / "rules.test.yml").read_text())
    words = [promtool, "test", "rules", "rules.test.yml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "ConsistencyReplicasDiffer" in done.stdout + done.stderr


def test_promtool_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """A panel whose query does not parse stays empty."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; Debian's package prometheus has it")
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    asked = [{"record": f"panel:{i}", "expr": expr.replace("$cluster", ".*")} for i, expr in enumerate(panels)]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": asked}]}))
    done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(asked)} rules found" in done.stdout
