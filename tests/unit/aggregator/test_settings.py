"""Connecting to Kafka: settings that fit together, and secrets from files."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.settings import KafkaSettings
from cli.errors import sentence_for
from cli.settings import AdminSettings
from ingest.settings import IngestSettings


def test_plain_text_needs_no_options() -> None:
    assert KafkaSettings().client_options() == {}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs INSIGHTS_KAFKA_USERNAME"),
        ({"kafka_security_protocol": "SASL_SSL", "kafka_username": "a"}, "INSIGHTS_KAFKA_PASSWORD"),
        ({"kafka_username": "a", "kafka_password": "b"}, "needs INSIGHTS_KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ({"kafka_ca_file": "ca.pem"}, "needs INSIGHTS_KAFKA_SECURITY_PROTOCOL=SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_key_file": "key.pem"}, "go together"),
        ({"kafka_security_protocol": "TLS"}, "INSIGHTS_KAFKA_SECURITY_PROTOCOL: Input should be 'PLAINTEXT'"),
    ],
)
def test_half_a_configuration_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        KafkaSettings(**values)
    told = sentence_for(error.value)
    assert told is not None
    assert sentence in told


def test_a_secret_is_read_from_its_file_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "insights_clickhouse_url").write_text("http://writer:s3cret@clickhouse:8123/insights\n")
    (tmp_path / "insights_kafka_password").write_text("p4ssword\n")
    monkeypatch.setenv("INSIGHTS_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("INSIGHTS_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    monkeypatch.setenv("INSIGHTS_KAFKA_USERNAME", "ingest")
    settings = IngestSettings()
    assert settings.clickhouse_url.get_secret_value() == "http://writer:s3cret@clickhouse:8123/insights"
    assert settings.client_options()["sasl_plain_password"] == "p4ssword"
    assert "p4ssword" not in repr(settings)
    assert "s3cret" not in repr(settings)
    monkeypatch.setenv("INSIGHTS_CLICKHOUSE_URL", "http://other:8123")
    assert AdminSettings().clickhouse_url.get_secret_value() == "http://other:8123"
