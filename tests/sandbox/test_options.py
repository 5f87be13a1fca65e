"""What may be asked for, and how a refusal names the option at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import UsageError
from sandbox.options import SandboxOptions, parse_dcs, parse_setting


def test_dcs_are_read_in_order() -> None:
    """The order matters: it decides which addresses a data centre gets."""
    assert list(parse_dcs("dc2=1, dc1=3").items()) == [("dc2", 1), ("dc1", 3)]


@pytest.mark.parametrize("text", ["dc1", "dc1=", "=3", "dc1=3,,dc2=1", "dc1=3;dc2=1", "dc1=3,dc1=2", "dc 1=2"])
def test_malformed_dcs_are_refused(text: str) -> None:
    """The message repeats what was typed."""
    with pytest.raises(UsageError, match="--dcs"):
        parse_dcs(text)


def test_a_setting_keeps_its_value_as_typed() -> None:
    """Everything behind the first equals sign is YAML."""
    assert parse_setting("a.b = {c: 'x=y'}") == ("a.b", "{c: 'x=y'}")


@pytest.mark.parametrize("text", ["novalue", "=1", "key=", "a b=1", "a: 1\nb=2", "key=1\nother: 2"])
def test_a_setting_that_would_break_the_file_is_refused(text: str) -> None:
    """A line break or a strange key never reaches cassandra.yaml."""
    with pytest.raises(UsageError, match="--set"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"nodes": 0}, "--nodes 0"),
        ({"nodes": 31}, "--nodes 31"),
        ({"dcs": {"dc1": 0, "dc2": 2}}, "--dcs"),
        ({"racks": 0}, "--racks 0"),
        ({"num_tokens": 0}, "--num-tokens 0"),
        ({"address_base": "10.0.0.1"}, "--address-base 10.0.0.1"),
        ({"address_base": "localhost"}, "--address-base localhost"),
        ({"address_base": "127.255.255.254"}, "--address-base 127.255.255.254"),
        ({"heap": "1gb"}, "--heap 1gb"),
        ({"heap": "100m"}, "--heap 100m"),
        ({"cassandra": "3.11"}, "--cassandra 3.11"),
        ({"port": 80}, "--port 80"),
        ({"storage_port": 70000}, "--storage-port 70000"),
        ({"port": 7001, "one_address": True}, "--port 7001 and --storage-port 7000 overlap"),
    ],
)
def test_impossible_options_name_themselves(given: dict[str, Any], option: str) -> None:
    """Each refusal starts with the option and its value."""
    with pytest.raises(UsageError, match=option):
        SandboxOptions(**given)


def test_options_survive_the_state_file() -> None:
    """What is written comes back equal."""
    options = SandboxOptions(
        dir=Path("/x"), dcs={"dc1": 2}, settings={"a": "1"}, jvm_opts=("-Da=b",), java_home=Path("/java")
    )
    assert SandboxOptions.from_json(options.to_json()) == options


def test_a_release_stands_for_its_series() -> None:
    """Both spellings mean the one pinned release."""
    assert SandboxOptions(cassandra="4.1.10").version is SandboxOptions(cassandra="4.1").version
