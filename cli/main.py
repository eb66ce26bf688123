"""The `insights` command. Each command imports what it needs when it runs, so that `--help` is instant."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from aggregator.clickhouse.client import Warehouse
    from aggregator.times import Span

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
rollups = typer.Typer(help="Compare the rollups with the raw rows, or compute them anew.", no_args_is_help=True)
app.add_typer(rollups, name="rollups")
dead_letters = typer.Typer(
    help="Records that are no valid events: look at them, send them again, let them go.", no_args_is_help=True
)
app.add_typer(dead_letters, name="dead-letters")
keys = typer.Typer(help="Who may ask the API: keys with scopes, kept as hashes.", no_args_is_help=True)
app.add_typer(keys, name="keys")
budgets = typer.Typer(help="How much a user, key, model or tag may use, and when to speak up.", no_args_is_help=True)
app.add_typer(budgets, name="budgets")
retention = typer.Typer(help="How long rows and bodies are kept.", no_args_is_help=True)
app.add_typer(retention, name="retention")
prices = typer.Typer(help="What costs what, and why a request cost what it did.", no_args_is_help=True)
app.add_typer(prices, name="prices")
topics = typer.Typer(help="Compare Kafka's topics and rights with a file, or make them so.", no_args_is_help=True)
app.add_typer(topics, name="topics")


def _moment(text: str) -> datetime:
    """RFC 3339 with a zone, or a date, whose midnight in UTC is meant."""
    from pydantic_core import PydanticCustomError

    from ingest.events import parse_timestamp

    try:
        return parse_timestamp(f"{text}T00:00:00Z" if len(text) == len("2026-01-31") else text)
    except PydanticCustomError as error:
        raise typer.BadParameter(f"{text!r} {error.message()}; a date alone is its midnight in UTC") from error


def _speed(text: str) -> float:
    """`max` (infinite), or how many times faster than it happened."""
    try:
        speed = float("inf") if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise typer.BadParameter(f"--speed {text!r} must be max or a number above 0, like 10 for ten times as fast")
    return speed


def _days(text: str) -> int:
    """0 is for ever."""
    if text == "forever":
        return 0
    if not text.isdecimal() or not 0 < int(text) <= MOST_DAYS:
        raise typer.BadParameter(f"{text!r} must be forever or a number of days from 1 to {MOST_DAYS:,}")
    return int(text)


# 50 years: ClickHouse's seconds end in 2106.
MOST_DAYS = 18_250
DaysOption = typer.Option(parser=_days, metavar="DAYS|forever", help="Days of UTC; as it is without.")


def _directory(text: str) -> Path:
    if not text:
        raise typer.BadParameter("--data-dir must not be empty; . is this directory")
    return Path(text)


def _servers(text: str) -> str:
    from aggregator.kafka import kafka_addresses

    try:
        return kafka_addresses(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"router-insights {version('router-insights')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Who spent what, on which model, when: exact analytics for LLM gateways."""


Servers = Annotated[
    str,
    typer.Option(
        envvar="INSIGHTS_KAFKA_BOOTSTRAP_SERVERS",
        parser=_servers,
        metavar="HOST:PORT",
        help="Kafka; several are comma-separated.",
    ),
]
From = typer.Option("--from", parser=_moment, metavar="TIME", help="Inclusive: RFC 3339, or a date (UTC).")
To = typer.Option("--to", parser=_moment, metavar="TIME", help="Exclusive: RFC 3339, or a date (UTC).")


def _span(start: datetime | None, end: datetime | None) -> "Span":
    from aggregator.times import Span

    if start is not None and end is not None and start >= end:
        raise typer.BadParameter(f"--from {start.isoformat()} must be before --to {end.isoformat()}")
    return Span(start, end)


def _admin_warehouse() -> "Warehouse":
    from cli.adapters.clickhouse import open_warehouse
    from cli.settings import AdminSettings

    return open_warehouse(AdminSettings().clickhouse_url.get_secret_value())


@app.command()
def up(
    data_dir: Annotated[
        Path,
        typer.Option(
            envvar="INSIGHTS_DATA_DIR", parser=_directory, metavar="DIRECTORY", help="Where rows and the key are kept."
        ),
    ] = Path("data"),
    host: Annotated[str, typer.Option(envvar="INSIGHTS_HOST", help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="INSIGHTS_PORT", min=1, max=65535, help="Port the API listens on.")
    ] = 8080,
    broker_port: Annotated[int, typer.Option(min=1, max=65535, help="Port the embedded broker listens on.")] = 9092,
) -> None:
    """Run the whole stack on this machine: broker, ClickHouse engine, ingest worker and API."""
    from cli.local_stack.up import run_up
    from cli.logging_config import configure_logs

    configure_logs()
    run_up(data_dir, host, port, broker_port)


@app.command()
def demo(
    requests: Annotated[int, typer.Option(min=1, max=5_000_000, help="Valid requests to emit.")] = 50_000,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack running to look further.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same requests.")] = 1,
) -> None:
    """Emit realistic requests through the whole stack, check every sum, and show the report."""
    from cli.demo.demo import run_demo

    raise typer.Exit(0 if run_demo(requests, seed, keep) else 1)


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, readable=True)],
    form: Annotated[
        Literal["azure-llm", "events"], typer.Option("--format", help="azure-llm: CSV; events: one JSON object a line.")
    ],
    speed: Annotated[
        str, typer.Option(metavar="max|X", help="As fast as Kafka takes them, or X times as fast as they happened.")
    ] = "max",
    bootstrap_servers: Servers = "localhost:9092",
) -> None:
    """Send the requests of files (.gz too) to Kafka. Exit 1 when a line was not a request."""
    from cli.replay.replay import run_replay
    from cli.replay.trace import TraceFormat

    raise typer.Exit(0 if run_replay(files, TraceFormat(form), _speed(speed), bootstrap_servers) else 1)


@app.command()
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name what would be applied.")] = False,
) -> None:
    """Bring the database at INSIGHTS_CLICKHOUSE_URL up to date, on all nodes of INSIGHTS_CLICKHOUSE_CLUSTER."""
    from aggregator.clickhouse.migrate import migrate
    from cli.adapters.clickhouse import missing_migrations
    from cli.settings import AdminSettings

    warehouse = _admin_warehouse()
    cluster = AdminSettings().clickhouse_cluster
    applied = missing_migrations(warehouse) if dry_run else migrate(warehouse, cluster=cluster)
    for migration in applied:
        print(f"{'would apply' if dry_run else 'applied'} {migration.name}")
    if not applied:
        print("the database is up to date")


@app.command()
def ingest() -> None:
    """Run an ingest worker: Kafka records to priced rows."""
    from cli.commands.services import run_ingest
    from cli.logging_config import configure_logs
    from cli.tracing import traced
    from ingest.settings import IngestSettings

    configure_logs()
    with traced("insights-ingest"):
        asyncio.run(run_ingest(IngestSettings()))


@app.command()
def api() -> None:
    """Run the read API."""
    from cli.commands.services import run_api
    from cli.logging_config import configure_logs
    from cli.settings import ApiCommandSettings
    from cli.tracing import traced

    configure_logs()
    with traced("insights-api"):
        asyncio.run(run_api(ApiCommandSettings()))


@app.command()
def aggregate() -> None:
    """Run an aggregator: spend in windows, budgets and alerts."""
    from aggregator.budgets.settings import AggregateSettings
    from cli.commands.services import run_aggregate
    from cli.logging_config import configure_logs

    configure_logs()
    asyncio.run(run_aggregate(AggregateSettings()))


BudgetName = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, underscore, hyphen.")]


@budgets.command("list")
def list_budgets(bootstrap_servers: Servers = "localhost:9092") -> None:
    """Every budget, with what is spent of it."""
    from cli.commands.budgets import run_list

    run_list(bootstrap_servers)


@budgets.command("set")
def set_budget(
    name: BudgetName,
    limit: Annotated[str, typer.Option(help="Such as 250 or 0.50.")],
    scope: Annotated[
        str, typer.Option(metavar="total|model:M|user:U|api_key:K|tag:T", help="Whose usage it limits.")
    ] = "total",
    unit: Annotated[str, typer.Option(metavar="dollars|tokens|requests")] = "dollars",
    period: Annotated[str, typer.Option(metavar="hour|day|week|month")] = "month",
    timezone: Annotated[str, typer.Option(help="IANA time zone in which the period begins.")] = "UTC",
    rolling: Annotated[bool, typer.Option("--rolling", help="The last hour, 24 hours, 7 or 30 days instead.")] = False,
    threshold: Annotated[
        list[int] | None, typer.Option(help="Percent of the limit at which to alert; may be repeated (50, 80, 100).")
    ] = None,
    bootstrap_servers: Servers = "localhost:9092",
) -> None:
    """Make a budget, or change it; it applies to what was spent already."""
    from cli.commands.budgets import run_set

    kind, _, value = scope.partition(":")
    terms: dict[str, object] = {"id": name, "scope": {"kind": kind, "value": value}, "unit": unit, "limit": limit,
                                "period": period, "timezone": timezone, "rolling": rolling}  # fmt: skip
    run_set(bootstrap_servers, terms | ({"thresholds": sorted(threshold)} if threshold else {}))


@budgets.command("delete")
def delete_budget(name: BudgetName, bootstrap_servers: Servers = "localhost:9092") -> None:
    """Remove a budget."""
    from cli.commands.budgets import run_delete

    run_delete(bootstrap_servers, name)


@rollups.command()
def verify(
    start: Annotated[datetime | None, From] = None,
    end: Annotated[datetime | None, To] = None,
) -> None:
    """Compare every rollup with the raw rows. Exit 1 when they differ."""
    from cli.commands.rollups import run_verify

    raise typer.Exit(0 if run_verify(_admin_warehouse(), _span(start, end)) else 1)


@rollups.command()
def rebuild(start: Annotated[datetime, From], end: Annotated[datetime, To]) -> None:
    """Compute the rollups of a time range anew while ingestion goes on, then verify them."""
    from aggregator.tables.audit_log import Action
    from cli.commands.audit import record_here
    from cli.commands.rollups import run_rebuild

    warehouse, span = _admin_warehouse(), _span(start, end)
    record_here(warehouse, Action.REBUILD_ROLLUPS, "", {"from": start, "to": end})
    raise typer.Exit(0 if run_rebuild(warehouse, span) else 1)


Reason = Annotated[str | None, typer.Option(help="Only of this reason, such as json_invalid.")]
Since = Annotated[datetime | None, From]
Until = Annotated[datetime | None, To]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest.")]
Place = Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="As `list` names it.")]


@app.command()
def reprice(
    start: Annotated[datetime, From],
    end: Annotated[datetime, To],
    model: Annotated[str, typer.Option(help="Only rows of this model, as the gateway wrote it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
) -> None:
    """Give stored rows the prices in force now, then rebuild their rollups, while ingestion goes on."""
    from aggregator.tables.audit_log import Action
    from cli.commands.audit import record_here
    from cli.commands.reprice import run_reprice

    warehouse, span = _admin_warehouse(), _span(start, end)
    if not dry_run:
        record_here(warehouse, Action.REPRICE, model, {"from": start, "to": end})
    raise typer.Exit(0 if run_reprice(warehouse, span, model, dry_run) else 1)


@prices.command("list")
def list_prices(text: Annotated[str, typer.Argument(help="A part of the name.")] = "") -> None:
    """The models of the catalogue, dollars per million tokens now."""
    from cli.commands.prices import run_list

    run_list(text)


At = typer.Option("--at", parser=_moment, metavar="TIME", help="RFC 3339, or a date (UTC); now without.")


@prices.command("show")
def show_price(
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="Or a model as the gateway writes it.")],
    at: Annotated[datetime | None, At] = None,
) -> None:
    """What a model costs, tier by tier."""
    from cli.commands.prices import run_show

    run_show(model, at or datetime.now(UTC))


@prices.command("explain")
def explain_price(
    model: Annotated[str, typer.Argument(metavar="[PROVIDER/MODEL]")] = "",
    request_id: Annotated[str, typer.Option("--request", metavar="ID", help="A stored request, instead.")] = "",
    input_tokens: Annotated[int, typer.Option("--input", min=0, max=10**9)] = 0,
    output_tokens: Annotated[int, typer.Option("--output", min=0, max=10**9)] = 0,
    cached_input_tokens: Annotated[int, typer.Option("--cached-input", min=0)] = 0,
    cache_creation_input_tokens: Annotated[int, typer.Option("--cache-creation", min=0)] = 0,
    thinking_tokens: Annotated[int, typer.Option("--thinking", min=0)] = 0,
    usage: Annotated[str, typer.Option(help='Further units as JSON: {"web_searches": 2}')] = "",
    service_tier: Annotated[str, typer.Option()] = "",
    provider: Annotated[str, typer.Option()] = "",
    user_id: Annotated[str, typer.Option("--user")] = "",
    api_key_id: Annotated[str, typer.Option("--api-key")] = "",
    at: Annotated[datetime | None, At] = None,
) -> None:
    """Quantity x price for everything that a request is charged."""
    from cli.commands.prices import run_explain, run_explain_request

    if bool(model) == bool(request_id):
        raise typer.BadParameter("give either a model or --request")
    if request_id:
        run_explain_request(_admin_warehouse(), request_id)
        return
    event = {"model_name": model, "provider": provider, "user_id": user_id, "api_key_id": api_key_id,
             "service_tier": service_tier, "input_tokens": input_tokens, "output_tokens": output_tokens,
             "cached_input_tokens": cached_input_tokens, "cache_creation_input_tokens": cache_creation_input_tokens,
             "thinking_tokens": thinking_tokens, "usage": usage}  # fmt: skip
    run_explain(event, at or datetime.now(UTC))


@prices.command("check")
def check_prices(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]) -> None:
    """Whether a file of the operator's prices is right; every mistake with its line."""
    from cli.commands.prices import run_check

    run_check(file)


@dead_letters.command("list")
def list_dead_letters(reason: Reason = None, start: Since = None, end: Until = None, limit: Limit = 20) -> None:
    """Count them by reason and show the newest."""
    from aggregator.tables.dead_letters import Selection
    from cli.commands.dead_letters import run_list

    run_list(_admin_warehouse(), Selection(reason, _span(start, end)), limit)


@dead_letters.command("show")
def show_dead_letter(place: Place) -> None:
    """Show one whole: where it came from, why it is here, and its bytes."""
    from aggregator.tables.dead_letters import Selection
    from cli.commands.dead_letters import run_show

    topic, _, rest = place.rpartition("/")[0].rpartition("/")
    offset = place.rpartition("/")[2]
    if not (topic and rest.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"{place!r} must be TOPIC/PARTITION/OFFSET, as `insights dead-letters list` names it")
    selection = Selection(topic=topic, partition=int(rest), offset=int(offset))
    raise typer.Exit(0 if run_show(_admin_warehouse(), selection) else 1)


@dead_letters.command("replay")
def replay_dead_letters(
    reason: Reason = None,
    start: Since = None,
    end: Until = None,
    limit: Limit = 100_000,
    bootstrap_servers: Servers = "localhost:9092",
) -> None:
    """Send them back to the topic they came from, and drop those that Kafka has. Exit 1 when some had to stay."""
    from aggregator.tables.audit_log import Action
    from aggregator.tables.dead_letters import Selection
    from cli.commands.audit import record_here
    from cli.commands.dead_letters import run_replay

    warehouse, selection = _admin_warehouse(), Selection(reason, _span(start, end))
    record_here(warehouse, Action.REPLAY_DEAD_LETTERS, reason or "", {"from": start, "to": end, "limit": limit})
    raise typer.Exit(0 if run_replay(warehouse, selection, limit, bootstrap_servers) else 1)


@dead_letters.command("drop")
def drop_dead_letters(
    reason: Reason = None,
    start: Since = None,
    end: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete them."""
    from aggregator.tables.audit_log import Action
    from aggregator.tables.dead_letters import Selection
    from cli.commands.audit import record_here
    from cli.commands.dead_letters import run_drop

    warehouse, selection = _admin_warehouse(), Selection(reason, _span(start, end))
    if not yes:
        typer.confirm("Delete these dead letters for good?", abort=True)
    record_here(warehouse, Action.DROP_DEAD_LETTERS, reason or "", {"from": start, "to": end})
    run_drop(warehouse, selection)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is or what for; it shows in lists and logs.")],
    scope: Annotated[
        list[str],
        typer.Option(metavar="admin|read|read-no-bodies|ingest", help="What it may do; may be repeated."),
    ],
    user: Annotated[str | None, typer.Option(help="Confine it to the requests of this user.")] = None,
    api_key: Annotated[list[str] | None, typer.Option(help="Confine it to this api key id; may be repeated.")] = None,
) -> None:
    """Make a key and print it, once."""
    from api.security.access import Scope
    from cli.commands.keys import run_create

    unknown = [word for word in scope if word not in set(Scope)]
    if unknown:
        raise typer.BadParameter(f"--scope {unknown[0]!r} must be one of {', '.join(Scope)}")
    run_create(_admin_warehouse(), name, [Scope(word) for word in scope], user, api_key or [])


@keys.command("list")
def list_keys(all_: Annotated[bool, typer.Option("--all", help="The revoked ones too.")] = False) -> None:
    """The keys of the database, what they may do, and when they were last used (to the minute)."""
    from cli.commands.keys import run_list

    run_list(_admin_warehouse(), all_)


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="As `insights keys list` names it.")]) -> None:
    """End a key for good."""
    from cli.commands.keys import run_revoke

    run_revoke(_admin_warehouse(), name)


@retention.command("show")
def show_retention() -> None:
    """How long rows and bodies are kept, and how much there is."""
    from cli.commands.retention import run_show

    run_show(_admin_warehouse())


@retention.command("set")
def change_retention(
    rows: Annotated[int | None, DaysOption] = None,
    bodies: Annotated[int | None, DaysOption] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Keep rows, or bodies with all else that people wrote, for so many days; what is older goes. Rollups stay."""
    from aggregator.clickhouse.retention import Retention, current
    from cli.commands.retention import run_set
    from cli.settings import AdminSettings

    if rows is None and bodies is None:
        raise typer.BadParameter("give --rows, --bodies, or both")
    warehouse = _admin_warehouse()
    now = current(warehouse)
    wanted = Retention(
        now.rows_days if rows is None else rows or None, now.bodies_days if bodies is None else bodies or None
    )
    run_set(warehouse, wanted, AdminSettings().clickhouse_cluster, dry_run, yes)


@app.command()
def doctor() -> None:
    """Check Kafka, ClickHouse and what is in them, and say what to do. Exit 1 when there is a fault."""
    from cli.adapters.clickhouse import open_warehouse
    from cli.commands.doctor.report import run_doctor
    from ingest.settings import IngestSettings

    settings = IngestSettings()
    raise typer.Exit(0 if run_doctor(settings, open_warehouse(settings.clickhouse_url)) else 1)


@app.command()
def audit(limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest.")] = 50) -> None:
    """Who created and revoked keys, changed budgets, repriced, rebuilt, and let dead letters go."""
    from cli.commands.audit import run_audit

    run_audit(_admin_warehouse(), limit)


TopicFile = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)]
Replicas = Annotated[
    int | None, typer.Option("--replication-factor", min=1, help="Instead of the file's, for fewer brokers.")
]


@topics.command("check")
def check_topics(file: TopicFile, replication_factor: Replicas = None) -> None:
    """Name everything in which Kafka differs from FILE, and what to do about it. Exit 1 when anything does."""
    from cli.commands.topics import run_topics

    raise typer.Exit(0 if asyncio.run(run_topics(file, replication_factor, does_apply=False)) else 1)


@topics.command("apply")
def apply_topics(file: TopicFile, replication_factor: Replicas = None) -> None:
    """Create, add and set what is missing; nothing is deleted or shrunk. Exit 1 when something is left to do."""
    from cli.commands.topics import run_topics

    raise typer.Exit(0 if asyncio.run(run_topics(file, replication_factor, does_apply=True)) else 1)


def main() -> None:
    # What clients log before they raise would stand beside the sentence; services log it in their form.
    for client in ("clickhouse_connect", "aiokafka"):
        logging.getLogger(client).addHandler(logging.NullHandler())
    try:
        app()
    except Exception as error:
        from cli.errors import sentence_for

        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(f"insights: {sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
