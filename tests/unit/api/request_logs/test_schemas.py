"""The example of a request log in the reference."""

from api.request_logs.examples import EXAMPLE_LOG
from ingest.transform.redaction import redact_headers


def test_the_example_shows_a_secret_header_as_it_is_stored() -> None:
    sent = {"content-type": "application/json", "authorization": "Bearer sk-abc123"}
    assert EXAMPLE_LOG["request_headers"] == redact_headers(sent)
