# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a task ends when it does not succeed: a stable id, a sentence, advice, and the exit status of `./inv`."""

from __future__ import annotations

import enum
from typing import ClassVar

from migtd.errors import LabFailure


class ExitStatus(enum.IntEnum):
    """Exit status of `./inv` (design.md, contract 1)."""

    SUCCESS = 0
    NEGATIVE = 1
    """A verdict is negative: a migration failed, a test failed, a case did not conform."""
    USAGE = 2
    LAB = 3
    """The lab or its engine could not do what was asked."""
    INTERRUPTED = 130


class TaskError(LabFailure):
    """A task cannot go on; the class gives the exit status."""

    status: ClassVar[ExitStatus] = ExitStatus.LAB


class UsageError(TaskError):
    """The user's input is wrong: a flag, a lab file, a name (2)."""

    status = ExitStatus.USAGE


class EngineError(TaskError):
    """The engine, an image or a host failed (3)."""

    status = ExitStatus.LAB
