# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API over its real unix socket: what is served, what is refused, and the client."""

import asyncio
import json
import stat

import pytest

from migtd.errors import MigrationResult
from migtd.migration.logging import LogLevel
from vmm_stub.testing import MIGTD, ScriptedGuest, migration_request, quiet_vmm
from vmm_stub.vmm.control.client import AnswerMalformed, ApiRefused, ControlClient, ControlLost
from vmm_stub.vmm.control.connection import MAX_BODY, MAX_HEADER
from vmm_stub.vmm.control.models import MigrationState, TargetTdRequest
from vmm_stub.vmm.control.routes import ROUTES
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.errors import AddressInvalid

JSON = b"content-type: application/json\r\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
async def vmm():
    made = quiet_vmm()
    yield made
    await made.stop()


@pytest.fixture
async def server(vmm, path):
    made = ControlServer(vmm, path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(server, path):
    assert server
    made = ControlClient(*await asyncio.open_unix_connection(str(path)))
    yield made
    await made.close()


@pytest.fixture
async def raw(server, path):
    """Send bytes, end our half, and get all that comes back."""
    assert server

    async def raw(data):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    return raw


def parse(answer):
    """Status and JSON body of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(target, body):
    return b"POST %s HTTP/1.1\r\nhost: h\r\n%scontent-length: %d\r\n\r\n%s" % (target.encode(), JSON, len(body), body)


def get(target, method="GET"):
    return f"{method} {target} HTTP/1.1\r\nhost: h\r\n\r\n".encode()


async def test_the_socket_belongs_to_the_host_alone(server, path):
    assert server
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_document_describes_every_route(client):
    document = await client.openapi()
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}
    for path, item in document["paths"].items():
        for operation in item.values():
            names = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert names == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert operation["responses"]
            assert operation["operationId"]


async def test_every_reference_of_the_document_leads_somewhere(client):
    document = await client.openapi()

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    found = set(references(document))
    assert found
    for reference in found:
        prefix, _, name = reference.rpartition("/")
        assert prefix == "#/components/schemas"
        assert name in document["components"]["schemas"]


async def test_health_waits_until_the_host_is_ready(client, vmm):
    assert (await client.health()).status == "starting"
    asking = asyncio.create_task(client.health(wait=5))
    await asyncio.sleep(0.01)
    assert not asking.done()
    guest = ScriptedGuest(vmm)
    waiting = asyncio.create_task(guest.next_request())
    health = await asking
    assert (health.status, health.migtds[0].name) == ("ready", MIGTD)
    waiting.cancel()
    assert (await client.health(wait=0.01)).status == "ready"


async def test_health_answers_after_its_time_when_the_host_is_not_ready(client):
    assert (await client.health(wait=0.01)).status == "starting"


async def test_a_migration_from_target_td_to_outcome(client, vmm):
    guest = ScriptedGuest(vmm)
    target = await client.create_target_td(TargetTdRequest(migtd=MIGTD))
    assert await client.target_tds() == [target]
    started = await client.start_migration(migration_request(target, 2**61 + 3))
    assert started.state is MigrationState.PREPARING
    assert started.address.startswith("127.0.0.1:")
    assert [each.request_id for each in await client.migrations()] == [2**61 + 3]
    assert (await client.outcome(MIGTD, 2**61 + 3, timeout=0.01)).outcome is None
    cancelled = await client.cancel(MIGTD, 2**61 + 3)
    assert cancelled.state is not MigrationState.ENDED
    asking = asyncio.create_task(client.outcome(MIGTD, 2**61 + 3, timeout=5))
    await guest.start_migration()
    await guest.report(2**61 + 3, MigrationResult.VmmCanceled)
    ended = await asking
    assert (ended.state, ended.outcome.result) == (MigrationState.ENDED, "VmmCanceled")
    assert await client.migration(MIGTD, 2**61 + 3) == ended


async def test_what_is_duplicate_or_too_early_is_refused_with_409(client, vmm):
    target = await client.create_target_td(TargetTdRequest(migtd=MIGTD, uuid=(1, 2, 3, 4), binding_handle=5))
    with pytest.raises(ApiRefused) as again:
        await client.create_target_td(TargetTdRequest(migtd=MIGTD, uuid=(1, 2, 3, 4), binding_handle=5))
    assert (again.value.status, again.value.kind.id) == (409, "VMM-TARGET-TD-EXISTS")
    with pytest.raises(ApiRefused) as absent:
        await client.start_migration(migration_request(target))
    assert (absent.value.status, absent.value.kind.id) == (409, "VMM-MIGTD-ABSENT")
    ScriptedGuest(vmm)
    await client.start_migration(migration_request(target))
    with pytest.raises(ApiRefused) as twice:
        await client.start_migration(migration_request(target))
    assert (twice.value.status, twice.value.kind.id) == (409, "VMM-MIGRATION-EXISTS")
    assert twice.value.kind.advice


async def test_what_is_unknown_is_refused_with_404(client):
    with pytest.raises(ApiRefused) as migtd:
        await client.create_target_td(TargetTdRequest(migtd="nobody"))
    assert (migtd.value.status, migtd.value.kind.id) == (404, "VMM-MIGTD-UNKNOWN")
    for ask in (client.migration(MIGTD, 9), client.outcome(MIGTD, 9, 1), client.cancel(MIGTD, 9)):
        with pytest.raises(ApiRefused) as unknown:
            await ask
        assert (unknown.value.status, unknown.value.kind.id) == (404, "VMM-MIGRATION-UNKNOWN")


@pytest.mark.parametrize(
    ("target", "body", "named"),
    [
        ("/v1/target-tds", b"", "body"),
        ("/v1/target-tds", b"{", "body"),
        ("/v1/target-tds", b"[]", "body"),
        ("/v1/target-tds", b"\xff\xfe", "body"),
        ("/v1/target-tds", b"{}", "body.migtd"),
        ("/v1/target-tds", b'{"migtd": "m", "nonsense": 1}', "body.nonsense"),
        ("/v1/target-tds", b'{"migtd": "m", "binding_handle": 18446744073709551616}', "body.binding_handle"),
        ("/v1/target-tds?x=1", b'{"migtd": "m"}', "query.x"),
        (
            "/v1/migrations",
            b'{"migtd": "m", "role": "source", "request_id": 1, "uuid": [1, 2, 3, 4], "binding_handle": 1}',
            "peer",
        ),
        (
            "/v1/migrations",
            b'{"migtd":"migtd","role":"source","request_id":1,"uuid":[1,2,3,4],"binding_handle":1,"peer":"nowhere"}',
            "peer",
        ),
        ("/v1/migrations/migtd/x/cancel", b"", "path.request_id"),
    ],
)
async def test_bad_requests_are_refused_with_400_and_the_key_at_fault(raw, target, body, named):
    status, problem = parse(await raw(post(target, body)))
    assert (status, problem["error"]["id"]) == (400, "VMM-API-INVALID")
    assert named in problem["error"]["message"]
    assert problem["error"]["advice"]


@pytest.mark.parametrize(
    "target", ["/v1/health?wait=-1", "/v1/health?wait=x", "/v1/health?wait=1&wait=2", "/v1/events?follow=2"]
)
async def test_bad_queries_are_refused_with_400(raw, target):
    status, problem = parse(await raw(get(target)))
    assert (status, problem["error"]["id"]) == (400, "VMM-API-INVALID")


@pytest.mark.parametrize(
    ("request_", "status", "id_"),
    [
        (get("/"), 404, "VMM-API-NOT-FOUND"),
        (get("/v1/health/"), 404, "VMM-API-NOT-FOUND"),
        (get("/v1/health", "DELETE"), 405, "VMM-API-METHOD"),
        (b"nonsense\r\n\r\n", 400, "VMM-API-MALFORMED"),
        (b"GET /v1/health HTTP/1.1\r\n\r\n", 400, "VMM-API-MALFORMED"),
        (get("/" + "x" * 4 * MAX_HEADER), 431, "VMM-API-TOO-LARGE"),
        (post("/v1/target-tds", b" " * (MAX_BODY + 1)), 413, "VMM-API-TOO-LARGE"),
    ],
)
async def test_other_refusals_have_ids_too(raw, request_, status, id_):
    found, problem = parse(await raw(request_))
    assert (found, problem["error"]["id"]) == (status, id_)


async def test_head_has_no_body(raw):
    answer = await raw(get("/v1/health", "HEAD"))
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_body_announced_with_expect_is_asked_for(server, path):
    assert server
    reader, writer = await asyncio.open_unix_connection(str(path))
    body = b'{"migtd": "migtd"}'
    head = f"POST /v1/target-tds HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_requests_sent_one_byte_at_a_time_and_in_a_row_are_served(raw, server, path):
    assert server
    reader, writer = await asyncio.open_unix_connection(str(path))
    for byte in get("/v1/target-tds"):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.readuntil(b"[]")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert (await raw(get("/v1/target-tds") * 3)).count(b"HTTP/1.1 200") == 3


async def test_a_request_that_stops_in_the_middle_is_given_up(monkeypatch, server, path):
    assert server
    monkeypatch.setattr("vmm_stub.vmm.control.connection.REQUEST_TIMEOUT", 0.02)
    for part in (b"GET /v1/he", post("/v1/target-tds", b"{}")[:-1]):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(part)
        status, problem = parse(await reader.read())
        assert (status, problem["error"]["id"]) == (408, "VMM-API-TIMEOUT")
        writer.close()


async def test_an_idle_connection_is_closed_without_a_word(monkeypatch, server, path):
    assert server
    monkeypatch.setattr("vmm_stub.vmm.control.connection.IDLE_TIMEOUT", 0.02)
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await reader.read() == b""
    writer.close()


async def test_a_defect_of_a_handler_is_a_problem_and_the_host_lives(monkeypatch, client, vmm, capsys):
    monkeypatch.setattr(vmm, "target_tds", lambda: 1 / 0)
    with pytest.raises(ApiRefused) as failed:
        await client.target_tds()
    assert (failed.value.status, failed.value.kind.id) == (500, "VMM-API-INTERNAL")
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert (await client.health()).host == "host"


async def test_events_come_as_json_lines_from_any_point(client, vmm):
    ScriptedGuest(vmm)
    events = [event async for event in client.events()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"state", "call"} <= {event["kind"] for event in events}
    assert [event async for event in client.events(after=2)] == events[2:]
    assert (await client.health()).host == "host"


async def test_events_can_be_followed_until_the_client_leaves(server, path, vmm):
    assert server
    client = ControlClient(*await asyncio.open_unix_connection(str(path)))
    following = client.events(follow=True)
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    ScriptedGuest(vmm)
    assert (await waiting)["kind"] == "state"
    await following.aclose()
    with pytest.raises(ControlLost):
        await client.health()
    await client.close()


async def test_a_follower_that_hangs_up_is_forgotten(server, path):
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(get("/v1/events?follow=1"))
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    async with asyncio.timeout(5):
        while server._clients:
            await asyncio.wait(server._clients)


async def test_log_entries_are_served(client, vmm):
    guest = ScriptedGuest(vmm)
    target = await client.create_target_td(TargetTdRequest(migtd=MIGTD))
    await client.start_migration(migration_request(target))
    await client.cancel(MIGTD, 1)
    await guest.start_migration()
    guest.log.write(LogLevel.ERROR, "something", 1)
    guest.guest.tdcall.vp_info()
    entries = [entry async for entry in client.logs()]
    assert [(entry["migtd"], entry["level"], entry["text"]) for entry in entries] == [(MIGTD, "error", "something")]


async def test_several_tasks_may_share_a_client(client):
    found = await asyncio.gather(*(client.health() for _ in range(20)))
    assert {each.host for each in found} == {"host"}


async def test_a_cancelled_request_ends_the_connection_and_no_answer_is_mixed_up(server, path):
    assert server
    client = ControlClient(*await asyncio.open_unix_connection(str(path)))
    asking = asyncio.create_task(client.health(wait=5))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait({asking})
    with pytest.raises(ControlLost):
        await client.target_tds()
    await client.close()


async def test_the_end_of_the_host_is_a_typed_error(server, path):
    client = ControlClient(*await asyncio.open_unix_connection(str(path)))
    await client.health()
    await server.stop()
    with pytest.raises(ControlLost) as lost:
        await client.health()
    assert lost.value.kind.id == "VMM-CONTROL-LOST"
    await client.close()
    assert not path.exists()


async def test_a_half_closed_client_still_gets_its_answer(raw):
    assert parse(await raw(get("/v1/health?wait=0.02")))[0] == 200


async def test_an_answer_that_is_none_is_a_typed_error(tmp_path):
    async def nonsense(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(nonsense, path):
        client = ControlClient(*await asyncio.open_unix_connection(path))
        for _ in range(2):
            with pytest.raises(AnswerMalformed):
                await client.health()
        await client.close()


async def test_the_loopback_is_served_when_asked_for(vmm, path, unused_tcp_port):
    server = ControlServer(vmm, path, f"127.0.0.1:{unused_tcp_port}")
    await server.start()
    client = ControlClient(*await asyncio.open_connection("127.0.0.1", unused_tcp_port))
    assert (await client.health()).host == "host"
    await client.close()
    await server.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "192.0.2.1:8080", "example.org:8080", "127.0.0.1", "[::]:1"])
async def test_no_other_address_is_served(vmm, path, address):
    server = ControlServer(vmm, path, address)
    with pytest.raises(AddressInvalid) as refused:
        await server.start()
    assert refused.value.kind.id == "VMM-CONTROL-ADDRESS"
    assert not path.exists()
