"""CPU time and memory of running processes, from Linux's /proc."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far."""
    return _cpu_seconds(_stat(pid))


def resident_bytes(pid: int) -> int:
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The largest resident memory so far. Unlike `ru_maxrss` it does not begin with that of the parent process."""
    return _status_bytes(pid, "VmHWM")


def family_cpu_seconds(words: Mapping[str, str]) -> dict[str, float]:
    """CPU time so far of this process and its descendants: by name, of those whose command line holds its words."""
    stats, commands = {}, {}
    for folder in PROC.glob("[0-9]*"):
        # It may end meanwhile.
        with suppress(OSError):
            pid = int(folder.name)
            command = (folder / "cmdline").read_text().replace("\0", " ")
            stats[pid], commands[pid] = _stat(pid), command
    family = {os.getpid()}
    while grown := {pid for pid, fields in stats.items() if int(fields[1]) in family} - family:
        family |= grown
    return {
        name: sum(_cpu_seconds(stats[pid]) for pid in family if wanted in commands[pid])
        for name, wanted in words.items()
    }


def _stat(pid: int) -> list[str]:
    """The fields behind the command's name: state, parent, ..."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _status_bytes(pid: int, name: str) -> int:
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
