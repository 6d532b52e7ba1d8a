# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A way to the container engine that can be closed and opened again: what clients see when the engine goes and returns.

The engine itself goes on: nobody else who uses it is disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

CHUNK = 65536


class EngineProxy:
    """A unix socket that hands everything on to the engine's own until `close`, and again after `open`."""

    def __init__(self, path: Path, engine: str) -> None:
        self._path = path
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """As DOCKER_HOST takes it."""
        return f"unix://{self._path}"

    async def open(self) -> None:
        """Let clients in."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Refuse clients, and cut off those that are connected."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for stream in self._streams:
            stream.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            engine_reader, engine_writer = await asyncio.open_unix_connection(self._engine)
            both = {writer, engine_writer}
            self._streams |= both
            try:
                await asyncio.gather(_copy(reader, engine_writer), _copy(engine_reader, writer))
            finally:
                self._streams -= both
                for stream in both:
                    stream.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on all bytes and the end of the stream: the engine's attached streams are closed one way at a time."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def engine_socket() -> str | None:
    """Path of the socket that the `docker` command uses; None if it uses something else."""
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    host = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return host.removeprefix("unix://") if host.startswith("unix://") else None
