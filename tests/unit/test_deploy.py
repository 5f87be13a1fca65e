"""deploy/ and docker-compose.yml: what an engine is needed for, checked as far as one can without."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from consistency.model.part import Part
from consistency.results.verdict import ExitCode
from consistency.watching.http import DEFAULT_LISTEN
from tests.house.commands import parse, shown
from tests.house.source import ROOT, listed, text_of

DEPLOY = ROOT / "deploy"
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir() if path.suffix in {".service", ".timer"})
PORT = int(DEFAULT_LISTEN.rpartition(":")[2])


def documents(*places: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [d for d in yaml.safe_load_all(text_of(*places)) if d is not None]


def unit(name: str) -> dict[str, list[str]]:
    """Return a unit's settings; one that is given again adds up."""
    found: dict[str, list[str]] = {}
    for line in text_of("deploy", "systemd", name).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


# Commands.


def test_every_command_line_that_is_shown_can_be_typed() -> None:
    """Click reads each as it would to run it: a renamed option is found in every file that names it."""
    found, counted = [], Counter[str]()
    for place, words in shown():
        counted[place.split("/")[0].split(":")[0]] += 1
        try:
            parse(words)
        except click.ClickException as error:
            found.append(f"{place}: {error.format_message()}")
    assert not found, listed(found, "mend the line, or the option:")
    assert min(counted[name] for name in ("README.md", "docs", "deploy", "docker-compose.yml")) > 0, counted


@pytest.mark.parametrize("words", [["check", "--no-such"], ["check", "--depth", "deep"], ["sandbox", "upp"], ["chek"]])
def test_a_command_line_that_is_wrong_is_noticed(words: list[str]) -> None:
    """Names, options and values are all read."""
    with pytest.raises(click.ClickException):
        parse(words)


# systemd.


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """As systemd reads them, with a program that exists in place of ours."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for name in UNITS:
        text = text_of("deploy", "systemd", name)
        (tmp_path / name).write_text(text.replace("/opt/consistency/bin/consistency", shutil.which("true") or ""))
    words = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "consistency-" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_the_services_are_hardened(name: str) -> None:
    """Systemd's own judgement: an exposure of 2 or less out of 10."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(DEPLOY / "systemd" / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a file (252 can)")
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_a_service_reads_its_password_from_a_credential_and_keeps_its_files_to_itself(name: str) -> None:
    """No password in the environment or on a command line, no user to make, no file for others."""
    service = unit(name)
    assert service["LoadCredential"] == ["password:/etc/consistency/password"]
    assert service["Environment"] == ["CONSISTENCY_PASSWORD_FILE=%d/password"]
    assert (service["DynamicUser"], service["StateDirectory"], service["UMask"]) == (["yes"], ["consistency"], ["0077"])
    assert not re.search(r"PASSWORD=|SECRET=", text_of("deploy", "systemd", name))


def test_the_check_fails_where_somebody_should_look() -> None:
    """Divergent, usage, incomplete and could not run are failures of the unit; locked and stopped are not."""
    fine = {int(code) for code in unit("consistency-check.service")["SuccessExitStatus"][0].split()}
    assert fine == {ExitCode.LOCKED, ExitCode.INTERRUPTED}
    assert unit("consistency-watch.service")["RestartPreventExitStatus"] == [str(int(ExitCode.USAGE))]


def test_metrics_go_where_the_unit_may_write_and_node_exporter_reads() -> None:
    """One directory in the unit, the crontab and the snippet that makes it, and a name that node_exporter takes."""
    service = unit("consistency-check.service")
    folder = service["ReadWritePaths"][0]
    assert f"--metrics {folder}/consistency.prom" in service["ExecStart"][0]
    assert f"--metrics {folder}/consistency.prom" in text_of("deploy", "cron", "consistency")
    group = service["SupplementaryGroups"][0]
    assert f"d {folder} 0775 root {group} -" in text_of("deploy", "systemd", "consistency.tmpfiles")
    assert f"g {group} -" in text_of("deploy", "systemd", "consistency.sysusers")


def test_the_crontab_has_five_fields_a_user_and_no_percent_sign() -> None:
    """Cron reads a percent sign as the end of the line."""
    lines = text_of("deploy", "cron", "consistency").splitlines()
    (line,) = [x for x in lines if x and not x.startswith("#") and not re.match(r"[A-Z_]+=", x)]
    assert re.fullmatch(r"(?:[\d*/,-]+\s+){5}consistency\s+/opt/consistency/bin/consistency check [^%]+", line)
    assert "--quiet" in line


# Containers.


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the pod template of everything that runs in Kubernetes."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in documents("deploy", "kubernetes", path.name):
            spec = document.get("spec", {})
            if document["kind"] == "CronJob":
                yield "CronJob", spec["jobTemplate"]["spec"]["template"]
            elif document["kind"] in ("Deployment", "Job"):
                yield document["kind"], spec["template"]


@pytest.mark.parametrize(("kind", "pod"), list(pods()), ids=[kind for kind, _ in pods()])
def test_a_pod_is_confined_and_takes_its_password_from_a_file(kind: str, pod: dict[str, Any]) -> None:
    """What Kubernetes calls restricted, and no secret in the environment that the program lists."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    env = {entry["name"]: entry for entry in container["env"]}
    assert "CONSISTENCY_PASSWORD" not in env
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounts) == set(volumes)
    if container["args"][0] == "ledger":  # reads no cluster
        assert set(volumes) == {"state"}
        assert "CONSISTENCY_HOSTS" not in env
        return
    secret = documents("deploy", "kubernetes", "secret.yaml")[0]
    (item,) = volumes["secret"]["secret"]["items"]
    assert volumes["secret"]["secret"]["secretName"] == secret["metadata"]["name"]
    assert env["CONSISTENCY_PASSWORD_FILE"]["value"] == f"{mounts['secret']['mountPath']}/{item['path']}"
    reference = env["CONSISTENCY_USERNAME"]["valueFrom"]["secretKeyRef"]
    assert {reference["key"], item["key"]} == set(secret["stringData"])
    named = [word for word in container["args"] if word.startswith("/var/")]
    assert all(Path(word).is_relative_to(mounts["state"]["mountPath"]) for word in named), kind


def test_the_cron_job_runs_once_and_alone() -> None:
    """A divergence is a result: trying again until it is gone would hide it."""
    (job,) = documents("deploy", "kubernetes", "cronjob.yaml")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_parts_of_a_job_are_all_parts_of_one_run_and_are_merged() -> None:
    """As many as there are completions, under one name, in ledgers that the merge finds; a difference is a result."""
    claim, parts, whole = documents("deploy", "kubernetes", "parts.yaml")
    spec = parts["spec"]
    (checks,), (merges,) = (job["spec"]["template"]["spec"]["containers"] for job in (parts, whole))
    index = "$(JOB_COMPLETION_INDEX)"
    assert (spec["completionMode"], checks["args"][:3]) == ("Indexed", ["check", "--part", f"{index}/4"])
    named = [checks["args"][2].replace(index, str(number)) for number in range(spec["completions"])]
    assert {Part.parse(text) for text in named} == {Part(number, 4) for number in range(1, 5)}
    ledger = Path(checks["args"][checks["args"].index("--ledger") + 1])
    assert (str(ledger.parent), ledger.suffix) == (merges["args"][2], ".ledger")
    assert Path(merges["args"][merges["args"].index("--ledger") + 1]).suffix != ".ledger"
    runs = {entry["value"] for each in (checks, merges) for entry in each["env"] if entry["name"] == "CONSISTENCY_RUN"}
    assert len(runs) == 1
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == checks["name"]
    assert rule["onExitCodes"]["values"] == [ExitCode.DIVERGENT, ExitCode.USAGE]
    for job in (parts, whole):
        (state,) = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "state"]
        assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_deployment_is_probed_and_scraped_where_the_watch_listens() -> None:
    """Ports, labels and selectors agree."""
    claim, deployment, service = documents("deploy", "kubernetes", "watch.yaml")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert f"0.0.0.0:{PORT}" in container["args"]
    assert container["ports"] == [{"name": "metrics", "containerPort": PORT}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(PORT)
    (state,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "state"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert service["spec"]["ports"] == [{"name": "metrics", "port": PORT, "targetPort": "metrics"}]


def test_kustomize_has_every_file() -> None:
    """And kubectl, where it is here, builds it."""
    (custom,) = documents("deploy", "kubernetes", "kustomization.yaml")
    others = {path.name for path in (DEPLOY / "kubernetes").iterdir()} - {"kustomization.yaml"}
    assert set(custom["resources"]) == others
    if shutil.which("kubectl") is not None:
        words = ["kubectl", "kustomize", str(DEPLOY / "kubernetes")]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert {d["kind"] for d in yaml.safe_load_all(done.stdout)} == {
            "Secret",
            "CronJob",
            "Job",
            "PersistentVolumeClaim",
            "Deployment",
            "Service",
        }


def test_the_containers_files_are_there_and_let_through() -> None:
    """Each COPY names what exists and what .dockerignore does not keep out; every package of the wheel is copied."""
    text = text_of("deploy", "Containerfile")
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    let_through = {line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")}
    assert copied == let_through
    assert {"consistency", "repair", "sandbox"} <= copied
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)


def test_the_lock_can_serve_as_constraints() -> None:
    """What the Containerfile makes of the lock names every pin, without hashes and extras."""
    (expression,) = re.findall(r"sed -nE '(.+)' requirements/dev.txt", text_of("deploy", "Containerfile"))
    lock = str(ROOT / "requirements" / "dev.txt")
    done = subprocess.run(["sed", "-nE", expression, lock], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(re.findall(r"^[a-zA-Z0-9].*==", text_of("requirements", "dev.txt"), re.MULTILINE))
    assert not [line for line in lines if "\\" in line or "--hash" in line or "[" in line.partition(";")[0]]


# Compose, Prometheus, Grafana.


def compose() -> dict[str, Any]:
    """Return docker-compose.yml."""
    return documents("docker-compose.yml")[0]


def test_compose_brings_up_nodes_watch_prometheus_and_grafana() -> None:
    """Each waits for what it needs, and only this machine reaches them."""
    services = compose()["services"]
    assert {"watch", "check", "prometheus", "grafana"} <= set(services)
    nodes = [name for name in services if name.startswith("cassandra-")]
    assert services["watch"]["environment"]["CONSISTENCY_HOSTS"].split(",") == nodes
    assert services["watch"]["depends_on"] == {nodes[-1]: {"condition": "service_healthy"}}
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert (ROOT / services["watch"]["build"]["dockerfile"]).is_file()


def test_every_file_that_compose_mounts_exists() -> None:
    """A bind mount of what is not there makes an empty directory instead."""
    volumes = compose()["volumes"]
    for name, service in compose()["services"].items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes, f"{name}: {mount}"


def test_prometheus_scrapes_the_watch_and_reads_the_rules() -> None:
    """Under the name and port that compose gives it."""
    (settings,) = documents("deploy", "prometheus", "prometheus.yml")
    targets = [t for job in settings["scrape_configs"] for static in job["static_configs"] for t in static["targets"]]
    assert targets == [f"watch:{PORT}"]
    assert f"0.0.0.0:{PORT}" in compose()["services"]["watch"]["command"]
    assert all((DEPLOY / "prometheus" / name).is_file() for name in settings["rule_files"])
    if shutil.which("promtool") is not None:
        words = ["promtool", "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    """The provider reads the directory that compose mounts the file into; the source is the service's name."""
    folder = ("deploy", "grafana", "provisioning")
    (sources,), (providers,) = (
        documents(*folder, "datasources", "prometheus.yml"),
        documents(*folder, "dashboards", "consistency.yml"),
    )
    mounted = [mount.split(":")[1] for mount in compose()["services"]["grafana"]["volumes"]]
    (path,) = [provider["options"]["path"] for provider in providers["providers"]]
    assert f"{path}/consistency.json" in mounted
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert sources["datasources"][0]["type"] == "prometheus"


# Ansible.


def test_the_roles_files_exist_and_its_variables_have_defaults() -> None:
    """Each unit that is copied is there, and nothing is used that a reader cannot look up."""
    role = ("deploy", "ansible", "roles", "consistency")
    (tasks,), (handlers,), (defaults,) = (
        documents(*role, folder, "main.yml") for folder in ("tasks", "handlers", "defaults")
    )
    copied = {item["src"] for task in tasks for item in task.get("loop", ())}
    assert copied == {path.name for path in (DEPLOY / "systemd").iterdir()}
    used = set(re.findall(r"\bconsistency_\w+", text_of(*role, "tasks", "main.yml")))
    used |= set(re.findall(r"\bconsistency_\w+", text_of(*role, "templates", "environment.j2")))
    assert used == set(defaults)
    named = {handler["name"] for handler in handlers}
    for task in tasks:
        (module,) = [key for key in task if key.startswith("ansible.builtin.")]
        assert task.get("notify", "Restart the watch") in named
        if "password" in str(task[module]) and module == "ansible.builtin.copy":
            assert (task["no_log"], task[module]["mode"]) == (True, "0600")
