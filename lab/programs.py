# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Programs that a task runs to their end: with a limit where they could hang, and ended with the task.

A thread cannot be cancelled, so whoever waits for one in `in_thread` ends the programs that it runs instead. Without
that, a `docker compose up` would go on after Ctrl-C and create what nobody removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ran: its exit status and what it printed, as text."""

    status: int
    stdout: str
    stderr: str


class ProgramEnded(Exception):
    """The task was cancelled: its program was ended, or is not started any more."""


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread. If this is cancelled, the programs that the function runs are ended first.

    Nothing of the function goes on when this returns, whichever way.
    """
    running = _Running()
    token = _RUNNING.set(running)
    try:
        work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    finally:
        _RUNNING.reset(token)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        running.end()
        while not work.done():
            # Who cancels once more, such as a group of tasks that ends, waits for the same.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            # Whatever it ended with: it was told to end. Taking the exception keeps asyncio from reporting it.
            work.exception()
        raise


def run_program(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
    keep_open: tuple[int, ...] = (),
) -> Completed:
    """Run a program to its end. `keep_open` are descriptors that it holds as long as it runs.

    Raises OSError if it cannot be started, subprocess.TimeoutExpired after `limit` seconds, ProgramEnded.
    """
    running = _RUNNING.get()
    if running is not None and running.ended:
        raise ProgramEnded(command[0])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=keep_open,
    ) as process:
        if running is not None:
            running.add(process)
        try:
            out, err = process.communicate(stdin, timeout=limit)
        except BaseException:
            process.kill()
            raise
        finally:
            if running is not None:
                running.discard(process)
    if running is not None and running.ended:
        raise ProgramEnded(command[0])
    return Completed(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


class _Running:
    """The programs that one call of `in_thread` runs. Used by its thread and by the event loop's."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
            if self.ended:
                process.terminate()

    def discard(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.discard(process)

    def end(self) -> None:
        """SIGTERM, which Compose, builders and mmdebstrap obey; none is started any more."""
        with self._lock:
            self.ended = True
            for process in self._processes:
                process.terminate()


_RUNNING: Final[ContextVar[_Running | None]] = ContextVar("_RUNNING", default=None)
