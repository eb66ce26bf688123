"""Reading messages that anybody may send, in a process of its own: what is tried here once ended the process."""

import subprocess
import sys

import pytest

# As where Python's own reader of JSON goes deeper than it does here by default.
READ = """
import sys
sys.setrecursionlimit(1_000_000)
from connectrpc.errors import ConnectError
from api.connect.codecs import BinaryCodec, JsonCodec
from api.connect.generated.agentrouter.insights.v1.request_logs_pb import QueryRequestLogsRequest
codec = {"json": JsonCodec(), "proto": BinaryCodec()}[sys.argv[1]]
try:
    codec.decode(eval(sys.argv[2]), QueryRequestLogsRequest)
except (ConnectError, RecursionError) as error:
    print(type(error).__name__, str(error)[:40])
"""


@pytest.mark.parametrize(
    ("codec", "body", "told"),
    [
        ("json", """b'{"userId":' + b'[' * 20_000 + b']' * 20_000 + b'}'""", "ConnectError userId: must be text"),
        (
            "json",
            """b'{"userId":' + b'{"a":' * 20_000 + b'1' + b'}' * 20_000 + b'}'""",
            "ConnectError userId: must be text",
        ),
        ("proto", r"""b'\xa3\x06' * 500_000""", "RecursionError"),
    ],
)
def test_a_message_however_deep_is_refused(codec: str, body: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", READ, codec, body], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    assert done.stdout.startswith(told)
