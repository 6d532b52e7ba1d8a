# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lab import migrations
from lab.errors import EngineError
from lab.labfile import LabFile, default_lab, default_rebinding_lab
from lab.migrations import MigrationRunner
from lab.outcome import Outcome
from lab.plan import Job, resolve
from migtd.errors import FailureKind, LabFailure
from migtd.observer import Phase
from vmm_stub.vmm.control.models import (
    ErrorModel,
    Fingerprints,
    MigrationModel,
    MigrationRequest,
    MigrationState,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    Role,
    SessionOperation,
    SideOutcome,
    TargetTdModel,
    TargetTdRequest,
    VersionRangeModel,
)

LOST = EngineError(FailureKind("LAB-HOST-LOST", "a host of the lab no longer answers", "look"), "host-b")
TAKEN = LabFailure(FailureKind("VMM-MIGRATION-EXISTS", "under way", "another id"))
REFUSED = LabFailure(FailureKind("VMM-MIGTD-ABSENT", "the MigTD is not connected", "wait"))


def side(result: str = "Success", code: int | None = 0, *, sent: str | None = "aa", received: str | None = "bb"):
    return SideOutcome(
        result=result,
        code=code,
        phase=Phase.DONE if code == 0 else Phase.HANDSHAKE,
        error=None if code == 0 else ErrorModel(id="MIGTD-X", message="x", advice="y"),
        key_written=received is not None,
        version=1 if code == 0 else None,
        fingerprints=Fingerprints(sent=sent, received=received),
        checks=[],
        trace=[],
    )


class FakeHost:
    """A host whose migrations end as `ends` says: an outcome, or a failure that the API raises."""

    def __init__(
        self, *, ends: SideOutcome | LabFailure, address: str | None = "host-b:4711", used: tuple[int, ...] = ()
    ):
        self.ends = ends
        self.address = address
        self.used = used
        self.refuse_start: Callable[[MigrationRequest], LabFailure | None] = lambda _: None
        self.tds: list[TargetTdModel] = []
        self.started: list[MigrationRequest] = []
        self.cancelled: list[int] = []
        self.finalized: list[RebindFinalizeRequest] = []
        self.refuse_finalize: LabFailure | None = None
        self.under_way = 0
        self.most_under_way = 0
        self.asked = asyncio.Semaphore(0)
        self.release = asyncio.Event()
        self.release.set()

    async def target_tds(self) -> list[TargetTdModel]:
        return list(self.tds)

    async def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        assert request.uuid is not None
        assert request.binding_handle is not None
        self.tds.append(
            TargetTdModel(
                migtd=request.migtd,
                uuid=request.uuid,
                binding_handle=request.binding_handle,
                versions=VersionRangeModel(),
                servtd_attr=request.servtd_attr,
                enc_key_fingerprint="aa",
                dec_key_fingerprint=None,
                mig_version=None,
            )
        )
        return self.tds[-1]

    async def migrations(self) -> list[MigrationModel]:
        return [self._model(_request(n)) for n in self.used]

    async def start_migration(self, request: MigrationRequest) -> MigrationModel:
        refusal = self.refuse_start(request)
        if refusal is not None:
            raise refusal
        self.started.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        return self._model(request)

    async def outcome(self, migtd: str, request_id: int, timeout: float) -> MigrationModel:  # noqa: ASYNC109, ARG002
        self.asked.release()
        await self.release.wait()
        self.under_way -= 1
        if isinstance(self.ends, LabFailure):
            raise self.ends
        request = next(each for each in self.started if each.request_id == request_id)
        return self._model(request, self.ends)

    async def cancel(self, migtd: str, request_id: int) -> None:  # noqa: ARG002
        self.cancelled.append(request_id)

    async def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        self.finalized.append(request)
        if self.refuse_finalize is not None:
            raise self.refuse_finalize
        return RebindFinalizeModel(
            migtd=request.migtd,
            uuid=request.uuid,
            binding_handle=request.binding_handle,
            outcome=side(sent=None, received=None),
        )

    def _model(self, request: MigrationRequest, outcome: SideOutcome | None = None) -> MigrationModel:
        return MigrationModel(
            migtd=request.migtd,
            request_id=request.request_id,
            operation=request.operation,
            role=request.role,
            state=MigrationState.ENDED if outcome else MigrationState.RUNNING,
            address=self.address if request.role is Role.DESTINATION else None,
            started=1.0,
            duration_ms=1.0 if outcome else None,
            phases_ms={Phase.HANDSHAKE: 1.5} if outcome else {},
            outcome=outcome,
        )


def _request(request_id: int) -> MigrationRequest:
    return MigrationRequest(
        migtd="m", role=Role.DESTINATION, request_id=request_id, uuid=(1, 2, 3, 4), binding_handle=5
    )


def pair(**of_b: Any) -> dict[str, FakeHost]:
    return {
        "host-a": FakeHost(ends=side(sent="aa", received="bb")),
        "host-b": FakeHost(**{"ends": side(sent="bb", received="aa"), **of_b}),
    }


async def run(
    hosts: dict[str, FakeHost], lab: LabFile | None = None, count: int | None = None
) -> list[tuple[Job, Outcome]]:
    resolved = resolve(lab or default_lab(), name="test")
    runner = MigrationRunner(resolved, "fake", hosts, monotonic=lambda: 0.0, say=lambda _: None)
    return [each async for each in runner.run(resolved.jobs(count))]


def lab_with(migrations_: list[dict[str, Any]], **more: Any) -> LabFile:
    hosts: dict[str, Any] = {"host-a": {"migtds": {"source": {}}}, "host-b": {"migtds": {"destination": {}}}}
    return LabFile.model_validate({"schema": 1, "hosts": hosts, "migrations": migrations_, **more})


BETWEEN = {
    "source": {"host": "host-a", "migtd": "source"},
    "destination": {"host": "host-b", "migtd": "destination"},
}


async def test_both_sides_get_the_same_target_td_and_the_source_goes_where_the_destination_listens():
    hosts = pair()

    [(_, outcome)] = await run(hosts)

    [source], [destination] = hosts["host-a"].started, hosts["host-b"].started
    assert (source.uuid, source.binding_handle) == (destination.uuid, destination.binding_handle)
    assert (hosts["host-a"].tds[0].uuid, hosts["host-b"].tds[0].uuid) == (source.uuid, source.uuid)
    assert source.peer == "host-b:4711"
    assert source.request_id == destination.request_id == outcome.request_id == 1
    assert outcome.success
    assert outcome.msk_match is True
    assert (outcome.lab, outcome.engine, outcome.attestation) == ("test", "fake", "lab")
    assert outcome.phases_ms.source == {Phase.HANDSHAKE: 1.5}


async def test_keys_that_differ_are_no_success():
    [(_, outcome)] = await run(pair(ends=side(sent="bb", received="cc")))

    assert outcome.msk_match is False
    assert not outcome.success


async def test_request_ids_are_the_next_that_no_host_has_used():
    hosts = pair(used=(1, 2, 4))

    found = await run(hosts, count=3)

    assert sorted(outcome.request_id for _, outcome in found) == [3, 5, 6]
    assert len({request.uuid for request in hosts["host-a"].started}) == 3, "each run takes a fresh target TD"


async def test_an_id_that_another_command_took_meanwhile_is_given_up_for_the_next():
    hosts = pair()
    hosts["host-a"].refuse_start = lambda request: TAKEN if request.request_id == 1 else None

    [(_, outcome)] = await run(hosts)

    assert outcome.success
    assert outcome.request_id == 2
    assert hosts["host-b"].cancelled == [1], "the destination of the attempt that failed does not go on waiting"


async def test_lost_host_makes_its_side_unknown_and_the_other_side_is_still_told():
    hosts = pair(ends=LOST)
    hosts["host-a"].ends = side("NetworkError", 5, received=None)

    [(_, outcome)] = await run(hosts)

    assert not outcome.success
    assert outcome.msk_match is None
    assert outcome.source is not None
    assert outcome.source.result == "NetworkError"
    assert outcome.destination is not None
    assert (outcome.destination.result, outcome.destination.code) == ("Unknown", None)
    assert outcome.destination.error is not None
    assert outcome.destination.error.id == "LAB-HOST-LOST"


async def test_source_that_cannot_start_is_unknown_and_its_destination_is_cancelled():
    hosts = pair(ends=side("VmmCanceled", 10, received=None))
    hosts["host-a"].refuse_start = lambda _: REFUSED

    [(_, outcome)] = await run(hosts)

    assert outcome.source is not None
    assert outcome.source.error is not None
    assert outcome.source.error.id == "VMM-MIGTD-ABSENT"
    assert outcome.destination is not None
    assert outcome.destination.result == "VmmCanceled"
    assert hosts["host-b"].cancelled == [1]


async def test_source_is_not_sent_to_a_destination_that_does_not_listen():
    hosts = pair(ends=side("InvalidParameter", 1, received=None), address=None)

    [(_, outcome)] = await run(hosts)

    assert hosts["host-a"].started == []
    assert outcome.source is not None
    assert outcome.source.error is not None
    assert outcome.source.error.id == "LAB-DESTINATION-ABSENT"
    assert outcome.destination is not None
    assert outcome.destination.code == 1


async def test_host_that_never_tells_is_given_up_after_all_deadlines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(migrations, "MARGIN", 0.01)
    hosts = pair()
    hosts["host-b"].release.clear()
    deadlines = dict.fromkeys(("pre_session", "session", "read", "write", "call", "report", "connect"), 0.001)

    [(_, outcome)] = await run(hosts, lab_with([BETWEEN], deadlines=deadlines))

    assert outcome.destination is not None
    assert outcome.destination.error is not None
    assert outcome.destination.error.id == "LAB-OUTCOME-LATE"


async def test_migrations_with_fresh_target_tds_run_at_once_up_to_the_bound():
    hosts = pair()
    hosts["host-b"].release.clear()
    task = asyncio.create_task(run(hosts, count=20))
    for _ in range(migrations.CONCURRENT):
        await hosts["host-b"].asked.acquire()
    hosts["host-b"].release.set()

    found = await task

    assert len(found) == 20
    assert hosts["host-b"].most_under_way == migrations.CONCURRENT


async def test_migrations_of_one_target_td_run_one_after_another_with_one_identity():
    hosts = pair()
    lab = lab_with(
        [{**BETWEEN, "target_td": "td", "count": 3}], target_tds={"td": {"uuid": [1, 2, 3, 4], "binding_handle": 5}}
    )

    found = await run(hosts, lab)

    assert len(found) == 3
    assert hosts["host-b"].most_under_way == 1
    assert [(td.uuid, td.binding_handle) for td in hosts["host-a"].tds] == [((1, 2, 3, 4), 5)]


async def test_existing_target_td_is_used_again_unless_it_differs():
    hosts = pair()
    lab = lab_with([{**BETWEEN, "target_td": "td"}], target_tds={"td": {"uuid": [1, 2, 3, 4], "binding_handle": 5}})
    await run(hosts, lab)
    await run(hosts, lab)
    other = lab_with(
        [{**BETWEEN, "target_td": "td"}],
        target_tds={"td": {"uuid": [1, 2, 3, 4], "binding_handle": 5, "servtd_attr": 1}},
    )

    with pytest.raises(EngineError) as caught:
        await run(hosts, other)

    assert len(hosts["host-a"].tds) == 1
    assert caught.value.kind.id == "LAB-TARGET-TD-DIFFERS"


async def test_two_migtds_of_one_host_get_different_binding_handles():
    hosts = {"host-a": FakeHost(ends=side(sent="aa", received="aa"), address="127.0.0.1:1")}
    lab = LabFile.model_validate(
        {
            "schema": 1,
            "hosts": {"host-a": {"migtds": {"one": {}, "two": {}}}},
            "migrations": [
                {"source": {"host": "host-a", "migtd": "one"}, "destination": {"host": "host-a", "migtd": "two"}}
            ],
        }
    )

    [(_, outcome)] = await run(hosts, lab)

    first, second = hosts["host-a"].tds
    assert first.uuid == second.uuid
    assert first.binding_handle != second.binding_handle
    assert outcome.success


async def test_external_destination_is_not_ours():
    hosts = pair()
    lab = lab_with([{"source": BETWEEN["source"], "destination": {"external": "192.0.2.1:8001"}}])

    [(_, outcome)] = await run(hosts, lab)

    assert hosts["host-a"].started[0].peer == "192.0.2.1:8001"
    assert hosts["host-b"].started == []
    assert outcome.destination is None
    assert outcome.msk_match is None
    assert outcome.success


async def test_external_source_is_awaited_on_the_port_of_the_file():
    hosts = pair()
    lab = lab_with([{"source": {"external": "127.0.0.1:8001"}, "destination": BETWEEN["destination"], "count": 2}])

    found = await run(hosts, lab)

    assert [request.listen_port for request in hosts["host-b"].started] == [8001, 8001]
    assert hosts["host-b"].most_under_way == 1
    assert all(outcome.source is None for _, outcome in found)


async def test_interrupt_cancels_what_is_under_way():
    hosts = pair()
    hosts["host-a"].release.clear()
    hosts["host-b"].release.clear()
    task = asyncio.create_task(run(hosts))
    await hosts["host-a"].asked.acquire()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert hosts["host-a"].cancelled == hosts["host-b"].cancelled == [1]


async def test_nothing_is_started_if_a_target_td_cannot_be_made(monkeypatch: pytest.MonkeyPatch):
    hosts = pair()

    async def refuse(_: TargetTdRequest) -> TargetTdModel:
        raise LOST

    monkeypatch.setattr(hosts["host-b"], "create_target_td", refuse)

    with pytest.raises(EngineError) as caught:
        await run(hosts)

    assert caught.value.kind.id == "LAB-HOST-LOST"
    assert hosts["host-a"].started == []


# --- rebindings ---


async def rebind(host: FakeHost, count: int = 1) -> list[Outcome]:
    resolved = resolve(default_rebinding_lab(), name="test")
    runner = MigrationRunner(resolved, "fake", {"host-a": host}, monotonic=lambda: 0.0, say=lambda _: None)
    return [outcome async for _, outcome in runner.run(resolved.rebindings(count))]


def rebinding_host(**more: Any) -> FakeHost:
    return FakeHost(**{"ends": side(sent=None, received=None), "address": "host-a:4711", **more})


async def test_a_rebinding_is_prepared_for_one_target_td_of_the_old_migtd_and_then_finalized_for_the_new_one():
    host = rebinding_host()

    prepared, finalized = await rebind(host)

    new, old = host.started
    assert (new.migtd, new.role, old.migtd, old.role) == ("new", Role.DESTINATION, "old", Role.SOURCE)
    assert {each.operation for each in host.started} == {SessionOperation.REBIND_PREPARE}
    assert [each.migtd for each in host.tds] == ["old"]
    (request,) = host.finalized
    named = {(each.uuid, each.binding_handle) for each in (new, old, request, host.tds[0])}
    assert len(named) == 1
    assert request.migtd == "new"
    assert [each.operation for each in (prepared, finalized)] == ["rebind-prepare", "rebind-finalize"]
    assert prepared.request_id == finalized.request_id
    assert prepared.success
    assert finalized.success
    assert finalized.source is None


async def test_a_rebinding_that_was_not_prepared_is_not_finalized():
    host = rebinding_host(ends=side("PolicyUnsatisfiedError", 8, sent=None, received=None))

    (prepared,) = await rebind(host)

    assert not prepared.success
    assert host.finalized == []


async def test_a_host_that_is_lost_before_the_end_of_a_rebinding_leaves_it_unknown():
    host = rebinding_host()
    host.refuse_finalize = LOST

    prepared, finalized = await rebind(host)

    assert prepared.success
    assert not finalized.success
    assert finalized.destination is not None
    assert (finalized.destination.result, finalized.destination.code) == ("Unknown", None)


async def test_two_rebindings_to_one_migtd_run_one_after_the_other():
    host = rebinding_host()

    outcomes = await rebind(host, 3)

    # The new MigTD accepts one token at a time: each binding moves before the next is prepared.
    assert [each.operation for each in outcomes] == ["rebind-prepare", "rebind-finalize"] * 3
    assert host.most_under_way == 2
