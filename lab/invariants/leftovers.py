# SPDX-License-Identifier: BSD-2-Clause-Patent
"""I8 of design.md: after `down`, nothing that carries the lab's name is left."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lab.engines.base import Engine
from lab.engines.local_process import processes_with
from lab.engines.process import FOLDER_VARIABLE
from lab.invariants.event import Violation
from lab.state import state_roots


def check_leftovers(engine: Engine, lab: str) -> Iterator[Violation]:
    """What is left of a lab that was taken down. Raises EngineError if the engine does not answer."""
    for status in engine.labs():
        if status.lab == lab:
            roles = ", ".join(role.path for role in status.roles) or "a network, a volume or a folder"
            yield Violation("I8", "", None, 0, f"{engine.name} still has of {lab}: {roles}")
    for root in state_roots(os.environ):
        for process in processes_with(FOLDER_VARIABLE, str(root / lab)):
            yield Violation("I8", "", None, 0, f"process {process.pid} of {lab} still runs")
        if engine.name == "process" and (root / lab).exists():
            yield Violation("I8", "", None, 0, f"the folder {root / lab} of {lab} is still there")
