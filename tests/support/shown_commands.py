"""Every command that README.md, deploy/README.md and docs/ show: who runs it, or why nobody does.

The pages that are run whole (`tests.support.how_to.PAGES`) answer for themselves, and for the same line elsewhere.
docs/reference is rendered from the code, docs/design tells what once was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.source import ROOT
from tests.support.how_to import PAGES, blocks

_PROGRAMS = (
    "apt apt-get ansible-playbook cat chmod cp cqlsh consistency curl docker docker-compose echo export git install "
    "journalctl kubectl make man mkdir nodetool openssl pip pip3 podman printf promtool python python3 scp ssh sudo "
    "systemctl systemd-analyze systemd-sysusers systemd-tmpfiles"
)
_PROGRAM = f"(?:{'|'.join(map(re.escape, _PROGRAMS.split()))})"
_LINE = re.compile(rf"^ {{4}}({_PROGRAM} .*)$", re.MULTILINE)
_FENCED = re.compile(r"^```(?:sh|bash|cron)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_IN_A_SENTENCE = re.compile(rf"(?<!`)`({_PROGRAM} [^`\n]*)`")
_PLACEHOLDER = re.compile(r"(?:^|[ :=@])[A-Z]{1,}\b")


@dataclass(frozen=True)
class Run:
    """Run by tests/cluster/test_pages.py on the tutorial's nodes, in the order of the table; ends with the code.

    `also` is typed at its end where a person would be asked.
    """

    code: int = 0
    also: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """Run by this test, in its own way."""

    test: str


@dataclass(frozen=True)
class NotRun:
    """Run by no test, for this reason."""

    reason: str


_CASSANDRA = NotRun("a command of Cassandra, named to compare with")
_TWO = NotRun("needs two clusters: tests/cluster/test_two_clusters.py does the same from Python")
_MACHINE = NotRun("changes the machine: tests/unit/test_deploy.py has systemd read the units")
_ENDLESS = NotRun("runs until it is stopped: docs/how-to/watch-beside-production.md, which is run, stops one")
_INDEX = NotRun("needs a package of this project in the index: the tutorial installs the extra from the clone")
_BASTION = NotRun("needs another machine: tests/unit/test_one_file.py runs the file on this one")

ACCOUNT: dict[str, Run | Elsewhere | NotRun] = {
    # With a row that one node alone holds.
    "consistency check --hosts 10.0.0.1,10.0.0.2 --findings findings.jsonl": Run(1),
    "consistency audit --hosts 10.0.0.1": Run(1),
    "consistency audit": Run(1),
    "consistency preflight 10.0.0.2 --hosts 10.0.0.1": Run(),
    "consistency check shop --findings findings.jsonl --max-findings 0": Run(1),
    "consistency repair plan findings.jsonl --print-nodetool": Run(),
    "consistency check shop.orders --findings findings.jsonl": Run(1),
    "consistency explain findings.jsonl --row 1": Run(1),
    "consistency repair plan --help": Run(),
    "consistency repair plan findings.jsonl -o plan.jsonl": Run(),
    "consistency repair show plan.jsonl --show-keys": Run(),
    "consistency repair apply plan.jsonl --journal journal.jsonl": Run(also="--yes"),
    # With the row on all of them.
    "consistency check --ledger /var/lib/consistency/ledger --run-time 3600 --quiet": Run(),
    "consistency check shop --repair --max-rows 500 --repair-time 600 --quiet": Run(),
    "mkdir parts": Run(),
    "consistency check shop --part 1/2 --run 2026-03-01 --ledger parts/1.ledger": Run(),
    "consistency check shop --part 2/2 --run 2026-03-01 --ledger parts/2.ledger": Run(),
    "consistency ledger merge parts/ --ledger shop.ledger --findings findings.jsonl": Run(),
    "consistency sandbox nodetool 1 -- status": Run(),
    "consistency sandbox status --json": Run(),
    "consistency preflight 10.0.0.1 --keyspace shop": Run(),
    "consistency preflight 10.0.0.1 --assume-settled": Run(),
    "openssl rand -hex 32 > token": Run(),
    # By tests of their own.
    "consistency audit --distribution --html data.html": Elsewhere("tests/cluster/test_distribution.py"),
    "make demo": NotRun("asserts its own story, step by step, in minutes; the tutorial tells the same one"),
    "make test": Elsewhere(".ci/run"),
    "make dist": Elsewhere("tests/unit/test_one_file.py"),
    "pip install .": Elsewhere("tests/cluster/test_compose.py"),
    "docker compose up -d --build --wait": Elsewhere("tests/cluster/test_compose.py"),
    "podman build -t cassandra-consistency -f deploy/Containerfile .": Elsewhere("tests/cluster/test_compose.py"),
    "docker build -t cassandra-consistency -f deploy/Containerfile .": Elsewhere("tests/cluster/test_compose.py"),
    "docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges:true cassandra-consistency check "
    "--hosts 10.0.0.1": Elsewhere("tests/cluster/test_compose.py"),
    "docker compose run --rm check shop": Elsewhere("tests/cluster/test_compose.py"),
    "docker compose -f docker-compose.yml -f tests/images/compose.host.yml up -d --build --wait watch": Elsewhere(
        "tests/cluster/test_compose.py"
    ),
    "docker compose -f docker-compose.yml -f tests/images/compose.host.yml run --rm check shop": Elsewhere(
        "tests/cluster/test_compose.py"
    ),
    "make containers": NotRun("is how tests/cluster/test_compose.py is run where no registry is reached"),
    "promtool test rules rules.test.yml": Elsewhere("tests/unit/test_alerts.py"),
    "consistency repair undo journal.jsonl": Elsewhere("tests/cluster/test_repair.py"),
    "consistency sandbox stop 3 --kill": Elsewhere("tests/sandbox/test_real_nodes.py"),
    "consistency sandbox up": Elsewhere("tests/cluster/test_pages.py"),
    "consistency sandbox down": Elsewhere("tests/cluster/test_pages.py"),
    # By nobody.
    "consistency explain shop.orders.jsonl --row 1 --config both.toml": Elsewhere(
        "tests/cluster/test_migration_page.py"
    ),
    "consistency sync plan shop.orders.jsonl -o sync.jsonl --config both.toml": Elsewhere(
        "tests/cluster/test_migration_page.py"
    ),
    (
        "consistency watch shop --target --config both.toml --ledger /var/lib/consistency/ledger"
        " --findings-dir /var/lib/consistency"
    ): Elsewhere("tests/cluster/test_target_watch.py"),
    "consistency watch --listen 127.0.0.1:9477 --ledger /var/lib/consistency/ledger": _ENDLESS,
    "consistency watch shop --hook /usr/local/bin/page-someone --hook-env PAGER_KEY --hook-env https_proxy": _ENDLESS,
    "consistency watch shop --listen 0.0.0.0:9477 --listen-token-file token": NotRun(
        "listens on every address of the machine: tests/unit/test_live_page.py has the rules of the token"
    ),
    "consistency compare shop --hosts 10.0.0.1 --target-hosts 10.1.0.1": _TWO,
    "consistency compare shop --hosts 10.0.0.1 --target-hosts 10.1.0.1 --findings differing.jsonl": _TWO,
    "consistency compare shop --config both.toml --findings differing.jsonl": _TWO,
    "consistency compare shop --config both.toml": _TWO,
    "consistency sync plan differing.jsonl -o sync.jsonl --config both.toml": _TWO,
    "consistency sync apply sync.jsonl --journal journal.jsonl --config both.toml": _TWO,
    "consistency explain differing.jsonl --row 3 --hosts 10.0.0.1 --target-hosts 10.1.0.1": _TWO,
    "consistency cutover-check shop --hosts 10.0.0.1 --target-hosts 10.1.0.1": _TWO,
    "consistency cutover-check shop --config both.toml --ledger /var/lib/consistency/ledger --max-age 1h": Elsewhere(
        "tests/cluster/test_target_watch.py"
    ),
    "scp dist/consistency.pyz bastion:": _BASTION,
    "ssh -t bastion ./consistency.pyz check --hosts 10.0.0.1 --findings findings.jsonl": _BASTION,
    "ssh -t bastion ./consistency.pyz browse findings.jsonl": _BASTION,
    "ssh -t bastion ./consistency.pyz repair plan findings.jsonl -o plan.jsonl --hosts 10.0.0.1": _BASTION,
    "man -l docs/reference/consistency.1": NotRun("needs a pager: tests/house holds the page to the code"),
    "pip install 'cassandra-consistency[dask]'": _INDEX,
    "pip install 'cassandra-consistency[sandbox]'": _INDEX,
    "nodetool repair --preview": _CASSANDRA,
    "nodetool repair --full": _CASSANDRA,
    "nodetool repair --full -st -9223372036854775808 -et -8454757700450211158 shop orders": NotRun(
        "is what --print-nodetool prints: tests/unit/test_range_findings.py reads it"
    ),
    "kubectl apply -k deploy/kubernetes": NotRun("needs Kubernetes: tests/unit/test_deploy.py reads the manifests"),
    "ansible-playbook -i inventory deploy/ansible/site.yml": _MACHINE,
    "python3 -m venv /opt/consistency && /opt/consistency/bin/pip install .": _MACHINE,
    "install -m 0644 deploy/systemd/*.service deploy/systemd/*.timer /etc/systemd/system/": _MACHINE,
    "install -m 0644 deploy/systemd/consistency.sysusers /etc/sysusers.d/consistency.conf": _MACHINE,
    "install -m 0644 deploy/systemd/consistency.tmpfiles /etc/tmpfiles.d/consistency.conf": _MACHINE,
    "install -d /etc/consistency": _MACHINE,
    r"printf 'CONSISTENCY_HOSTS=10.0.0.1\nCONSISTENCY_USERNAME=checker\n' > /etc/consistency/environment": _MACHINE,
    "install -m 0600 /dev/stdin /etc/consistency/password": _MACHINE,
    "systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload": _MACHINE,
    "systemctl start consistency-check && journalctl -u consistency-check -o cat": _MACHINE,
    "systemctl enable --now consistency-check.timer": _MACHINE,
    "systemctl list-timers consistency-check.timer": _MACHINE,
    "systemctl status consistency-check.service": _MACHINE,
    "journalctl -u consistency-check": _MACHINE,
}
"""By the command as it is shown, without its comment."""


def shown_commands() -> Iterator[tuple[str, str]]:
    """Yield page and command of every line of code that begins with a program, and of those quoted in a sentence.

    In a sentence two words, words alone, or a command with a placeholder in capitals, are a mention.
    """
    whole = {(ROOT / "docs" / "how-to" / page).resolve() for page in PAGES}
    pages = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in pages:
        page = str(path.relative_to(ROOT))
        if page.startswith(("docs/reference/", "docs/design/")):
            continue
        text = path.read_text(encoding="utf-8")
        code = [] if path in whole else ["\n".join(_FENCED.findall(text)).replace("\n", "\n    ")]
        for line in _LINE.findall("\n".join([*code, text])):
            yield page, without_comment(line)
        for quoted in _IN_A_SENTENCE.findall(text):
            typed = len(quoted.split()) > 2 and re.search(r"[^a-z ]", quoted)
            if typed and not _PLACEHOLDER.search(quoted):
                yield page, quoted


def run_by_a_page() -> set[str]:
    """Return the lines of the pages that are run whole."""
    return {without_comment(line) for page in PAGES for block in blocks(page) for line in block.splitlines()}


def without_comment(line: str) -> str:
    """Return a command without what is said of it."""
    return re.sub(r"\s+#.*", "", line).strip()
