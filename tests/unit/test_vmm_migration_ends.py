# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a migration ends on its host when the end comes at a bad moment: while it is prepared, late, or never."""

import asyncio
from typing import Any

import pytest

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, VmmCanceled
from migtd.testing_loop import run_in_virtual_time
from vmm_stub import failures
from vmm_stub.testing import ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.testing_live import outcome_of
from vmm_stub.testing_td import until
from vmm_stub.vmm import migration as migration_module
from vmm_stub.vmm.control.models import MigrationState
from vmm_stub.vmm.errors import Invalid, MigTdLost
from vmm_stub.vmm.wire_setup import listen

PATIENCE = 60 + 60 + 60 + migration_module.SILENCE_MARGIN
"""Seconds that a MigTD has by the default deadlines: pre-session, session, report, and the host's margin."""


@pytest.fixture
async def vmm():
    made = quiet_vmm()
    yield made
    await made.stop()


async def test_cancel_while_the_address_is_looked_up_is_not_forgotten(monkeypatch, vmm):
    found, asked = asyncio.Event(), asyncio.Event()

    async def slow_listen(*address):
        asked.set()
        await found.wait()
        return await listen(*address)

    monkeypatch.setattr(migration_module, "listen", slow_listen)
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    starting = asyncio.create_task(vmm.start_migration(migration_request(target)))
    await asked.wait()
    vmm.migration(target.migtd, 1).cancel()
    found.set()
    migration = await starting
    # nobody connects: without the cancel it would go on listening
    await guest.start_migration()
    with pytest.raises(VmmCanceled):
        await guest.services.receive(1)
    await guest.report(1, MigrationResult.VmmCanceled)
    assert outcome_of(migration).result == "VmmCanceled"


async def test_a_migration_that_ends_while_its_address_is_looked_up_listens_nowhere(monkeypatch, vmm):
    listeners = []

    async def lost_meanwhile(*address):
        listeners.append(await listen(*address))
        guest.channel.close()
        return listeners[0]

    monkeypatch.setattr(migration_module, "listen", lost_meanwhile)
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    migration = await vmm.start_migration(migration_request(target))
    assert outcome_of(migration).result == "Unknown"
    assert listeners[0]._socket.fileno() == -1


async def test_the_end_of_one_listener_leaves_the_next_one_whole(vmm):
    ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    loop: Any = asyncio.get_running_loop()
    await until(lambda: migration._listener._socket.fileno() in loop._selector.get_map())
    migration.lost(MigTdLost(failures.HOST_STOPPED))
    # At once: a descriptor that was closed under the event loop would be taken for this one, and never be heard of.
    other, came = await listen("127.0.0.1", 0), asyncio.Event()
    loop.add_reader(other._socket, came.set)
    _, writer = await asyncio.open_connection("127.0.0.1", other.port)
    async with asyncio.timeout(5):
        await came.wait()
    loop.remove_reader(other._socket)
    other.close()
    writer.close()


async def test_the_port_is_free_once_a_migration_is_closed(vmm):
    guest = ScriptedGuest(vmm)
    migration = await vmm.start_migration(migration_request(target_td(vmm)))
    port = int(migration.model().address.rpartition(":")[2])
    guest.channel.close()
    await migration.closed()
    (await listen("127.0.0.1", port)).close()


async def test_a_peer_that_can_be_no_address_is_refused_before_anything_is_queued(vmm):
    ScriptedGuest(vmm)
    for peer in ("nowhere", "a..b:1", f"{'x' * 64}:1", "[::1:1", "h:0", "h:65536", ":1"):
        with pytest.raises(Invalid) as refused:
            await vmm.start_migration(migration_request(target_td(vmm), peer=peer))
        assert refused.value.kind.id == "VMM-API-INVALID"
    assert vmm.migrations() == []


def in_virtual_time(scenario):
    """Run it against a VMM and a guest with the default deadlines, at no cost of time."""

    async def main():
        vmm = quiet_vmm()
        guest = ScriptedGuest(vmm, deadlines=Deadlines())
        migration = await vmm.start_migration(migration_request(target_td(vmm)))
        migration.cancel()
        await until(lambda: migration.model().state is MigrationState.RUNNING)
        await scenario(guest, migration)
        guest.channel.close()
        await vmm.stop()

    run_in_virtual_time(main())


def test_a_migtd_has_its_deadlines_from_the_moment_it_takes_the_request():
    async def scenario(guest, migration):
        await asyncio.sleep(PATIENCE - 1)
        await guest.start_migration()
        await asyncio.sleep(PATIENCE - 1)
        assert not migration.ended.is_set()
        await guest.report(1, MigrationResult.VmmCanceled)
        assert outcome_of(migration).result == "VmmCanceled"

    in_virtual_time(scenario)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "never-taken"])
def test_a_migtd_that_stays_silent_beyond_them_leaves_the_outcome_unknown(taken):
    async def scenario(guest, migration):
        if taken:
            await guest.start_migration()
        await asyncio.sleep(PATIENCE + 1)
        outcome = outcome_of(migration)
        assert outcome.error is not None
        assert (outcome.result, outcome.error.id) == ("Unknown", "VMM-MIGTD-SILENT")

    in_virtual_time(scenario)


def test_a_destination_that_nobody_calls_gives_up_at_the_connect_deadline():
    async def main():
        vmm = quiet_vmm()
        guest = ScriptedGuest(vmm, deadlines=Deadlines())
        migration = await vmm.start_migration(migration_request(target_td(vmm)))
        taking = asyncio.create_task(guest.start_migration())
        await asyncio.sleep(Deadlines().connect - 1)
        assert migration.model().state is MigrationState.PREPARING
        await asyncio.sleep(2)
        assert migration.model().state is MigrationState.RUNNING
        await taking
        await guest.report(1, MigrationResult.InvalidParameter)
        outcome = outcome_of(migration)
        assert outcome.error is not None
        assert outcome.error.id == "VMM-WIRE-CONNECT"
        guest.channel.close()
        await vmm.stop()

    run_in_virtual_time(main())
