"""The data directory of the embedded stack: its lock, the warehouse and the API key."""

import fcntl
import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from aggregator.errors import InsightsError
from aggregator.running_stack import LOCK, ROWS, forget

KEY_PREFIX = "ak-"
API_KEY_FILE = "api-key"
# Commands hold the lock for a moment, to see whether anybody has it.
LOCK_SECONDS = 0.5
POLL_SECONDS = 0.01


class DataDirError(InsightsError):
    """The data directory cannot be used; the message says why and what to do."""


class DataDir:
    """The directory at `path`, created if missing and locked by this process inside a `with` block.

    The lock ends with the process, also after `kill -9`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock = -1
        self._rows_status: os.stat_result | None = None
        # Whether the process that held the lock before ended without releasing it, or left a batch half stored.
        self.was_killed = False
        self.has_half_stored = False

    def __enter__(self) -> Self:
        """Raises DataDirError when another process holds the directory or it cannot be written."""
        if set("?#") & set(str(self.path)):
            raise DataDirError(f"data directory {self.path}: the path must not hold ? or #")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"data directory {self.path} cannot be used: {error.strerror}") from error
        try:
            self._take_lock()
        except OSError:
            holder = os.read(self._lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise DataDirError(
                f"data directory {self.path} is in use by another insights up (process {holder}):"
                " stop that one or choose another directory with --data-dir"
            ) from None
        # That of a stack that was killed.
        forget(self.path)
        self.was_killed = bool(os.pread(self._lock, 1, 0))
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        # The directory may have been there before, open to everybody.
        self.rows.mkdir(exist_ok=True)
        self.rows.chmod(0o700)
        self._rows_status = self.rows.stat()
        return self

    def _take_lock(self) -> None:
        """Raises OSError when another process keeps the lock."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self.has_half_stored:
            os.truncate(self._lock, 0)
        os.close(self._lock)

    @property
    def is_intact(self) -> bool:
        """Whether the directory that was locked, and that of the rows in it, are still at their paths."""
        try:
            is_same_lock = os.path.samestat((self.path / LOCK).stat(), os.fstat(self._lock))
            return is_same_lock and os.path.samestat(self.rows.stat(), self._rows_status)  # type: ignore[arg-type]
        except OSError:
            return False

    @property
    def rows(self) -> Path:
        return self.path / ROWS

    @property
    def clickhouse_url(self) -> str:
        return f"chdb://{self.rows}"

    @property
    def key_file(self) -> Path:
        return self.path / API_KEY_FILE

    def api_key(self) -> str:
        """The API key that is kept here, made at random the first time. Only the owner can read the file.

        Raises DataDirError when the file is there but holds no key.
        """
        try:
            handle = os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = self.key_file.read_text().strip()
            if not key:
                raise DataDirError(f"{self.key_file} is empty: delete it to get a new key") from None
            return key
        key = KEY_PREFIX + secrets.token_urlsafe(24)
        with os.fdopen(handle, "w") as file:
            file.write(f"{key}\n")
        return key
