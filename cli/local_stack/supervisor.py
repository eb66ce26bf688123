"""Child processes that end with this process, even when it is killed by `kill -9`.

A small shell, the supervisor, runs the command. It holds the read end of a pipe; only this process holds the write end.
When that closes, by `stop_supervised` or because this process is gone, the supervisor ends the command and itself.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

# $1 is the grace period in seconds, the rest is the command. The shell itself waits for the command, so that its
# own end means that the command's ports and files are free; then it ends the watcher with the rest of the group.
SCRIPT = """
exec 3<&0 </dev/null
grace=$1; shift
"$@" 3<&- &
child=$!
(
  read -r _ <&3
  kill -TERM $child
  sleep $grace
  kill -9 $child
) >/dev/null 2>&1 &
wait $child
status=$?
trap '' TERM
kill -TERM 0
exit $status
"""


def start_supervised(
    command: Sequence[str],
    *,
    grace_seconds: int,
    output: int | IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own: Ctrl-C in the terminal does not reach it.

    When this process ends, however it ends, the command gets SIGTERM and, if that is not enough, SIGKILL
    `grace_seconds` later. `output` takes what it writes (None: where this process writes); `environment`
    is added to this process's. The process returned is the supervisor: it ends when the command does, with the
    command's exit status (128 + n for signal n).
    """
    return subprocess.Popen(  # noqa: S603 - the command is the caller's own, never a request's
        ["/bin/sh", "-c", SCRIPT, "supervisor", str(grace_seconds), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )


def stop_supervised(process: subprocess.Popen[bytes]) -> int:
    """End what `start_supervised` started, wait at most its grace, and return the exit status. May be repeated."""
    if process.stdin is not None:
        process.stdin.close()
    return process.wait()
