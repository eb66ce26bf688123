"""Whether ClickHouse's engine in this process has the address space that it reserves.

With too little it fails in one of many ways, or waits for ever for a thread that could not be started.
"""

import resource

from aggregator.errors import InsightsError

# It reserved 3.5 GB at its start on two cores, and more with each thread and each core.
NEEDED_BYTES = 8 * 1024**3


class AddressSpaceError(InsightsError):
    """The operating system gives this process too little address space for the engine."""


def check_address_space() -> None:
    """Raises AddressSpaceError."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < NEEDED_BYTES:
        raise AddressSpaceError(
            f"this process may use {allowed // 1024**2:,} MB of address space, and ClickHouse's engine needs"
            f" {NEEDED_BYTES // 1024**2:,} MB, most of which it only reserves: raise the limit (ulimit -v unlimited),"
            " and bound the memory of the service or the container instead"
        )
