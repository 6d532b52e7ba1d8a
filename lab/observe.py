# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`status`, `logs`, `events` and `shell`: looking at labs that run, without changing them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from lab import engines, output
from lab.engines.base import Engine, LabStatus, RoleState
from lab.errors import ExitStatus
from lab.history import follow_events, merged_events
from lab.hosts import Host, connected
from lab.interrupts import run_interruptible
from lab.names import checkout_path, resolve_lab_name
from lab.options import EventsOptions, LogsOptions, ShellOptions, StatusOptions
from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import MigrationModel

ANSWER_LIMIT: Final = 5.0
"""Seconds that a host has to answer a question of `status`."""
MAX_ROWS: Final = 20
"""Most migrations that `status` shows to people."""


def status(options: StatusOptions) -> ExitStatus:
    """Show the labs of this checkout (or of all, or one), their roles, and the migrations that their hosts remember."""
    return run_interruptible(_status(options))


def logs(options: LogsOptions) -> ExitStatus:
    """Print what the roles of a lab printed, each line after its role. Raises EngineError (LAB-NOT-RUNNING)."""
    return run_interruptible(_logs(options))


def events(options: EventsOptions) -> ExitStatus:
    """Print the history of all hosts of a lab, merged by time, one JSON object a line, from the start.

    Raises EngineError (LAB-NOT-RUNNING, LAB-HOST-LOST).
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


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lab and what its hosts tell: migrations by host, and the failure of each host that did not answer."""

    lab: LabStatus
    migrations: dict[str, list[MigrationModel]]
    silent: dict[str, LabFailure | TimeoutError]


async def _status(options: StatusOptions) -> ExitStatus:
    asked = await asyncio.to_thread(engines.usable, options.engine)
    found = await asyncio.to_thread(_labs, options, asked)
    seen = await asyncio.gather(*(_look(engine, lab) for engine, lab in found))
    if options.json:
        sys.stdout.write(json.dumps({"schema": 1, "labs": [_document(each) for each in seen]}) + "\n")
        return ExitStatus.SUCCESS
    console = output.console()
    for each in seen:
        _show(console, each)
    if not seen:
        console.print("no labs")
        output.show_next(console, ["./inv up"])
    return ExitStatus.SUCCESS


def _labs(options: StatusOptions, asked: Sequence[Engine]) -> list[tuple[Engine, LabStatus]]:
    here = str(checkout_path())
    name = resolve_lab_name(options.name) if options.name is not None else None

    def meant(lab: LabStatus) -> bool:
        return lab.lab == name if name is not None else options.all_checkouts or lab.checkout == here

    return [(engine, lab) for engine in asked for lab in engine.labs() if meant(lab)]


async def _look(engine: Engine, lab: LabStatus) -> _Seen:
    """Ask every host that runs for its migrations."""
    running = [role.name for role in lab.roles if role.role == "host" and role.state is RoleState.RUNNING]
    seen = _Seen(lab, {}, {})
    async with connected(engine, lab.lab, running) as hosts:

        async def ask(host: Host) -> None:
            try:
                async with asyncio.timeout(ANSWER_LIMIT):
                    seen.migrations[host.name] = await host.migrations()
            except (LabFailure, TimeoutError) as error:
                seen.silent[host.name] = error

        await asyncio.gather(*(ask(host) for host in hosts.values()))
    return seen


def _document(seen: _Seen) -> dict[str, Any]:
    return {
        "lab": seen.lab.lab,
        "engine": seen.lab.engine,
        "checkout": seen.lab.checkout,
        "roles": [asdict(role) for role in seen.lab.roles],
        "silent": sorted(seen.silent),
        "migrations": [
            {"host": host, **migration.model_dump(mode="json", exclude={"outcome"}), **_ended(migration)}
            for host, migrations in sorted(seen.migrations.items())
            for migration in migrations
        ],
    }


def _ended(migration: MigrationModel) -> dict[str, Any]:
    outcome = migration.outcome
    if outcome is None:
        return {"result": None, "code": None, "error": None}
    error = outcome.error.model_dump() if outcome.error else None
    return {"result": outcome.result, "code": outcome.code, "error": error}


def _show(console: Any, seen: _Seen) -> None:
    from rich.table import Table  # noqa: PLC0415 - loading it takes longer than a status for programs

    table = Table(title=f"{seen.lab.lab}  engine {seen.lab.engine}  {seen.lab.checkout}", title_justify="left")
    for column in ("role", "state", "id", "note"):
        table.add_column(column)
    for role in seen.lab.roles:
        colour = "green" if role.state is RoleState.RUNNING else "red"
        silent = "does not answer" if role.role == "host" and role.name in seen.silent else ""
        table.add_row(role.path, f"[{colour}]{role.state.value}[/]", role.id, role.detail or silent)
    console.print(table)
    rows = [(host, each) for host, migrations in sorted(seen.migrations.items()) for each in migrations]
    if not rows:
        return
    table = Table(title="migrations", title_justify="left")
    for column in ("id", "role", "MigTD", "state", "result", "ms"):
        table.add_column(column, justify="right" if column in {"id", "ms"} else "left")
    for host, each in sorted(rows, key=lambda row: (row[1].request_id, row[1].role.value), reverse=True)[:MAX_ROWS]:
        result = each.outcome.result if each.outcome else ""
        colour = "green" if each.outcome and each.outcome.code == 0 else "red"
        duration = "" if each.duration_ms is None else f"{each.duration_ms:.1f}"
        table.add_row(
            str(each.request_id),
            each.role.value,
            f"{host}/{each.migtd}",
            each.state.value,
            f"[{colour}]{result}[/]" if result else "",
            duration,
        )
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"the latest {MAX_ROWS} of {len(rows)}; all with --json")


async def _logs(options: LogsOptions) -> ExitStatus:
    name = resolve_lab_name(options.name)
    engine, _ = await asyncio.to_thread(engines.find, name, options.engine)
    async for role, line in engine.logs(name, follow=options.follow):
        sys.stdout.write(f"{role} | {line}\n")
        if options.follow:
            sys.stdout.flush()
    return ExitStatus.SUCCESS


async def _events(options: EventsOptions) -> ExitStatus:
    name = resolve_lab_name(options.name)
    engine, found = await asyncio.to_thread(engines.find, name, options.engine)
    for role in found.roles:
        if role.role == "host" and role.state is not RoleState.RUNNING:
            sys.stderr.write(f"{role.path} has ended: its history is lost with it\n")
    running = [role.name for role in found.roles if role.role == "host" and role.state is RoleState.RUNNING]
    async with connected(engine, name, running) as hosts:
        source = follow_events if options.follow else merged_events
        async for event in source(list(hosts.values())):
            sys.stdout.write(json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n")
            if options.follow:
                sys.stdout.flush()
    return ExitStatus.SUCCESS
