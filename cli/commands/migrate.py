"""`insights migrate`."""

from typing import Annotated

import typer

from aggregator.clickhouse.migrate import migrate
from cli.adapters.clickhouse import admin_warehouse, missing_migrations
from cli.settings import AdminSettings

app = typer.Typer(add_completion=False)


@app.command()
def migrate_database(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name what would be applied.")] = False,
) -> None:
    warehouse = admin_warehouse()
    cluster = AdminSettings().clickhouse_cluster
    applied = missing_migrations(warehouse) if dry_run else migrate(warehouse, cluster=cluster)
    for migration in applied:
        print(f"{'would apply' if dry_run else 'applied'} {migration.name}")
    if not applied:
        print("the database is up to date")
