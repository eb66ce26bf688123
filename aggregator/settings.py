"""Where settings come from, and those of every ClickHouse and Kafka client.

They are `INSIGHTS_*` environment variables, and files for those that are secrets.
"""

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from aiokafka.helpers import create_ssl_context
from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from aggregator.running_stack import DATA_DIR, RunningStack, addresses

SECRETS_DIR = "INSIGHTS_SECRETS_DIR"
ADDRESSES = RunningStack.model_fields.keys()
ADDRESS = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")


class _DataDirSource(PydanticBaseSettingsSource):
    """The addresses of the stack over the data directory that `INSIGHTS_DATA_DIR` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Raises RunningStackError."""
        folder = os.environ.get(DATA_DIR, "")
        wanted = ADDRESSES & self.settings_cls.model_fields.keys() - self.current_state.keys()
        if not folder or not wanted:
            return {}
        return {name: value for name, value in addresses(Path(folder)).items() if name in wanted}


class Settings(BaseSettings):
    """What every group of settings has in common.

    A setting `name` is the environment variable `INSIGHTS_NAME`, or else the file `insights_name` in the directory
    that `INSIGHTS_SECRETS_DIR` names, as container platforms mount secrets. The variable goes before the file. Where
    neither gives an address, and `INSIGHTS_DATA_DIR` names a data directory, its stack does.
    """

    model_config = SettingsConfigDict(env_prefix="INSIGHTS_", frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get(SECRETS_DIR)
        files = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return (init_settings, env_settings, *files, _DataDirSource(settings_cls))


class ClickHouseSettings(Settings):
    """Where ClickHouse is. The URL holds a password, so it is a secret."""

    clickhouse_url: SecretStr = Field(
        SecretStr("http://localhost:8123/insights"),
        description="http(s)://user:password@host:port/database, or chdb:///directory for the engine in this process",
    )


def kafka_addresses(text: str) -> str:
    """`text` as it is. Raises ValueError that names the first part of it that is no address."""
    for address in text.split(","):
        match = ADDRESS.fullmatch(address.strip())
        if match is None or not 0 < int(match[1] or 9092) < 65536:
            raise ValueError(f"{address.strip()!r} must be host:port; several are separated by commas")
    return text


class KafkaSettings(Settings):
    """How every Kafka client connects: addresses, encryption, and who it says it is."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(kafka_addresses)] = Field(
        "localhost:9092", description="Kafka brokers, host:port, comma-separated"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to: encrypted with SSL, with a user and password with SASL"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="how the password is proved"
    )
    kafka_username: str = Field("", description="user of SASL")
    kafka_password: SecretStr = Field(SecretStr(""), description="password of SASL")
    kafka_ca_file: Path | None = Field(
        None, description="PEM with the authorities that brokers' certificates are checked against; else the system's"
    )
    kafka_certificate_file: Path | None = Field(None, description="PEM with the client's own certificate, if any")
    kafka_key_file: Path | None = Field(None, description="PEM with the key of that certificate")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Half a configuration would fail later, or connect in the clear where encryption was meant."""
        has_password = bool(self.kafka_username and self.kafka_password.get_secret_value())
        if self.kafka_security_protocol.startswith("SASL") and not has_password:
            raise ValueError(
                f"INSIGHTS_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs INSIGHTS_KAFKA_USERNAME"
                " and INSIGHTS_KAFKA_PASSWORD"
            )
        if self.kafka_username and not self.kafka_security_protocol.startswith("SASL"):
            raise ValueError(
                "INSIGHTS_KAFKA_USERNAME needs INSIGHTS_KAFKA_SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT)"
            )
        if self.kafka_ca_file and not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError("INSIGHTS_KAFKA_CA_FILE needs INSIGHTS_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL")
        if bool(self.kafka_certificate_file) != bool(self.kafka_key_file):
            raise ValueError("INSIGHTS_KAFKA_CERTIFICATE_FILE and INSIGHTS_KAFKA_KEY_FILE go together")
        return self

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without encryption. Raises OSError for a file that cannot be read or is no PEM."""
        if not self.kafka_security_protocol.endswith("SSL"):
            return None
        context: ssl.SSLContext = create_ssl_context(
            cafile=self.kafka_ca_file, certfile=self.kafka_certificate_file, keyfile=self.kafka_key_file
        )
        return context

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients, besides the addresses."""
        if self.kafka_security_protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {
            "security_protocol": self.kafka_security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.kafka_username:
            options |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.kafka_password.get_secret_value(),
            }
        return options
