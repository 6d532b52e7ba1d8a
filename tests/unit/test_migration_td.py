# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The payload of an emulated TD: command line, start, end, exit status."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import structlog

from migtd import failures
from migtd.choices import ATTESTATION_MODES, SESSION_PROTOCOLS, SKIPS_OF, attestation_choice, session_factory
from migtd.deadlines import Deadlines
from migtd.errors import InitializationError, InvalidParameter, MigTDError, VmmInternalError
from migtd.event_log import read_events
from migtd.guest.abi import (
    SHARED_BIT,
    TDG_VP_VMCALL_INVALID_OPERAND,
    TDX_OPERAND_INVALID,
    MigTdLeaf,
    TdCallLeaf,
    VmCallLeaf,
)
from migtd.guest.calls import ChannelTdVmCall
from migtd.guest.channel import (
    MAX_MESSAGE,
    SHARED_MEMORY_NAME,
    SOCKET_NAME,
    Kind,
    Message,
    Registers,
    pull_message,
    push_message,
)
from migtd.guest.configuration import FileConfiguration
from migtd.guest.firmware import CcelArea, boot
from migtd.guest.interfaces import EventLogArea, Guest
from migtd.guest.interrupts import InterruptController
from migtd.guest.shared_memory import SharedPages
from migtd.migration.logging import LogEntry, LogLevel
from migtd.td import main, serve
from migtd.td_options import pull_deadlines, pull_options
from migtd.testing import FakeTdCall, RecordingObserver

MARKER = attestation_choice("accept-all")
RA_TLS = session_factory("ra-tls")


@pytest.fixture(autouse=True)
def _own_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


# --- command line --------------------------------------------------------------------------------------------------
def test_defaults_are_those_of_the_first_lab() -> None:
    options = pull_options(["--channel", "somewhere"])
    assert (options.channel, options.attestation, options.session) == (Path("somewhere"), "accept-all", "ra-tls")
    assert options.deadlines == Deadlines()
    assert options.ceiling is LogLevel.INFO
    assert options.connect_timeout is None
    assert (options.policy_file, options.root_ca_file, options.policy_issuer_chain_file) == (None, None, None)


def test_deadlines_cross_the_command_line_as_an_engine_writes_them() -> None:
    deadlines = Deadlines(session=1.5, call=2)
    options = pull_options(["--channel", "d", "--deadlines", json.dumps(asdict(deadlines)), "--debug"])
    assert options.deadlines == deadlines
    assert options.ceiling is LogLevel.TRACE


def test_one_deadline_sets_every_wait_on_the_peer() -> None:
    assert pull_options(["--channel", "d", "--deadline", "2"]).deadlines == Deadlines().with_all(2.0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--channel"],
        ["--channel", "d", "--unknown"],
        ["--channel", "d", "--att", "accept-all"],
        ["--channel", "d", "more"],
        ["--channel", "d", "--deadline", "0"],
        ["--channel", "d", "--deadline", "soon"],
        ["--channel", "d", "--deadline", "nan"],
        ["--channel", "d", "--deadline", "1", "--deadlines", "{}"],
        ["--channel", "d", "--connect-timeout", "-1"],
    ],
)
def test_wrong_command_line_is_a_usage_error_with_status_1(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert "MIGTD-USAGE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{",
        '{"sessoin": 1}',
        '{"session": 0}',
        '{"session": "1"}',
        '{"session": true}',
        '{"session": 1e999}',
        "[" * 100_000,
        '{"session": 1' + "0" * 400 + "}",
    ],
)
def test_deadlines_that_are_none_are_a_usage_error(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        pull_deadlines(text)
    assert caught.value.kind is failures.USAGE


@pytest.mark.parametrize(
    ("flag", "identity", "available"),
    [
        ("--attestation", "MIGTD-ATTESTATION-UNKNOWN", list(ATTESTATION_MODES)),
        ("--session", "MIGTD-SESSION-UNKNOWN", list(SESSION_PROTOCOLS)),
    ],
)
def test_unknown_mode_is_a_usage_error_that_names_those_there_are(
    flag: str, identity: str, available: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--channel", "d", flag, "nonsense"]) == 1
    told = capsys.readouterr().err
    assert identity in told
    assert "'nonsense'" in told
    assert all(name in told for name in available)


def test_tables_hold_what_calls_itself_so() -> None:
    guest = Platform().guest
    assert attestation_choice("accept-all")(guest).name == "accept-all"
    assert list(SKIPS_OF) == list(ATTESTATION_MODES)
    assert [each().name for each in SESSION_PROTOCOLS.values()] == list(SESSION_PROTOCOLS)


def test_host_that_never_listens_ends_the_process_with_vmm_internal_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--channel", str(tmp_path), "--connect-timeout", "0.05"]) == 11
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "MIGTD-CHANNEL-LOST" in capsys.readouterr().err


# --- start and end -------------------------------------------------------------------------------------------------
class FakeVmm:
    """What is outside of the TD: takes every call and answers no request. `refusal` ends the waiting for requests."""

    def __init__(self, memory: bytearray, refusal: int | MigTDError) -> None:
        self.memory = memory
        self.refusal = refusal
        self.fatal: list[tuple[int, str]] = []
        self.waiting = asyncio.Event()

    def __call__(self, registers: Registers, data: bytes) -> tuple[Registers, bytes]:
        assert data == b""
        if registers.r11 == VmCallLeaf.REPORT_FATAL_ERROR:
            offset = registers.r13 & ~SHARED_BIT
            text = self.memory[offset : self.memory.index(0, offset)].decode()
            self.fatal.append((registers.r12 & 0xFFFFFFFF, text))
        else:
            assert (registers.r11, registers.r12 & 0xFFFF) == (VmCallLeaf.MIGTD, MigTdLeaf.WAIT_FOR_REQUEST)
            if isinstance(self.refusal, MigTDError):
                raise self.refusal
            registers.r10 = self.refusal
            self.waiting.set()
        return registers, b""


class Platform:
    """A guest in memory."""

    def __init__(self, *, fail_at: int | None = None, refusal: int | MigTDError = 0, shared: int = 1 << 16) -> None:
        memory = bytearray(shared)
        self.tdcall = FakeTdCall(vcpus=2, fail_at=fail_at)
        self.vmm = FakeVmm(memory, refusal)
        self.interrupts = InterruptController()
        self.area: EventLogArea | None = boot(FakeTdCall())
        self.memory = SharedPages(memoryview(memory))
        self.logged: list[LogEntry] = []

    @property
    def guest(self) -> Guest:
        vmcall = ChannelTdVmCall(self.vmm, self.memory)
        return Guest(self.tdcall, vmcall, self.memory, self.interrupts, FileConfiguration(), self.area)

    async def serve(self) -> None:
        await serve(self.guest, MARKER, RA_TLS, Deadlines(), RecordingObserver(), mirror=self.logged.append)


async def test_start_measures_the_marker_event_alone_into_rtmr_2_before_it_waits() -> None:
    platform = Platform()
    assert platform.area is not None
    before = read_events(platform.area.read())
    task = asyncio.create_task(platform.serve())
    await platform.vmm.waiting.wait()
    (marker,) = read_events(platform.area.read())[len(before) :]
    assert marker.mr_index == 3
    assert marker.data == b"\x32\0\0\0\x1e\0\0\0test_disable_ra_and_accept_all"
    assert platform.tdcall.extended == [(2, marker.digest)]
    assert "accept-all" in platform.logged[0].text
    platform.interrupts.lose()
    await task
    assert platform.vmm.fatal == []


@pytest.mark.parametrize(
    ("area", "identity"),
    [
        (None, "MIGTD-EVENT-LOG-MISSING"),
        (CcelArea(71), "MIGTD-EVENT-LOG-MISSING"),
        (CcelArea(150), "MIGTD-EVENT-LOG-FULL"),
    ],
)
async def test_start_without_room_in_the_log_tells_the_host_and_ends_in_initialization_error(
    area: EventLogArea | None, identity: str
) -> None:
    platform = Platform()
    platform.area = area
    with pytest.raises(InitializationError):
        await platform.serve()
    ((code, message),) = platform.vmm.fatal
    assert code == 255
    assert message.startswith(f"{identity}: ")
    assert platform.tdcall.extended == []


@pytest.mark.parametrize(("fail_at", "code"), [(0, 255), (1, 4)])
async def test_tdcall_that_fails_at_start_is_fatal(fail_at: int, code: int) -> None:
    platform = Platform(fail_at=fail_at)
    with pytest.raises(MigTDError):
        await platform.serve()
    assert [each[0] for each in platform.vmm.fatal] == [code]


async def test_start_without_memory_for_the_log_areas_is_out_of_resource() -> None:
    platform = Platform(shared=4096)
    with pytest.raises(MigTDError):
        await platform.serve()
    assert platform.vmm.fatal[0][0] == 3


async def test_host_that_refuses_to_hand_over_requests_is_told_and_ends_the_start() -> None:
    platform = Platform(refusal=TDG_VP_VMCALL_INVALID_OPERAND)
    with pytest.raises(InvalidParameter):
        await platform.serve()
    assert platform.vmm.fatal[0][1].startswith("MIGTD-VMCALL-REFUSED: ")


async def test_host_that_is_gone_already_is_an_ordinary_end() -> None:
    platform = Platform(refusal=VmmInternalError(failures.CHANNEL_LOST))
    await platform.serve()
    assert platform.vmm.fatal == []


# --- the process ---------------------------------------------------------------------------------------------------
class FakeHost:
    """A host of one TD over the real socket. It answers calls until the guest waits for requests, or has failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(30)
        self.listener.bind(str(folder / SOCKET_NAME))
        self.listener.listen()
        self.memory = folder / SHARED_MEMORY_NAME
        self.memory.write_bytes(bytes(1 << 16))
        self.connection: socket.socket | None = None

    def serve_until(self, leaf: VmCallLeaf) -> Message:
        """Answer every call; return the first TDVMCALL of this leaf."""
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(30)
        while True:
            call = pull_message(self.connection.recv(MAX_MESSAGE))
            registers = call.registers
            found = registers.rax == TdCallLeaf.VP_VMCALL and registers.r11 == leaf
            if registers.rax == TdCallLeaf.VP_INFO:
                registers.r8 = 1
            registers.rax, registers.r10 = 0, 0
            self.connection.send(push_message(Message(Kind.RETURN, call.sequence, registers)))
            if found:
                return call

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.listener.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(tmp_path)
    yield host
    host.close()


def start_process(host: FakeHost, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "migtd.td", "--channel", str(host.folder), *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_process_waits_for_requests_and_sigterm_ends_it_with_status_0(host: FakeHost) -> None:
    with start_process(host) as process:
        call = host.serve_until(VmCallLeaf.MIGTD)
        assert call.registers.r12 & 0xFFFF == MigTdLeaf.WAIT_FOR_REQUEST
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told


def test_process_ends_with_status_0_when_its_host_goes_away(host: FakeHost) -> None:
    with start_process(host) as process:
        host.serve_until(VmCallLeaf.MIGTD)
        host.close()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told


def test_process_that_cannot_read_its_policy_tells_the_host_and_ends_in_invalid_policy_error(host: FakeHost) -> None:
    with start_process(host, "--policy-file", str(host.folder / "missing")) as process:
        call = host.serve_until(VmCallLeaf.REPORT_FATAL_ERROR)
        _, told = process.communicate(timeout=30)
    assert call.registers.r12 & 0xFFFFFFFF == 9
    assert b"MIGTD-CONFIGURATION-MISSING: " in host.memory.read_bytes()
    assert process.returncode == 9
    assert "MIGTD-CONFIGURATION-MISSING" in told


def test_process_whose_firmware_cannot_measure_ends_with_its_result(host: FakeHost) -> None:
    with start_process(host) as process:
        accepted, _ = host.listener.accept()
        with accepted:
            for status in (0, TDX_OPERAND_INVALID):
                call = pull_message(accepted.recv(MAX_MESSAGE))
                registers = call.registers
                registers.rax, registers.r8 = status, 1
                accepted.send(push_message(Message(Kind.RETURN, call.sequence, registers)))
            _, told = process.communicate(timeout=30)
    assert process.returncode == 255, told
    assert "MIGTD-TDCALL-FAILED" in told
