"""Keys of metadata are whatever people send, also what ClickHouse's names of subcolumns use as syntax."""

from typing import Any

import pytest

from aggregator.clickhouse.client import Warehouse
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.integration.ingest.test_sink import batch_of, encode
from tests.support.api import client_of

V2 = "/api/public/v2/requests"
KEYS = [
    "plain", "two words", "deep.er", "x.:`Array(JSON)`", "x.:`Int64`", "n.:`Foo`", "^`y`", "a.^`z`.b", "`", ".:`", 
    "k:v", "it's", 'say "x"', "\\", "é.:`String`",
]  # fmt: skip


@pytest.mark.parametrize("value", ["text", 'with "quotes"', ["a", "b"], 5])
def test_any_key_can_be_filtered_grouped_and_suggested(warehouse: Warehouse, value: Any) -> None:
    events = [encode(request_id=f"r{n}", metadata={key: value, "other": {"k": 1}}) for n, key in enumerate(KEYS)]
    Sink(warehouse, PriceBook()).write(batch_of(*events, encode(request_id="none")))
    values = value if isinstance(value, list) else [str(value)]
    with client_of(warehouse) as client:
        for n, key in enumerate(KEYS):
            for operator, asked in (("key_equals", values[0]), ("key_contains", values[0][:2]), ("in", values)):
                filters = [{"field": "metadata", "operator": operator, "nested_key": key, "value": asked}]
                response = client.post(f"{V2}/search", json={"filter_group": {"filters": filters}})
                assert response.status_code == 200, (key, operator, response.text)
                assert [item["id"] for item in response.json()["items"]] == [f"r{n}"], (key, operator)
            chart = {"id": "c", "chartType": "bar", "metric": "count", "groupByMetadataKey": key}
            response = client.post(f"{V2}/analytics/custom-analytics", json={"customCharts": [chart]})
            assert response.status_code == 200, (key, response.text)
            response = client.get(f"{V2}/suggestions", params={"field": "metadata_values", "metadata_key": key})
            assert response.status_code == 200, (key, response.text)
