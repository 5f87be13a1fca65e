"""The `sandbox` commands."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError, UsageError
from sandbox.options import DEFAULT_DIR, SandboxOptions, parse_dcs, parse_setting
from sandbox.state import load_state
from sandbox.versions import RELEASES, SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.status import SandboxStatus

INTERRUPTED = 130

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIR,
    show_default=True,
    help="Where the sandbox keeps its data, logs and state.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the sandbox as JSON.")


class SandboxGroup(click.Group):
    """Turns our errors into one line and their exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the commands in the order in which they are used."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; any interrupt first stops what the command started."""
        try:
            with _interruptible():
                return super().invoke(ctx)
        except SandboxError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a command as cleanly as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    former = [signal.signal(number, _interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@click.group(
    cls=SandboxGroup,
    short_help="Run a real Cassandra cluster on this machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def sandbox() -> None:
    """Run a real Cassandra cluster on this machine's loopback addresses.

    It needs only Python packages: Cassandra's jars and a Java runtime are downloaded once, checked against the
    sums that ship with this program, and kept in $CONSISTENCY_CACHE (else $XDG_CACHE_HOME/consistency, else
    ~/.cache/consistency). Every node is its own Java process and listens on loopback only. The nodes keep
    running after 'up' until 'down'.

    \b
    Examples:
      consistency sandbox up                      three nodes on 127.0.0.1 to 3
      consistency sandbox up --dcs dc1=3,dc2=2    two data centres
      consistency sandbox stop 3 --kill           kill node 3 without a shutdown
      consistency sandbox start 3                 start it again with its own data
      consistency sandbox nodetool 1 -- status
      consistency sandbox down --delete           stop, and remove the data

    \b
    Exit codes:
      0 done · 2 an option is wrong · 4 could not run · 130 interrupted
      (nodetool: its own exit code)
    """  # noqa: D301 - \b is click's own mark


@sandbox.command(short_help="Start a cluster, or those of its nodes that are down.")
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes, in one data centre dc1.")
@click.option("--dcs", metavar="DC=N,...", help="Data centres and their nodes, for example dc1=3,dc2=2.")
@click.option("--racks", type=int, default=1, show_default=True, help="Racks per data centre, filled in turn.")
@click.option(
    "--cassandra",
    metavar="|".join(SERIES),
    default="5.0",
    show_default=True,
    help="Which Cassandra: "
    + ", ".join(f"{v.series} is {v.release}" for v in SERIES.values())
    + ". A release may be named too: "
    + ", ".join(v.release for v in RELEASES)
    + ".",
)
@click.option(
    "--node-local/--no-node-local",
    default=True,
    show_default=True,
    help="Whether the nodes accept the consistency level NODE_LOCAL.",
)
@dir_option
@click.option(
    "--address-base",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address of node 1; the others follow.",
)
@click.option("--one-address", is_flag=True, help="All nodes on one address, with ports that count up instead.")
@click.option("--port", type=int, default=9042, show_default=True, help="CQL port (of node 1 with --one-address).")
@click.option(
    "--storage-port",
    type=int,
    default=7000,
    show_default=True,
    help="Port for traffic between nodes (of node 1 with --one-address).",
)
@click.option("--num-tokens", type=int, default=16, show_default=True, help="Tokens per node.")
@click.option("--heap", metavar="SIZE", default="1g", show_default=True, help="Heap of each node, as 512m or 1g.")
@click.option(
    "--java-home",
    type=click.Path(path_type=Path),
    help="A Java of your own, 17 for Cassandra 5.0 and 11 for 4.x (also from $CONSISTENCY_JAVA_HOME).",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A line of cassandra.yaml. Repeatable.")
@click.option("--jvm-opt", "jvm_opts", multiple=True, metavar="OPT", help="One more option for Java. Repeatable.")
@click.option("--auth", is_flag=True, help="Require logins and permissions (first user: cassandra/cassandra).")
@click.option(
    "--timeout",
    "start_timeout_s",
    metavar="SECONDS",
    type=float,
    default=300.0,
    show_default=True,
    help="How long to wait for the nodes.",
)
@json_option
@click.pass_context
def up(ctx: click.Context, /, *, directory: Path, as_json: bool, **given: Any) -> None:
    """Start a cluster, or those of its nodes that are not running.

    A new directory gets a new cluster. In the directory of an existing cluster, its stopped nodes start again with
    their own data, and new ones join if --nodes or --dcs asks for more. Options that are left out stay as they
    were.

    \b
    --set takes any key of cassandra.yaml; dots reach into sections:
      consistency sandbox up --set hinted_handoff_enabled=false
      consistency sandbox up --set client_encryption_options.enabled=false
    --jvm-opt takes what Java takes (write it with an equals sign):
      consistency sandbox up --jvm-opt=-XX:TieredStopAtLevel=1

    \b
    A second sandbox beside the first:
      consistency sandbox up --dir other --address-base 127.0.1.1
    Where only 127.0.0.1 exists (macOS, some containers):
      consistency sandbox up --one-address
    """  # noqa: D301 - \b is click's own mark
    explicit = {name: value for name, value in given.items() if _was_given(ctx, name)}
    options = _merge(directory.absolute(), explicit)
    box = Sandbox(options)
    show = Progress()
    box.up(show)
    show.done()
    _print_status(box.status(), as_json=as_json)


@sandbox.command()
@dir_option
@click.option("--delete", is_flag=True, help="Remove the data and logs too.")
@click.option("--kill", is_flag=True, help="Kill the nodes at once, without a clean shutdown.")
def down(*, directory: Path, delete: bool, kill: bool) -> None:
    """Stop every node. The data stays for the next 'up' unless --delete is given."""
    box = Sandbox.attach(directory)
    count = box.down(how="kill" if kill else "term", delete=delete)
    click.echo(f"stopped {count} node{'' if count == 1 else 's'}" if count else "nothing was running")


@sandbox.command()
@dir_option
@json_option
def status(*, directory: Path, as_json: bool) -> None:
    """Show every node: up, starting, frozen or down."""
    _print_status(Sandbox.attach(directory).status(), as_json=as_json)


@sandbox.command()
@click.argument("n", type=int)
@dir_option
@click.option("--kill", "how", flag_value="kill", help="SIGKILL: it ends without telling the others.")
@click.option("--freeze", "how", flag_value="freeze", help="SIGSTOP: it runs but is silent; 'start' wakes it.")
def stop(*, n: int, directory: Path, how: Any) -> None:
    """Stop node N cleanly, or as --kill or --freeze says."""
    Sandbox.attach(directory).stop(n, how or "term")


@sandbox.command(short_help="Start node N with its own data, or wake it.")
@click.argument("n", type=int)
@dir_option
def start(*, n: int, directory: Path) -> None:
    """Start node N with its own data, or wake it, and wait until all running nodes see it up."""
    show = Progress()
    Sandbox.attach(directory).start(n, show)
    show.done()


@sandbox.command()
@dir_option
@click.option("--dc", metavar="DC", help="Data centre of the new node; by default that of node 1.")
@click.option(
    "--stream/--no-stream",
    default=True,
    show_default=True,
    help="Whether it streams the rows of its ranges from the others.",
)
@click.option("--jvm-opt", "jvm_opts", multiple=True, metavar="OPT", help="One more option for Java. Repeatable.")
@json_option
def add(*, directory: Path, dc: str | None, stream: bool, jvm_opts: tuple[str, ...], as_json: bool) -> None:
    """Let one more node join the running cluster.

    It waits for Cassandra's own ring delay (30 s) and streams its ranges from the others. With --no-stream it
    owns its ranges at once but holds none of their rows.
    """
    box = Sandbox.attach(directory)
    show = Progress()
    box.add(dc, stream=stream, jvm_opts=jvm_opts, progress=show)
    show.done()
    _print_status(box.status(), as_json=as_json)


@sandbox.command(short_help="Take node N out for good: it hands its data over.")
@click.argument("n", type=int)
@dir_option
@click.option("--force", is_flag=True, help="Even if fewer nodes remain than a keyspace has replicas.")
def remove(*, n: int, directory: Path, force: bool) -> None:
    """Take node N out for good: it hands its data over (nodetool decommission), stops, and is forgotten."""
    show = Progress()
    Sandbox.attach(directory).remove(n, force=force, progress=show)
    show.done()


@sandbox.command(context_settings={"ignore_unknown_options": True})
@click.argument("n", type=int)
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED)
@dir_option
@click.pass_context
def nodetool(ctx: click.Context, /, *, n: int, args: tuple[str, ...], directory: Path) -> None:
    """Run Cassandra's nodetool against node N.

    \b
    Examples:
      consistency sandbox nodetool 1 -- status
      consistency sandbox nodetool 2 -- repair --full ks t
    """  # noqa: D301 - \b is click's own mark
    done = Sandbox.attach(directory).nodetool(n, *args, capture=False)
    ctx.exit(done.returncode)


class Progress:
    """Shows progress: on one line of a terminal, else as separate lines."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._width = 0

    def __call__(self, message: str) -> None:
        """Show one message."""
        if self._live:
            click.echo("\r" + message.ljust(self._width), nl=False, err=True)
            self._width = len(message)
        else:
            click.echo(message, err=True)

    def done(self) -> None:
        """Clear the line."""
        if self._live and self._width:
            click.echo("\r" + " " * self._width + "\r", nl=False, err=True)


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def _merge(directory: Path, given: dict[str, Any]) -> SandboxOptions:
    """Merge the given options over those stored in the directory."""
    values = dict(given)
    if "dcs" in values:
        values["dcs"] = parse_dcs(values["dcs"])
    if "settings" in values:
        values["settings"] = dict(parse_setting(text) for text in values["settings"])
    state = load_state(directory)
    if state is None or not state.formed:
        return SandboxOptions(dir=directory, **values)
    if "nodes" in values and state.options.dcs:
        raise UsageError("--nodes: this sandbox has named data centres; say how many of each with --dcs")
    return replace(state.options, tied=False, **values)


def _print_status(current: SandboxStatus, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_plain(current), indent=2))
        return
    click.echo(f"Cassandra {current.cassandra} in {current.dir}")
    for node in current.nodes:
        pid = f"pid {node.pid}" if node.pid else ""
        click.echo(f"  node {node.n}  {node.endpoint:<21}  {node.dc} {node.rack}  {node.state:<8}  {pid}".rstrip())
    click.echo(f"--hosts {','.join(current.hosts)} --port {current.port}")


def _as_plain(current: SandboxStatus) -> dict[str, Any]:
    return {
        "dir": str(current.dir),
        "cassandra": current.cassandra,
        "hosts": ",".join(current.hosts),
        "port": current.port,
        "node_local": current.node_local,
        "nodes": [
            {
                "n": node.n,
                "address": node.address,
                "port": node.port,
                "storage_port": node.storage_port,
                "jmx_port": node.jmx_port,
                "dc": node.dc,
                "rack": node.rack,
                "state": node.state,
                "pid": node.pid,
                "log": str(node.log),
                "data": str(node.data),
            }
            for node in current.nodes
        ],
    }
