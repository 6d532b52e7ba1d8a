# SPDX-License-Identifier: BSD-2-Clause-Patent
"""CPU time and memory of a role: its process and all descendants, as the kernel counts them (proc(5)).

A container's processes are seen here as well, as long as its engine runs on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PARENT: Final = 1
_TIMES: Final = slice(11, 15)
"""Indexes behind the command's closing bracket in /proc/PID/stat: ppid; utime, stime, cutime, cstime."""
_KIB: Final = 1024
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (10^6 bytes) of a process tree: resident, proportional, and the resident peak since `reset_peak`.

    The peaks of several processes are added, although they may have been reached at different times.
    """

    rss: float
    pss: float
    peak: float


def cpu_seconds(roots: Iterable[int], proc: Path = _PROC) -> float:
    """CPU seconds so far of the trees below `roots`: live processes, and children that were waited for.

    Counted in clock ticks of 10 ms as a rule. Raises ProcessLookupError if a root is gone.
    """
    ticks = 0
    for pid in _trees(roots, proc):
        fields = _stat(pid, proc)
        if fields is not None:
            ticks += sum(map(int, fields[_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(root: int, proc: Path = _PROC) -> Memory:
    """Memory of the tree below `root`. Raises ProcessLookupError if the root is gone."""
    rss = pss = peak = 0
    for pid in _trees([root], proc):
        try:
            rollup = _fields((proc / str(pid) / "smaps_rollup").read_text())
            status = _fields((proc / str(pid) / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile and has no memory
        rss += rollup["Rss"]
        pss += rollup["Pss"]
        peak += status["VmHWM"]
    return Memory(*(kib * _KIB / _MB for kib in (rss, pss, peak)))


def reset_peak(root: int, proc: Path = _PROC) -> None:
    """Let `Memory.peak` of the tree begin at what is resident now."""
    for pid in _trees([root], proc):
        (proc / str(pid) / "clear_refs").write_text("5")


def _trees(roots: Iterable[int], proc: Path) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name), proc)
            if fields is not None:
                children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found: set[int] = set()
    for root in roots:
        if _stat(root, proc) is None:
            raise ProcessLookupError(f"process {root} is gone")
        waiting = [root]
        while waiting:
            pid = waiting.pop()
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def _stat(pid: int, proc: Path) -> list[str] | None:
    """The fields of /proc/PID/stat behind the command, or None if there is no such process."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _fields(text: str) -> dict[str, int]:
    """The numbers of lines such as `Rss:   1234 kB`."""
    pairs = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in pairs if len(words) > 1 and words[1].isdigit()}
