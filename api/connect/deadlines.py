"""How long the client of a request waits for the answer."""

import re
from collections.abc import Mapping

CONNECT_MS = re.compile(r"\d{1,10}", re.ASCII)
GRPC = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
GRPC_SECONDS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def seconds_left(headers: Mapping[str, str]) -> float | None:
    """What `Connect-Timeout-Ms` or `Grpc-Timeout` says; None without one. What is malformed, the protocol refuses."""
    if CONNECT_MS.fullmatch(given := headers.get("connect-timeout-ms", "")):
        return int(given) / 1000
    if found := GRPC.fullmatch(headers.get("grpc-timeout", "")):
        return int(found[1]) * GRPC_SECONDS[found[2]]
    return None
