"""Runs every check of `insights doctor` and prints a line for each finding."""

import asyncio

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from cli.doctor import clickhouse, kafka
from cli.doctor.finding import Finding, Severity
from ingest.settings import IngestSettings

STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAULT: "bold red"}


def report(findings: list[Finding]) -> Table:
    table = Table("", "check", "found", "what to do", box=box.SIMPLE_HEAD)
    for finding in findings:
        style = STYLES[finding.level]
        texts = Text(finding.observed, style), Text(finding.advice)
        table.add_row(Text(finding.level, style), finding.check, *texts)
    return table


def run_doctor(settings: IngestSettings, warehouse: Warehouse) -> bool:
    """Print the findings and return whether none of them is a fault; warnings are not faults."""
    findings = clickhouse.examine(warehouse)
    options = settings.client_options()
    findings += asyncio.run(
        kafka.examine(settings.kafka_bootstrap_servers, settings.kafka_topic, settings.kafka_group, **options)
    )
    console = Console()
    console.print(report(findings))
    faults = [finding.check for finding in findings if finding.level is Severity.FAULT]
    console.print(f"faults: {', '.join(faults)}" if faults else "no faults")
    return not faults
