# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: a wire between two real hosts, each with a real MigTD, that changes what passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from migtd.deadlines import Deadlines
from vmm_stub.testing import FAST
from vmm_stub.testing_live import LOOPBACK, LiveSide, live_side, outcome_of
from vmm_stub.vmm.control.models import Role, SideOutcome

TO_DESTINATION: Final = 0
TO_SOURCE: Final = 1
_CHUNK: Final = 65_536


class WireCut(Exception):
    """Raised by a Tamper: `last` still passes, then both directions end."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__()
        self.last = last


Tamper = Callable[[int, bytes], bytes]
"""What passes instead of some bytes of one direction."""


@dataclass(slots=True)
class Relay:
    """Takes the source's connection and makes one to the destination. `passed` counts the bytes of each direction."""

    port: int
    tamper: Tamper
    passed: list[int] = field(default_factory=lambda: [0, 0])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways until either end is done."""
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, self.port)
        ways = [self._pass(TO_DESTINATION, reader, there_writer), self._pass(TO_SOURCE, there_reader, writer)]
        tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for each in (writer, there_writer):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()

    async def _pass(self, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A reset of either end is an end like any other.
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                cut = False
                try:
                    data = self.tamper(way, data)
                except WireCut as error:
                    data, cut = error.last, True
                self.passed[way] += len(data)
                writer.write(data)
                await writer.drain()
                if cut:
                    return


@dataclass(slots=True)
class RelayedMigration:
    """A migration that ended on both sides; each side can still be looked at."""

    relay: Relay
    source: LiveSide
    destination: LiveSide
    here: SideOutcome
    there: SideOutcome

    @property
    def results(self) -> tuple[str, str]:
        """Of the source and of the destination."""
        return self.here.result, self.there.result

    def expect_keys_where_success_was_said(self) -> None:
        """Either side has the key that the other sent if it reported Success, and none otherwise."""
        pairs = ((self.source, self.here, self.destination), (self.destination, self.there, self.source))
        for side, outcome, other in pairs:
            written = outcome.result == "Success"
            side.expect_key(written=written)
            (ours,), (theirs,) = side.vmm.target_tds(), other.vmm.target_tds()
            assert not written or ours.dec_key_fingerprint == theirs.enc_key_fingerprint  # noqa: S101 - of tests


@contextlib.asynccontextmanager
async def migrated_over(tamper: Tamper, deadlines: Deadlines = FAST) -> AsyncIterator[RelayedMigration]:
    """Migrate over a relay. Each side has made its one report and given everything back when the block begins."""
    async with live_side(Role.SOURCE, deadlines) as source, live_side(Role.DESTINATION, deadlines) as destination:
        there = await destination.begin()
        address = there.model().address
        assert address is not None  # noqa: S101 - a destination that listens has one
        relay = Relay(int(address.rpartition(":")[2]), tamper)
        async with await asyncio.start_server(relay.serve, LOOPBACK, 0) as server:
            here = await source.begin(f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}")
            await asyncio.gather(here.ended.wait(), there.ended.wait())
            for side in (source, destination):
                side.expect_one_report()
                await side.expect_nothing_left()
            server.close()
            await server.wait_closed()
        yield RelayedMigration(relay, source, destination, outcome_of(here), outcome_of(there))
