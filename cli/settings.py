"""Settings of the commands that only look after the database, from `INSIGHTS_*` environment variables."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class AdminSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="INSIGHTS_", frozen=True, hide_input_in_errors=True)

    clickhouse_url: SecretStr = Field(
        SecretStr("http://localhost:8123/insights"),
        description="http(s)://user:password@host:port/database, or chdb:///directory for the engine in this process",
    )
