# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`up`, `migrate`, `rebind`: from options to a running lab, its migrations, their outcomes and the exit status."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lab import choices, engines, failures, output
from lab.engines.base import Engine, LabStatus, ended_roles
from lab.errors import EngineError, ExitStatus, TaskError, UsageError
from lab.evidence import new_pki
from lab.hosts import await_ready, connected
from lab.interrupts import run_interruptible
from lab.labfile import LabFile, default_lab, default_rebinding_lab, load_lab_file
from lab.lifecycle import down_until_quiet
from lab.migrations import MigrationRunner
from lab.names import checkout_path, default_lab_name, resolve_lab_name
from lab.options import MigrateOptions, UpOptions
from lab.output import Shown
from lab.plan import Job, Party, ResolvedLab, resolve
from lab.programs import in_thread
from lab.progress import Steps, steps
from lab.state import forget_lab_file, lab_lock, remember_lab_file, remembered_lab_file, state_roots


def up(options: UpOptions) -> ExitStatus:
    """Start or refresh a lab and run its migrations; outcomes on standard output, talk on standard error.

    SUCCESS exactly if every migration succeeded, else NEGATIVE. Raises TaskError if no migration could be started.
    """
    lab = load_lab_file(options.lab_file) if options.lab_file is not None else default_lab()
    return run_interruptible(_up(options, lab))


def rebind(options: UpOptions) -> ExitStatus:
    """Start or refresh a lab with rebindings and run these, each with its end; output, status and errors as `up`.

    Without a lab file: the lab of that name as it was started last, else one host with two MigTDs; without a name too,
    it has one of its own, so that `up` and this need not take turns. Raises UsageError (LAB-USAGE-VALUE-INVALID) if
    there are no rebindings in it.
    """
    name = options.name
    if options.lab_file is not None:
        lab = load_lab_file(options.lab_file)
    else:
        name = resolve_lab_name(name or f"{default_lab_name(checkout_path())}-rebind")
        lab = _last_lab(name, options.engine) or default_rebinding_lab()
    if not lab.rebindings:
        raise UsageError(failures.USAGE_VALUE_INVALID, f"{options.lab_file or name} has no `rebindings` to run")
    options = replace(options, name=name)
    return run_interruptible(_up(options, lab, rebindings_only=True))


def migrate(options: MigrateOptions) -> ExitStatus:
    """Run the migrations of a running lab again; output, status and errors as `up`."""
    return run_interruptible(_migrate(options))


ALL_TOLD: Final = 20
"""Up to this many migrations each is told as it ends; of more, those that failed, and how far it is."""
PARTS: Final = 10
"""How often it is told how far it is."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What the migrations of one command need."""

    resolved: ResolvedLab
    engine: Engine
    as_json: bool


async def _up(options: UpOptions, lab: LabFile, *, rebindings_only: bool = False) -> ExitStatus:
    resolved = resolve(
        lab,
        name=options.name,
        attestation=options.attestation,
        session=options.session,
        transport=options.transport,
        deadline=options.deadline,
        debug=options.debug,
        files=options.files,
    )
    migrations = () if rebindings_only else resolved.jobs(options.migrations)
    jobs = (*migrations, *resolved.rebindings(options.migrations))
    with steps("starting the lab") as progress:
        engine = await in_thread(engines.choose, lab.engine if options.engine is None else options.engine, progress.say)
        resolved = _with_pki(resolved, engine.name)
        try:
            await _start(engine, resolved, progress, keep=options.keep)
            try:
                shown = await _run_jobs(_Run(resolved, engine, options.json), jobs, progress)
            finally:
                if not options.keep:
                    with lab_lock(_root(), resolved.name):
                        await engine.down(resolved.name, progress)
                        forget_lab_file(_root(), resolved.name, engine.name)
        except asyncio.CancelledError:
            await _tell_rest(engine, resolved.name, progress)
            raise
    again = "rebind" if rebindings_only else "migrate"
    next_commands = _commands(resolved.name, again, "events", "down") if options.keep else ("./inv up",)
    return _finish(shown, next_commands, as_json=options.json)


def _last_lab(name: str, engine: str | None) -> LabFile | None:
    """The lab of that name as it was started last, if it was not taken down."""
    for each in (engine,) if engine else choices.ENGINE.served:
        last = ResolvedLab.from_text(remembered_lab_file(_root(), name, each) or b"")
        if last is not None:
            return last.lab
    return None


def _with_pki(resolved: ResolvedLab, engine: str) -> ResolvedLab:
    """The lab with the PKI of its last start on this engine, so that what runs already can stay, or with a new one."""
    if not resolved.lacks_pki:
        return resolved
    last = ResolvedLab.from_text(remembered_lab_file(_root(), resolved.name, engine) or b"")
    pki = last.evidence.pki if last is not None and last.evidence is not None else ""
    return resolved.with_pki(pki or new_pki(os.urandom, time.time()))


async def _migrate(options: MigrateOptions) -> ExitStatus:
    given = load_lab_file(options.lab_file) if options.lab_file is not None else None
    name = resolve_lab_name(options.name, given.name if given else None)
    with steps("looking for the lab") as progress:
        engine, status = await in_thread(engines.find, name, options.engine)
        progress(f"{name} runs on engine {engine.name}")
        resolved = _same_lab(name, given, status)
        jobs = resolved.jobs(options.migrations)
        shown = await _run_jobs(_Run(resolved, engine, options.json), jobs, progress)
    return _finish(shown, _commands(name, "events", "status", "down"), as_json=options.json)


async def _start(engine: Engine, resolved: ResolvedLab, progress: Steps, *, keep: bool) -> None:
    """Let the engine start what the plan says, under the lab's lock."""
    name = resolved.name
    with lab_lock(_root(), name) as lock:
        # First: if this command is killed, the next one knows where to look.
        remember_lab_file(_root(), name, engine.name, resolved.to_text())
        try:
            await engine.up(resolved.plan(), progress)
        except BaseException as ended:
            # The engine may still be at what it was asked for last: the next command on this name is to look twice.
            lock.settled = not _is_cut_off(ended)
            try:
                if not keep:
                    await down_until_quiet(engine, name, progress)
                    lock.settled = True
                if lock.settled and not any(lab.lab == name for lab in await in_thread(engine.labs)):
                    forget_lab_file(_root(), name, engine.name)
            except TaskError as second:
                progress.say(f"{name} could not be taken down: {second}")
            raise


def _is_cut_off(ended: BaseException) -> bool:
    """Whether the engine got no chance to finish, or to refuse, what it was asked for."""
    return not isinstance(ended, TaskError) or ended.kind is failures.ENGINE_LOST


async def _tell_rest(engine: Engine, name: str, progress: Steps) -> None:
    """Say what an interrupted command leaves behind, and how to remove it."""
    command = _commands(name, "down")[0]
    try:
        rest = next((lab for lab in await in_thread(engine.labs) if lab.lab == name), None)
    except TaskError as failure:
        progress.say(f"something of {name} may be left ({failure}); `{command}` removes it")
        return
    if rest is None:
        progress.say(f"nothing of {name} is left; `{command}` makes sure of it")
        return
    roles = ", ".join(f"{role.path} ({role.state.value})" for role in rest.roles) or "what holds its roles, but none"
    progress.say(f"left of {name}: {roles}; `{command}` removes it")


async def _run_jobs(run: _Run, jobs: Sequence[Job], progress: Steps) -> list[Shown]:
    """Connect to the hosts, run the jobs, and print each document as it comes if JSON was asked for."""
    name = run.resolved.name
    shown: list[Shown] = []
    async with connected(run.engine, name, list(run.resolved.lab.hosts)) as hosts:
        await await_ready(run.engine, name, hosts, progress)
        if jobs:
            progress(f"running {output.counted(jobs)}")
        runner = MigrationRunner(run.resolved, run.engine.name, hosts, monotonic=time.monotonic, say=progress.say)
        async for job, outcome in runner.run(jobs):
            shown.append(Shown(outcome, _called(job.source), _called(job.destination)))
            if len(jobs) <= ALL_TOLD or not outcome.success:
                progress.say(output.one_line(shown[-1]))
            elif len(shown) % (len(jobs) // PARTS) == 0:
                progress(f"{len(shown)} outcomes of {output.counted(jobs)}")
            if run.as_json:
                sys.stdout.write(outcome.model_dump_json(by_alias=True) + "\n")
                sys.stdout.flush()
    return sorted(shown, key=lambda each: each.outcome.request_id)


def _finish(shown: list[Shown], next_commands: Sequence[str], *, as_json: bool) -> ExitStatus:
    """Show what people see at the end, and give the exit status."""
    if as_json:
        if any(each.outcome.attestation == "accept-all" for each in shown):
            sys.stderr.write("\n".join(("", *output.BANNER, "")))
    else:
        output.show_outcomes(output.console(), shown, next_commands)
    return ExitStatus.SUCCESS if all(each.outcome.success for each in shown) else ExitStatus.NEGATIVE


def _same_lab(name: str, given: LabFile | None, status: LabStatus) -> ResolvedLab:
    """The lab that is running: from the file given, the one that `up` was given, or the default lab.

    Raises EngineError: LAB-ROLE-ENDED if a part of it does not run any more, LAB-DIFFERS if none of the three is what
    was started.
    """
    remembered = ResolvedLab.from_text(remembered_lab_file(_root(), name, status.engine) or b"")
    if given is not None:
        candidates = [resolve(given, name=name), *([remembered.with_migrations_of(given)] if remembered else [])]
    else:
        candidates = [*([remembered] if remembered else []), resolve(default_lab(), name=name)]
    if not status.roles:
        raise EngineError(failures.ROLE_ENDED, f"of {name} only networks and volumes are left")
    for candidate in candidates:
        if candidate.plan().fingerprint == status.fingerprint:
            if ended := ended_roles(candidate.plan(), status):
                raise EngineError(failures.ROLE_ENDED, f"{', '.join(ended)} of {name}")
            return candidate
    raise EngineError(failures.DIFFERS, name)


def _commands(name: str, *tasks: str) -> tuple[str, ...]:
    """Tasks as they are typed; the name only where it is not this checkout's own."""
    suffix = "" if name == default_lab_name(checkout_path()) else f" --name {name}"
    return tuple(f"./inv {task}{suffix}" for task in tasks)


def _called(party: Party | None) -> str:
    return f"{party.host}/{party.migtd}" if party else "external"


def _root() -> Path:
    return state_roots(os.environ)[0]
