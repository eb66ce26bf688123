"""Where a running stack on one machine is reached: a file in its data directory, which only its owner can read.

ClickHouse's engine lets one process at a time open its directory. So `insights up` serves the engine to the other
commands, under a secret that is in this file.
"""

import base64
import fcntl
import http.client
import os
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from aggregator.errors import InsightsError

DATA_DIR = "INSIGHTS_DATA_DIR"
FILE = "running.json"
LOCK = "lock"
ROWS = "clickhouse"
# A busy machine may take its time; nothing at all listens where no stack runs.
PING_SECONDS = 30.0


class RunningStackError(InsightsError):
    """The data directory does not say whether a stack runs on it; the message says why."""


def is_in_use(data_dir: Path) -> bool:
    """Whether a stack runs on `data_dir`, or starts or stops.

    The kernel lets go of the lock when its process ends, however that ends. Addresses that are still there then are
    nobody's, or by now somebody else's, who must not get a key.
    """
    try:
        handle = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


class RunningStack(BaseModel):
    """The addresses of a stack that runs: of ClickHouse, with user and password, of its Kafka broker and of its API."""

    clickhouse_url: str
    kafka_bootstrap_servers: str
    api_url: str

    def write(self, data_dir: Path) -> None:
        """For other commands of the same user to find."""
        temporary = data_dir / f"{FILE}.new"
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(self.model_dump_json())
        temporary.rename(data_dir / FILE)

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """The stack that runs on `data_dir`; None when none does. Raises RunningStackError."""
        path = data_dir / FILE
        try:
            found = cls.model_validate_json(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            raise RunningStackError(
                f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is damaged'}): run this as the user"
                " of insights up, or delete the file if none runs"
            ) from error
        # A stack that was killed has left its file.
        return found if is_in_use(data_dir) and found._answers() else None

    def _answers(self) -> bool:
        parts = urlsplit(self.clickhouse_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=PING_SECONDS)
        user = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        try:
            connection.request("GET", "/ping", headers={"Authorization": f"Basic {user}"})
            return connection.getresponse().read() == b"Ok.\n"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def forget(data_dir: Path) -> None:
    """The stack on `data_dir` runs no more."""
    (data_dir / FILE).unlink(missing_ok=True)


def addresses(data_dir: Path) -> dict[str, str]:
    """Settings that lead to the data of `data_dir`: to the stack that runs on it, or else to its rows on the disk.

    Raises RunningStackError.
    """
    found = RunningStack.find(data_dir)
    return found.model_dump() if found else {"clickhouse_url": f"chdb://{(data_dir / ROWS).resolve()}"}
