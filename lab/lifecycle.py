# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`down`: labs are removed by name alone, from labels or state folders; no lab file is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from lab import engines, failures
from lab.engines.base import Engine
from lab.errors import ExitStatus, TaskError
from lab.interrupts import run_interruptible
from lab.names import checkout_path, resolve_lab_name
from lab.options import DownOptions
from lab.programs import in_thread
from lab.progress import Steps, steps
from lab.state import LabLock, forget_lab_file, lab_lock, remembered, state_roots, unfinished

BUSY_LIMIT: Final = 15.0
"""Seconds that `down` waits for a command that is starting or removing the same lab."""
AT_ONCE: Final = 8
"""Labs that are removed at the same time."""
SETTLE: Final = 1.0
"""Seconds after which an engine is looked at again where a command was killed in the middle."""
_POLL: Final = 0.1


def down(options: DownOptions) -> ExitStatus:
    """Remove a lab, every lab of this checkout, or every lab; nothing there is fine. Every engine is asked.

    Says what it removed. One lab that cannot be removed does not keep the others: the first failure is raised at the
    end. Raises TaskError (LAB-BUSY, LAB-PROCESS-STUCK, what the engines raise).
    """
    return run_interruptible(_down(options))


async def down_until_quiet(engine: Engine, name: str, progress: Steps) -> list[str]:
    """Remove a lab whose start was cut off; the names of what was removed.

    The engine may still be at what it was asked for last, and cannot be asked about that: it is looked at again.
    """
    removed = list((await engine.down(name, progress)).names)
    while True:
        await asyncio.sleep(SETTLE)
        late = (await engine.down(name, progress)).names
        if not late:
            return removed
        removed += late


async def _down_once(engine: Engine, name: str, progress: Steps) -> list[str]:
    return list((await engine.down(name, progress)).names)


async def _down(options: DownOptions) -> ExitStatus:
    removed: dict[str, list[str]] = {}
    troubles: list[TaskError] = []
    roots = state_roots(os.environ)
    with steps("looking for labs") as progress:
        asked, silent = await in_thread(engines.survey, options.engine)
        names = await in_thread(_names, options, asked, [each.engine for each in silent], roots)
        removed |= {name: [] for name in names}
        gate = asyncio.Semaphore(AT_ONCE)

        async def remove(name: str) -> None:
            async with gate:
                try:
                    await _remove(name, asked, roots, removed[name], progress)
                except TaskError as failure:
                    troubles.append(failure)
                troubles.extend(each.failure for each in silent if each.holds(name))

        await asyncio.gather(*(remove(name) for name in names))
    if options.json:
        if not troubles:
            sys.stdout.write(json.dumps({"schema": 1, "removed": removed}) + "\n")
    else:
        _tell(removed, troubles)
    if troubles:
        raise troubles[0]
    return ExitStatus.SUCCESS


async def _remove(
    name: str, asked: Sequence[Engine], roots: tuple[Path, ...], removed: list[str], progress: Steps
) -> None:
    """Remove one lab from every engine, and all that is written down of it."""
    async with _lock_when_free(roots[0], name, progress) as lock:
        for engine in asked:
            # Where nothing is written down, no command had asked this engine for anything yet.
            begun = lock.resumed and name in remembered(roots, engine.name)
            take_down = down_until_quiet if begun else _down_once
            removed += await take_down(engine, name, progress)
            for root in roots:
                forget_lab_file(root, name, engine.name)


@contextlib.asynccontextmanager
async def _lock_when_free(root: Path, name: str, progress: Steps) -> AsyncGenerator[LabLock, None]:
    """Hold a lab's name; wait up to BUSY_LIMIT for another command that does. Raises TaskError (LAB-BUSY)."""
    limit = asyncio.get_running_loop().time() + BUSY_LIMIT
    told = False
    async with contextlib.AsyncExitStack() as held:
        while True:
            try:
                lock = held.enter_context(lab_lock(root, name))
                break
            except TaskError as busy:
                if busy.kind is not failures.BUSY or asyncio.get_running_loop().time() > limit:
                    raise
            if not told:
                progress(f"another command is starting or removing {name}, waiting for it")
                told = True
            # A lock on a file can be waited for only in a thread, which could not be interrupted.
            await asyncio.sleep(_POLL)
        yield lock


def _tell(removed: dict[str, list[str]], troubles: Sequence[TaskError]) -> None:
    for name, things in removed.items():
        for each in things:
            sys.stdout.write(f"{name}: removed {each}\n")
        if not things and not troubles:
            sys.stdout.write(f"{name}: nothing was there\n")
    if not removed:
        sys.stdout.write("no labs\n")


def _names(options: DownOptions, asked: Sequence[Engine], silent: Sequence[str], roots: tuple[Path, ...]) -> list[str]:
    """The labs that are meant. A name that is given, or this checkout's own, is tried even if nobody lists it."""
    if not options.all and not options.all_checkouts:
        return [resolve_lab_name(options.name)]
    known = unfinished(roots)
    for engine in asked:
        known |= {lab.lab: lab.checkout for lab in engine.labs()}
    for engine_name in (*(engine.name for engine in asked), *silent):
        known = remembered(roots, engine_name) | known
    here = str(checkout_path())
    found = {lab for lab, checkout in known.items() if options.all_checkouts or checkout == here}
    return sorted(found | ({resolve_lab_name(options.name)} if options.name else set()))
