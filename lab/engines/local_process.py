# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Local processes that outlive the command that started them, and are never mistaken for others.

A process is its number, its start time and the boot it belongs to: a number that the system gave to somebody else is
not signalled (proc(5), pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import failures
from lab.errors import EngineError

_START_TIME: Final = 19
"""Index of starttime behind the command's closing bracket in /proc/PID/stat (field 22)."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for all time: `start` in clock ticks since boot, `boot` the kernel's id of that boot."""

    pid: int
    start: int
    boot: str


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def is_running(process: ProcessId) -> bool:
    """Whether this very process still runs; one that ended and was not collected yet does not."""
    found = _stat(process.pid)
    return found is not None and found == ("running", process.start) and process.boot == boot_id()


def processes_with(variable: str, value: str) -> list[ProcessId]:
    """This user's processes that were started with an environment variable of that value (proc(5))."""
    wanted = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # Processes come and go meanwhile, and those of others are not ours to read.
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid() or wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            state = _stat(int(folder.name))
            if state is not None and state[0] == "running":
                found.append(ProcessId(int(folder.name), state[1], boot_id()))
    return found


def start_detached(command: Sequence[str], environ: Mapping[str, str], log: Path) -> ProcessId:
    """Start a program in a session of its own, with no input, and output appended to `log`.

    Raises EngineError (LAB-ROLE-START-FAILED).
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
    except OSError as error:
        raise EngineError(failures.ROLE_START_FAILED, f"{command[0]}: {error.strerror}") from error
    finally:
        os.close(output)
    found = _stat(pid)
    # A child is not collected before we do it, so it is there even if it ended at once.
    return ProcessId(pid, found[1] if found else 0, boot_id())


async def end(processes: Sequence[ProcessId], grace: float) -> list[ProcessId]:
    """End processes: SIGTERM, after `grace` seconds SIGKILL. Returns those that were running.

    Raises EngineError (LAB-PROCESS-STUCK) if one cannot be ended.
    """
    ended = await asyncio.gather(*(_end(process, grace) for process in processes))
    return [process for process, was_running in zip(processes, ended, strict=True) if was_running]


async def _end(process: ProcessId, grace: float) -> bool:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise EngineError(failures.PROCESS_STUCK, f"process {process.pid}: {error.strerror}") from error
    try:
        # Asked only now: the handle keeps meaning what it means, whatever becomes of the number.
        if not is_running(process):
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if await _readable(handle, grace):
                return True
        raise EngineError(failures.PROCESS_STUCK, f"process {process.pid} is still there after SIGKILL")
    finally:
        os.close(handle)
        _collect(process.pid)


def _collect(pid: int) -> None:
    """Collect an ended child, so that it is no zombie. Only one that this very command started is its child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def _readable(descriptor: int, seconds: float) -> bool:
    """Wait until a process handle becomes readable: the process ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, done)
    try:
        await asyncio.wait_for(ready, seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _stat(pid: int) -> tuple[str, int] | None:
    """`running` or `ended`, and the start time; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name may hold blanks and brackets; the last bracket closes it.
    fields = text.rpartition(")")[2].split()
    return ("ended" if fields[0] in "ZXx" else "running"), int(fields[_START_TIME])
