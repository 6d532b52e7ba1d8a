# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Two MigTDs with everything of their own, the first lab's choice: accept-all over RA-TLS."""

from __future__ import annotations

import asyncio
import os
import struct

from migtd.choices import attestation_choice, session_factory
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, VmmInternalError
from migtd.failures import CHANNEL_LOST
from migtd.guest.abi import Field
from migtd.guest.calls import ChannelTdVmCall
from migtd.guest.channel import Registers
from migtd.guest.configuration import FileConfiguration
from migtd.guest.firmware import boot
from migtd.guest.ghci import StartMigration
from migtd.guest.interfaces import Guest, TargetTd
from migtd.guest.interrupts import InterruptController
from migtd.guest.shared_memory import SharedPages
from migtd.migration.logging import MigTdLog
from migtd.migration.service import MigTd
from migtd.observer import Phase
from migtd.testing import FakeTdCall, RecordingObserver, ScriptedServices

N = 1
TARGET = TargetTd(0x1234, (1, 2, 3, 4))
PASSED = [
    "tls-parameters",
    "certificate",
    "certificate-eku",
    "evidence-present",
    "exchange-information",
    "servtd-attr",
    "versions",
]
SKIPPED = [
    "quote-local",
    "quote-peer",
    "reportdata",
    "certificate-signature",
    "event-log-replay",
    "rtmrs-equal",
    "policy",
]


class Side:
    def __init__(self, key: bytes) -> None:
        elements = {Field.MIG_ENC_KEY + index: value for index, value in enumerate(struct.unpack("<4Q", key))}
        self.tdcall = FakeTdCall(
            {**elements, **dict.fromkeys(range(Field.MIN_EXPORT_VERSION, Field.MAX_IMPORT_VERSION + 1), 1)}
        )
        self.services = ScriptedServices()
        self.observer = RecordingObserver()
        memory = SharedPages(memoryview(bytearray(1 << 16)))
        choice = attestation_choice("accept-all")
        vmcall = ChannelTdVmCall(_no_calls, memory)
        guest = Guest(self.tdcall, vmcall, memory, InterruptController(), FileConfiguration(), boot(FakeTdCall()))
        mode = choice(guest)
        self.migtd = MigTd(
            self.tdcall,
            self.services,
            log=MigTdLog(memory, 1),
            mode=mode,
            session_factory=session_factory("ra-tls"),
            deadlines=Deadlines().with_all(10.0),
            observer=self.observer,
            random=os.urandom,
        )

    async def serve_one(self, *, is_source: bool) -> MigrationResult:
        task = asyncio.create_task(self.migtd.serve())
        self.services.put(StartMigration(N, is_source, TARGET))
        (report,) = await self.services.reports_of(N)
        self.services.put_error(VmmInternalError(CHANNEL_LOST))
        await asyncio.wait([task])
        assert isinstance(task.exception(), VmmInternalError)
        return report.result


def _no_calls(registers: Registers, data: bytes) -> tuple[Registers, bytes]:
    raise AssertionError(registers, data)


async def test_keys_cross_and_each_side_names_every_check_as_passed_or_skipped() -> None:
    keys = (bytes(range(32)), bytes(range(32, 64)))
    source, destination = Side(keys[0]), Side(keys[1])
    source.services.connect(destination.services, N)
    results = await asyncio.gather(source.serve_one(is_source=True), destination.serve_one(is_source=False))
    assert list(results) == [MigrationResult.Success] * 2
    assert source.tdcall.written_key(TARGET) == keys[1]
    assert destination.tdcall.written_key(TARGET) == keys[0]
    for side in (source, destination):
        checks = side.observer.checks[N]
        assert [check.name for check in checks if check.status == "passed"] == PASSED
        assert [check.name for check in checks if check.status == "skipped"] == SKIPPED
        assert len(checks) == len(PASSED) + len(SKIPPED)
        assert all(check.detail for check in checks if check.status == "skipped")
        assert side.observer.phases[N] == [
            Phase.ACCEPTED,
            Phase.HANDSHAKE,
            Phase.EXCHANGE,
            Phase.COMMIT,
            Phase.DONE,
        ]
        assert "verifies NOTHING" in side.observer.notes[N][0]
