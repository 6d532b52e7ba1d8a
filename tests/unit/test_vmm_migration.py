# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Migrations between two VMMs over TCP on the loopback, each with a scripted guest."""

import asyncio
import json
import socket

import pytest

from migtd import failures as migtd_failures
from migtd.checks import Check, CheckName, CheckStatus
from migtd.errors import InvalidParameter, MigrationResult, NetworkError, VmmCanceled
from migtd.guest.interfaces import TargetTd
from migtd.observer import Phase
from vmm_stub.testing import MIGTD, ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.vmm.control.models import DeadlinesModel, MigrationState
from vmm_stub.vmm.errors import Conflict, NotKnown

SHORT_CONNECT = DeadlinesModel(connect=0.05)


def outcome_of(migration):
    return migration.model().outcome


def port_of(migration):
    return int(migration.model().address.rpartition(":")[2])


class Pair:
    """Two hosts with a migration under way between them: `start` goes up to StartMigration on both."""

    def __init__(self):
        self.source, self.destination = quiet_vmm("host-a"), quiet_vmm("host-b")
        self.client, self.server = ScriptedGuest(self.source), ScriptedGuest(self.destination)
        self.source_target, self.destination_target = target_td(self.source), target_td(self.destination)

    async def start(self, request_id=1):
        there = await self.destination.start_migration(migration_request(self.destination_target, request_id))
        here = await self.source.start_migration(
            migration_request(self.source_target, request_id, there.model().address)
        )
        await asyncio.gather(self.client.start_migration(), self.server.start_migration())
        return here, there

    async def stop(self):
        await asyncio.gather(self.source.stop(), self.destination.stop())


@pytest.fixture
async def pair():
    made = Pair()
    yield made
    await made.stop()


async def receive_exactly(guest, request_id, size):
    data = b""
    while len(data) < size:
        data += await guest.services.receive(request_id)
    return data


async def test_bytes_cross_in_both_directions_and_both_sides_end_in_success(pair):
    here, there = await pair.start()
    await pair.client.services.send(1, b"hello")
    assert await receive_exactly(pair.server, 1, 5) == b"hello"
    await pair.server.services.send(1, b"world!")
    assert await receive_exactly(pair.client, 1, 6) == b"world!"
    await asyncio.gather(pair.client.report(1), pair.server.report(1))
    for migration in (here, there):
        outcome = outcome_of(migration)
        assert (outcome.result, outcome.code, outcome.error, outcome.phase) == ("Success", 0, None, Phase.DONE)


async def test_megabytes_cross_whole_though_they_are_received_late(pair):
    await pair.start()
    data = bytes(range(256)) * 16_384
    sending = asyncio.create_task(pair.client.services.send(1, data))
    await asyncio.wait({sending}, timeout=0.05)
    assert await receive_exactly(pair.server, 1, len(data)) == data
    await sending


async def test_received_bytes_come_first_and_then_the_end_of_the_stream(pair):
    await pair.start()
    await pair.client.services.send(1, b"last words")
    await pair.client.report(1, MigrationResult.SecureSessionError)
    assert await receive_exactly(pair.server, 1, 10) == b"last words"
    assert await pair.server.services.receive(1) == b""
    assert await pair.server.services.receive(1) == b""
    with pytest.raises(NetworkError) as ended:
        await pair.server.services.send(1, b"too late")
    assert ended.value.kind is migtd_failures.TRANSPORT_ENDED


async def test_pending_receive_ends_when_the_peer_goes(pair):
    await pair.start()
    receiving = asyncio.create_task(pair.server.services.receive(1))
    await asyncio.sleep(0)
    pair.client.channel.close()
    assert await receiving == b""


async def test_cancel_reaches_the_pending_and_every_later_call(pair):
    here, _ = await pair.start()
    receiving = asyncio.create_task(pair.client.services.receive(1))
    await asyncio.sleep(0)
    here.cancel()
    with pytest.raises(VmmCanceled):
        await receiving
    for call in (pair.client.services.receive(1), pair.client.services.send(1, b"x")):
        with pytest.raises(VmmCanceled):
            await call
    await pair.client.report(1, MigrationResult.VmmCanceled)
    assert outcome_of(here).result == "VmmCanceled"
    assert await pair.server.services.receive(1) == b""


async def test_cancel_while_the_wire_is_being_opened_is_reported_by_the_guest():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    assert migration.model().state is MigrationState.PREPARING
    migration.cancel()
    await guest.start_migration()
    with pytest.raises(VmmCanceled):
        await guest.services.receive(1)
    await guest.report(1, MigrationResult.VmmCanceled)
    assert outcome_of(migration).result == "VmmCanceled"
    await vmm.stop()


async def test_port_in_use_is_a_set_up_failure_that_the_guest_reports():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        request = migration_request(target_td(vmm)).model_copy(update={"listen_port": taken.getsockname()[1]})
        migration = await vmm.start_migration(request)
        assert migration.model().address is None
        await guest.start_migration()
        with pytest.raises(InvalidParameter) as refused:
            await guest.services.receive(1)
        assert refused.value.kind is migtd_failures.TRANSPORT_SETUP_FAILED
        await guest.report(1, MigrationResult.InvalidParameter)
    outcome = outcome_of(migration)
    assert (outcome.result, outcome.error.id) == ("InvalidParameter", "VMM-WIRE-PORT-IN-USE")
    await vmm.stop()


@pytest.mark.parametrize("peer", [None, "127.0.0.1:1"], ids=["nobody-comes", "nobody-listens"])
async def test_no_connection_within_the_deadline_is_a_set_up_failure(peer):
    vmm = quiet_vmm(deadlines=SHORT_CONNECT)
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm), peer=peer))
    await guest.start_migration()
    with pytest.raises(InvalidParameter):
        await guest.services.send(1, b"x")
    await guest.report(1, MigrationResult.InvalidParameter)
    assert outcome_of(migration).error.id == "VMM-WIRE-CONNECT"
    await vmm.stop()


async def test_source_waits_for_a_destination_that_listens_later():
    source, destination = quiet_vmm("host-a"), quiet_vmm("host-b")
    client, server = ScriptedGuest(source), ScriptedGuest(destination)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = await source.start_migration(migration_request(target_td(source), peer=f"127.0.0.1:{port}"))
    await asyncio.sleep(0.05)
    request = migration_request(target_td(destination)).model_copy(update={"listen_port": port})
    await destination.start_migration(request)
    await asyncio.gather(client.start_migration(), server.start_migration())
    await client.services.send(1, b"x")
    assert await server.services.receive(1) == b"x"
    assert here.model().state is MigrationState.RUNNING
    await asyncio.gather(source.stop(), destination.stop())


async def test_a_frame_of_impossible_length_ends_the_stream():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(migration))
    await guest.start_migration()
    writer.write((3).to_bytes(4, "little") + b"abc" + bytes(4))
    assert await guest.services.receive(1) == b"abc"
    assert await guest.services.receive(1) == b""
    assert await reader.read() == b""
    await guest.report(1, MigrationResult.NetworkError)
    assert any("VMM-WIRE-FRAME-LENGTH" in line for line in outcome_of(migration).trace)
    writer.close()
    await vmm.stop()


async def test_only_one_connection_is_taken_per_migration():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    port = port_of(migration)
    _, first = await asyncio.open_connection("127.0.0.1", port)
    await guest.start_migration()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    first.close()
    await vmm.stop()


async def test_a_lost_migtd_leaves_every_migration_unknown():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    migrations = [await vmm.start_migration(migration_request(target_td(vmm), number)) for number in range(3)]
    guest.channel.close()
    for migration in migrations:
        outcome = outcome_of(migration)
        assert (outcome.result, outcome.code, outcome.error.id) == ("Unknown", None, "VMM-MIGTD-GONE")
    await vmm.stop()


async def test_a_silent_migtd_leaves_the_outcome_unknown(monkeypatch):
    monkeypatch.setattr("vmm_stub.vmm.migration.SILENCE_MARGIN", 0.0)
    short = DeadlinesModel(connect=0.01, pre_session=0.01, session=0.01, report=0.01)
    vmm = quiet_vmm(deadlines=short)
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    await guest.start_migration()
    await migration.ended.wait()
    outcome = outcome_of(migration)
    assert (outcome.result, outcome.error.id) == ("Unknown", "VMM-MIGTD-SILENT")
    # it is still being served there, so the id is not free
    with pytest.raises(Conflict):
        await vmm.start_migration(migration_request(target_td(vmm)))
    await guest.report(1)
    assert outcome_of(migration).result == "Unknown"
    await vmm.stop()


async def test_a_request_that_the_guest_never_took_is_withdrawn_with_its_migration(monkeypatch):
    monkeypatch.setattr("vmm_stub.vmm.migration.SILENCE_MARGIN", 0.0)
    short = DeadlinesModel(connect=0.01, pre_session=0.01, session=0.01, report=0.01)
    vmm = quiet_vmm(deadlines=short)
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    first = await vmm.start_migration(migration_request(target, 1))
    await first.ended.wait()
    second = await vmm.start_migration(migration_request(target, 2))
    assert (await guest.start_migration()).request_id == 2
    second.lost(NotKnown(migtd_failures.INTERNAL))
    await vmm.stop()


async def test_the_same_request_id_starts_clean_after_the_end(pair):
    await pair.start()
    await pair.client.services.send(1, b"old bytes")
    await asyncio.gather(pair.client.report(1), pair.server.report(1))
    await pair.start()
    await pair.client.services.send(1, b"new")
    assert await pair.server.services.receive(1) == b"new"


async def test_outcome_tells_keys_version_phases_and_checks(pair):
    here, _ = await pair.start()
    observer = pair.client.observer
    for phase in (Phase.ACCEPTED, Phase.HANDSHAKE, Phase.EXCHANGE, Phase.COMMIT):
        observer.phase(1, phase)
    observer.check(1, Check(CheckName.VERSIONS, CheckStatus.PASSED, "version 1"))
    pair.client.write_key(TargetTd(here.request.binding_handle, here.request.uuid))
    observer.phase(1, Phase.DONE)
    await pair.client.report(1)
    model = here.model()
    assert model.outcome.key_written
    assert model.outcome.version == 1
    assert model.outcome.fingerprints.sent == pair.source_target.enc_key_fingerprint
    assert model.outcome.fingerprints.received == pair.source.target_tds()[0].dec_key_fingerprint
    assert [check.name for check in model.outcome.checks] == [CheckName.VERSIONS]
    assert list(model.phases_ms) == [Phase.ACCEPTED, Phase.HANDSHAKE, Phase.EXCHANGE, Phase.COMMIT]


async def test_a_key_of_an_earlier_migration_is_not_claimed_by_a_later_one(pair):
    pair.client.write_key(TargetTd(pair.source_target.binding_handle, pair.source_target.uuid))
    here, _ = await pair.start()
    await pair.client.report(1, MigrationResult.NetworkError)
    outcome = outcome_of(here)
    assert (outcome.key_written, outcome.version, outcome.fingerprints.received) == (False, None, None)


async def test_a_failure_keeps_its_phase_and_the_guests_reason(pair):
    here, there = await pair.start()
    pair.client.observer.phase(1, Phase.HANDSHAKE)
    pair.client.observer.failed(1, NetworkError(migtd_failures.DEADLINE_READ, "2 s"))
    await asyncio.gather(
        pair.client.report(1, MigrationResult.NetworkError),
        pair.server.report(1, MigrationResult.PolicyUnsatisfiedError),
    )
    outcome = outcome_of(here)
    assert (outcome.phase, outcome.error.id, outcome.code) == (Phase.HANDSHAKE, "MIGTD-DEADLINE-READ", 5)
    # a guest that gives no reason
    assert outcome_of(there).error.id == "VMM-REPORTED-WITHOUT-REASON"
    assert outcome_of(there).result == "PolicyUnsatisfiedError"


async def test_report_status_wins_over_what_the_guest_says(pair):
    here, there = await pair.start()
    pair.client.observer.failed(1, NetworkError(migtd_failures.DEADLINE_READ))
    pair.server.observer.phase(1, Phase.DONE)
    await asyncio.gather(pair.client.report(1), pair.server.report(1, MigrationResult.NetworkError))
    assert outcome_of(here).error is None
    assert outcome_of(here).phase is Phase.DONE
    assert outcome_of(there).result == "NetworkError"


async def test_a_migration_without_a_target_td_runs_and_has_no_fingerprints(pair):
    request = migration_request(pair.destination_target).model_copy(update={"binding_handle": 1})
    migration = await pair.destination.start_migration(request)
    migration.cancel()
    await pair.server.start_migration()
    await pair.server.report(1, MigrationResult.TdxModuleError)
    outcome = outcome_of(migration)
    assert (outcome.result, outcome.key_written, outcome.fingerprints.sent) == ("TdxModuleError", False, None)


async def test_a_migration_needs_its_migtd():
    vmm = quiet_vmm()
    target = target_td(vmm)
    with pytest.raises(Conflict) as absent:
        await vmm.start_migration(migration_request(target))
    assert absent.value.kind.id == "VMM-MIGTD-ABSENT"
    with pytest.raises(NotKnown):
        vmm.migtd("nobody")


async def test_stop_ends_what_is_under_way(pair):
    here, _ = await pair.start()
    await pair.source.stop()
    assert outcome_of(here).error.id == "VMM-HOST-STOPPED"
    assert await pair.server.services.receive(1) == b""


async def test_frames_are_in_the_history_of_both_hosts(pair):
    await pair.start()
    await pair.client.services.send(1, b"abc")
    await pair.server.services.receive(1)
    seen = []
    for vmm in (pair.source, pair.destination):
        lines = [json.loads(line) for line in vmm.history.read(limit=1000)]
        seen += [(line["host"], line["request_id"], line["data"]) for line in lines if line["kind"] == "frame"]
    assert seen == [
        ("host-a", 1, {"direction": "sent", "length": 3, "payload": "616263"}),
        ("host-b", 1, {"direction": "received", "length": 3, "payload": "616263"}),
    ]


async def test_many_migrations_of_one_migtd_run_side_by_side(pair):
    count = 64
    there = [
        await pair.destination.start_migration(migration_request(pair.destination_target, number))
        for number in range(count)
    ]
    for number, each in enumerate(there):
        await pair.source.start_migration(migration_request(pair.source_target, number, each.model().address))

    async def serve(guest):
        tasks = []
        for _ in range(count):
            start = await guest.start_migration()
            tasks.append(asyncio.create_task(swap(guest, start.request_id)))
        await asyncio.gather(*tasks)

    async def swap(guest, request_id):
        await guest.services.send(request_id, b"%d" % request_id)
        assert await guest.services.receive(request_id) == b"%d" % request_id
        await guest.report(request_id)

    await asyncio.gather(serve(pair.client), serve(pair.server))
    assert {outcome_of(each).result for each in pair.source.migrations()} == {"Success"}
    assert pair.source.migtd(MIGTD).model().migrations == 0
