# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API under clients that are slow, in a hurry, half gone or gone, byte by byte on its socket."""

import asyncio
import json

import pytest

from migtd.errors import MigrationResult
from migtd.migration.logging import LogLevel
from vmm_stub.testing import MIGTD, ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.vmm.control.client import ControlClient
from vmm_stub.vmm.control.connection import MAX_BODY, MAX_HEADER
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.history import HistoryKind


def get(target, *more):
    return "\r\n".join([f"GET {target} HTTP/1.1", "host: h", *more, "", ""]).encode()


@pytest.fixture
async def vmm():
    made = quiet_vmm()
    yield made
    await made.stop()


@pytest.fixture
async def server(vmm, tmp_path):
    made = ControlServer(vmm, tmp_path / "control.sock")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def connect(server, tmp_path):
    assert server
    writers = []

    async def connect():
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()


@pytest.fixture
async def client(connect):
    made = ControlClient(*await connect())
    yield made
    await made.close()


async def head(reader):
    return int((await reader.readuntil(b"\r\n\r\n")).split()[1])


async def chunk(reader):
    """One chunk of a chunked body."""
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def chunks(reader):
    body = b""
    while part := await chunk(reader):
        body += part
    return body


async def all_clients_gone(server):
    async with asyncio.timeout(5):
        while server._clients:
            await asyncio.wait(server._clients)


async def test_a_request_that_comes_byte_by_byte_has_one_limit_for_all_of_it(monkeypatch, connect):
    monkeypatch.setattr("vmm_stub.vmm.control.connection.REQUEST_TIMEOUT", 0.1)
    reader, writer = await connect()
    answer = asyncio.create_task(reader.read())
    sent = 0
    while not answer.done() and sent < 1000:
        writer.write(get("/v1/health", "x: " + "y" * 2000)[sent : sent + 1])
        sent += 1
        await asyncio.wait({answer}, timeout=0.01)
    assert (await answer).startswith(b"HTTP/1.1 408 ")
    assert sent < 1000


@pytest.mark.parametrize(
    "part",
    [
        b"GET /v1/he",
        b"POST /v1/target-tds HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{",
        b"POST /v1/target-tds HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5",
        b"POST /v1/target-tds HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["head", "body", "chunk-size", "chunk"],
)
async def test_half_a_request_is_answered_with_400_and_others_go_on(connect, client, part):
    reader, writer = await connect()
    writer.write(part)
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    assert (await client.health()).host == "host"


@pytest.mark.parametrize("size", [1 << 10, 64 << 10])
async def test_a_chunked_body_without_end_is_refused(connect, size):
    reader, writer = await connect()
    writer.write(b"POST /v1/target-tds HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(MAX_BODY // size + 1):
        writer.write(b"%x\r\n%s\r\n" % (size, b" " * size))
    assert await head(reader) == 413


@pytest.mark.parametrize(
    "target", ["//[", "http://[/v1/health", "/v1/events?" + "&".join(f"k{n}=1" for n in range(40))]
)
async def test_a_target_that_cannot_be_read_is_no_fault_of_the_host(connect, target):
    reader, writer = await connect()
    writer.write(get(target))
    assert await head(reader) == 400


async def test_several_requests_at_once_are_answered_in_order_on_one_connection(connect):
    reader, writer = await connect()
    targets = ["/v1/target-tds", "/v1/nothing", "/v1/events", "/v1/migrations/migtd/9", "/v1/target-tds"]
    writer.write(b"".join(map(get, targets)) + get("/v1/health", "connection: close"))
    answer = await reader.read()
    found = [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 404, 200, 404, 200, 200]


async def test_what_follows_a_head_request_is_answered_with_a_body(connect):
    reader, writer = await connect()
    writer.write(b"HEAD /v1/health HTTP/1.1\r\nhost: h\r\n\r\nnonsense\r\n\r\n")
    assert await head(reader) == 405
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"VMM-API-MALFORMED" in answer


async def test_an_answer_before_the_end_of_a_connection_is_not_lost_to_what_the_client_still_sends(connect):
    reader, writer = await connect()
    writer.write(get("/v1/health", "connection: close") + b"x" * 50_000)
    assert await head(reader) == 200
    assert json.loads(await reader.read())["host"] == "host"


async def test_an_http_1_0_client_gets_its_lines_up_to_the_end_of_the_connection(connect, vmm):
    vmm.history.record(HistoryKind.NOTE, {"text": "one"})
    reader, writer = await connect()
    writer.write(b"GET /v1/events HTTP/1.0\r\n\r\n")
    answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in answer
    assert json.loads(body)["data"] == {"text": "one"}


async def test_a_half_closed_client_gets_all_events(connect, vmm):
    for number in range(3000):
        vmm.history.record(HistoryKind.NOTE, {"text": f"{number} " + "x" * 500})
    reader, writer = await connect()
    writer.write(get("/v1/events"))
    writer.write_eof()
    assert await head(reader) == 200
    lines = (await chunks(reader)).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 3001))


async def test_following_starts_behind_a_number_and_goes_on_with_what_comes(connect, vmm):
    for text in ("one", "two"):
        vmm.history.record(HistoryKind.NOTE, {"text": text})
    reader, writer = await connect()
    writer.write(get("/v1/events?after=1&follow=1"))
    assert await head(reader) == 200
    assert json.loads(await chunk(reader))["data"] == {"text": "two"}
    vmm.history.record(HistoryKind.NOTE, {"text": "three"})
    assert json.loads(await chunk(reader))["seq"] == 3


async def test_a_follower_that_ends_its_half_is_done(connect, server):
    reader, writer = await connect()
    writer.write(get("/v1/logs?follow=1"))
    assert await head(reader) == 200
    writer.write_eof()
    assert await reader.read() == b""
    await all_clients_gone(server)


async def test_a_follower_that_asks_on_is_still_noticed_when_it_leaves(connect, server):
    reader, writer = await connect()
    writer.write(get("/v1/events?follow=1") + get("/v1/health"))
    assert await head(reader) == 200
    writer.write(get("/v1/health"))
    await writer.drain()
    writer.close()
    await all_clients_gone(server)


async def test_a_follower_that_talks_without_end_is_dropped(monkeypatch, connect, server):
    monkeypatch.setattr("vmm_stub.vmm.control.connection._DROP_TIMEOUT", 0.01)
    reader, writer = await connect()
    writer.write(get("/v1/events?follow=1"))
    assert await head(reader) == 200
    writer.write(b"x" * 4 * MAX_HEADER)
    assert await reader.read() == b""
    await all_clients_gone(server)


async def test_a_follower_that_does_not_read_costs_nobody_else_anything(connect, client, vmm, server):
    reader, writer = await connect()
    writer.write(get("/v1/events?follow=1"))
    assert await head(reader) == 200
    for _ in range(100):
        vmm.history.record(HistoryKind.NOTE, {"text": "x" * 20_000})
        await asyncio.sleep(0)
    assert (await client.health()).host == "host"
    (stalled,) = [task for task in server._clients if not task.done()][:1]
    assert not stalled.done()
    await server.stop()
    assert stalled.done()


async def test_log_entries_are_followed_as_they_are_written(client, vmm):
    guest = ScriptedGuest(vmm)
    (await vmm.start_migration(migration_request(target_td(vmm)))).cancel()
    await guest.start_migration()
    following = client.logs(follow=True)
    for text in ("one", "two"):
        guest.log.write(LogLevel.WARN, text, 1)
        guest.guest.tdcall.vp_info()
        assert (await anext(following))["text"] == text
    await following.aclose()


async def test_every_client_that_waits_for_an_outcome_is_answered_when_it_stands(connect, vmm):
    guest = ScriptedGuest(vmm)
    (await vmm.start_migration(migration_request(target_td(vmm)))).cancel()
    waiting = []
    for _ in range(5):
        reader, writer = await connect()
        writer.write(get("/v1/migrations/migtd/1/outcome?timeout=3600"))
        waiting.append(asyncio.create_task(head(reader)))
    await guest.start_migration()
    done, _ = await asyncio.wait(waiting, timeout=0.02)
    assert not done
    await guest.report(1, MigrationResult.VmmCanceled)
    assert await asyncio.gather(*waiting) == [200] * 5


async def test_a_lost_migtd_ends_the_wait_for_an_outcome(client, vmm):
    guest = ScriptedGuest(vmm)
    await vmm.start_migration(migration_request(target_td(vmm)))
    asking = asyncio.create_task(client.outcome(MIGTD, 1, timeout=3600))
    await asyncio.sleep(0)
    guest.channel.close()
    assert (await asking).outcome.result == "Unknown"


async def test_a_client_that_leaves_while_it_waits_takes_nothing_with_it(connect, client, vmm):
    guest = ScriptedGuest(vmm)
    (await vmm.start_migration(migration_request(target_td(vmm)))).cancel()
    _, writer = await connect()
    writer.write(get("/v1/migrations/migtd/1/outcome?timeout=3600"))
    await writer.drain()
    writer.transport.abort()
    await guest.start_migration()
    await guest.report(1, MigrationResult.VmmCanceled)
    assert (await client.outcome(MIGTD, 1, timeout=5)).outcome.result == "VmmCanceled"


async def test_clients_beyond_the_limit_are_dropped_and_welcome_later(monkeypatch, connect, server):
    monkeypatch.setattr("vmm_stub.vmm.control.server.MAX_CONNECTIONS", 1)
    reader, writer = await connect()
    writer.write(get("/v1/health"))
    assert await head(reader) == 200
    refused, _ = await connect()
    assert await refused.read() == b""
    writer.close()
    await all_clients_gone(server)
    reader, writer = await connect()
    writer.write(get("/v1/health"))
    assert await head(reader) == 200
