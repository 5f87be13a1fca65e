"""The files a node reads when it starts: cassandra.yaml, the rack file, and logback.xml.

cassandra-all carries no cassandra.yaml; every key left out here keeps Cassandra's own default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from sandbox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandbox.layout import NodePlace
    from sandbox.options import SandboxOptions

# A leaf is YAML text, written as it is: `--set` values need no YAML parser that way.
Yaml = dict[str, Union[str, "Yaml"]]

# The key and value in 4.1 and later, and in 4.0.
RENAMED = (
    ("commitlog_sync_period", "10s", "commitlog_sync_period_in_ms", "10000"),
    ("file_cache_size", "64MiB", "file_cache_size_in_mb", "64"),
    ("materialized_views_enabled", "true", "enable_materialized_views", "true"),
)
ONLY_5_0 = {"dynamic_data_masking_enabled": "true"}
AUTH = {"authenticator": "PasswordAuthenticator", "authorizer": "CassandraAuthorizer"}

LOGBACK = """\
<configuration scan="false">
  <appender name="FILE" class="ch.qos.logback.core.rolling.RollingFileAppender">
    <file>${cassandra.logdir}/system.log</file>
    <rollingPolicy class="ch.qos.logback.core.rolling.FixedWindowRollingPolicy">
      <fileNamePattern>${cassandra.logdir}/system.log.%i</fileNamePattern>
      <minIndex>1</minIndex>
      <maxIndex>3</maxIndex>
    </rollingPolicy>
    <triggeringPolicy class="ch.qos.logback.core.rolling.SizeBasedTriggeringPolicy">
      <maxFileSize>20MB</maxFileSize>
    </triggeringPolicy>
    <encoder>
      <pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern>
    </encoder>
  </appender>
  <!-- Says when another node's tokens are known, which nothing at INFO does. -->
  <logger name="org.apache.cassandra.service.StorageService" level="DEBUG"/>
  <root level="INFO">
    <appender-ref ref="FILE"/>
  </root>
</configuration>
"""

LOGBACK_TOOLS = """\
<configuration scan="false">
  <appender name="STDERR" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder>
      <pattern>%-5level %msg%n</pattern>
    </encoder>
  </appender>
  <root level="WARN">
    <appender-ref ref="STDERR"/>
  </root>
</configuration>
"""


def write_config(options: SandboxOptions, place: NodePlace, seeds: Iterable[str], home: Path, *, streams: bool) -> None:
    """Write the configuration of one node below its directory."""
    conf = home / "conf"
    for directory in (conf, home / "data", home / "logs", home / "tmp"):
        directory.mkdir(parents=True, exist_ok=True)
    yaml = render_yaml(options, place, seeds, home / "data", streams=streams)
    (conf / "cassandra.yaml").write_text(yaml, encoding="utf-8")
    rack = f"dc={place.dc}\nrack={place.rack}\n"
    (conf / "cassandra-rackdc.properties").write_text(rack, encoding="utf-8")
    (conf / "logback.xml").write_text(LOGBACK, encoding="utf-8")
    (conf / "logback-tools.xml").write_text(LOGBACK_TOOLS, encoding="utf-8")


def render_yaml(options: SandboxOptions, place: NodePlace, seeds: Iterable[str], data: Path, *, streams: bool) -> str:
    """Render cassandra.yaml for one node; `streams` makes it stream its ranges from the others first."""
    tree = _base(options, place, seeds, data)
    tree["auto_bootstrap"] = "true" if streams else "false"
    for key, value, key_4_0, value_4_0 in RENAMED:
        name, text = (key, value) if options.version.has_unit_suffixes else (key_4_0, value_4_0)
        # Cassandra refuses a file that spells one setting in both ways.
        if not {key, key_4_0} & options.settings.keys():
            tree[name] = text
    if options.version.series == "5.0":
        tree.update(ONLY_5_0)
    if options.auth:
        tree.update(AUTH)
    for key, value in options.settings.items():
        _set(tree, key, value)
    return "\n".join(_lines(tree, "")) + "\n"


def _base(options: SandboxOptions, place: NodePlace, seeds: Iterable[str], data: Path) -> Yaml:
    return {
        "cluster_name": quote(f"sandbox {options.address_base}:{options.port}"),
        "num_tokens": str(options.num_tokens),
        "initial_token": quote(",".join(str(token) for token in place.tokens)),
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "GossipingPropertyFileSnitch",
        "listen_address": place.address,
        "storage_port": str(place.storage_port),
        "rpc_address": place.address,
        "native_transport_port": str(place.port),
        "seed_provider": (
            "[{class_name: org.apache.cassandra.locator.SimpleSeedProvider, "
            f"parameters: [{{seeds: {quote(','.join(seeds))}}}]}}]"
        ),
        "data_file_directories": f"[{quote(data / 'data')}]",
        "commitlog_directory": quote(data / "commitlog"),
        "hints_directory": quote(data / "hints"),
        "saved_caches_directory": quote(data / "saved_caches"),
        "cdc_raw_directory": quote(data / "cdc_raw"),
        "commitlog_sync": "periodic",
        "memtable_allocation_type": "heap_buffers",
        # Tests DROP and TRUNCATE all the time, and a snapshot for each would fill the disk.
        "auto_snapshot": "false",
    }


def quote(value: object) -> str:
    """Quote as a YAML string without special characters."""
    return "'" + str(value).replace("'", "''") + "'"


def _set(tree: Yaml, dotted: str, value: str) -> None:
    *parents, leaf = dotted.split(".")
    for name in parents:
        child = tree.setdefault(name, {})
        if isinstance(child, str):
            msg = f"--set {dotted}: {name} already has the value {child}"
            raise UsageError(msg)
        tree = child
    tree[leaf] = value


def _lines(tree: Mapping[str, str | Yaml], indent: str) -> Iterable[str]:
    for key, value in tree.items():
        if isinstance(value, str):
            yield f"{indent}{key}: {value}"
        else:
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
