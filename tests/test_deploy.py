"""The files of deploy/, as far as they can be tested without a machine that runs them: every
option, port, file and command in them exists in the server, and the files are valid for their
readers.

If a reader itself is installed (systemd-analyze, kubectl), it checks them too. No image is built:
that needs a container builder and a base image from outside. Without one, a test runs the server as
process 1 of a namespace.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from tests.integration.serving import ServerProcess
from tests.rpc.authority import Authority
from tollwire.service.cli.main import main
from tollwire.service.process.app import STOP_MARGIN_SECONDS
from tollwire.service.rpc.connection_guard import accepted_connections
from tollwire.service.settings.config import OPTIONS, Settings
from tollwire.service.settings.sources import load

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
MESH = DEPLOY / "kubernetes" / "mesh"
# The oldest version with all features of the manifests, and the newest whose schemas are here.
KUBERNETES = ("1.30", "1.37")
VARIABLES = {option.variable for option in OPTIONS.values()}
MAKE_SECONDS = 60


def client_variables() -> set[str]:
    """The variables that the client commands read."""
    found: set[str] = set()
    for parameter in main.commands["health"].params:
        names = parameter.envvar or ()
        found |= {names} if isinstance(names, str) else set(names)
    return found


def settings_of(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of ``tollwire serve`` from an environment. No variable in it may be unknown."""
    for name in [name for name in os.environ if name.startswith("TOLLWIRE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours = {name for name in environment if name.startswith("TOLLWIRE_")}
    assert ours <= VARIABLES | client_variables()
    return load({}, None).settings


def is_command(arguments: list[str]) -> bool:
    """Whether ``tollwire`` accepts this command line, as far as can be tested without running
    it."""
    name, *rest = arguments
    command = main.commands[name]
    context = click.Context(command, info_name=name, resilient_parsing=True)
    _, left, _ = command.make_parser(context).parse_args(list(rest))
    return not left


def assignments(path: Path) -> dict[str, str]:
    """The lines NAME=VALUE of an environment file."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


# The image.


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for word, _, rest in (s.partition(" ") for s in text.splitlines())
        if word
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(n for n, (word, _) in enumerate(found) if word == "FROM") :]


def image_environment() -> dict[str, str]:
    found: dict[str, str] = {}
    for word, rest in last_stage():
        if word == "ENV":
            found |= dict(part.split("=", 1) for part in shlex.split(rest))
    return found


def the(word: str) -> str:
    (found,) = [rest for name, rest in last_stage() if name == word]
    return found


def test_the_image_runs_without_rights_and_without_build_tools() -> None:
    stages = [rest for word, rest in instructions() if word == "FROM"]
    assert len(stages) == 2
    assert all(re.search(r":\S+", stage) and ":latest" not in stage for stage in stages)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", the("USER"))
    runs = " ".join(rest for word, rest in last_stage() if word == "RUN")
    assert "pip uninstall --yes pip" in runs
    assert not re.search(r"apt-get|pip install|gcc", runs)
    order = [word for word, _ in last_stage()]
    assert order.index("USER") > max(n for n, word in enumerate(order) if word == "RUN")
    copies = [rest for word, rest in last_stage() if word in ("COPY", "ADD")]
    assert copies == ["--from=build /opt/tollwire /opt/tollwire"]


def test_the_image_serves_with_settings_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = image_environment()
    settings = settings_of(environment, monkeypatch)
    assert str(settings.listen.port) == the("EXPOSE")
    assert settings.tls_cert_file is not None, "it is reachable from outside of its container"
    assert settings.database.removeprefix("sqlite:///").startswith(the("VOLUME"))
    assert environment["TOLLWIRE_SERVER"] == f"127.0.0.1:{settings.listen.port}"
    assert the("STOPSIGNAL") == "SIGTERM"
    # In these forms no shell stands between the server and its signals.
    assert yaml.safe_load(the("ENTRYPOINT")) == ["tollwire"]
    assert is_command(yaml.safe_load(the("CMD")))
    program, *probe = yaml.safe_load(the("HEALTHCHECK").partition("CMD ")[2])
    assert program == "tollwire"
    assert is_command(probe)


def test_the_image_is_built_from_the_needed_files_only() -> None:
    rules = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*", "unnamed files are left out"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    wanted = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements/constraints.txt"}
    assert wanted | {"proto", "ratingcore", "service"} <= let_in
    assert not let_in & {".git", "tests", "deploy", "docs", "benchmarks"}


UNSHARE = [
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.external
@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_can_be_process_1(workers: int, tmp_path: Path) -> None:
    """A process without a handler for a signal does not get it as process 1, and orphans become its
    children."""
    if not can_unshare():
        pytest.skip("this system cannot create namespaces of processes")
    server = subprocess.Popen(
        [
            *(*UNSHARE, sys.executable, "-m", "tollwire.service.cli.main", "serve"),
            *("--listen", "127.0.0.1:0", "--workers", str(workers)),
            *("--database", f"sqlite:///{tmp_path / 'tollwire.db'}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])},
    )
    try:
        assert server.stdout is not None
        assert "pid 1)" in server.stdout.readline()
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert server.wait(MAKE_SECONDS) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]


# systemd.

UNIT = DEPLOY / "systemd" / "tollwire.service"
UNIT_ENVIRONMENT = DEPLOY / "systemd" / "tollwire.env"
CLIENT_ENVIRONMENT = DEPLOY / "systemd" / "client.env"
JOBS = ("tollwire-backup", "tollwire-ledger-root")


def directives(unit: Path = UNIT) -> dict[str, str]:
    lines = [line for line in unit.read_text("utf-8").splitlines() if "=" in line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def commands(unit: Path) -> list[list[str]]:
    lines = unit.read_text("utf-8").splitlines()
    return [line.split("=", 1)[1].split() for line in lines if line.startswith("ExecStart=")]


def test_the_webhook_gets_the_root(tmp_path: Path) -> None:
    """Its command, as systemd unescapes it, with stand-ins for the two programs."""
    text = (DEPLOY / "systemd" / "ledger-root-webhook.conf").read_text("utf-8")
    command = text.split("ExecStart=/bin/sh -c '")[1].split("'\n")[0]
    command = command.replace("\\\n", " ").replace("$$", "$").replace("%%", "%")
    command = command.replace("/opt/tollwire/bin/", "")
    for name, script in (
        ("tollwire", 'test "$*" = "ledger root --json" && echo \'{"root": "1:ab"}\''),
        ("curl", 'for last; do :; done; printf "%s " "$last"; cat'),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LEDGER_WEBHOOK": "https://audit.example/"}
    run = ["/bin/sh", "-c", command]
    sent = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=30)
    assert (sent.stdout, sent.stderr) == ('https://audit.example/ {"root": "1:ab"}', "")
    (tmp_path / "tollwire").write_text("#!/bin/sh\nexit 3\n", "utf-8")
    failed = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=30)
    assert (failed.returncode, failed.stdout) == (3, "")


def test_the_unit_runs_and_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = directives()
    settings = settings_of(assignments(UNIT_ENVIRONMENT), monkeypatch)
    program, *arguments = unit["ExecStart"].split()
    assert Path(program).name == "tollwire"
    assert is_command(arguments)
    assert unit["EnvironmentFile"].endswith(UNIT_ENVIRONMENT.name)
    assert unit["WorkingDirectory"] == f"/var/lib/{unit['StateDirectory']}"
    assert settings.database.startswith(f"sqlite:///{unit['WorkingDirectory']}/")
    # With control-group the workers would get SIGTERM twice, and would end in the middle of their
    # work.
    assert (unit["KillMode"], unit["KillSignal"]) == ("mixed", "SIGTERM")
    assert int(unit["TimeoutStopSec"]) > settings.grace_seconds + STOP_MARGIN_SECONDS
    files = accepted_connections(settings.max_connections)
    assert int(unit["LimitNOFILE"]) > files
    assert settings.tls_cert_file is not None


def test_the_unit_waits_for_the_server_to_say_that_it_serves() -> None:
    unit = directives()
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")
    assert unit["TimeoutStartSec"] == "infinity"
    # The main thread also answers between two steps of its stop.
    assert int(unit["WatchdogSec"]) > int(unit["TimeoutStopSec"])
    assert unit["Restart"] == "on-failure"
    # A start that fails because the database does not answer does not count towards the limit.
    wait_seconds = float(OPTIONS["database_start_wait_seconds"].default)
    assert int(unit["StartLimitBurst"]) * wait_seconds > int(unit["StartLimitIntervalSec"])


@pytest.mark.parametrize("job", JOBS)
def test_timers_run_commands_that_exist(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = DEPLOY / "systemd" / f"{job}.service"
    timer = directives(DEPLOY / "systemd" / f"{job}.timer")
    assert "OnCalendar" in timer and timer["WantedBy"] == "timers.target"
    assert timer["Persistent"] == "true"
    own = directives(service)
    assert own["Type"] == "oneshot"
    program, *arguments = commands(service)[0]
    assert Path(program).name == "tollwire"
    group_or_command = main.commands[arguments[0]]
    if isinstance(group_or_command, click.Group):
        assert arguments[1] in group_or_command.commands
    else:
        settings_of(assignments(UNIT_ENVIRONMENT), monkeypatch)
        assert own["ReadWritePaths"] == arguments[-1]
    if own["EnvironmentFile"].endswith(CLIENT_ENVIRONMENT.name):
        assert set(assignments(CLIENT_ENVIRONMENT)) <= client_variables()
    else:
        assert own["EnvironmentFile"].endswith(UNIT_ENVIRONMENT.name)
    # As confined as the server.
    server = directives()
    confined = [name for name in server if name.startswith(("Protect", "Private", "Restrict"))]
    assert len(confined) > 10
    for name in [*confined, "NoNewPrivileges", "CapabilityBoundingSet", "UMask", "User"]:
        assert own[name] == server[name], name


def test_the_backups_of_the_timer_are_recent_enough_for_the_alert() -> None:
    timer = directives(DEPLOY / "systemd" / "tollwire-backup.timer")
    assert timer["OnCalendar"].startswith("*-*-* ")  # each day, and the alert waits for 36 hours


@pytest.mark.external
@pytest.mark.parametrize("name", ["tollwire", *JOBS])
def test_systemd_accepts_the_unit_and_finds_it_confined(tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks for the program, which is not installed.
    copy = tmp_path / f"{name}.service"
    unit = DEPLOY / "systemd" / f"{name}.service"
    copy.write_text(unit.read_text("utf-8").replace("/opt/tollwire/bin/tollwire", sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=MAKE_SECONDS
    )
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    # The exposure from 0.0 (confined) to 10.0: 2.0 is the limit.
    secure = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", copy]
    judged = subprocess.run(secure, capture_output=True, text=True, timeout=MAKE_SECONDS)
    assert judged.returncode == 0, judged.stdout + judged.stderr


# Kubernetes.


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def manifests() -> Iterator[tuple[Path, Any]]:
    for path in sorted(DEPLOY.glob("kubernetes/**/*.yaml")):
        for document in documents(path):
            if not document["apiVersion"].startswith("kustomize"):
                yield path, document


def of_kind(kind: str, folder: Path = BASE) -> Any:
    (found,) = [d for p, d in manifests() if d["kind"] == kind and p.parent == folder]
    return found


def container(folder: Path = BASE) -> Any:
    (found,) = of_kind("Deployment", folder)["spec"]["template"]["spec"]["containers"]
    return found


def merged(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    """The result of kustomize for a list whose items are distinguished by ``key``."""
    found = {item[key]: item for item in base}
    for item in patch:
        if item.get("$patch") == "delete":
            del found[item[key]]
        else:
            found[item[key]] = item
    return list(found.values())


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of the server's container, with an invented secret."""
    variables = container()["env"]
    if folder == MESH:
        variables = merged(variables, container(MESH)["env"], "name")
    found = assignments(BASE / "tollwire.env")
    for one in variables:
        secret = "postgresql+psycopg://tollwire@postgresql/tollwire"
        found[one["name"]] = one.get("value", secret)
    return found


def mounted(pod: Any) -> set[str]:
    return {mount["mountPath"] for c in pod["containers"] for mount in c.get("volumeMounts", ())}


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_has_every_field(version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library of its own
        import kubernetes_validate

        checked = 0
        for path, document in manifests():
            # Patches are parts, and a kind of the Prometheus operator is not Kubernetes' own.
            if path.parent != MESH and document["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(document, version, strict=True)
                checked += 1
    assert checked == 8


@pytest.mark.external
@pytest.mark.parametrize("folder", [BASE, MESH], ids=lambda path: path.name)
def test_kustomize_puts_them_together(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=MAKE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    (deployment,) = [one for one in made if one["kind"] == "Deployment"]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    from_map = server["envFrom"][0]["configMapRef"]["name"]
    (settings,) = [one for one in made if one["kind"] == "ConfigMap"]
    assert settings["metadata"]["name"] == from_map
    names = settings["data"].keys() | {one["name"] for one in server["env"]}
    assert names == environment_of(folder).keys()
    probes = [server[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert all("grpc" in probe for probe in probes)
    volumes = {one["name"] for one in deployment["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in server["volumeMounts"]} == volumes


def test_every_manifest_is_in_the_kustomization() -> None:
    for folder in (BASE, MESH):
        (kustomization,) = documents(folder / "kustomization.yaml")
        named = kustomization["resources"] + [
            one["path"] for one in kustomization.get("patches", ())
        ]
        there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert {name for name in named if not name.startswith("../")} == there
    (kustomization,) = documents(BASE / "kustomization.yaml")
    (made,) = kustomization["configMapGenerator"]
    assert made["envs"] == ["tollwire.env"]
    assert container()["envFrom"] == [{"configMapRef": {"name": made["name"]}}]


@pytest.mark.parametrize("folder", [BASE, MESH], ids=lambda path: path.name)
def test_pods_serve_with_settings_that_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(folder)
    settings = settings_of(environment, monkeypatch)
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert settings.metrics_listen is not None
    assert settings.health_listen is not None
    assert ports == {
        "grpc": settings.listen.port,
        "metrics": settings.metrics_listen.port,
        "health": settings.health_listen.port,
    }
    assert container()["args"] == ["serve"]
    assert is_command(container()["args"])
    pause_seconds = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_seconds = pause_seconds + settings.grace_seconds + STOP_MARGIN_SECONDS
    assert pod["terminationGracePeriodSeconds"] > needed_seconds
    # Plain text only if the environment says so explicitly, and never without tokens.
    assert settings.insecure is (folder == MESH)
    assert (settings.tls_cert_file is None) is (folder == MESH)
    assert settings.access != "open"
    for name, value in environment.items():
        if name.endswith("_FILE"):
            assert str(Path(value).parent) in mounted(pod)


def test_probes_use_services_of_the_server() -> None:
    from tollwire.v1 import cdr_service_pb2, rating_service_pb2

    services = {
        one.full_name
        for module in (cdr_service_pb2, rating_service_pb2)
        for one in module.DESCRIPTOR.services_by_name.values()
    }
    asked = {}
    for kind in ("startup", "readiness", "liveness"):
        probe = container()[f"{kind}Probe"]["grpc"]
        (health,) = [port for port in container()["ports"] if port["name"] == "health"]
        assert probe["port"] == health["containerPort"]
        asked[kind] = probe.get("service", "")
    # A server without a database continues to rate: it is neither removed from the service nor
    # killed.
    assert asked == {"startup": "", "readiness": "tollwire.v1.RatingService", "liveness": ""}
    assert asked["readiness"] in services


def test_a_command_in_a_pod_works_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    issued = authority.issue("tollwire.tollwire.svc")
    for name, contents in (
        ("tls.crt", issued.chain),
        ("tls.key", issued.key),
        ("ca.crt", authority.pem),
    ):
        (tmp_path / name).write_bytes(contents)
    environment = {
        name: value.replace("/etc/tollwire/tls", str(tmp_path))
        for name, value in environment_of(BASE).items()
        # Set by the test: where it serves, and its database.
        if not name.endswith("_LISTEN") and name != "TOLLWIRE_DATABASE"
    }
    environment["TOLLWIRE_SERVER"] = ""
    with ServerProcess(f"sqlite:///{tmp_path / 'tollwire.db'}", **environment) as server:
        environment["TOLLWIRE_SERVER"] = server.address
        arguments = ["health", "tollwire.v1.RatingService", "--timeout", "4"]
        assert CliRunner().invoke(main, arguments, env=environment).exit_code == 0
        # The certificate is verified.
        del environment["TOLLWIRE_SERVER_NAME"]
        assert CliRunner().invoke(main, arguments, env=environment).exit_code == 3


def test_pods_have_no_rights_and_write_nowhere() -> None:
    (job,) = documents(DEPLOY / "kubernetes" / "migrate-job.yaml")
    for pod in (of_kind("Deployment")["spec"]["template"]["spec"], job["spec"]["template"]["spec"]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert (
            f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
            == the("USER")
        )
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            confined = one["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert one["resources"]["limits"]["memory"]
            assert one["resources"]["requests"].keys() == {"cpu", "memory"}
            assert is_command(one["args"])


def test_selectors_match_the_servers_pods() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        of_kind("Deployment")["spec"]["selector"]["matchLabels"],
        of_kind("Service")["spec"]["selector"],
        of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    service = of_kind("Service")["spec"]
    assert service["clusterIP"] == "None", "clients see every server"
    names = {port["name"] for port in container()["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= names
    rules = of_kind("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == names - {"health"}
    annotations = of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] in {
        str(p["containerPort"]) for p in container()["ports"]
    }
    # One may stop while the other serves.
    assert of_kind("Deployment")["spec"]["replicas"] >= 2
    assert of_kind("PodDisruptionBudget")["spec"] | {"selector": None} == {
        "maxUnavailable": 1,
        "selector": None,
    }


def test_the_service_monitor_finds_the_servers() -> None:
    (monitor,) = documents(DEPLOY / "kubernetes" / "servicemonitor.yaml")
    (kustomization,) = documents(BASE / "kustomization.yaml")
    service = of_kind("Service")
    assert monitor["metadata"]["namespace"] == kustomization["namespace"]
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [kustomization["namespace"]]
    (labels,) = kustomization["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels["pairs"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    # The operator derives the job's name from the Service's, and the alerts select that job.
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8")
    assert f'up{{job="{service["metadata"]["name"]}"}}' in alerts


def test_the_cron_job_reaches_the_servers() -> None:
    (job,) = documents(DEPLOY / "kubernetes" / "ledger-root-cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (one,) = pod["containers"]
    group, command, *_ = one["args"]
    assert command in main.commands[group].commands  # type: ignore[attr-defined]
    environment = {variable["name"]: variable["value"] for variable in one["env"]}
    assert set(environment) <= client_variables()
    host, port = environment["TOLLWIRE_SERVER"].removeprefix("dns:///").split(":")
    service, (kustomization,) = of_kind("Service"), documents(BASE / "kustomization.yaml")
    assert host == f"{service['metadata']['name']}.{kustomization['namespace']}.svc"
    assert int(port) in {one["port"] for one in service["spec"]["ports"]}
    for name, value in environment.items():
        if name.endswith("_FILE"):
            assert str(Path(value).parent) in mounted(pod)


def test_the_images_are_of_this_release() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    (kustomization,) = documents(BASE / "kustomization.yaml")
    assert kustomization["images"] == [{"name": "tollwire", "newTag": version}]
    (cron,) = documents(DEPLOY / "kubernetes" / "ledger-root-cronjob.yaml")
    (root,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert root["image"] == f"tollwire:{version}"
    (job,) = documents(DEPLOY / "kubernetes" / "migrate-job.yaml")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == f"tollwire:{version}"
