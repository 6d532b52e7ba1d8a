# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`logs`, `events` and `shell`: looking into a lab that runs, without changing it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from lab import engines, failures
from lab.engines.base import LabStatus, RoleState
from lab.errors import EngineError, ExitStatus
from lab.history import follow_events, merged_events
from lab.hosts import connected
from lab.interrupts import run_interruptible
from lab.names import resolve_lab_name
from lab.options import EventsOptions, LogsOptions, ShellOptions
from lab.programs import in_thread


def logs(options: LogsOptions) -> ExitStatus:
    """Print what the roles of a lab printed, each line after its role. Raises EngineError (LAB-NOT-RUNNING)."""
    return run_interruptible(_logs(options))


def events(options: EventsOptions) -> ExitStatus:
    """Print the history of all hosts of a lab, merged by time, one JSON object a line, from the start.

    Raises EngineError (LAB-NOT-RUNNING, LAB-ROLE-ENDED, LAB-HOST-LOST).
    """
    return run_interruptible(_events(options))


def shell(options: ShellOptions) -> ExitStatus:
    """Become a shell inside a role: this process is replaced. Raises EngineError, UsageError (LAB-ROLE-UNKNOWN)."""
    name = resolve_lab_name(options.name)
    engine, found = engines.find(name, options.engine)
    hosts = [role.path for role in found.roles if role.role == "host"]
    command = engine.shell_command(name, options.role or (hosts[0] if hosts else ""))
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - the engine's own command, no shell string


def readable(line: str) -> str:
    """A line of a role as people read it: a host's JSON becomes `time [level] event key=value`, as MigTDs print."""
    told = _structured(line)
    if told is None:
        return line
    time, level, event = (str(told.pop(key)) for key in _HEAD)
    rest = "".join(f" {key}={_id_as_people_read_it(value)}" for key, value in told.items() if value is not None)
    return f"{time} [{level:9}] {event}{rest}"


async def _logs(options: LogsOptions) -> ExitStatus:
    name = resolve_lab_name(options.name)
    engine, _ = await in_thread(engines.find, name, options.engine)
    async for role, line in engine.logs(name, follow=options.follow):
        if options.json:
            told = _structured(line) or {"text": line}
            sys.stdout.write(json.dumps({"role": role, **told}, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(f"{role} | {readable(line)}\n")
        if options.follow:
            sys.stdout.flush()
    return ExitStatus.SUCCESS


async def _events(options: EventsOptions) -> ExitStatus:
    name = resolve_lab_name(options.name)
    engine, found = await in_thread(engines.find, name, options.engine)
    running = _running_hosts(found)
    async with connected(engine, name, running) as hosts:
        source = follow_events if options.follow else merged_events
        async for event in source(list(hosts.values())):
            sys.stdout.write(json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n")
            if options.follow:
                sys.stdout.flush()
    return ExitStatus.SUCCESS


def _running_hosts(found: LabStatus) -> list[str]:
    """The hosts that can be asked; of the others it is said that they cannot.

    Raises EngineError (LAB-ROLE-ENDED) if none is left.
    """
    hosts = [role for role in found.roles if role.role == "host"]
    running = [role.name for role in hosts if role.state is RoleState.RUNNING]
    ended = [role for role in hosts if role.state is not RoleState.RUNNING]
    if not running:
        told = ", ".join(f"{role.path} ({role.detail})" if role.detail else role.path for role in ended)
        raise EngineError(failures.ROLE_ENDED, f"{told or 'every host'} of {found.lab}: its history is lost with it")
    for role in ended:
        sys.stderr.write(f"{role.path} has ended: its history is lost with it\n")
    return running


_HEAD = ("timestamp", "level", "event")


def _structured(line: str) -> dict[str, Any] | None:
    """What a host's log line says; None for a line of another form."""
    if not line.startswith("{"):
        return None
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and all(key in told for key in _HEAD) else None


def _id_as_people_read_it(value: object) -> str:
    """Request ids of EnableLogArea and GetTDReport are a migration's with a high bit: hex shows both at a glance."""
    return f"{value:#x}" if isinstance(value, int) and value >= 1 << 32 else str(value)
