# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What people see of long steps: a moving line on a terminal, plain lines with elapsed time elsewhere.

All of it goes to standard error: standard output is for data.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # loading rich takes longer than many tasks do
    from rich.status import Status


class Steps:
    """Progress of one task. Call it with each step's name as the step begins; `say` is for remarks between steps."""

    def __init__(self, out: TextIO, clock: Callable[[], float], status: Status | None = None) -> None:
        self._out = out
        self._clock = clock
        self._status = status
        self._start = clock()

    def __call__(self, step: str) -> None:
        """A step begins."""
        if self._status is not None:
            self._status.update(step)
        self.say(step)

    def say(self, text: str) -> None:
        """Print one line with the time since the task began."""
        if self._status is not None:
            # The console of the moving line prints above it.
            self._status.console.print(f"[dim]{self.elapsed():6.1f} s[/dim]  {_plain(text)}", highlight=False)
        else:
            self._out.write(f"[{self.elapsed():6.1f} s] {text}\n")
            self._out.flush()

    def elapsed(self) -> float:
        """Seconds since the task began."""
        return self._clock() - self._start


@contextlib.contextmanager
def steps(first: str) -> Iterator[Steps]:
    """Progress on standard error while the block runs."""
    if not _is_lively(sys.stderr):
        yield Steps(sys.stderr, time.monotonic)
        return
    from rich.console import Console  # noqa: PLC0415 - as said above

    with Console(stderr=True).status(first) as status:
        yield Steps(sys.stderr, time.monotonic, status)


def _is_lively(stream: TextIO) -> bool:
    """Whether lines may move: a terminal that can, and nobody asked for plain text."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
