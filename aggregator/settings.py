"""Where settings come from: `INSIGHTS_*` environment variables, and files for those that are secrets."""

import os

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

SECRETS_DIR = "INSIGHTS_SECRETS_DIR"


class Settings(BaseSettings):
    """What every group of settings has in common.

    A setting `name` is the environment variable `INSIGHTS_NAME`, or else the file `insights_name` in the directory
    that `INSIGHTS_SECRETS_DIR` names, as container platforms mount secrets. The variable goes before the file.
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
        return (init_settings, env_settings, *files)
