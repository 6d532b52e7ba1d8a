# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`status`: the labs, their roles, and the migrations that their hosts remember.

What an engine was asked to start is remembered (lab.state). So what somebody else removed is shown as gone, and an
engine that does not answer is not mistaken for one without labs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from lab import engines, failure_text, output
from lab.engines import Silent
from lab.engines.base import Engine, LabStatus, RoleState, RoleStatus, absent_roles
from lab.errors import ExitStatus
from lab.hosts import Host, connected
from lab.interrupts import run_interruptible
from lab.names import checkout_path, resolve_lab_name
from lab.options import StatusOptions
from lab.plan import ResolvedLab
from lab.programs import in_thread
from lab.state import remembered, remembered_lab_file, state_roots
from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import MigrationModel, Role, SessionOperation

ANSWER_LIMIT: Final = 5.0
"""Seconds that a host has to answer a question of `status`."""
MAX_ROWS: Final = 20
"""Most migrations that `status` shows to people."""


def status(options: StatusOptions) -> ExitStatus:
    """Show the labs of this checkout (or of all, or one), their roles, and the migrations that their hosts remember.

    LAB if an engine on which one of these labs was started does not answer: the rest is shown all the same.
    """
    return run_interruptible(_status(options))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lab and what its hosts tell: migrations by host, and the failure of each host that did not answer."""

    lab: LabStatus
    migrations: dict[str, list[MigrationModel]]
    silent: dict[str, LabFailure | TimeoutError]


async def _status(options: StatusOptions) -> ExitStatus:
    asked, silent = await in_thread(engines.survey, options.engine)
    found = await in_thread(_labs, options, asked)
    lost = {each: names for each in silent if (names := sorted(_remembered(options, each.engine)))}
    seen = await asyncio.gather(*(_look(engine, lab) for engine, lab in found))
    if options.json:
        labs, unreachable = (
            [_document(each) for each in seen],
            [_unreachable(each, names) for each, names in lost.items()],
        )
        sys.stdout.write(json.dumps({"schema": 1, "labs": labs, "unreachable": unreachable}) + "\n")
    else:
        console = output.console()
        for each in seen:
            _show(console, each)
        if not seen and not lost:
            console.print("no labs" if options.name is None else f"no lab {options.name}", markup=False)
            output.show_next(console, [f"./inv up --name {options.name}" if options.name else "./inv up"])
    sys.stdout.flush()
    for engine, names in lost.items():
        sys.stderr.write(f"not seen, started on {engine.engine}: {', '.join(names)}\n")
        sys.stderr.write(failure_text.lines(engine.failure) + "\n")
    return ExitStatus.LAB if lost else ExitStatus.SUCCESS


def _labs(options: StatusOptions, asked: Sequence[Engine]) -> list[tuple[Engine, LabStatus]]:
    """The labs that are meant, each with the roles that ought to be there and are not."""
    found = []
    for engine in asked:
        known = {lab.lab: lab for lab in engine.labs() if _meant(options, lab.lab, lab.checkout)}
        for name, checkout in _remembered(options, engine.name).items():
            known.setdefault(name, LabStatus(name, engine.name, checkout, "", ()))
        found += [(engine, _with_gone_roles(lab)) for _, lab in sorted(known.items())]
    return found


def _meant(options: StatusOptions, name: str, checkout: str) -> bool:
    if options.name is not None:
        return name == resolve_lab_name(options.name)
    return options.all_checkouts or checkout == str(checkout_path())


def _remembered(options: StatusOptions, engine: str) -> dict[str, str]:
    known = remembered(state_roots(os.environ), engine)
    return {name: checkout for name, checkout in known.items() if _meant(options, name, checkout)}


def _with_gone_roles(lab: LabStatus) -> LabStatus:
    texts = (remembered_lab_file(root, lab.lab, lab.engine) for root in state_roots(os.environ))
    resolved = ResolvedLab.from_text(next((text for text in texts if text is not None), b""))
    if resolved is None:
        return lab
    gone = []
    for path in absent_roles(resolved.plan(), lab):
        host, _, migtd = path.partition("/")
        note = "nothing of it is there; ./inv up starts it again"
        gone.append(RoleStatus("migtd" if migtd else "host", host, migtd or host, RoleState.GONE, "", note))
    return replace(lab, roles=(*lab.roles, *gone))


def _unreachable(engine: Silent, names: list[str]) -> dict[str, Any]:
    return {"engine": engine.engine, "labs": names, **json.loads(failure_text.document(engine.failure))}


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
        "roles": [{"path": role.path, **asdict(role)} for role in seen.lab.roles],
        "silent": sorted(seen.silent),
        "migrations": [
            {"host": host, **migration.model_dump(mode="json", exclude={"outcome"}), **_ended(migration)}
            for host, migrations in sorted(seen.migrations.items())
            for migration in migrations
        ],
    }


def _role(migration: MigrationModel) -> str:
    """The side that a MigTD is on; in a rebinding which of the two."""
    if migration.operation is SessionOperation.MIGRATION:
        return migration.role.value
    return "old" if migration.role is Role.SOURCE else "new"


def _ended(migration: MigrationModel) -> dict[str, Any]:
    outcome = migration.outcome
    if outcome is None:
        return {"result": None, "code": None, "error": None}
    error = outcome.error.model_dump() if outcome.error else None
    return {"result": outcome.result, "code": outcome.code, "error": error}


def _show(console: Any, seen: _Seen) -> None:
    from rich.table import Table  # noqa: PLC0415 - loading it takes longer than a status for programs

    title = f"{seen.lab.lab}  engine {seen.lab.engine}  {seen.lab.checkout}"
    console.print(title, style="bold", markup=False, soft_wrap=True)
    table = Table()
    for column in ("role", "state", "id", "note"):
        table.add_column(column, overflow="fold")
    for role in seen.lab.roles:
        colour = "green" if role.state is RoleState.RUNNING else "red"
        silent = "does not answer" if role.role == "host" and role.name in seen.silent else ""
        table.add_row(role.path, f"[{colour}]{role.state.value}[/]", role.id, role.detail or silent)
    console.print(table)
    rows = [(host, each) for host, migrations in sorted(seen.migrations.items()) for each in migrations]
    if not rows:
        return
    console.print("migrations", style="bold")
    table = Table()
    for column in ("id", "role", "MigTD", "state", "result", "ms"):
        table.add_column(column, justify="right" if column in {"id", "ms"} else "left", overflow="fold")
    for host, each in sorted(rows, key=lambda row: (row[1].request_id, row[1].role.value), reverse=True)[:MAX_ROWS]:
        result = each.outcome.result if each.outcome else ""
        colour = "green" if each.outcome and each.outcome.code == 0 else "red"
        duration = "" if each.duration_ms is None else f"{each.duration_ms:.1f}"
        table.add_row(
            str(each.request_id),
            _role(each),
            f"{host}/{each.migtd}",
            each.state.value,
            f"[{colour}]{result}[/]" if result else "",
            duration,
        )
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"the latest {MAX_ROWS} of {len(rows)}; all with --json")
