# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Byte streams and log lines through the engine's command line client, one client process each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from lab import docker_cli, failures
from lab.engines.base import ControlStream
from lab.errors import EngineError
from lab.programs import in_thread

_CHUNK: Final = 65536
_LINE_LIMIT: Final = 16 << 20
_ALL_READ: Final = None


class ExecStreams:
    """Opens streams to commands in containers, and ends their client processes with the event loop at the latest."""

    def __init__(self) -> None:
        self._pumps: set[asyncio.Task[None]] = set()

    async def open(self, whom: str, command: Sequence[str]) -> ControlStream:
        """Start `command` and give its output and input as a stream. `whom` is what a failure calls the other end.

        The reader raises EngineError (LAB-ENGINE-LOST, LAB-HOST-LOST) where the command did not end by itself.
        """
        # In a session of its own: Ctrl-C is for this program, which still has to tell the host to cancel.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        if process.stdin is None:
            raise RuntimeError("a pipe was asked for")
        reader = asyncio.StreamReader()
        pump = asyncio.create_task(_pump(process, reader, whom))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return reader, process.stdin


async def follow_logs(commands: Mapping[str, Sequence[str]]) -> AsyncGenerator[tuple[str, str], None]:
    """(key, line) of what the commands print, until all have ended. Closing the iterator ends them.

    Raises EngineError (LAB-ENGINE-LOST) once a command was cut off by the engine's end.
    """
    lines: asyncio.Queue[tuple[str, str] | EngineError | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_read_lines(key, command, lines)) for key, command in commands.items()]
    try:
        running = len(tasks)
        while running:
            line = await lines.get()
            if isinstance(line, EngineError):
                raise line
            if line is _ALL_READ:
                running -= 1
            else:
                yield line
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_lines(
    key: str, command: Sequence[str], lines: asyncio.Queue[tuple[str, str] | EngineError | None]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=STDOUT, limit=_LINE_LIMIT, start_new_session=True
    )
    # The client's own last word comes as one more line of the log. What looks like it waits for what follows.
    held: list[str] = []
    try:
        if process.stdout is not None:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if held:
                    lines.put_nowait((key, held.pop()))
                if _tells_of_lost_engine(line):
                    held.append(line)
                else:
                    lines.put_nowait((key, line))
        if await process.wait() and held:
            lines.put_nowait(EngineError(failures.ENGINE_LOST, f"logs of {key}: {held.pop()}"))
        elif held:
            lines.put_nowait((key, held.pop()))
    finally:
        await _end(process)
        lines.put_nowait(_ALL_READ)


def _tells_of_lost_engine(line: str) -> bool:
    return docker_cli.refusal(line, failures.HOST_LOST).kind is failures.ENGINE_LOST


async def _pump(process: Process, reader: asyncio.StreamReader, whom: str) -> None:
    """Hand on what the process prints; at its end say whether the stream ended, or was cut by the engine."""
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("pipes were asked for")
    try:
        while data := await process.stdout.read(_CHUNK):
            reader.feed_data(data)
        told = (await process.stderr.read()).decode(errors="replace")
        if await process.wait():
            reader.set_exception(await _cut(told, whom))
        else:
            reader.feed_eof()
    finally:
        await _end(process)


async def _cut(told: str, whom: str) -> EngineError:
    """Why a stream was cut. The client says nothing of an engine that went away: then the engine is asked for."""
    failure = docker_cli.refusal(told, failures.HOST_LOST)
    if failure.kind is failures.HOST_LOST and not failure.detail:
        try:
            await in_thread(docker_cli.server_version)
        except EngineError as lost:
            failure = lost
    return EngineError(failure.kind, f"{whom}: {failure.detail}" if failure.detail else whom)


async def _end(process: Process) -> None:
    if process.returncode is None:
        # Not process.kill(): that collects a process which has just ended, and asyncio then complains of its absence.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await process.wait()
