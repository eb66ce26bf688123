"""Reloads the operator's file when it changes while a worker runs; a file with mistakes changes nothing."""

import threading
import time
from pathlib import Path

import structlog

from ingest import metrics
from ingest.pricing.operator_file import PriceFileError, load
from ingest.pricing.price_book import PriceBook

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0
# Device, inode, time of the last change in nanoseconds, size in bytes; None while there is no file.
Signature = tuple[int, int, int, int] | None


class ReloadingPriceBook:
    """The prices of one file. Its methods may be called from several threads at once.

    Raises PriceFileError when the file cannot be used at the start; later that is only logged and counted, and
    the prices that were in force stay in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Taken before the file is read, so that a change while it is read is seen next time.
        self._signature = _signature(path)
        self._checked_at = time.monotonic()
        self._book = load(path)

    def current(self) -> PriceBook:
        """The prices in force. Looks at the file at most once in CHECK_SECONDS."""
        with self._lock:
            if time.monotonic() - self._checked_at >= CHECK_SECONDS:
                self._checked_at = time.monotonic()
                self._look()
            return self._book

    def _look(self) -> None:
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._book = load(self._path)
        except PriceFileError as error:
            metrics.PRICE_FILE_ERRORS.inc()
            log.error("price_file_refused", in_force=self._book.version, problems=str(error).splitlines()[:20])
        else:
            metrics.PRICE_FILE_LOADS.inc()
            log.info("price_file_loaded", in_force=self._book.version)


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
