# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`down`: labs are removed by name alone, from labels or state folders; no lab file is read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence

from lab import engines
from lab.engines.base import Engine
from lab.errors import ExitStatus
from lab.interrupts import run_interruptible
from lab.names import checkout_path, resolve_lab_name
from lab.options import DownOptions
from lab.progress import steps
from lab.state import forget_lab_file, lab_lock, state_roots


def down(options: DownOptions) -> ExitStatus:
    """Remove a lab, every lab of this checkout, or every lab; nothing there is fine. Every engine is asked.

    Says what it removed. Raises TaskError (LAB-BUSY, LAB-PROCESS-STUCK, what the engines raise).
    """
    return run_interruptible(_down(options))


async def _down(options: DownOptions) -> ExitStatus:
    removed: dict[str, list[str]] = {}
    with steps("looking for labs") as progress:
        asked = await asyncio.to_thread(engines.usable, options.engine)
        names = await asyncio.to_thread(_names, options, asked)
        for name in names:
            with lab_lock(state_roots(os.environ)[0], name):
                for engine in asked:
                    gone = await engine.down(name, progress)
                    removed.setdefault(name, []).extend(gone.names)
                for root in state_roots(os.environ):
                    forget_lab_file(root, name)
    if options.json:
        sys.stdout.write(json.dumps({"schema": 1, "removed": removed}) + "\n")
    else:
        for name in names:
            for each in removed[name]:
                sys.stdout.write(f"{name}: removed {each}\n")
            if not removed[name]:
                sys.stdout.write(f"{name}: nothing was there\n")
        if not names:
            sys.stdout.write("no labs\n")
    return ExitStatus.SUCCESS


def _names(options: DownOptions, asked: Sequence[Engine]) -> list[str]:
    """The labs that are meant. A name that is given, or this checkout's own, is tried even if nobody lists it."""
    if not options.all and not options.all_checkouts:
        return [resolve_lab_name(options.name)]
    here = str(checkout_path())
    found = {lab.lab for engine in asked for lab in engine.labs() if options.all_checkouts or lab.checkout == here}
    return sorted(found | ({resolve_lab_name(options.name)} if options.name else set()))
