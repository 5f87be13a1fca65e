"""The Java command lines, as short as Cassandra allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.naming import FACTORY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sandbox.class_data import ClassData
    from sandbox.options import SandboxOptions

DAEMON = "org.apache.cassandra.service.CassandraDaemon"
NODETOOL = "org.apache.cassandra.tools.NodeTool"

INITIAL_HEAP_MB = 256

EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
)
OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)


@dataclass(frozen=True)
class Runtime:
    """What runs the nodes and nodetool: the Java program, the class path, our class for nodetool, classes as read."""

    java: Path
    jars: tuple[Path, ...]
    naming: Path
    class_data: ClassData


def module_flags() -> list[str]:
    """Let Cassandra reach the JDK internals it uses."""
    exports = [f"--add-exports={package}=ALL-UNNAMED" for package in EXPORTS]
    return exports + [f"--add-opens={package}=ALL-UNNAMED" for package in OPENS]


def daemon_command(
    runtime: Runtime, options: SandboxOptions, home: Path, jmx_port: int, extra: Iterable[str]
) -> list[str]:
    """Build the command that runs one node."""
    conf = home / "conf"
    # Named by property, so that the class path is the same for every node.
    return [
        str(runtime.java),
        f"-Xms{min(options.heap_mb, INITIAL_HEAP_MB)}m",
        f"-Xmx{options.heap}",
        "-Xss512k",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        *runtime.class_data.flags,
        *module_flags(),
        "-Djava.net.preferIPv4Stack=true",
        "-Djdk.attach.allowAttachSelf=true",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        f"-Djna.tmpdir={home / 'tmp'}",
        f"-Dcassandra.config={(conf / 'cassandra.yaml').as_uri()}",
        f"-Dcassandra-rackdc.properties={(conf / 'cassandra-rackdc.properties').as_uri()}",
        f"-Dlogback.configurationFile={conf / 'logback.xml'}",
        f"-Dcassandra.logdir={home / 'logs'}",
        f"-Dcassandra.storagedir={home / 'data'}",
        f"-Dcassandra.jmx.local.port={jmx_port}",
        "-Dcassandra-foreground=yes",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.superuser_setup_delay_ms=0",
        # Cassandra's own; else it follows the ring delay: a slow starter is forgotten after a second, again and again,
        # and sometimes its schema is not fetched afterwards.
        "-Dcassandra.gossip_quarantine_delay_ms=60000",
        # The time as it is: half of an idle node's work is a task that looks at the clock 500 times a second for all.
        "-Dcassandra.monotonic_clock.approx=org.apache.cassandra.utils.MonotonicClock$SystemClock",
        # How much memory a row costs is estimated from so many; the default, 100,000, takes a third of a node's start.
        "-Dcassandra.memtable_row_overhead_computation_step=1000",
        # A node that missed a schema change fetches it after this time; the default is a minute.
        "-Dcassandra.migration_delay_ms=1000",
        "-Dcassandra.shutdown_announce_in_ms=500",
        f"-Dcassandra.enable_nodelocal_queries={'true' if options.node_local else 'false'}",
        *extra,
        *options.jvm_opts,
        "-cp",
        ":".join(str(jar) for jar in runtime.jars),
        DAEMON,
    ]


def nodetool_command(runtime: Runtime, home: Path, jmx_port: int, args: Iterable[str]) -> list[str]:
    """Build the command that runs nodetool against the node behind `jmx_port`."""
    return [
        str(runtime.java),
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        *runtime.class_data.flags,
        *module_flags(),
        "-Djava.net.preferIPv4Stack=true",
        f"-Djava.naming.factory.initial={FACTORY}",
        f"-Dlogback.configurationFile={home / 'conf' / 'logback-tools.xml'}",
        # Its history file goes into the sandbox, not into the user's home.
        f"-Duser.home={home}",
        "-cp",
        ":".join(str(path) for path in (*runtime.jars, runtime.naming)),
        NODETOOL,
        "-h",
        "127.0.0.1",
        "-p",
        str(jmx_port),
        *args,
    ]
