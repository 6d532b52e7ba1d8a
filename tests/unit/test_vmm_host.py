# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A host and its MigTDs: health, signals, and that one MigTD which misbehaves costs the others nothing."""

import asyncio
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from migtd import __version__
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
from migtd.guest.events import NoteEvent, push_event
from vmm_stub.testing_td import until
from vmm_stub.vmm import channel_connection
from vmm_stub.vmm.control.models import HostConfig, MigTdState
from vmm_stub.vmm.errors import AddressInvalid
from vmm_stub.vmm.host import Host
from vmm_stub.vmm.memory_file import MemoryFile
from vmm_stub.vmm.unix_socket import bind_private

SERVE = (sys.executable, "-m", "vmm_stub", "serve", "--config-env", "CONFIG")
SIZE = 1 << 20
VP_INFO = Registers(rax=TdCallLeaf.VP_INFO)
WAIT = Registers(
    r11=VmCallLeaf.MIGTD, r12=MigTdLeaf.WAIT_FOR_REQUEST | 1 << 16, r13=4096, r14=SHARED_BIT | 8192, r15=0x50
)
FATAL = Registers(r11=VmCallLeaf.REPORT_FATAL_ERROR, r12=7)


class Guest:
    """A guest's end of a channel, byte by byte."""

    def __init__(self, folder):
        self.folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(0)

    async def connect(self):
        await asyncio.get_running_loop().sock_connect(self._socket, str(self.folder / SOCKET_NAME))
        return self

    async def send(self, kind, registers=VP_INFO, data=b""):
        message = push_message(Message(kind, 1 if kind is Kind.CALL else 0, registers, data))
        await asyncio.get_running_loop().sock_sendall(self._socket, message)

    async def call(self, registers):
        await self.send(Kind.CALL, registers)
        return await self.receive()

    async def receive(self):
        data = await asyncio.get_running_loop().sock_recv(self._socket, MAX_MESSAGE)
        return pull_message(data) if data else None

    def close(self):
        self._socket.close()


def config(tmp_path):
    return {
        "name": "host",
        "migtds": [
            {"name": name, "channel": str(tmp_path / name), "shared_memory": SIZE} for name in ("first", "second")
        ],
        "control": str(tmp_path / "control.sock"),
    }


@pytest.fixture
async def host(tmp_path):
    made = Host(HostConfig.model_validate(config(tmp_path)))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def guests(host, tmp_path):
    assert host.vmm.health().status == "starting"
    made = [await Guest(tmp_path / name).connect() for name in ("first", "second")]
    yield made
    for guest in made:
        guest.close()


async def lost(host, name):
    """Why a MigTD was lost, once it is."""
    await until(lambda: host.vmm.migtd(name).state is MigTdState.LOST)
    return host.vmm.migtd(name).model().error


async def test_health_goes_from_starting_to_ready_to_degraded_and_back(host, guests, tmp_path):
    first, second = guests
    assert host.vmm.health().status == "starting"
    await first.call(WAIT)
    assert host.vmm.health().status == "starting"
    ready = asyncio.create_task(host.vmm.ready(3600))
    await second.call(WAIT)
    assert (await ready).status == "ready"
    second.close()
    assert (await lost(host, "second")).id == "VMM-MIGTD-GONE"
    assert host.vmm.health().status == "degraded"
    again = await Guest(tmp_path / "second").connect()
    await again.call(VP_INFO)
    assert host.vmm.health().status == "starting"
    await again.call(WAIT)
    assert host.vmm.health().status == "ready"
    again.close()


async def test_health_tells_the_version_also_where_nothing_is_installed(host):
    assert host.vmm.health().version == __version__


def test_a_host_without_sockets_needs_no_server():
    code = "import sys, lab.standalone; print([name for name in ('h11', 'vmm_stub.vmm.host') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout.strip() == b"[]"


@pytest.mark.parametrize("last", [FATAL, None], ids=["fatal-error", "malformed"])
async def test_the_end_of_one_migtd_is_not_the_other_ones(host, guests, last):
    first, second = guests
    await second.call(WAIT)
    if last is None:
        await first.send(Kind.RETURN)
    else:
        await first.call(last)
    await lost(host, "first")
    assert host.vmm.migtd("second").state is MigTdState.READY
    assert (await second.call(VP_INFO)).registers.rcx == 48


async def test_a_guest_that_cuts_its_shared_memory_short_reads_its_own_loss(host, guests):
    first, second = guests
    os.truncate(first.folder / SHARED_MEMORY_NAME, 0)
    assert (await first.call(WAIT)).registers.r10 == 0
    # the next answer of the host grows the file again, no further than it was
    for page in (0, SIZE - 4096):
        waiting = Registers(r11=VmCallLeaf.GET_QUOTE, r12=SHARED_BIT | page, r13=4096)
        assert (await first.call(waiting)).registers.r10 == 0
    assert (first.folder / SHARED_MEMORY_NAME).stat().st_size == SIZE - 4096 + 24
    assert (await second.call(VP_INFO)).registers.rcx == 48
    assert host.vmm.migtd("first").state is MigTdState.READY


async def test_a_guest_that_fills_its_file_system_is_ended(monkeypatch, host, guests):
    first, second = guests

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    await first.call(Registers(r11=VmCallLeaf.GET_QUOTE, r12=SHARED_BIT, r13=4096))
    error = await lost(host, "first")
    assert (error.id, "No space left" in error.message) == ("VMM-CHANNEL-BROKEN", True)
    assert (await second.call(VP_INFO)).registers.rcx == 48


async def test_a_guest_that_spoils_its_folder_keeps_no_host_from_ending(tmp_path, guests, host):
    first, second = guests
    await first.call(VP_INFO)
    for name in (SOCKET_NAME, SHARED_MEMORY_NAME):
        (first.folder / name).unlink()
        (first.folder / name).mkdir()
    first.close()
    await lost(host, "first")
    assert (await second.call(VP_INFO)).registers.rcx == 48
    await host.stop()
    assert not (tmp_path / "control.sock").exists()
    assert list((tmp_path / "second").iterdir()) == []


async def test_a_guest_that_talks_without_end_leaves_turns_to_the_others(monkeypatch, host, guests):
    monkeypatch.setattr(channel_connection, "TURN", 0.0)
    first, second = guests
    count = 64
    for _ in range(count):
        await first.send(Kind.EVENT, Registers(), push_event(NoteEvent(1, "x")))
    await second.call(VP_INFO)
    # the answer came in between, and nothing of the first is lost
    assert len(notes(host)) < count
    await first.call(VP_INFO)
    assert len(notes(host)) == count


def notes(host):
    return [line for line in host.vmm.history.read(limit=10_000) if b'"kind":"note"' in line]


async def test_floods_of_calls_and_events_fill_no_memory(host, guests):
    first, _ = guests
    for number in range(2000):
        await first.send(Kind.EVENT, Registers(), push_event(NoteEvent(number, "x" * 2000)))
        await first.call(VP_INFO)
    assert host.vmm.health().migtds[0].state is not MigTdState.LOST
    held = host.vmm.history.read(limit=1_000_000)
    assert sum(map(len, held)) <= 8 << 20


async def test_a_start_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "no-folder").write_text("a file")
    wrong = config(tmp_path)
    wrong["migtds"][1]["channel"] = str(tmp_path / "no-folder" / "channel")
    with pytest.raises(AddressInvalid) as refused:
        await Host(HostConfig.model_validate(wrong)).start()
    assert refused.value.kind.id == "VMM-CHANNEL-ADDRESS"
    assert {each.name for each in tmp_path.iterdir()} == {"first", "no-folder"}
    assert list((tmp_path / "first").iterdir()) == []


@pytest.mark.parametrize("key", ["control", "channel"])
def test_an_impossible_folder_ends_with_1_and_an_id(tmp_path, key):
    (tmp_path / "file").write_text("")
    wrong = config(tmp_path)
    if key == "control":
        wrong["control"] = str(tmp_path / "file" / "control.sock")
    else:
        wrong["migtds"][0]["channel"] = str(tmp_path / "file")
    # A process of its own: what serves sets up logging for good.
    ended = subprocess.run(SERVE, env={**os.environ, "CONFIG": json.dumps(wrong)}, check=False, capture_output=True)
    assert ended.returncode == 1
    assert f"VMM-{key.upper()}-ADDRESS".encode() in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_what_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "notes"
    path.write_text("important")
    with pytest.raises(OSError, match="in use"):
        bind_private(path, socket.SOCK_STREAM)
    assert path.read_text() == "important"


def test_a_socket_left_over_is_replaced(tmp_path):
    path = tmp_path / "s"
    for _ in range(2):
        bind_private(path, socket.SOCK_STREAM).close()
    assert path.is_socket()


def test_a_memory_file_is_what_was_written_and_zero_elsewhere(tmp_path):
    memory = MemoryFile(tmp_path / "m", 8192)
    memory[4090:4100] = b"0123456789"
    assert (len(memory), memory[4088:4102]) == (8192, b"\0\0" + b"0123456789" + b"\0\0")
    os.truncate(tmp_path / "m", 4095)
    assert memory[4088:4102] == b"\0\0" + b"01234" + bytes(7)
    memory.close()
    with pytest.raises(FileExistsError):
        MemoryFile(tmp_path / "m", 1)


@pytest.mark.parametrize("limit", [4096, 4100], ids=["no-byte", "some-bytes"])
def test_a_memory_file_that_takes_less_than_was_written_says_so(tmp_path, limit):
    memory = MemoryFile(tmp_path / "m", 8192)
    failures: list[OSError] = []
    memory.on_failure = failures.append
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        memory[4096:4112] = bytes(16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    memory.close()
    assert [type(each) for each in failures] == [OSError]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_host_cleanly_though_nobody_takes_its_log(tmp_path, number):
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - a device, for the child
        process = await asyncio.create_subprocess_exec(
            *SERVE, env={**os.environ, "CONFIG": json.dumps(config(tmp_path))}, stderr=full
        )
    bridge = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "vmm_stub", "control-stdio", "--control", str(tmp_path / "control.sock"), "--wait=30"],
        input=b"GET /v1/health HTTP/1.1\r\nhost: h\r\n\r\n",
        capture_output=True,
        check=True,
    )
    assert b'"status":"starting"' in bridge.stdout
    first = await Guest(tmp_path / "first").connect()
    await first.call(WAIT)
    process.send_signal(number)
    assert await process.wait() == 0
    assert await first.receive() is None
    assert {each.name for each in tmp_path.iterdir()} == {"first", "second"}
    assert [*(tmp_path / "first").iterdir(), *(tmp_path / "second").iterdir()] == []
    first.close()
