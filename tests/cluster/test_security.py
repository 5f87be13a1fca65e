"""Logins, TLS, a role of few rights, and what must never be shown: values, keys, secrets, terminal escapes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from consistency.cli import main
from consistency.model.reading import Route
from consistency.results.findings import read_findings
from tests.support.addresses import address
from tests.support.certificates import Authority
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster
from tests.support.forwarder import Forwarder
from tests.support.processes import Checker
from tests.unit.test_hooks import Receiver

pytestmark = pytest.mark.cluster

CANARY = "canary7f3a"
PASSWORD = "secret canary7f3a word"
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def shop(guarded_cluster: RunningCluster) -> Iterator[RunningCluster]:
    """A keyspace with one damaged table, and a role that holds exactly what README.md says a checker needs."""
    cluster = guarded_cluster
    cluster.keyspace("shop")
    cluster.ddl(
        "CREATE TABLE shop.orders (id int PRIMARY KEY, v text)",
        "CREATE TABLE shop.clean (id int PRIMARY KEY, v text)",
        f"CREATE ROLE IF NOT EXISTS checker WITH LOGIN = true AND PASSWORD = '{PASSWORD}'",
    )
    for grant in documented_grants():
        cluster.ddl(grant)
    for table in ("orders", "clean"):
        cluster.load(f"INSERT INTO shop.{table} (id, v) VALUES (?, ?)", ((i, "v") for i in range(200)))
    cluster.on(1, "DELETE FROM shop.orders WHERE id = 7")

    def may_read() -> bool:
        done = cluster.command("check", "shop.clean", user="checker", password=PASSWORD)
        return done.returncode == 0

    eventually(may_read, 60, "the grants' arrival on every node")
    yield cluster
    cluster.ddl("DROP KEYSPACE shop", "DROP ROLE checker")


def documented_grants() -> list[str]:
    """Return the GRANT statements of README.md, as an operator would copy them."""
    text = README.read_text(encoding="utf-8")
    return re.findall(r"^ {4}(GRANT [^;]+);", text, re.MULTILINE)


def test_a_role_of_the_documented_rights_checks_and_audits(shop: RunningCluster) -> None:
    """The GRANTs of README.md and nothing else: both localities, `audit`, and no complaint of a permission."""
    assert len(documented_grants()) == 3
    for locality in ("node-local", "traced"):
        done = shop.command("check", "shop", "--locality", locality, user="checker", password=PASSWORD)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "permission" not in (done.stdout + done.stderr).lower()
    audit = shop.command("audit", "shop", user="checker", password=PASSWORD)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert PASSWORD not in done.stdout + done.stderr + audit.stdout + audit.stderr


def test_a_role_of_the_documented_rights_repairs_and_one_without_is_told_which_it_lacks(
    shop: RunningCluster, tmp_path: Path
) -> None:
    """The checker finds and plans, and may not write; the repairer of README.md writes; then all is consistent.

    Where servers merge the copies of a row that is read at ALL nobody needs to write, which this table forbids.
    """
    shop.ddl(f"CREATE ROLE IF NOT EXISTS repairer WITH LOGIN = true AND PASSWORD = '{PASSWORD}'")
    (modify,) = re.findall(r"`(GRANT MODIFY [^`]+)`", README.read_text(encoding="utf-8"))
    for grant in (*(g.replace(" TO checker", " TO repairer") for g in documented_grants()), modify):
        shop.ddl(grant)
    shop.ddl("CREATE TABLE shop.mended (id int PRIMARY KEY, v text) WITH read_repair = 'NONE'")
    shop.load("INSERT INTO shop.mended (id, v) VALUES (?, ?)", ((i, "v") for i in range(50)))
    shop.on(1, "DELETE FROM shop.mended WHERE id = 7")
    findings, made, journal = (str(tmp_path / name) for name in ("findings.jsonl", "plan.jsonl", "journal.jsonl"))
    as_checker = {"user": "checker", "password": PASSWORD}

    def permitted() -> bool:
        words = ("check", "shop.mended", "--findings", findings, "--settle", "0.3")
        return all(shop.command(*words, user=u, password=PASSWORD).returncode == 1 for u in ("checker", "repairer"))

    eventually(permitted, 60, "the grants' arrival on every node")
    planned = shop.command("repair", "plan", findings, "-o", made, "--settle", "0.3", **as_checker)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    refused = shop.command("repair", "apply", made, "--journal", str(tmp_path / "refused.jsonl"), "--yes", **as_checker)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "MODIFY" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    applied = shop.command("repair", "apply", made, "--journal", journal, "--yes", user="repairer", password=PASSWORD)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    again = shop.command("check", "shop.mended", **as_checker)
    assert again.returncode == 0, again.stdout + again.stderr
    for done in (planned, refused, applied, again):
        assert PASSWORD not in done.stdout + done.stderr
    shop.ddl("DROP ROLE repairer")


@pytest.mark.parametrize("source", ["environment", "file", "toml", "cqlshrc", "credentials"])
def test_a_secret_comes_from_the_environment_or_a_file(shop: RunningCluster, tmp_path: Path, source: str) -> None:
    """Each documented place of a password logs in; none of them shows it, nor does the process's command line."""
    file = tmp_path / "secret"
    login = {"username": "checker", "password": PASSWORD}
    ini = "\n".join(f"{key} = {value}" for key, value in login.items())
    environ: dict[str, str] = {}
    if source == "environment":
        environ = {f"CONSISTENCY_{key.upper()}": value for key, value in login.items()}
    elif source == "file":
        file.write_text(PASSWORD + "\n")
        environ = {"CONSISTENCY_USERNAME": "checker", "CONSISTENCY_PASSWORD_FILE": str(file)}
    elif source == "toml":
        file.write_text("[connection]\n" + "\n".join(f'{key} = "{value}"' for key, value in login.items()))
        file.chmod(0o600)
        environ = {"CONSISTENCY_CONFIG": str(file)}
    elif source == "cqlshrc":
        file.write_text(f"[authentication]\n{ini}\n")
        environ = {"CONSISTENCY_CQLSHRC": str(file)}
    else:
        (tmp_path / "credentials").write_text(f"[PlainTextAuthProvider]\n{ini}\n")
        file.write_text(f"[authentication]\ncredentials = {tmp_path / 'credentials'}\n")
        environ = {"CONSISTENCY_CQLSHRC": str(file)}
    base = {k: v for k, v in shop.environ().items() if k not in ("CONSISTENCY_USERNAME", "CONSISTENCY_PASSWORD")}
    done = subprocess.run(
        [sys.executable, "-m", "consistency", "check", "shop.clean"],
        env={**base, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_tls_with_an_authority_that_is_trusted_and_one_that_is_not(
    shop: RunningCluster, authority: Authority, tmp_path: Path
) -> None:
    """The right authority: checked. Another one: one line, exit 4, and nothing was sent in the clear instead."""
    trusted = shop.environ() | {"CONSISTENCY_TLS_CA_FILE": str(authority.ca_file)}
    other = shop.environ() | {"CONSISTENCY_TLS_CA_FILE": str(Authority.create(tmp_path, "stranger").ca_file)}
    assert run("check", "shop.clean", environ=trusted).returncode == 0
    refused = run("check", "shop.clean", environ=other)
    assert refused.returncode == 4, refused.stdout + refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "ertificate" in refused.stderr


def test_tls_wants_the_name_that_it_connects_to(shop: RunningCluster, authority: Authority) -> None:
    """A node met at an address that its certificate does not hold: one line with what it holds and the ways out."""
    environ = shop.environ() | {"CONSISTENCY_TLS_CA_FILE": str(authority.ca_file)}
    base, _, _ = shop.hosts[0].rpartition(".")
    elsewhere = f"{base}.9"
    with Forwarder(elsewhere, lambda _: shop.points[0]) as balancer:
        other = environ | {"CONSISTENCY_HOSTS": f"{elsewhere}:{balancer.place[1]}"}
        refused = run("audit", "shop", environ=other)
        assert refused.returncode == 4, refused.stdout + refused.stderr
        (line,) = refused.stderr.strip().splitlines()
        assert f"{elsewhere}:{balancer.place[1]} shows a certificate for {base}.1, {base}.2" in line
        assert "check_hostname = false" in line
        let_in = run("audit", "shop", environ=other | {"CONSISTENCY_TLS_CHECK_HOSTNAME": "false"})
        assert "shows a certificate" not in let_in.stderr
        assert let_in.stderr.startswith("warning: TLS verifies no host name")
    right = run("check", "shop.clean", environ=environ | {"CONSISTENCY_TLS_CHECK_HOSTNAME": "false"})
    assert right.returncode == 0, right.stderr
    assert right.stderr.count("warning: TLS") == 1
    assert "WeakTlsWarning" not in right.stderr


def test_nodes_that_ask_for_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    """With a certificate of theirs: checked. Without one, or without TLS: one line that says what is wanted, exit 4."""
    settings = authority.node_settings([address("client certificates")], optional=False, client_auth=True)
    clusters = sandbox_cluster(tmp_path / "nodes", "client certificates", nodes=1, settings=settings, heap="512m")
    cluster = next(clusters)
    try:
        certificate, key = authority.issue("operator")
        without = cluster.environ() | {"CONSISTENCY_TLS_CA_FILE": str(authority.ca_file)}
        theirs = without | {"CONSISTENCY_TLS_CERT_FILE": str(certificate), "CONSISTENCY_TLS_KEY_FILE": str(key)}
        admitted = run("audit", "system_traces", environ=theirs)
        assert admitted.returncode == 0, admitted.stdout + admitted.stderr
        assert "1 keyspace on 1 node" in admitted.stdout
        for environ in (without, cluster.environ()):
            refused = run("audit", environ=environ)
            assert refused.returncode == 4, refused.stdout + refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
            assert "TLS" in refused.stderr or "certificate" in refused.stderr
    finally:
        clusters.close()  # type: ignore[attr-defined]


def test_no_secret_is_in_anything_that_check_watch_and_repair_write(
    shop: RunningCluster, authority: Authority, tmp_path: Path
) -> None:
    """Password, webhook secret, a token in the webhook's address, a stranger's secret: none leaves our environment.

    Not into an output, a file, a message, a hook's environment, or a command line.
    """
    shop.ddl("CREATE TABLE shop.told (id int PRIMARY KEY, v text)")
    shop.load("INSERT INTO shop.told (id, v) VALUES (?, ?)", ((i, "v") for i in range(20)))
    shop.on(1, "DELETE FROM shop.told WHERE id = 7")
    receiver = Receiver()
    secrets = {"password": PASSWORD, "webhook": "webhook-canary", "token": "token-canary", "cloud": "cloud-canary"}
    hook = tmp_path / "hook.sh"
    hook.write_text('#!/bin/sh\nenv > "$0.env"\ncat > "$0.message"\n')
    hook.chmod(0o755)
    environ = shop.environ("checker", PASSWORD) | {
        "CONSISTENCY_TLS_CA_FILE": str(authority.ca_file), "CONSISTENCY_DEBUG": "1",
        "CONSISTENCY_WEBHOOK": receiver.url.replace("secret", secrets["token"]),
        "CONSISTENCY_WEBHOOK_SECRET": secrets["webhook"], "AWS_SECRET_ACCESS_KEY": secrets["cloud"],
    }  # fmt: skip
    said = told_of(environ, receiver, hook, tmp_path)
    plan, journal, findings = (str(tmp_path / name) for name in ("plan", "journal", "check.findings"))
    written = ("json", "findings", "html", "metrics", "ledger", "log-file")
    files = [word for name in written for word in (f"--{name}", str(tmp_path / f"check.{name}"))]
    for expected, *words in (
        (1, "check", "shop.told", "--settle", "0.3", "--log-level", "debug", *files),
        (1, "explain", findings, "--show-values"),
        (0, "repair", "plan", findings, "-o", plan, "--settle", "0.3"),
        (0, "repair", "apply", plan, "--journal", journal, "--yes"),
        (0, "repair", "show", journal),
        (4, "check", "shop.told", "--hosts", "127.0.0.1:1"),
    ):
        ran = run(*map(str, words), environ=environ)
        assert ran.returncode == expected, f"{words}\n{ran.stdout}{ran.stderr}"
        said += ran.stdout + ran.stderr
    texts = {path.name: path.read_bytes().decode("utf-8", "replace") for path in tmp_path.iterdir() if path.is_file()}
    assert {"hook.sh.env", "hook.sh.message", "check.html", "check.ledger", "plan", "journal", "watch"} <= set(texts)
    assert "PATH=" in texts["hook.sh.env"]
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("check.findings", "plan", "journal")} == {0o600}
    for where, text in {**texts, "output": said}.items():
        assert not [name for name, secret in secrets.items() if secret in text], where


def told_of(environ: dict[str, str], receiver: Receiver, hook: Path, folder: Path) -> str:
    """Run a watch until both its hooks were told; return what the webhook got, and the watch's command line."""
    words = ("watch", "shop.told", "--listen", "127.0.0.1:0", "--settle", "0.3", "--findings-dir", str(folder))
    command = [sys.executable, "-m", "consistency", *words, "--hook", str(hook), "--log-file", str(folder / "log")]
    with (folder / "watch").open("wb") as out:
        watch = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
    try:
        message = hook.with_name(hook.name + ".message")
        eventually(lambda: bool(receiver.heard) and message.exists(), 60, "the hooks' telling")
        seen = Path(f"/proc/{watch.pid}/cmdline")
        line = seen.read_text() if seen.exists() else ""
    finally:
        watch.terminate()
        watch.wait(60)
        receiver.close()
    return line + str(receiver.heard)


def run(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment."""
    return subprocess.run(
        [sys.executable, "-m", "consistency", *words],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# What must not be shown.

_TYPES = {
    "ascii": f"'{CANARY}'", "text": f"'{CANARY}'", "blob": f"0x{CANARY.encode().hex()}", "bigint": "7777001",
    "varint": "7777002", "decimal": "7777003.5", "double": "7777004.5", "inet": "'77.77.0.5'",
    "uuid": "77777777-0006-4000-8000-000000000000", "timestamp": "'7777-07-07'", "date": "'7777-07-08'",
    "map<text, text>": f"{{'{CANARY}': '{CANARY}'}}", "set<text>": f"{{'{CANARY}'}}", "list<text>": f"['{CANARY}']",
    "frozen<list<text>>": f"['{CANARY}']", "tuple<int, text>": f"(1, '{CANARY}')", "vector<float, 2>": "[7777007.5, 1]",
}  # fmt: skip
_SECRETS = (CANARY, CANARY.encode().hex(), "7777", "77.77.0.5")


@pytest.fixture(scope="module")
def canaries(guarded_cluster: RunningCluster) -> Iterator[RunningCluster]:
    """A secret in every column of every type, the key too; half of the rows differ, in every kind of way."""
    cluster = guarded_cluster
    cluster.keyspace("birds")
    columns = ", ".join(f"c{i} {cql}" for i, cql in enumerate(_TYPES))
    names = ", ".join(f"c{i}" for i in range(len(_TYPES)))
    values = ", ".join(_TYPES.values())
    cluster.ddl(f"CREATE TABLE birds.t (id text PRIMARY KEY, {columns})")
    base = time.time_ns() // 1000 - 3_600_000_000
    for i in range(20):
        cluster.everywhere(f"INSERT INTO birds.t (id, {names}) VALUES ('{CANARY}{i}', {values}) USING TIMESTAMP {base}")
    for i, time_us in enumerate((base + 1, base, base + 10**13, 10**12)):
        cluster.on(1, f"UPDATE birds.t USING TIMESTAMP {time_us} SET c1 = '{CANARY}z' WHERE id = '{CANARY}{i}'")
    cluster.on(2, f"DELETE FROM birds.t USING TIMESTAMP {base + 1} WHERE id = '{CANARY}9'")
    yield cluster
    cluster.ddl("DROP KEYSPACE birds")


@pytest.mark.parametrize("route", [route.value for route in Route])
def test_no_value_key_or_secret_is_written_anywhere(canaries: RunningCluster, tmp_path: Path, route: str) -> None:
    """stdout, stderr, JSON, page, metrics, log, ledger, findings (but for its keys), with debugging on: no canary."""
    report, findings = tmp_path / "report.json", tmp_path / "findings.jsonl"
    page, metrics, log, ledger = (tmp_path / name for name in ("page.html", "check.prom", "log.jsonl", "ledger.sqlite"))
    files = ("--json", report, "--findings", findings, "--html", page, "--metrics", metrics, "--ledger", ledger)
    logs = ("--log-file", log, "--log-level", "debug")
    arguments = ("birds", "--route", route, "--settle", "0.3", *map(str, (*files, *logs)))
    with Checker(canaries, *arguments, environ={"CONSISTENCY_DEBUG": "1"}) as checker:
        assert checker.wait(120) == 1, checker.stderr
    found = list(read_findings(findings))
    assert {f.kind.value for f in found} >= {"missing", "stale", "tie", "future_write_time"}
    rows = [json.loads(line) for line in findings.read_text().splitlines()]
    for row in rows[1:]:
        assert CANARY in json.dumps(row.pop("key"))
        del row["key_hex"], row["token"]
    for name, text in {
        "stdout": checker.stdout, "stderr": checker.stderr, "json": report.read_text(), "findings": json.dumps(rows),
        "page": page.read_text(), "metrics": metrics.read_text(), "log": log.read_text(),
    }.items():  # fmt: skip
        assert not [secret for secret in _SECRETS if secret in _without_numbers(text)], name
        assert canaries.environ()["CONSISTENCY_PASSWORD"] + "\n" not in text
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*"))
    assert kept
    assert not [secret for secret in (CANARY, CANARY.encode().hex()) if secret.encode() in kept]


def _without_numbers(text: str) -> str:
    """Take write times, tokens, run ids and times of day out, in which four sevens may stand by chance."""
    return re.sub(r"-?\d{9,}|[0-9a-f]{8}(-[0-9a-f]{4})*|\d+:\d+|\d+\.\d{2,}", "", text.replace(CANARY, "CANARY!"))


def test_errors_of_every_kind_quote_nothing(canaries: RunningCluster, tmp_path: Path) -> None:
    """A server that gives up on a table of secrets, and a table that goes away: no message holds one."""
    canaries.ddl("CREATE TABLE birds.grave (id text, c int, v text, PRIMARY KEY (id, c))")
    canaries.load("DELETE FROM birds.grave WHERE id = ? AND c = ?", ((CANARY, c) for c in range(3_500)))
    path = tmp_path / "report.json"
    with Checker(canaries, "birds.grave", "--json", str(path), environ={"CONSISTENCY_DEBUG": "1"}) as checker:
        assert checker.wait(120) in (0, 3), checker.stderr
    assert "tombstone" in path.read_text()
    assert CANARY not in checker.stdout + checker.stderr + path.read_text()
    canaries.ddl("DROP TABLE birds.grave")


# What must break neither CQL nor a terminal.

_NASTY = {
    "quotes": 'it\'s "quoted"; DROP TABLE hostile.t; --',
    "lines": "one\ntwo\r\nthree\ttabbed",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x1bP q\x1b\\",
    "nul": "a\0b",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x85",
    "rtl": "abc\u202edcba\u202c \u2066x\u2069 \u200f\u061c",
    "markup": "[bold red]not bold[/] {0} %s <script>alert(1)</script>",
    "long": "x" * 65_000,
    "astral": "\U0001f4a9 \ufeff \ufffe \u0301",
}
_COLUMN = 'a"b\n\x1b[31m\u202e;--'


def test_hostile_names_and_values_break_neither_cql_nor_the_terminal(
    guarded_cluster: RunningCluster, tmp_path: Path
) -> None:
    """Quotes, newlines, controls, escapes, NUL, right-to-left, 64 KB: found exactly, shown as plain text."""
    cluster = guarded_cluster
    cluster.keyspace("hostile")
    column = '"' + _COLUMN.replace('"', '""') + '"'
    cluster.ddl(f'CREATE TABLE hostile."T" (id text, c text, {column} text, PRIMARY KEY (id, c))')
    base = time.time_ns() // 1000 - 3_600_000_000
    insert = f'INSERT INTO hostile."T" (id, c, {column}) VALUES (?, ?, ?) USING TIMESTAMP {base}'
    short = {name: text[:1_000] for name, text in _NASTY.items()}
    cluster.load(insert, [(text, short[name], text) for name, text in _NASTY.items()])
    cluster.load(insert, ((f"{i}", "", "plain") for i in range(50)))
    delete = cluster.session.prepare(f'DELETE FROM hostile."T" USING TIMESTAMP {base + 1} WHERE id = ? AND c = ?')
    delete.consistency_level = 11
    for name, text in _NASTY.items():
        cluster.session.execute(delete, (text, short[name]), host=cluster._host(2))
    findings = tmp_path / "findings.jsonl"
    done = cluster.command("check", "hostile", "--findings", str(findings), "--settle", "0.3", "--show-keys")
    assert done.returncode == 1, done.stderr
    found = list(read_findings(findings))
    assert {(f.key["id"], f.key["c"]) for f in found} == {(text, short[name]) for name, text in _NASTY.items()}
    assert len(found) == len(_NASTY)
    assert findings.read_bytes().isascii()
    assert not _hostile(done.stdout + done.stderr)
    runner = CliRunner(env=cluster.environ())
    explained = [runner.invoke(main, ["explain", str(findings), "--row", str(n)]) for n in range(1, len(found) + 1)]
    assert {e.exit_code for e in explained} == {1}, explained[0].output  # each row still differs
    assert not _hostile("".join(e.output for e in explained))
    shown = _on_a_terminal(cluster, "check", "hostile", "--settle", "0.3")
    assert not _hostile(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", ""))
    assert "\x1b[31mred" not in shown
    assert "\x1b]0;" not in shown
    cluster.ddl("DROP KEYSPACE hostile")


def _hostile(text: str) -> list[str]:
    """Return what in a text is not plainly visible."""
    return sorted({c for c in text if not c.isprintable() and c != "\n"})


def _on_a_terminal(cluster: RunningCluster, *words: str) -> str:
    """Run a command on a terminal of its own and return all that it sent there."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "consistency", *words],
        env={**cluster.environ(), "TERM": "xterm-256color"}, stdin=there, stdout=there, stderr=there,
    )  # fmt: skip
    os.close(there)
    sent = b""
    try:
        while chunk := os.read(here, 65_536):
            sent += chunk
    except OSError:
        pass  # the other side is closed: the command has ended
    finally:
        os.close(here)
    assert process.wait(60) == 1
    return sent.decode("utf-8", "replace")
