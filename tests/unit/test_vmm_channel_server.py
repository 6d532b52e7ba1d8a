# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The host's end of the vmcall channel over its real socket and shared memory file."""

import asyncio
import base64
import socket
import stat

import pytest

from migtd.guest.abi import SHARED_BIT, MigTdLeaf, TdCallLeaf, VmCallLeaf
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
from vmm_stub.testing import MIGTD, migration_request, target_td
from vmm_stub.vmm.channel_connection import MAX_OUTGOING
from vmm_stub.vmm.channel_server import ChannelServer
from vmm_stub.vmm.control.models import ConfigurationVolume, HostConfig, MigTdConfig, MigTdState
from vmm_stub.vmm.errors import AddressInvalid
from vmm_stub.vmm.factory import make_vmm

VP_INFO = Registers(rax=TdCallLeaf.VP_INFO)
WAIT = Registers(
    r11=VmCallLeaf.MIGTD, r12=MigTdLeaf.WAIT_FOR_REQUEST | 1 << 16, r13=4096, r14=SHARED_BIT | 8192, r15=0x50
)


class Guest:
    """The guest's end, byte by byte."""

    def __init__(self, connection):
        self.socket = connection
        self.sequence = 0

    async def send(self, datagram):
        await asyncio.get_running_loop().sock_sendall(self.socket, datagram)

    async def receive(self):
        data = await asyncio.get_running_loop().sock_recv(self.socket, MAX_MESSAGE)
        return pull_message(data) if data else None

    async def call(self, registers, data=b""):
        self.sequence += 1
        await self.send(push_message(Message(Kind.CALL, self.sequence, registers, data)))
        return await self.receive()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "channel"


@pytest.fixture
async def vmm(folder):
    migtds = [MigTdConfig(name=MIGTD, channel=str(folder), shared_memory=1 << 20)]
    made = make_vmm(HostConfig(name="host", migtds=migtds, control=""))
    server = ChannelServer(made.migtd(MIGTD))
    server.start()
    yield made
    server.stop()
    await made.stop()


@pytest.fixture
async def connect(vmm, folder):
    assert vmm.health().status == "starting"
    opened = []

    async def connect():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(0)
        opened.append(connection)
        await asyncio.get_running_loop().sock_connect(connection, str(folder / SOCKET_NAME))
        return Guest(connection)

    yield connect
    for connection in opened:
        connection.close()


@pytest.mark.usefixtures("vmm")
async def test_socket_and_memory_are_there_first_and_belong_to_the_host_alone(folder):
    for name in (SOCKET_NAME, SHARED_MEMORY_NAME):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert (folder / SHARED_MEMORY_NAME).stat().st_size == 1 << 20


def volume(**files):
    return ConfigurationVolume(**{name: base64.b64encode(content) for name, content in files.items()})


@pytest.mark.parametrize(
    ("own", "of_host", "files"),
    [
        (None, None, {}),
        (None, volume(policy=b"v1", root_ca=b"root"), {"policy": b"v1", "root-ca": b"root"}),
        (
            volume(policy=b"v2", policy_issuer_chain=b"chain"),
            volume(policy=b"v1", root_ca=b"root"),
            {"policy": b"v2", "policy-issuer-chain": b"chain"},
        ),
    ],
)
async def test_a_migtd_finds_its_configuration_volume_or_else_the_hosts(folder, own, of_host, files):
    migtds = [MigTdConfig(name=MIGTD, channel=str(folder), shared_memory=1 << 20, configuration=own)]
    made = make_vmm(HostConfig(name="host", migtds=migtds, control="", configuration=of_host))
    server = ChannelServer(made.migtd(MIGTD), of_host)
    server.start()
    found = {each.name: each for each in folder.iterdir() if each.name not in (SOCKET_NAME, SHARED_MEMORY_NAME)}

    assert {name: each.read_bytes() for name, each in found.items()} == files
    assert {stat.S_IMODE(each.stat().st_mode) for each in found.values()} <= {0o600}
    server.stop()
    assert not any(each.exists() for each in found.values())
    await made.stop()


async def test_a_call_returns_with_its_sequence_number(connect):
    guest = await connect()
    answer = await guest.call(VP_INFO)
    assert (answer.kind, answer.sequence, answer.registers.rcx) == (Kind.RETURN, 1, 48)
    assert (await guest.call(Registers(rax=TdCallLeaf.MR_REPORT), bytes(64))).data[:4] == b"\x81\0\0\0"


async def test_an_interrupt_announces_a_request_in_the_shared_file(vmm, connect, folder):
    guest, target = await connect(), None
    assert (await guest.call(WAIT)).registers.r10 == 0
    assert vmm.health().status == "ready"
    target = target_td(vmm)
    (await vmm.start_migration(migration_request(target))).cancel()
    interrupt = await guest.receive()
    assert (interrupt.kind, interrupt.registers.rax) == (Kind.INTERRUPT, 0x50)
    assert (folder / SHARED_MEMORY_NAME).read_bytes()[8192:8194] == b"\1\4"


async def test_the_next_td_waits_for_the_end_of_the_first_and_starts_fresh(connect, folder, vmm):
    first, second = await connect(), await connect()
    await first.call(VP_INFO)
    (folder / SHARED_MEMORY_NAME).write_bytes(b"used".ljust(1 << 20))
    await second.send(push_message(Message(Kind.CALL, 1, VP_INFO)))
    first.socket.close()
    assert (await second.receive()).kind is Kind.RETURN
    assert not any((folder / SHARED_MEMORY_NAME).read_bytes())
    assert vmm.migtd(MIGTD).state is MigTdState.STARTING


@pytest.mark.parametrize(
    "datagram",
    [
        b"x",
        push_message(Message(Kind.CALL, 1, VP_INFO))[:-1],
        push_message(Message(Kind.CALL, 1, VP_INFO)) + b"x",
        bytes([9]) + push_message(Message(Kind.CALL))[1:],
        bytes(MAX_MESSAGE + 1),
        push_message(Message(Kind.RETURN)),
        push_message(Message(Kind.INTERRUPT)),
        push_message(Message(Kind.EVENT, data=b"no json")),
    ],
    ids=["short", "cut", "long", "unknown-kind", "oversized", "return", "interrupt", "event"],
)
async def test_a_malformed_message_ends_the_td_and_the_next_one_is_welcome(vmm, connect, datagram):
    guest = await connect()
    await guest.call(WAIT)
    await guest.send(datagram)
    assert await guest.receive() is None
    model = vmm.migtd(MIGTD).model()
    assert (model.state, model.error.id) == (MigTdState.LOST, "VMM-CHANNEL-BROKEN")
    assert vmm.health().status == "degraded"
    assert (await (await connect()).call(VP_INFO)).kind is Kind.RETURN


async def test_a_guest_that_does_not_read_is_ended(vmm, connect):
    guest = await connect()
    await guest.call(VP_INFO)
    call = push_message(Message(Kind.CALL, 1, VP_INFO))
    changed = 0
    while vmm.migtd(MIGTD).state is not MigTdState.LOST and changed < 10 * MAX_OUTGOING:
        changed += 1
        try:
            await guest.send(call)
        except OSError:
            break
        await asyncio.sleep(0)
    assert vmm.migtd(MIGTD).model().error.id == "VMM-CHANNEL-BROKEN"


async def test_interrupts_are_not_lost_when_the_guest_reads_late(vmm, connect):
    guest, target = await connect(), target_td(vmm)
    calls = 0
    while calls < MAX_OUTGOING // 2:
        calls += 1
        await guest.send(push_message(Message(Kind.CALL, calls, VP_INFO)))
        await asyncio.sleep(0)
    # behind answers that were not read yet: one request, and once its interrupt was read, the next
    for number in (1, 2):
        await guest.send(push_message(Message(Kind.CALL, 9000, WAIT)))
        (await vmm.start_migration(migration_request(target, number))).cancel()
        await guest.send(push_message(Message(Kind.CALL, 9001, VP_INFO)))
        while (await guest.receive()).kind is not Kind.INTERRUPT:
            pass


async def test_disconnect_leaves_migrations_unknown(vmm, connect):
    guest = await connect()
    await guest.call(WAIT)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    guest.socket.close()
    await migration.ended.wait()
    assert migration.model().outcome.result == "Unknown"
    assert vmm.migtd(MIGTD).model().error.id == "VMM-MIGTD-GONE"


async def test_a_fatal_error_is_answered_and_then_the_connection_ends(vmm, connect):
    guest = await connect()
    answer = await guest.call(Registers(r11=VmCallLeaf.REPORT_FATAL_ERROR, r12=7))
    assert (answer.kind, answer.registers.r10) == (Kind.RETURN, 0)
    assert await guest.receive() is None
    assert vmm.migtd(MIGTD).model().error.id == "VMM-MIGTD-FATAL"


async def test_stop_removes_socket_and_memory(tmp_path):
    migtds = [MigTdConfig(name=MIGTD, channel=str(tmp_path / "c"), shared_memory=1 << 20)]
    vmm = make_vmm(HostConfig(name="host", migtds=migtds, control=""))
    (tmp_path / "c").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over:
        left_over.bind(str(tmp_path / "c" / SOCKET_NAME))
    server = ChannelServer(vmm.migtd(MIGTD))
    server.start()
    server.stop()
    assert list((tmp_path / "c").iterdir()) == []


async def test_a_path_that_is_too_long_has_an_id(tmp_path):
    migtds = [MigTdConfig(name=MIGTD, channel=str(tmp_path / ("x" * 120)), shared_memory=1 << 20)]
    vmm = make_vmm(HostConfig(name="host", migtds=migtds, control=""))
    server = ChannelServer(vmm.migtd(MIGTD))
    with pytest.raises(AddressInvalid) as refused:
        server.start()
    assert refused.value.kind.id == "VMM-CHANNEL-ADDRESS"
    server.stop()
