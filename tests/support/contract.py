"""Prints what this checkout promises to others, a line a promise, so that `diff` of two outputs shows what changed:

    python -m tests.support.contract > after.txt

The OpenAPI document (references replaced by what they name), metrics, settings, topics, tables with their columns, and
every command with its options.
"""

import importlib
import pkgutil
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import typer
import yaml
from prometheus_client import REGISTRY
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from api.app import create_app
from cli.main import app
from tests.support.api import settings
from tests.support.checkout import ROOT

COLUMNS = """
SELECT table, name, type, default_kind, default_expression FROM system.columns WHERE database = currentDatabase()
"""


def leaves(path: str, value: Any) -> Iterator[str]:
    """Every scalar, and every empty object or array, with its path."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(f"{path}/{name}", item)
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from leaves(f"{path}[{place}]", item)
    else:
        yield f"{path} = {value!r}"


def inlined(value: Any, schemas: dict[str, Any], within: tuple[str, ...] = ()) -> Any:
    if isinstance(value, list):
        return [inlined(item, schemas, within) for item in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("$ref", "")).rpartition("/")[2]
    if name in within:
        return "recursion"
    if name:
        beside = {key: item for key, item in value.items() if key != "$ref"}
        return inlined({**schemas[name], **beside}, schemas, (*within, name))
    return {k: inlined(v, schemas, within) for k, v in value.items() if not (k == "title" and isinstance(v, str))}


def openapi() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        document = create_app(settings(), Warehouse(f"chdb://{folder}")).openapi()
    schemas = document["components"]["schemas"]
    paths = {name: part for name, part in document.items() if name != "components"}
    yield from leaves("openapi", inlined(paths, schemas))
    yield from leaves("security", document["components"].get("securitySchemes", {}))
    yield from (f"schema {name}" for name in schemas)


def modules() -> Iterator[ModuleType]:
    for package in map(importlib.import_module, ("ingest", "aggregator", "api", "cli")):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def environment() -> Iterator[str]:
    classes = {value for module in modules() for value in vars(module).values() if isinstance(value, type)}
    for each in (each for each in classes if issubclass(each, BaseSettings) and each is not BaseSettings):
        for name, field in each.model_fields.items():
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            variable = str(field.validation_alias or f"{each.model_config.get('env_prefix', '')}{name}".upper())
            yield f"setting {variable} default={default!r} required={field.is_required()} {field.description!r}"


def metrics() -> Iterator[str]:
    for metric in set(REGISTRY._collector_to_names):
        if type(metric).__module__ == "prometheus_client.metrics":
            yield f"metric {metric._type} {metric._name} labels={metric._labelnames}"  # type: ignore[attr-defined]


def tables() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse(f"chdb://{folder}", database="insights")
        migrate(warehouse)
        for row in warehouse.query(COLUMNS):
            yield f"column {row['table']}.{row['name']} {row['type']} {row['default_kind']} {row['default_expression']}"
        warehouse.close()


def commands(path: str, command: Any) -> Iterator[str]:
    yield f"command {path} help={command.help!r}"
    for option in command.params:
        names = "/".join(option.opts + option.secondary_opts)
        yield f"command {path} {names} required={option.required} help={getattr(option, 'help', None)!r}"
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from commands(f"{path} {name}", command.resolve_command(context, [name])[1])


if __name__ == "__main__":
    topics = yaml.safe_load((ROOT / "deploy/kafka/topics.yaml").read_text())
    promises = {*openapi(), *environment(), *metrics(), *leaves("topics", topics), *tables()}
    print("\n".join(sorted(promises | {*commands("insights", typer.main.get_command(app))})))
