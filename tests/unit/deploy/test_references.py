"""What a manifest names is in another one: a schema takes any name, and Kubernetes only says so when it is too late."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from tests.support.api import settings
from tests.support.checkout import ROOT

FOLDER = ROOT / "deploy/kubernetes"
SETTINGS_PAGE = ROOT / "docs/settings.md"
CONFIG = (FOLDER / "config.yaml").read_text()
DOCUMENTS: list[dict[str, Any]] = [
    document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.stem != "kustomization"
    for document in yaml.safe_load_all(path.read_text())
]
WORKLOADS = [document for document in DOCUMENTS if document["kind"] in ("Deployment", "Job")]
TEMPLATES = {document["metadata"]["name"]: document["spec"]["template"] for document in WORKLOADS}


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [document for document in DOCUMENTS if document["kind"] in kinds]


def named(kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in of_kind(kind)}


def selected(labels: dict[str, str]) -> list[str]:
    """Workloads whose pods have these labels."""
    assert labels
    return [name for name, pod in TEMPLATES.items() if labels.items() <= pod["metadata"]["labels"].items()]


def container_of(name: str) -> dict[str, Any]:
    container: dict[str, Any]
    [container] = TEMPLATES[name]["spec"]["containers"]
    return container


def labels_of(document: dict[str, Any]) -> dict[str, str]:
    selector = document["spec"]["selector"]
    labels: dict[str, str] = selector.get("matchLabels", selector)
    return labels


@pytest.mark.parametrize(
    "document",
    of_kind("Service", "PodDisruptionBudget", "Deployment"),
    ids=lambda d: f"{d['kind']} {d['metadata']['name']}",
)
def test_a_selector_finds_the_pods_of_its_own_name(document: dict[str, Any]) -> None:
    assert selected(labels_of(document)) == [document["metadata"]["name"]]


def test_pods_are_spread_among_their_own_kind() -> None:
    for name in named("Deployment"):
        spread = TEMPLATES[name]["spec"]["topologySpreadConstraints"]
        assert [selected(rule["labelSelector"]["matchLabels"]) for rule in spread] == [[name]] * len(spread)


def test_the_network_policy_is_about_every_pod_and_lets_their_ports_be_reached() -> None:
    [policy] = of_kind("NetworkPolicy")
    [expression] = policy["spec"]["podSelector"]["matchExpressions"]
    found = [selected({expression["key"]: value}) for value in expression["values"]]
    assert sorted(name for names in found for name in names) == sorted(TEMPLATES)
    opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    ports = {port["containerPort"] for name in TEMPLATES for port in container_of(name).get("ports", ())}
    assert opened >= ports


def test_a_service_leads_to_a_port_that_there_is() -> None:
    for service in of_kind("Service"):
        ports = {port["name"] for port in container_of(service["metadata"]["name"])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_each_deployment_is_scaled_by_one_or_says_how_many() -> None:
    scaled = [
        document["spec"]["scaleTargetRef"]["name"] for document in of_kind("HorizontalPodAutoscaler", "ScaledObject")
    ]
    fixed = [document["metadata"]["name"] for document in of_kind("Deployment") if "replicas" in document["spec"]]
    assert sorted(scaled + fixed) == sorted(named("Deployment"))


def probes(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in container:
            yield container[kind]["httpGet"]


@pytest.mark.parametrize("name", sorted(named("Deployment")))
def test_probes_ask_what_is_answered(name: str) -> None:
    container = container_of(name)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    paths = create_app(settings(), Warehouse("chdb:///nowhere")).openapi()["paths"]
    for probe in probes(container):
        assert probe["port"] in ports
        assert probe["path"] in (paths if probe["port"] == "http" else {"/metrics"})
    annotations = TEMPLATES[name]["metadata"].get("annotations", {})
    if "metrics" in ports:
        assert annotations["prometheus.io/port"] == str(ports["metrics"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_pod_mounts_and_reads_is_there(name: str) -> None:
    spec, container = TEMPLATES[name]["spec"], container_of(name)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    [secret] = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert secret in re.findall(r"create secret generic (\S+)", CONFIG)
    assert {source["configMapRef"]["name"] for source in container["envFrom"]} == named("ConfigMap")
    [where] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets"]
    [config] = of_kind("ConfigMap")
    assert config["data"]["INSIGHTS_SECRETS_DIR"] == where


def test_what_is_set_is_a_setting() -> None:
    documented = set(re.findall(r"INSIGHTS_[A-Z_]+", SETTINGS_PAGE.read_text()))
    [config] = of_kind("ConfigMap")
    given = {entry["name"] for name in TEMPLATES for entry in container_of(name).get("env", ())}
    assert {*config["data"], *given} <= documented
    assert {name.upper() for name in re.findall(r"--from-file=(\w+)=", CONFIG)} <= documented


def test_the_image_is_the_one_that_kustomize_tags() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {container_of(name)["image"] for name in TEMPLATES} == {image["name"] for image in kustomization["images"]}
    [namespace] = named("Namespace")
    assert kustomization["namespace"] == namespace
