# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Our side of a meeting with a peer: a session in memory, or `python -m migtd` behind its wire."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migtd import failures
from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import Evidence
from migtd.errors import FailureKind, MigrationResult, MigTDError
from migtd.migration.data import ExchangeInformation, push_exchange_information
from migtd.observer import Phase
from migtd.ratls.session import RaTls
from migtd.ratls.testing import Peer, Side, make_side
from migtd.ratls.tls import Alert

ROOT = Path(__file__).parents[2]
PATIENCE = 40
"""Seconds after which a meeting that does not end is a failed test."""

OURS = ExchangeInformation(b"our secret key of 32 bytes here!", 0, 1)
THEIRS = ExchangeInformation(bytes(range(32)), 0, 1)
OUR_40, THEIR_40 = push_exchange_information(OURS), push_exchange_information(THEIRS)

BOTH_ROLES = pytest.mark.parametrize("is_source", [True, False], ids=["our-client", "our-server"])


def our_side(*, is_source: bool) -> Side:
    """A session with evidence as attestation mode `accept-all` has it."""
    return make_side(RaTls(), AcceptAll(lambda: b"log\0"), Evidence(bytes(822), b"log\0"), OURS, is_source=is_source)


def assert_accepted(side: Side) -> None:
    """Our side completed with the peer's 40 bytes."""
    assert side.error is None, f"{side.error}"
    assert side.information == THEIRS


def assert_failed(side: Side, result: MigrationResult, kind: FailureKind) -> MigTDError:
    """Our side ended with this result, and has nothing of the peer that it could write."""
    assert side.error is not None
    assert (side.error.result, side.error.kind) == (result, kind), f"{side.error}"
    assert side.information is None
    return side.error


def assert_refused_by_us(side: Side, kind: FailureKind = failures.TLS_PROTOCOL) -> None:
    """Our side refused the peer in the handshake, and sent its key to nobody."""
    assert_failed(side, MigrationResult.SecureSessionError, kind)
    assert Phase.EXCHANGE not in [getattr(event, "phase", None) for event in side.events]


def assert_refused_by_peer(side: Side, alert: Alert) -> None:
    """The peer refused us with this alert."""
    error = assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_ALERT)
    assert error.detail == f"{alert.name} ({alert.value})"


async def meet_process(peer: Peer, *, is_source: bool) -> dict[str, Any]:
    """Our side as a process, the peer at the other end of its wire; our outcome."""
    if not is_source:
        async with _stand_alone_destination() as ours:
            reader, writer = await asyncio.open_connection("127.0.0.1", ours.port)
            await asyncio.wait_for(_over_frames(peer, reader, writer), PATIENCE)
            return await ours.outcome()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _over_frames(peer, reader, writer)
        done.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        async with _stand_alone_source(server.sockets[0].getsockname()[1]) as ours:
            outcome = await ours.outcome()
        await asyncio.wait_for(done.wait(), PATIENCE)
    return outcome


@dataclass(slots=True)
class _StandAlone:
    """A running `python -m migtd`; `port` is the destination's."""

    process: asyncio.subprocess.Process
    port: int

    async def outcome(self) -> dict[str, Any]:
        """Wait until it ended; what its JSON outcome says of its side."""
        out, err = await asyncio.wait_for(self.process.communicate(), PATIENCE)
        document = json.loads(out)
        (side,) = [document[name] for name in ("source", "destination") if document[name] is not None]
        assert side["code"] == self.process.returncode, err.decode()
        return dict(side)


@asynccontextmanager
async def _stand_alone_destination() -> AsyncIterator[_StandAlone]:
    """Our destination, listening on a port of its choice."""
    process = await _start("--role", "destination", "--dest-port", "0")
    try:
        line = b""
        while b"listening" not in line:
            line = await asyncio.wait_for(_stderr(process).readline(), PATIENCE)
            assert line, "it ended before it listened"
        yield _StandAlone(process, int(line.rsplit(b":", 1)[1].split()[0]))
    finally:
        await _end(process)


@asynccontextmanager
async def _stand_alone_source(port: int) -> AsyncIterator[_StandAlone]:
    """Our source, which connects to `port`."""
    process = await _start("--role", "source", "--dest-port", str(port))
    try:
        yield _StandAlone(process, port)
    finally:
        await _end(process)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """The payload of the next frame, `u32 length | payload` (ghci-ratls.md 4); `b""` at the end of the stream."""
    try:
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _frame(payload: bytes) -> bytes:
    """The frame of a payload."""
    return struct.pack("<I", len(payload)) + payload


async def _over_frames(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect the peer to our host's wire until our side has closed it, or the peer is done and has said so."""
    out = peer.turn(b"")
    while True:
        if out:
            writer.write(_frame(out))
            await writer.drain()
        if not (data := await _read_frame(reader)):
            break
        out = peer.turn(data)
    writer.close()


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "migtd", "--attestation", "accept-all", "--deadline", "20", "--json", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def _stderr(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    assert process.stderr is not None
    return process.stderr


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
