"""`insights keys`: create, list and revoke keys of the API."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError
from aggregator.tables.api_keys import StoredKey, create_key, revoke_key, stored_keys
from aggregator.tables.audit_log import Action
from api.security.permissions import PERMISSIONS, Permission, Scope
from cli.adapters.clickhouse import admin_warehouse
from cli.commands.audit import actor, record_here

app = typer.Typer(add_completion=False, no_args_is_help=True)


class KeyRequestError(InsightsError):
    """No key can be created from these arguments; the message says why."""


def _check(name: str, scopes: Sequence[Scope], user_id: str | None, api_key_ids: Sequence[str]) -> None:
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise KeyRequestError("a key's name must have 1 to 100 printable characters")
    if "" in (user_id, *api_key_ids):
        raise KeyRequestError("--user and --api-key must not be empty")
    is_confined = user_id is not None or bool(api_key_ids)
    if is_confined and any(PERMISSIONS[scope] & {Permission.ADMIN, Permission.SEND} for scope in scopes):
        raise KeyRequestError("only keys that read can be confined: use --scope read or --scope read-no-bodies")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose it is or what for; it shows in lists and logs.")],
    scope: Annotated[
        list[str],
        typer.Option(metavar="admin|read|read-no-bodies|ingest", help="What it may do; may be repeated."),
    ],
    user: Annotated[str | None, typer.Option(help="Confine it to the requests of this user.")] = None,
    api_key: Annotated[list[str] | None, typer.Option(help="Confine it to this api key id; may be repeated.")] = None,
) -> None:
    """Make a key and print it, once."""
    unknown = [word for word in scope if word not in set(Scope)]
    if unknown:
        raise typer.BadParameter(f"--scope {unknown[0]!r} must be one of {', '.join(Scope)}")
    run_create(admin_warehouse(), name, [Scope(word) for word in scope], user, api_key or [])


def run_create(
    warehouse: Warehouse, name: str, scopes: Sequence[Scope], user_id: str | None, api_key_ids: Sequence[str]
) -> None:
    """Create a key and print it, the only time it can be seen. Raises KeyRequestError and KeyNameError."""
    _check(name, scopes, user_id, api_key_ids)
    words = sorted({scope.value for scope in scopes})
    record_here(
        warehouse, Action.CREATE_KEY, name, {"scopes": words, "user_id": user_id, "api_key_ids": list(api_key_ids)}
    )
    print(create_key(warehouse, name, words, actor(), user_id, api_key_ids))
    Console(stderr=True).print("Keep it: only its hash is stored, so it cannot be shown again.", highlight=False)


@app.command("list")
def list_keys(all_: Annotated[bool, typer.Option("--all", help="The revoked ones too.")] = False) -> None:
    """The keys of the database, what they may do, and when they were last used (to the minute)."""
    run_list(admin_warehouse(), all_)


def _confined_to(key: StoredKey) -> str:
    by_user = [f"user {key.user_id}"] if key.user_id is not None else []
    return ", ".join([*by_user, *(f"key {api_key_id}" for api_key_id in key.api_key_ids)]) or "everything"


def run_list(warehouse: Warehouse, with_revoked: bool) -> None:
    """Print the keys in force, and the revoked ones too if asked to."""
    table = Table(
        "name", "begins", "scopes", "sees", "created (UTC)", "by", "last used", "revoked", box=box.SIMPLE_HEAD
    )
    for key in stored_keys(warehouse):
        if key.revoked_at is None or with_revoked:
            moments = (f"{moment:%F %T}" if moment else "-" for moment in (key.last_used_at, key.revoked_at))
            texts = (key.name, f"{key.prefix}…", ", ".join(key.scopes), _confined_to(key))
            table.add_row(*map(Text, texts), f"{key.created_at:%F %T}", Text(key.created_by), *moments)
    Console().print(table if table.row_count else "no keys in the database; those of INSIGHTS_API_KEYS are not listed")


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="As `insights keys list` names it.")]) -> None:
    """End a key for good."""
    run_revoke(admin_warehouse(), name)


def run_revoke(warehouse: Warehouse, name: str) -> None:
    """Revoke a key. Raises KeyNameError when no key in force has the name."""
    record_here(warehouse, Action.REVOKE_KEY, name)
    revoke_key(warehouse, name, actor())
    print(f"revoked {name}; every API process refuses it within seconds")
