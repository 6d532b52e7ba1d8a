# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Rebinding end to end: one host, two real MigTDs, the wire between them (ghci-ratls.md 1, 3.1 and 6)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lab.invariants.checker import check_history
from lab.outcome import finalized, join
from lab.testing_histories import live_pair
from migtd.errors import TdxModuleError
from migtd.failures import TDCALL_FAILED
from migtd.guest.abi import Field, TdCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.configuration import FileConfiguration
from migtd.guest.interfaces import Guest
from migtd.migration.pre_session import PeerData, push_peer_data
from vmm_stub.tdx_module.errors import Operand, OperandInvalid
from vmm_stub.testing import SMALL_MEMORY, migration_request
from vmm_stub.testing_live import live_side, outcome_of
from vmm_stub.testing_rebinding import (
    CHAIN,
    NEW,
    OLD,
    POLICY,
    RebindingHost,
    encoded,
    rebinding_host,
    with_policy_v2,
)
from vmm_stub.vmm.control.client import ApiRefused, ControlClient
from vmm_stub.vmm.control.models import (
    MigrationRequest,
    MigTdConfig,
    RebindFinalizeRequest,
    Role,
    SessionOperation,
)
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.errors import Conflict, NotKnown
from vmm_stub.vmm.vmm import FINALIZE, Vmm

LABELS: dict[str, str | int] = {
    "lab": "lab",
    "engine": "process",
    "attestation": "accept-all",
    "session": "ra-tls",
    "transport": "vmcall-raw",
    "policy_version": 2,
    "request_id": 1,
}


def events(host: RebindingHost) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.vmm.history.read(limit=100_000)]


@contextlib.asynccontextmanager
async def serving(vmm: Vmm, path: Path) -> AsyncIterator[None]:
    server = ControlServer(vmm, path)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


def without_policy_v2(guest: Guest) -> Guest:
    return replace(guest, configuration=FileConfiguration())


async def test_prepare_then_finalize_moves_the_binding():
    async with rebinding_host() as host:
        old, new = await host.prepare()

        assert (old.code, new.code, old.error, new.error) == (0, 0, None, None)
        assert host.bound_to() == OLD
        done = host.finalize()
        assert (done.outcome.result, done.outcome.code, done.migtd) == ("Success", 0, NEW)
        assert host.bound_to() == NEW


async def test_no_key_is_written_and_no_fingerprint_shown():
    async with rebinding_host() as host:
        for side in await host.prepare():
            assert side.key_written is False
            assert side.version is None
            assert (side.fingerprints.sent, side.fingerprints.received) == (None, None)
        assert [channel.dec_key_writes for channel in host.channels.values()] == [0, 0]


async def test_each_request_is_made_in_order_and_reported_once():
    async with rebinding_host() as host:
        await host.prepare()
        results = [event for event in events(host) if event["kind"] == "result"]

    for name in (OLD, NEW):
        mine = [event for event in results if event["migtd"] == name]
        assert [event["data"]["operation"] for event in mine] == ["EnableLogArea", "GetMigtdData", "StartRebinding"]
        assert [event["request_id"] for event in mine] == [1 | 1 << 63, 1 | 1 << 62, 1]
        assert {event["data"]["result"] for event in mine} == {"Success"}
        assert len(mine[1]["data"]["data"]) == 2 * 512


async def test_the_answer_of_get_migtd_data_is_the_end_of_the_tds_report():
    async with rebinding_host() as host:
        await host.prepare()
        tdinfo = host.vmm.tdx_module.service_td(NEW).tdinfo().push()
        [answer] = [
            event["data"]["data"]
            for event in events(host)
            if event["kind"] == "result" and event["migtd"] == NEW and event["data"]["operation"] == "GetMigtdData"
        ]
    assert bytes.fromhex(answer) == tdinfo


async def test_each_migtd_is_what_its_configuration_says():
    mrtd, owner, owner_config = "11" * 48, "22" * 48, "01000000" + "00" * 44
    migtds = [
        MigTdConfig(name=OLD, channel="", shared_memory=SMALL_MEMORY),
        MigTdConfig(
            name=NEW, channel="", shared_memory=SMALL_MEMORY, mrtd=mrtd, mrowner=owner, mrownerconfig=owner_config
        ),
    ]
    async with rebinding_host(migtds=migtds) as host:
        await host.prepare()
        host.finalize()
        tdinfos = {name: host.vmm.tdx_module.service_td(name).tdinfo() for name in (OLD, NEW)}
        after = host.vmm.tdx_module.targets(NEW)[0].servtd_ext

    assert (tdinfos[NEW].mrtd.hex(), tdinfos[NEW].mrowner.hex()) == (mrtd, owner)
    assert tdinfos[NEW].mrownerconfig.hex() == owner_config
    assert not any(tdinfos[OLD].mrowner + tdinfos[OLD].mrownerconfig)
    assert after.init_info_hash == hashlib.sha384(tdinfos[OLD].push()).digest()
    assert after.current_info_hash == hashlib.sha384(tdinfos[NEW].push()).digest()


async def test_the_new_side_writes_token_attributes_and_hash_in_this_order_and_the_old_side_approves_once():
    written: list[int] = []
    approved: list[int] = []

    def watch_new(registers: Registers) -> None:
        if registers.rax == TdCallLeaf.VM_WR:
            written.append(registers.rdx)

    def watch_old(registers: Registers) -> None:
        if registers.rax == TdCallLeaf.SERVTD_REBIND_APPROVE:
            approved.append(registers.rcx)

    async with rebinding_host() as host:
        host.channels[NEW].before, host.channels[OLD].before = watch_new, watch_old
        await host.prepare()
        assert approved == [host.target.binding_handle]

    token = [Field.REBIND_ACCEPT_TOKEN + index for index in range(4)]
    accepted = [Field.ACCEPT_SERVTD_EXT_HASH + index for index in range(6)]
    assert written == [*token, Field.REBIND_ATTR, *accepted]


async def test_the_history_keeps_the_invariants_and_the_documents_agree_with_it():
    async with rebinding_host() as host:
        old, new = (host.vmm.migtd(name) for name in (OLD, NEW))
        await host.prepare()
        prepared = join(old.migration(1).model(), new.migration(1).model(), duration_ms=1.0, **LABELS)
        done = finalized(host.finalize(), duration_ms=1.0, **LABELS)
        recorded = events(host)

    documents = [document.model_dump(mode="json", by_alias=True) for document in (prepared, done)]
    assert [document["operation"] for document in documents] == ["rebind-prepare", "rebind-finalize"]
    assert [(document["success"], document["msk_match"]) for document in documents] == [(True, None), (True, None)]
    assert documents[1]["source"] is None
    assert check_history(recorded, documents[:1]) == []


@pytest.mark.parametrize(
    ("side", "name"), [(OLD, "tdreport-mac"), (NEW, "initial-tdinfo"), (NEW, "servtd-ext"), (NEW, "peer-data-hash")]
)
async def test_a_history_in_which_a_refused_peer_got_the_token_breaks_an_invariant(side: str, name: str):
    async with rebinding_host() as host:
        await host.prepare()
        recorded = events(host)
    [check] = [e for e in recorded if e["kind"] == "check" and e["migtd"] == side and e["data"]["name"] == name]
    check["data"]["status"] = "failed"

    assert {violation.invariant for violation in check_history(recorded)} == {"I1"}


async def test_a_write_that_the_tdx_module_refuses_is_no_broken_invariant():
    async with rebinding_host() as host:
        module = host.vmm.tdx_module
        write = module.service_td(NEW).write

        def refuse(field: int, value: int, mask: int) -> None:
            if field == Field.REBIND_ATTR:
                raise OperandInvalid(Operand.RDX)
            write(field, value, mask)

        module.service_td(NEW).write = refuse  # type: ignore[method-assign] # a TDX module that fails
        old, new = await host.prepare()
        assert (old.code, new.code) == (0, 4)
        assert check_history(events(host)) == []


async def test_finalize_stands_in_the_history_as_no_ones_request():
    async with rebinding_host() as host:
        host.finalize()
        await host.prepare()
        host.finalize()
        told = [event for event in events(host) if event["data"].get("operation") == FINALIZE]

    assert [(event["kind"], event["request_id"]) for event in told] == [("result", None)] * 2
    assert [event["data"]["code"] for event in told] == [4, 0]
    assert [(event["data"]["from"], event["data"]["to"]) for event in told] == [(OLD, OLD), (OLD, NEW)]


async def test_the_token_stands_nowhere_in_history_logs_and_outcomes():
    tokens: list[int] = []

    def watch(registers: Registers) -> None:
        if registers.rax == TdCallLeaf.VM_WR and registers.rdx - Field.REBIND_ACCEPT_TOKEN in range(4):
            tokens.append(registers.r8)

    async with rebinding_host() as host:
        host.channels[NEW].before = watch
        outcomes = await host.prepare()
        text = b"".join(host.vmm.history.read(limit=100_000)).decode() + repr(outcomes)

    assert len(set(tokens)) == 4
    for token in tokens:
        assert f"{token:x}" not in text
        assert token.to_bytes(8, "little").hex() not in text


async def test_every_rebinding_draws_a_token_of_its_own():
    tokens: list[int] = []

    def watch(registers: Registers) -> None:
        if registers.rax == TdCallLeaf.VM_WR and registers.rdx == Field.REBIND_ACCEPT_TOKEN:
            tokens.append(registers.r8)

    async with rebinding_host() as host:
        host.channels[NEW].before = watch
        for request_id in (1, 2, 3):
            await host.prepare(request_id)
        assert host.finalize().outcome.code == 0
    assert len(set(tokens)) == 3


async def test_finalize_before_prepare_is_the_tdx_modules_refusal():
    async with rebinding_host() as host:
        refused = host.finalize()

        assert (refused.outcome.result, refused.outcome.code, refused.migtd) == ("TdxModuleError", 4, OLD)
        assert refused.outcome.error is not None
        assert refused.outcome.error.id == "VMM-REBIND-REFUSED"
        assert finalized(refused, duration_ms=0, **LABELS).success is False


async def test_finalize_for_an_unknown_target_or_migtd():
    async with rebinding_host() as host:
        request = RebindFinalizeRequest(migtd=NEW, uuid=(9, 9, 9, 9), binding_handle=9)
        unknown = host.vmm.finalize_rebinding(request)
        assert (unknown.outcome.code, unknown.migtd) == (4, None)
        with pytest.raises(NotKnown):
            host.finalize("nobody")
        host.channels[NEW].close()
        with pytest.raises(Conflict):
            host.finalize()


async def test_a_migtd_with_policy_v1_does_not_serve_a_rebinding():
    async with rebinding_host(old=without_policy_v2, new=without_policy_v2) as host:
        for side in await host.prepare():
            assert (side.result, side.code) == ("UnsupportedOperationError", 12)
        results = {
            event["data"]["operation"]: event["data"]["code"] for event in events(host) if event["kind"] == "result"
        }
        assert results == {"EnableLogArea": 0, "GetMigtdData": 12, "StartRebinding": 12}


@pytest.mark.parametrize("who", [OLD, NEW])
async def test_init_data_that_nobody_can_judge_is_an_unsatisfied_policy(who: str):
    async with rebinding_host() as host:
        init_data = {"initial_tdinfo": encoded(bytes(512))}
        old, new = await host.prepare(old=init_data if who == OLD else None, new=init_data if who == NEW else None)
        refuser, other = (old, new) if who == OLD else (new, old)

        assert refuser.code == 8
        assert refuser.error is not None
        assert refuser.error.id == "MIGTD-INITIAL-TDINFO-UNVERIFIED"
        assert other.code not in (0, 8)
        assert host.finalize().outcome.code == 4


async def test_attributes_of_the_target_end_a_rebinding_on_the_old_side():
    async with rebinding_host(servtd_attr=1 << 32) as host:
        old, new = await host.prepare()

        assert (old.code, new.code) == (1, 5)
        assert old.error is not None
        assert old.error.id == "MIGTD-SERVTD-ATTR"
        assert {check.name.value: check.status.value for check in old.checks} == {"servtd-attr": "failed"}


async def test_a_target_that_is_not_the_old_migtds_ends_in_tdx_module_error():
    async with rebinding_host() as host:
        old, new = await host.prepare(old={"uuid": (1, 2, 3, 4)})

        assert (old.result, old.code) == ("TdxModuleError", 4)
        assert new.code == 5


async def test_a_write_that_fails_on_the_new_side_leaves_the_binding_where_it_is():
    def refuse(registers: Registers) -> None:
        if registers.rax == TdCallLeaf.VM_WR and registers.rdx == Field.REBIND_ATTR:
            raise TdxModuleError(TDCALL_FAILED, "scripted")

    async with rebinding_host() as host:
        host.channels[NEW].before = refuse
        _, new = await host.prepare()
        assert new.code == 4
        assert host.finalize().outcome.code == 4

        host.channels[NEW].before = lambda _: None
        old, new = await host.prepare(2)
        assert (old.code, new.code) == (0, 0)
        assert host.finalize().outcome.code == 0


async def test_the_control_api_prepares_and_finalizes(tmp_path: Path):
    path = tmp_path / "control.sock"
    async with rebinding_host() as host, serving(host.vmm, path):
        client = ControlClient(*await asyncio.open_unix_connection(str(path)))
        there = await client.start_migration(host.request(NEW))
        here = await client.start_migration(host.request(OLD, peer=there.address))
        assert (here.operation, there.operation) == (SessionOperation.REBIND_PREPARE,) * 2
        for name in (OLD, NEW):
            side = await client.outcome(name, 1, 10)
            assert side.outcome is not None
            assert side.outcome.code == 0
        request = RebindFinalizeRequest(migtd=NEW, uuid=host.target.uuid, binding_handle=host.target.binding_handle)
        assert (await client.finalize_rebinding(request)).migtd == NEW
        assert (await client.finalize_rebinding(request)).outcome.code == 4
        [target] = await client.target_tds()
        assert target.migtd == NEW
        with pytest.raises(ApiRefused):
            await client.finalize_rebinding(request.model_copy(update={"migtd": "nobody"}))
        await client.close()


@pytest.mark.parametrize("size", [0, 511, 513, 1024])
def test_an_initial_tdinfo_of_another_size_is_no_request(size: int):
    with pytest.raises(ValidationError, match="initial_tdinfo"):
        MigrationRequest.model_validate(
            {
                "migtd": OLD,
                "role": Role.DESTINATION,
                "request_id": 1,
                "uuid": (1, 2, 3, 4),
                "binding_handle": 1,
                "initial_tdinfo": encoded(bytes(size)),
            }
        )


# --- migrations with policy v2 -------------------------------------------------------------------------------------
async def test_a_migration_with_policy_v2_swaps_policies_first():
    async with live_pair(platform=with_policy_v2()) as pair:
        outcome = await pair.migrate()
        history = await pair.history()

    assert (outcome["success"], outcome["msk_match"]) == (True, True)
    for side in ("source", "destination"):
        skipped = {check["name"] for check in outcome[side]["checks"] if check["status"] == "skipped"}
        assert "peer-data-hash" in skipped
        phases = [e["data"]["phase"] for e in history if e["kind"] == "phase" and e["host"] == side]
        assert phases[-6:] == ["accepted", "pre-session", "handshake", "exchange", "commit", "done"]
    assert check_history(history, [outcome]) == []


async def test_a_policy_of_a_megabyte_crosses_both_ways():
    policy = b"x" * 1_000_000
    async with live_pair(platform=with_policy_v2(policy)) as pair:
        outcome = await pair.migrate()

    assert outcome["success"] is True


async def test_frames_of_the_pre_session_are_those_of_the_reference():
    async with live_pair(platform=with_policy_v2()) as pair:
        await pair.migrate()
        history = await pair.history()

    blob = push_peer_data(PeerData(POLICY, CHAIN))
    sent = [
        bytes.fromhex(event["data"]["payload"])
        for event in history
        if event["kind"] == "frame" and event["host"] == "source" and event["data"]["direction"] == "sent"
    ]
    assert sent[:5] == [
        bytes.fromhex("ff00000008000000"),
        bytes.fromhex("4d47544400010001"),
        b"\x01\0\0\0" + len(blob).to_bytes(4, "little"),
        blob,
        bytes.fromhex("0200000000000000"),
    ]


@pytest.mark.parametrize("older", [Role.SOURCE, Role.DESTINATION])
async def test_policy_v1_and_v2_do_not_meet(older: Role):
    newer = Role.DESTINATION if older is Role.SOURCE else Role.SOURCE
    async with live_side(older) as v1, live_side(newer, platform=with_policy_v2()) as v2:
        sides = {older: v1, newer: v2}
        there = await sides[Role.DESTINATION].begin()
        here = await sides[Role.SOURCE].begin(there.model().address)
        outcomes = {}
        for role, migration in ((Role.SOURCE, here), (Role.DESTINATION, there)):
            await migration.ended.wait()
            outcomes[role] = outcome_of(migration)

    assert all(outcome.code != 0 and not outcome.key_written for outcome in outcomes.values())
    assert outcomes[newer].phase == "pre-session"


async def test_init_data_of_a_migration_that_nobody_can_judge_is_an_unsatisfied_policy():
    async with live_side(Role.DESTINATION, platform=with_policy_v2()) as side:
        request = migration_request(side.target).model_copy(update={"initial_tdinfo": bytes(512)})
        migration = await side.vmm.start_migration(request)
        await migration.ended.wait()
        assert outcome_of(migration).code == 8
