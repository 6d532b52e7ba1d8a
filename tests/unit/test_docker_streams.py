# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Streams and log lines through client processes, with small programs in the place of the engine's client."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from lab.engines.docker_streams import ExecStreams, follow_logs
from lab.errors import EngineError
from vmm_stub.vmm.control.stdio import ControlUnreachable, bridge


async def test_stream_carries_bytes_both_ways_and_ends():
    reader, writer = await ExecStreams().open("host-a", ["cat"])
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
    writer.close()
    assert await reader.read() == b""


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("Cannot connect to the Docker daemon at unix:///x", "LAB-ENGINE-LOST"),
        ("Error response from daemon: container 123 is not running", "LAB-HOST-LOST"),
        ("", "LAB-HOST-LOST"),
    ],
)
async def test_stream_that_the_engine_cuts_says_why(told, kind):
    reader, writer = await ExecStreams().open("host-a of lab-1", ["sh", "-c", 'echo data; echo "$0" >&2; exit 1', told])
    assert await reader.readline() == b"data\n"
    with pytest.raises(EngineError, match="host-a of lab-1") as raised:
        await reader.read()
    assert raised.value.kind.id == kind
    writer.close()


async def test_lines_of_all_roles_arrive_in_their_own_order():
    found: dict[str, list[str]] = {"a": [], "b": []}
    async for key, line in follow_logs({"a": ["printf", "1\n2\n3"], "b": ["sh", "-c", "echo x; echo y >&2"]}):
        found[key].append(line)
    assert found == {"a": ["1", "2", "3"], "b": ["x", "y"]}


async def test_closing_the_lines_ends_the_programs(tmp_path):
    note = tmp_path / "pid"
    lines = follow_logs({"a": ["sh", "-c", 'echo $$ > "$0"; echo started; exec sleep 600', str(note)]})
    assert await anext(lines) == ("a", "started")
    await lines.aclose()
    pid = int(note.read_text())
    assert not _alive(pid)


async def test_bytes_that_are_no_text_do_not_end_the_lines():
    assert [line async for _, line in follow_logs({"a": ["printf", r"\377\n"]})] == ["�"]


def test_bridge_waits_for_a_host_that_opens_its_socket_late(tmp_path, monkeypatch):
    near, far = os.pipe()
    with socket.socket(socket.AF_UNIX) as server, (tmp_path / "out").open("wb") as out:

        def open_the_socket_at_last(_seconds: float) -> None:
            server.bind(str(tmp_path / "control.sock"))
            server.listen()
            threading.Thread(target=_greet, args=(server,)).start()

        monkeypatch.setattr(time, "sleep", open_the_socket_at_last)
        bridge(tmp_path / "control.sock", near, out.fileno(), wait=10.0)
    os.close(far)  # ends the thread that reads the other end
    assert (tmp_path / "out").read_bytes() == b"hello"


def test_bridge_gives_up_on_a_socket_that_nobody_opens(tmp_path):
    with pytest.raises(ControlUnreachable) as raised:
        bridge(tmp_path / "control.sock", 0, 1, wait=0.05)
    assert raised.value.kind.id == "VMM-CONTROL-LOST"


def _greet(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello")


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False
