"""The ScaledObject of the workers, held to what KEDA and its Kafka scaler document (2.18).

No schema of KEDA's kinds is at hand that may be kept here, so this states what they take, in words of its own: the
fields of the kind, the parameters of the trigger, and that the autoscaler made from it is valid for Kubernetes.
"""

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ingest.settings import IngestSettings
from ingest.topics.spec import read_wanted
from tests.support.checkout import ROOT

FOLDER = ROOT / "deploy/kubernetes"
Document = dict[str, Any]

COUNT = {"type": "integer", "minimum": 0}
SECONDS = {"type": "integer", "minimum": 1}
# Metadata of a trigger are strings, whatever they mean: KEDA's definition refuses a number or a boolean.
FLAG = {"enum": ["true", "false"]}
NUMBER = {"type": "string", "pattern": "^[0-9]+$"}
TEXT = {"type": "string", "minLength": 1}


def strict(required: list[str], **properties: Any) -> Document:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


KAFKA_METADATA = strict(
    ["bootstrapServers", "consumerGroup", "topic", "lagThreshold", "offsetResetPolicy", "version"],
    bootstrapServers={"type": "string", "pattern": r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$"},
    consumerGroup=TEXT,
    topic=TEXT,
    lagThreshold=NUMBER,
    activationLagThreshold=NUMBER,
    offsetResetPolicy={"enum": ["earliest", "latest"]},
    allowIdleConsumers=FLAG,
    scaleToZeroOnInvalidOffset=FLAG,
    excludePersistentLag=FLAG,
    limitToPartitionsWithLag=FLAG,
    ensureEvenDistributionOfPartitions=FLAG,
    version={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    partitionLimitation=TEXT,
    sasl={"enum": ["none", "plaintext", "scram_sha256", "scram_sha512", "gssapi", "oauthbearer"]},
    tls={"enum": ["enable", "disable"]},
    unsafeSsl=FLAG,
)
TRIGGER = strict(
    ["type", "metadata"],
    type={"const": "kafka"},
    name=TEXT,
    metadata=KAFKA_METADATA,
    metricType={"enum": ["AverageValue", "Value"]},
    useCachedMetrics={"type": "boolean"},
    authenticationRef=strict(
        ["name"], name=TEXT, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}
    ),
)
SPEC = strict(
    ["scaleTargetRef", "minReplicaCount", "maxReplicaCount", "triggers"],
    scaleTargetRef=strict(["name"], name=TEXT, kind=TEXT, apiVersion=TEXT, envSourceContainerName=TEXT),
    pollingInterval=SECONDS,
    cooldownPeriod=COUNT,
    initialCooldownPeriod=COUNT,
    idleReplicaCount={"const": 0},
    minReplicaCount=COUNT,
    maxReplicaCount=SECONDS,
    fallback=strict(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT, behavior=TEXT),
    advanced=strict(
        [],
        restoreToOriginalReplicaCount={"type": "boolean"},
        # What Kubernetes says of it is asked of its own schema.
        horizontalPodAutoscalerConfig=strict([], name=TEXT, behavior={"type": "object"}),
    ),
    triggers={"type": "array", "minItems": 1, "items": TRIGGER},
)
SCHEMA = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=strict(["name"], name=TEXT, labels={"type": "object"}, annotations={"type": "object"}),
    spec=SPEC,
)


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def autoscaler_of(scaled: Document) -> Document:
    """What KEDA makes of it for Kubernetes; `behavior` is handed on as it is."""
    spec, [trigger] = scaled["spec"], scaled["spec"]["triggers"]
    behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior")
    target = {"type": "AverageValue", "averageValue": trigger["metadata"]["lagThreshold"]}
    metric = {"type": "External", "external": {"metric": {"name": "s0-kafka-request-events"}, "target": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"keda-hpa-{scaled['metadata']['name']}"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": spec["scaleTargetRef"]["name"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "metrics": [metric],
            **({"behavior": behavior} if behavior else {}),
        },
    }


def check_form(scaled: Document) -> None:
    jsonschema.validate(scaled, SCHEMA)
    kubernetes_validate.validate(autoscaler_of(scaled), kubernetes_validate.latest_version(), strict=True)


def check_target(scaled: Document, workers: Document) -> None:
    """It scales the workers, and nobody else says how many there are."""
    spec = scaled["spec"]
    assert spec["scaleTargetRef"]["name"] == workers["metadata"]["name"]
    assert spec["scaleTargetRef"].get("kind", "Deployment") == workers["kind"]
    assert workers["spec"]["template"]["spec"]["containers"][0]["args"] == ["ingest"]
    assert "replicas" not in workers["spec"], "each apply would undo what the autoscaler has done"
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]


def check_trigger(scaled: Document, config: dict[str, str]) -> None:
    """It asks the Kafka, the group and the topic of the workers, and sees lag where they will begin to read."""
    [trigger] = scaled["spec"]["triggers"]
    asked, defaults = trigger["metadata"], IngestSettings()
    assert asked["bootstrapServers"] == config["INSIGHTS_KAFKA_BOOTSTRAP_SERVERS"]
    assert asked["consumerGroup"] == config.get("INSIGHTS_KAFKA_GROUP", defaults.kafka_group)
    assert asked["topic"] == config.get("INSIGHTS_KAFKA_TOPIC", defaults.kafka_topic)
    wanted = {topic.name: topic for topic in read_wanted(ROOT / "deploy/kafka/topics.yaml").topics}
    assert scaled["spec"]["maxReplicaCount"] == wanted[asked["topic"]].partitions
    # A worker without a committed offset reads from the beginning; with `latest` that log would count as 1.
    assert asked["offsetResetPolicy"] == "earliest"
    # Kafka 4 answers no client of before 2.1 (KIP-896), which KEDA is unless told otherwise.
    assert tuple(map(int, asked["version"].split("."))) >= (2, 1, 0)
    assert int(asked["lagThreshold"]) > 0
    # A partition that stands still is what more workers, or a person, must see.
    assert asked.get("excludePersistentLag", "false") == "false"
    assert "partitionLimitation" not in asked
    is_open = config.get("INSIGHTS_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT") == "PLAINTEXT"
    assert ("authenticationRef" in trigger) is not is_open


def check(scaled: Document) -> None:
    [workers] = [found for found in documents("ingest.yaml") if found["kind"] == "Deployment"]
    check_form(scaled)
    check_target(scaled, workers)
    check_trigger(scaled, documents("config.yaml")[0]["data"])


def test_keda_is_given_what_its_kafka_scaler_reads() -> None:
    [scaled] = documents("ingest-scaling.yaml")
    check(scaled)


def spec(change: Callable[[Document], object]) -> Callable[[Document], object]:
    return lambda scaled: change(scaled["spec"])


def asked(**values: Any) -> Callable[[Document], object]:
    return lambda scaled: scaled["spec"]["triggers"][0]["metadata"].update(values)


def behaves(**values: Any) -> Callable[[Document], object]:
    return lambda scaled: scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(values)


BROKEN: dict[str, Callable[[Document], object]] = {
    "another kind": lambda scaled: scaled.update(kind="ScaledJob"),
    "another API": lambda scaled: scaled.update(apiVersion="keda.k8s.io/v1alpha1"),
    "a misspelt field": spec(lambda spec: spec.update(maxReplicas=6)),
    "replicas as text": spec(lambda spec: spec.update(minReplicaCount="2")),
    "no upper bound": spec(lambda spec: spec.pop("maxReplicaCount")),
    "more workers than partitions": spec(lambda spec: spec.update(maxReplicaCount=7)),
    "more at least than at most": spec(lambda spec: spec.update(minReplicaCount=8)),
    "none at least": spec(lambda spec: spec.update(minReplicaCount=0)),
    "another deployment": spec(lambda spec: spec.update(scaleTargetRef={"name": "insights-api"})),
    "no trigger": spec(lambda spec: spec.update(triggers=[])),
    "another trigger": spec(lambda spec: spec["triggers"][0].update(type="apache-kafka")),
    "a key without a scaler": spec(lambda spec: spec["triggers"][0].update(authenticationRef={"name": "nobody"})),
    "a misspelt parameter": asked(lagTreshold="5"),
    "a threshold that is a number": asked(lagThreshold=200000),
    "a threshold that is none": asked(lagThreshold="200k"),
    "a threshold of nothing": asked(lagThreshold="0"),
    "another group": asked(consumerGroup="router-insights-aggregate"),
    "another topic": asked(topic="usage-increments"),
    "another Kafka": asked(bootstrapServers="kafka:9092"),
    "no port": asked(bootstrapServers="kafka-bootstrap.kafka.svc"),
    "lag of new records only": asked(offsetResetPolicy="latest"),
    "a policy that is none": asked(offsetResetPolicy="none"),
    "a flag that is no text": asked(allowIdleConsumers=False),
    "a version that Kafka 4 refuses": asked(version="1.0.0"),
    "lag that is hidden": asked(excludePersistentLag="true"),
    "a policy of scaling that Kubernetes refuses": behaves(scaleUp={"policies": [{"type": "Pods", "value": 2}]}),
    "a behaviour that Kubernetes does not know": behaves(scaleSideways={}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_in_it_is_seen(name: str) -> None:
    [scaled] = documents("ingest-scaling.yaml")
    broken = copy.deepcopy(scaled)
    BROKEN[name](broken)
    assert broken != scaled
    with pytest.raises((AssertionError, jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(broken)


def test_no_version_is_no_answer_from_kafka_4() -> None:
    [scaled] = documents("ingest-scaling.yaml")
    del scaled["spec"]["triggers"][0]["metadata"]["version"]
    with pytest.raises(jsonschema.ValidationError, match="version"):
        check(scaled)
