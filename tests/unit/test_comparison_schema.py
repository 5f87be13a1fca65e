"""docs/reference/comparison.schema.json describes every result that a comparison can give."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from consistency import Side
from consistency.comparing.terms import Compare
from consistency.model.reading import CHECKED_DEPTHS
from consistency.results.comparison import SCHEMA_VERSION
from consistency.results.kinds import Kind
from consistency.results.pair_findings import PairKind
from tests.house.source import text_of
from tests.simulation.two_clusters import run_pair

SCHEMA: dict[str, Any] = json.loads(text_of("docs", "reference", "comparison.schema.json"))
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_schema_of_the_result_knows_every_word() -> None:
    """A field, kind or depth that is new is new in the schema too."""
    Draft202012Validator.check_schema(SCHEMA)
    result = run_pair(0).result.as_json()
    assert SCHEMA["properties"]["schema"] == {"const": SCHEMA_VERSION}
    assert set(result) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    of_table = SCHEMA["$defs"]["table"]
    assert set(result["tables"][0]) == set(of_table["properties"]) == set(of_table["required"])
    kinds = [kind.value for kind in PairKind]
    assert SCHEMA["properties"]["findings_by_kind"]["propertyNames"]["enum"] == kinds
    assert SCHEMA["properties"]["compare"]["enum"] == [each.value for each in Compare]
    depths = {"", *(each.depth.value for each in Compare)}
    assert set(of_table["properties"]["depth"]["enum"]) == depths
    inner = SCHEMA["$defs"]["inner"]["properties"]
    for side in Side:
        assert inner[side.value]["propertyNames"]["enum"] == [*(kind.value for kind in Kind), "counted"]
    assert {each.depth for each in Compare} & set(CHECKED_DEPTHS) == {Compare.EXPIRIES.depth}


@pytest.mark.parametrize("seed", range(40))
def test_simulated_results_follow_the_schema(seed: int) -> None:
    """Whatever happened to the clusters."""
    VALIDATOR.validate(json.loads(json.dumps(run_pair(seed).result.as_json())))
