# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A host that serves its lab's collateral over HTTP while it runs, and its first GetQuote calls that fail."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import h11
import pytest
from pydantic import ValidationError

from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.material import push_material
from vmm_stub.quoting.pcs_answers import ROOT_CA_PATH
from vmm_stub.testing_quoting import PKI, machine
from vmm_stub.vmm.control.models import HostConfig
from vmm_stub.vmm.host import Host

QUOTING = {"kind": "lab", "material": push_material(machine().material)}


def config(folder: Path, **changes: Any) -> HostConfig:
    facts = {
        "name": "host",
        "migtds": [{"name": "m", "channel": str(folder / "m"), "shared_memory": 1 << 20}],
        "control": str(folder / "control.sock"),
        "quoting": QUOTING,
    }
    return HostConfig.model_validate({**facts, **changes})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def sockets_in(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_socket()]


async def fetch(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    http = h11.Connection(h11.CLIENT)
    writer.write(http.send(h11.Request(method="GET", target=path, headers=[("host", "h"), ("connection", "close")])))
    writer.write(http.send(h11.EndOfMessage()))
    http.receive_data(await reader.read())
    http.receive_data(b"")
    writer.close()
    status, body = 0, b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
        if isinstance(event, h11.Data):
            body += event.data
    return status, body


async def test_collateral_is_served_from_start_to_stop(tmp_path: Path):
    port = free_port()
    host = Host(config(tmp_path, pcs=f"127.0.0.1:{port}"))
    await host.start()
    try:
        answer = await fetch(port, ROOT_CA_PATH)
    finally:
        await host.stop()

    assert answer == (200, PKI.root_ca)
    with pytest.raises(ConnectionRefusedError):
        await fetch(port, ROOT_CA_PATH)


async def test_a_port_in_use_ends_the_start_and_leaves_nothing_behind(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host = Host(config(tmp_path, pcs=f"127.0.0.1:{port}"))
        with pytest.raises(QuotingError) as refused:
            await host.start()

    assert refused.value.kind.id == "VMM-PCS-ADDRESS"
    assert str(port) in refused.value.detail
    assert sockets_in(tmp_path) == []


def test_what_is_no_address_is_refused(tmp_path: Path):
    with pytest.raises(QuotingError) as refused:
        Host(config(tmp_path, pcs="8081"))

    assert refused.value.kind.id == "VMM-PCS-ADDRESS"


def test_a_host_without_lab_quotes_has_nothing_to_serve(tmp_path: Path):
    with pytest.raises(ValidationError, match="pcs"):
        config(tmp_path, pcs="127.0.0.1:8081", quoting=None)
