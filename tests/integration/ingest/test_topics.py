"""Topics, rights and encryption on an Apache Kafka that has an authorizer, SASL and TLS."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from aggregator.budgets.app import Aggregator
from aggregator.budgets.budget import BudgetLevel
from aggregator.budgets.settings import AggregateSettings
from aggregator.clickhouse.client import Warehouse
from aggregator.settings import KafkaSettings
from api.budgets.store import BudgetsUnavailableError
from cli.adapters.budget_store import KafkaBudgets
from cli.commands.topics import run_topics
from cli.local_stack.broker import HOST
from cli.main import app
from ingest.consumer.worker import Worker
from ingest.settings import IngestSettings
from ingest.topics.spec import TopicFileError, read_wanted
from router_insights.emitter.event_emitter import EventEmitter
from router_insights.errors import KafkaUnavailableError
from tests.integration.aggregator.budgets.test_app import event, requests_budget
from tests.integration.ingest.test_sink import encode
from tests.integration.ingest.test_worker import produce, running, until
from tests.support.checkout import ROOT
from tests.support.kafka import PATIENCE_SECONDS, KafkaMissingError, KafkaServer, free_port

FILE = ROOT / "deploy/kafka/topics.yaml"
PASSWORD = "certificates-for-tests"
USERS = {
    "gateway": "gateway-password",
    "insights-ingest": "ingest-password",
    "insights-aggregate": "aggregate-password",
    "insights-api": "api-password",
    "stranger": "stranger-password",
}


def make_certificates(folder: Path) -> None:
    """A certificate for this machine in a key store, and as PEM for who trusts it."""
    store = [
        "-keystore",
        str(folder / "broker.p12"),
        "-storetype",
        "PKCS12",
        "-storepass",
        PASSWORD,
        "-alias",
        "broker",
    ]
    make = [
        "keytool",
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=broker",
        "-ext",
        f"san=ip:{HOST}",
        "-validity",
        "2",
    ]
    for command in ([*make, *store], ["keytool", "-exportcert", "-rfc", "-file", str(folder / "ca.pem"), *store]):
        subprocess.run(command, check=True, capture_output=True)


def secured(folder: Path, secure_port: int) -> KafkaServer:
    """Plain text for who administers it, from this machine; SASL over TLS for all others."""
    port = free_port()
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    return KafkaServer(
        folder / "kafka",
        port,
        {
            "listeners": f"PLAINTEXT://{HOST}:{port},SASL_SSL://{HOST}:{secure_port},CONTROLLER://{HOST}:{free_port()}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
            "ssl.keystore.location": str(folder / "broker.p12"),
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.password": PASSWORD,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )


class Broker:
    def __init__(self, folder: Path) -> None:
        make_certificates(folder)
        self.ca_file = folder / "ca.pem"
        secure_port = free_port()
        self.secure_address = f"{HOST}:{secure_port}"
        self.server = secured(folder, secure_port)

    def settings(self, user: str, password: str = "") -> KafkaSettings:
        return KafkaSettings(
            kafka_bootstrap_servers=self.secure_address,
            kafka_security_protocol="SASL_SSL",
            kafka_username=user,
            kafka_password=password or USERS[user],
            kafka_ca_file=self.ca_file,
        )


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    try:
        broker = Broker(tmp_path_factory.mktemp("secure"))
    except KafkaMissingError as error:
        pytest.skip(str(error))
    with broker.server:
        yield broker


@pytest.fixture
async def no_end_of_tls_left() -> AsyncIterator[None]:
    """aiokafka does not wait until a broker that refused it has answered the end of TLS, a round trip later. Where a
    loop ends before, the socket stays open until it is collected, and the test that runs then is the one that fails."""
    before = len(os.listdir("/dev/fd"))
    yield
    await until(lambda: len(os.listdir("/dev/fd")) <= before)


@pytest.fixture
def admin_environment(secure_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("INSIGHTS_KAFKA_BOOTSTRAP_SERVERS", secure_broker.server.address)
    return secure_broker.server.address


def changed(folder: Path, **first_topic: object) -> Path:
    """The file with another first topic."""
    wanted = yaml.safe_load(FILE.read_text())
    wanted["topics"][0] |= first_topic
    path = folder / "topics.yaml"
    path.write_text(yaml.safe_dump(wanted))
    return path


async def test_apply_makes_a_new_kafka_as_the_file_says_and_keeps_it_so(
    admin_environment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not await run_topics(FILE, 1, does_apply=False)
    told = " ".join(capsys.readouterr().out.split())
    assert "topic request-events is missing" in told
    assert "missing right: User:gateway may WRITE topic request-events" in told
    assert await run_topics(FILE, 1, does_apply=True)
    assert await run_topics(FILE, 1, does_apply=False)
    capsys.readouterr()

    # More partitions and longer retention are given; a config of the operator's own stays.
    await set_config(admin_environment, "request-events", {"segment.ms": "3600000"})
    grown = changed(tmp_path, partitions=8, configs={"retention.ms": "1209600000", "max.message.bytes": "8388608"})
    assert await run_topics(grown, 1, does_apply=True)
    assert (await configs(admin_environment, "request-events"))["segment.ms"] == "3600000"

    # Fewer partitions and shorter retention are not.
    assert not await run_topics(changed(tmp_path, partitions=2, configs={"retention.ms": "1000"}), 1, does_apply=True)
    told = " ".join(capsys.readouterr().out.split())
    assert "has 8 partitions instead of 2" in told
    assert "retention.ms=1209600000 instead of 1000" in told
    assert (await configs(admin_environment, "request-events"))["retention.ms"] == "1209600000"


async def admin(address: str) -> AIOKafkaAdminClient:
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    return client


async def configs(address: str, topic: str) -> dict[str, str]:
    from ingest.topics.admin import _configs

    client = await admin(address)
    every, _ = await _configs(client, topic)
    await client.close()
    return every


async def set_config(address: str, topic: str, values: dict[str, str]) -> None:
    from ingest.topics.admin import _configs, _set_configs

    client = await admin(address)
    _, own = await _configs(client, topic)
    await _set_configs(client, topic, {**own, **values})
    await client.close()


async def test_the_gateway_writes_and_a_worker_reads_over_tls_and_sasl(
    admin_environment: str, secure_broker: Broker, warehouse: Warehouse
) -> None:
    await run_topics(FILE, 1, does_apply=True)
    gateway = secure_broker.settings("gateway")
    async with EventEmitter(
        secure_broker.secure_address, enable_idempotence=False, **gateway.client_options()
    ) as emitter:
        for number in range(20):
            await emitter.emit_raw(b"key", encode(request_id=f"secure-{number}"))
        await emitter.flush()
    settings = IngestSettings(
        **secure_broker.settings("insights-ingest").model_dump(), flush_seconds=0.1, metrics_port=0
    )
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(settings, warehouse).run(stop))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"] < 20:
            assert not task.done(), task.result()
            await asyncio.sleep(0.1)
    stop.set()
    await task
    assert warehouse.query("SELECT uniqExact(request_id) AS n FROM request_logs")[0]["n"] == 20


async def test_budgets_increments_and_states_travel_over_tls_and_sasl(
    admin_environment: str, secure_broker: Broker, warehouse: Warehouse
) -> None:
    """The API puts a budget, a worker tells what it has stored, an aggregator counts, the API reads what is spent."""
    await run_topics(FILE, 1, does_apply=True)
    user, name = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("user", "budget"))
    api, worker, counting = (
        secure_broker.settings(who) for who in ("insights-api", "insights-ingest", "insights-aggregate")
    )
    budgets = KafkaBudgets(secure_broker.secure_address, **api.client_options())
    await budgets.put(requests_budget(name, user))
    # Reconciled rarely, so that what is seen comes from increments.
    aggregator = Aggregator(AggregateSettings(**counting.model_dump(), reconcile_seconds=3600), warehouse)
    await aggregator.start()
    try:
        async with running(Worker(IngestSettings(**worker.model_dump(), flush_seconds=0.1, metrics_port=0), warehouse)):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while name not in await budgets.statuses():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await budgets.statuses())[name].level is not BudgetLevel.EXCEEDED:
                    # What is stored before the worker's producer of increments is connected has none.
                    await produce(secure_broker.server.address, "request-events", [event(0, user)])
    finally:
        await aggregator.stop()
        await budgets.delete(name)
        assert name not in await budgets.budgets()
        await budgets.close()


@pytest.mark.usefixtures("no_end_of_tls_left")
async def test_who_has_no_right_to_budgets_gets_a_sentence(admin_environment: str, secure_broker: Broker) -> None:
    await run_topics(FILE, 1, does_apply=True)
    budgets = KafkaBudgets(secure_broker.secure_address, **secure_broker.settings("stranger").client_options())
    with pytest.raises(BudgetsUnavailableError, match=r"[Aa]uthoriz"):
        await budgets.budgets()
    await budgets.close()


@pytest.mark.parametrize(
    ("user", "password"), [("gateway", "wrong"), ("nobody", "wrong"), ("stranger", USERS["stranger"])]
)
@pytest.mark.usefixtures("no_end_of_tls_left")
async def test_who_has_no_right_gets_a_sentence(
    admin_environment: str, secure_broker: Broker, user: str, password: str
) -> None:
    await run_topics(FILE, 1, does_apply=True)
    options = secure_broker.settings(user, password).client_options()
    emitter = EventEmitter(
        secure_broker.secure_address, enable_idempotence=False, delivery_timeout_seconds=3, **options
    )
    with pytest.raises(KafkaUnavailableError):
        await send_one(emitter)


async def send_one(emitter: EventEmitter) -> None:
    async with emitter:
        await emitter.emit_raw(b"key", encode())
        await emitter.flush()


@pytest.mark.usefixtures("no_end_of_tls_left")
async def test_a_certificate_of_somebody_else_is_not_trusted(secure_broker: Broker) -> None:
    options = KafkaSettings(
        kafka_security_protocol="SASL_SSL", kafka_username="gateway", kafka_password=USERS["gateway"]
    ).client_options()
    emitter = EventEmitter(secure_broker.secure_address, delivery_timeout_seconds=3, **options)
    with pytest.raises(KafkaUnavailableError):
        await emitter.start()


async def test_a_kafka_without_an_authorizer_needs_no_rights(
    secure_broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with KafkaServer(tmp_path / "plain") as server:
        monkeypatch.setenv("INSIGHTS_KAFKA_BOOTSTRAP_SERVERS", server.address)
        client = await admin(server.address)
        await client.create_topics([NewTopic("request-events", 2, 1)])
        await client.close()
        assert await run_topics(FILE, 1, does_apply=True)
    told = capsys.readouterr().out
    assert "no authorizer" in told
    assert "topic request-events has 2 partitions instead of 6: adds them" in told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("topics: [", "while parsing"),
        ("replication_factor: 0\ntopics: []", "replication_factor: Input should be greater than or equal to 1"),
        ("replication_factor: 1\ntopics: [{name: a/b, partitions: 1}]", "topics.0.name"),
        ("replication_factor: 1\ntopics: [{name: a, partitons: 1}]", "topics.0.partitons: Extra inputs"),
        ("replication_factor: 1\ntopics: [{name: a, partitions: 1}, {name: a, partitions: 1}]", "more than once: a"),
        ("replication_factor: 1\ntopics: []\nacls: [{principal: 'User:a', operations: [READ]}]", "a topic or a group"),
        (
            "replication_factor: 1\ntopics: []\nacls: [{principal: 'User:a', topic: t, operations: [LOOK]}]",
            "one of ALL, READ",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(text)
    with pytest.raises(TopicFileError, match=r"topics\.yaml") as error:
        read_wanted(path)
    assert sentence in str(error.value)
    assert CliRunner().invoke(app, ["topics", "check", str(path)]).exit_code != 0
