"""cassandra.yaml in the words of each release."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.config import render_yaml, write_config
from sandbox.errors import UsageError
from sandbox.layout import plan_cluster
from sandbox.options import SandboxOptions


def render(options: SandboxOptions, *, streams: bool = False) -> list[str]:
    """Render node 1 of a cluster into lines."""
    place = plan_cluster(options)[0]
    return render_yaml(options, place, ["127.0.0.1:7000"], Path("/data"), streams=streams).splitlines()


@pytest.mark.parametrize(
    ("series", "expected", "absent"),
    [
        ("5.0", ["materialized_views_enabled: true", "dynamic_data_masking_enabled: true"], "enable_materialized"),
        ("4.1", ["materialized_views_enabled: true", "commitlog_sync_period: 10s"], "dynamic_data_masking"),
        ("4.0", ["enable_materialized_views: true", "commitlog_sync_period_in_ms: 10000"], "materialized_views_e"),
    ],
)
def test_each_release_gets_its_own_keys(series: str, expected: list[str], absent: str) -> None:
    """Cassandra refuses to start on a key that it does not know."""
    lines = render(SandboxOptions(cassandra=series))
    assert set(expected) <= set(lines)
    assert not any(line.startswith(absent) for line in lines)


@pytest.mark.parametrize("key", ["commitlog_sync_period", "commitlog_sync_period_in_ms"])
def test_a_setting_replaces_ours_in_either_spelling(key: str) -> None:
    """Both spellings in one file would be an error."""
    lines = render(SandboxOptions(settings={key: "500"}))
    assert [line for line in lines if line.startswith("commitlog_sync_period")] == [f"{key}: 500"]


def test_nested_settings_are_indented() -> None:
    """Dots reach into a section."""
    lines = render(SandboxOptions(settings={"a.b": "1", "a.c.d": "[x, y]"}))
    start = lines.index("a:")
    assert lines[start : start + 4] == ["a:", "  b: 1", "  c:", "    d: [x, y]"]


def test_a_setting_cannot_be_a_value_and_a_section() -> None:
    """The message names the whole key."""
    with pytest.raises(UsageError, match=r"--set num_tokens\.x"):
        render(SandboxOptions(settings={"num_tokens.x": "1"}))


def test_only_a_joining_node_streams() -> None:
    """The first nodes have nobody to stream from."""
    assert "auto_bootstrap: false" in render(SandboxOptions())
    assert "auto_bootstrap: true" in render(SandboxOptions(), streams=True)


def test_passwords_are_asked_for_with_auth_only() -> None:
    """An open cluster is the default."""
    assert "authenticator: PasswordAuthenticator" in render(SandboxOptions(auth=True))
    assert not any("authenticator" in line for line in render(SandboxOptions()))


def test_everything_of_a_node_lies_below_its_directory(tmp_path: Path) -> None:
    """The rack file and both logging files are written; a quote in the path does no harm."""
    home = tmp_path / "it's here"
    options = SandboxOptions(racks=2)
    write_config(options, plan_cluster(options)[1], ["127.0.0.1:7000"], home, streams=False)
    assert (home / "conf" / "cassandra-rackdc.properties").read_text() == "dc=dc1\nrack=rack2\n"
    assert (
        f"commitlog_directory: '{tmp_path}/it''s here/data/commitlog'" in (home / "conf" / "cassandra.yaml").read_text()
    )
    assert (home / "conf" / "logback.xml").exists()
    assert (home / "conf" / "logback-tools.xml").exists()
