"""The command line: the only place that prints, reads signals and returns exit codes.

group.py       the group: commands loaded when used, errors as one line, exit codes
connection.py  the options that say how to reach the cluster
outputs.py     files and pipes the commands write to
ledger.py      the ledger, and the lock of one run at a time
telemetry.py   the metrics file and the event log
plugin.py      --nagios: one line and an exit code for every end
interrupt.py   Ctrl-C, SIGTERM and SIGHUP while a command is at work
signals.py     the same while it loads, asks or writes
serving.py     what a watch serves, and to whom
check.py, audit.py, explain.py, browse.py, history.py, watch.py, ...   one command each
"""

from __future__ import annotations

import sys

from consistency import __version__

try:
    import click

    from consistency.cli.group import LazyGroup
except KeyboardInterrupt:  # loading takes a moment: Ctrl-C ends it as quietly as it ends a command
    sys.stderr.write("interrupted\n")
    sys.exit(130)

COMMANDS = {
    "demo": "sandbox.demo:demo",
    "check": "consistency.cli.check:check",
    "audit": "consistency.cli.audit:audit",
    "compare": "consistency.cli.compare:compare",
    "cutover-check": "consistency.cli.cutover_check:cutover_check",
    "explain": "consistency.cli.explain:explain",
    "browse": "consistency.cli.browse:browse",
    "repair": "repair.cli.repair:repair",
    "sync": "repair.cli.sync:sync",
    "preflight": "consistency.cli.preflight:preflight",
    "ledger": "consistency.cli.merge:ledger",
    "history": "consistency.cli.history:history",
    "watch": "consistency.cli.watch:watch",
    "sandbox": "sandbox.cli:sandbox",
    "completion": "consistency.cli.completion:completion",
}
"""Where each command is; a command whose module does not exist is not listed."""

REPAIRER = "repair.cli.check"
"""Where `check --repair` hands over; a string, because the checker itself never writes to a cluster."""


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="consistency", message="%(prog)s %(version)s")
def main() -> None:
    """Prove that an Apache Cassandra cluster holds what it should.

    Reads every replica of every row and says which rows differ, who holds what and who is right. 'check',
    'watch', 'audit' and 'explain' never write to a cluster, unless --repair asks 'check' or 'watch' to.

    \b
    Examples:
      consistency check --hosts 10.0.0.1,10.0.0.2
      consistency check shop.orders --findings findings.jsonl --json report.json
      consistency explain findings.jsonl --row 1
      consistency browse findings.jsonl
      consistency audit
      consistency compare --hosts 10.0.0.1 --target-hosts 10.1.0.1

    \b
    Exit codes:
      0    consistent, and everything that was planned was read
      1    replicas differ, or a rule of replication is broken
      2    an option, a name or a file cannot be used
      3    incomplete: no difference was found, but not everything could be read
      4    could not run
      5    another run holds the lock
      130  interrupted

    \b
    Environment (options override it, it overrides files):
      CONSISTENCY_HOSTS, _PORT            the nodes to connect to first
      CONSISTENCY_USERNAME, _PASSWORD     the login; never an option
      CONSISTENCY_PASSWORD_FILE           a file that holds the password
      CONSISTENCY_TLS_CA_FILE             TLS: whom to trust
      CONSISTENCY_TLS_CERT_FILE, _TLS_KEY_FILE
                                          TLS: our own certificate
      CONSISTENCY_TLS_CHECK_HOSTNAME      false: do not compare host names
      CONSISTENCY_CONNECT_TIMEOUT         seconds to wait for a connection
      CONSISTENCY_PROTOCOL                native protocol: 4, 5; default: newest
      CONSISTENCY_CONFIG, _CQLSHRC        files: see --config and --cqlshrc
      CONSISTENCY_TARGET_HOSTS, _TARGET_PORT, ...
                                          the same of a second cluster: compare
      CONSISTENCY_LEDGER                  where runs are kept: 'check --ledger'
      CONSISTENCY_RUN                     the run that a part belongs to: --run
      CONSISTENCY_LOG                     json or console: see --log-format
      CONSISTENCY_LISTEN_TOKEN, _LISTEN_TOKEN_FILE
                                          who sees the page of 'watch'
      CONSISTENCY_WEBHOOK                 where 'watch' posts: its --webhook
      CONSISTENCY_WEBHOOK_SECRET, _WEBHOOK_SECRET_FILE
                                          what it signs with
      CONSISTENCY_DEBUG                   1: tracebacks of internal errors
      NO_COLOR                            no colours, even on a terminal
    """  # noqa: D301 - click wants the control character


__all__ = ["COMMANDS", "main"]
