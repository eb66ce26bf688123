"""Exports traces where OpenTelemetry's own variables configure an exporter; otherwise every span is a no-op."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace

from cli.serving import ServiceError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def is_configured(environ: Mapping[str, str]) -> bool:
    """Whether the variables configure an exporter. Raises ServiceError for one that is not supported."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if exporter not in ("", "otlp"):
        raise ServiceError(f"OTEL_TRACES_EXPORTER {exporter!r}: only otlp and none are known")
    for name in PROTOCOLS:
        if environ.get(name, "http/protobuf") != "http/protobuf":
            raise ServiceError(f"{name} {environ[name]!r}: only http/protobuf is known")
    return any(environ.get(name) for name in ENDPOINTS)


@contextmanager
def traced(service: str) -> Iterator[None]:
    """Export the spans of the block, if configured; the last are sent before it ends. Raises ServiceError."""
    if not is_configured(os.environ):
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ServiceError("traces are asked for by OTEL_ variables: install router-insights[otel]") from error
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
