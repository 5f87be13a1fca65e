"""docs/reference/report.schema.json describes every report that the check can give."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from consistency.model.reading import CHECKED_DEPTHS, ONE_REPLICA, Route
from consistency.results.cause import Cause, CauseKind
from consistency.results.kinds import Kind
from consistency.results.report import SCHEMA_VERSION, RepairSummary, Severity
from consistency.results.verdict import Verdict
from tests.house.source import text_of
from tests.simulation.cases import run_case
from tests.unit.test_terminal import report, table_report, worst

SCHEMA: dict[str, Any] = json.loads(text_of("docs", "reference", "report.schema.json"))
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_schema_is_one() -> None:
    """It is valid itself, and of the version that reports name."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"] == {"const": SCHEMA_VERSION}


@pytest.mark.parametrize("seed", range(60))
def test_simulated_reports_follow_the_schema(seed: int) -> None:
    """Whatever happened to the cluster: faults, stops, changes of ring and schema."""
    VALIDATOR.validate(json.loads(json.dumps(run_case(seed).report.as_json())))


def test_the_schema_knows_every_word_that_a_report_uses() -> None:
    """A kind, depth, route or verdict that is new is new in the schema too."""
    table = SCHEMA["$defs"]["table"]["properties"]
    assert SCHEMA["$defs"]["verdict"]["enum"] == [v.value for v in Verdict]
    assert SCHEMA["properties"]["findings_by_kind"]["propertyNames"]["enum"] == [k.value for k in Kind]
    assert set(table["depth"]["enum"]) == {"", *(d.value for d in CHECKED_DEPTHS)}
    assert set(table["route"]["enum"]) == {"", *(r.value for r in Route)}
    assert set(table["locality"]["enum"]) >= {"", *(x.value for x in ONE_REPLICA)}
    assert SCHEMA["$defs"]["violation"]["properties"]["severity"]["enum"] == [s.value for s in Severity]


def test_every_field_of_a_report_is_described() -> None:
    """A field that is added is added to the schema, and none is described that is not there."""
    whole = worst().as_json()
    assert set(whole) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    repair = RepairSummary(
        plan="p", journal="j", rows=2, acted_on=1, results={"done": 1}, remaining=1, checked_again=Verdict.CONSISTENT
    ).as_json()
    VALIDATOR.validate({**whole, "repair": repair, "replicas": []})
    cause = Cause(next(iter(CauseKind)), "node 3 was down", 2, ("10.0.0.3:9042",)).as_json()
    VALIDATOR.validate({**whole, "likely_causes": [cause], "replicas": []})
    parts = {"cause": cause, "table": whole["tables"][1], "violation": whole["violations"][0], "repair": repair}
    for name, part in parts.items():
        assert set(part) == set(SCHEMA["$defs"][name]["properties"]) == set(SCHEMA["$defs"][name]["required"])


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fine"},
        {"exit_code": 0, "verdict": "unknown"},
        {"interrupted": True},
        {"schema": 2},
        {"coverage": {"planned": 1}},
        {"findings_by_kind": {"odd": 1}},
    ],
)
def test_the_schema_can_tell(change: dict[str, Any]) -> None:
    """A report that contradicts itself or lacks something is refused."""
    good = report(table_report()).as_json()
    VALIDATOR.validate(good)
    assert not VALIDATOR.is_valid({**deepcopy(good), **change})
