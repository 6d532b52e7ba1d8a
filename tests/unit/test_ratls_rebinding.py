# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS sessions with policy v2: migrations and rebindings (ghci-ratls.md 5 and 6), in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from migtd import failures
from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.accept_all_v2 import REBINDING_SKIPS, AcceptAllV2
from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.deadlines import Deadlines
from migtd.errors import (
    InvalidParameter,
    InvalidPolicyError,
    MigTDError,
    NetworkError,
    PolicyUnsatisfiedError,
    SecureSessionError,
)
from migtd.migration.data import ExchangeInformation
from migtd.migration.driver import run_rebinding_session
from migtd.migration.pre_session import PeerData, push_peer_data
from migtd.migration.servtd_ext import pull_servtd_ext
from migtd.migration.session import (
    OldSide,
    PhaseEntered,
    RebindingAgreed,
    RebindingContext,
    SessionContext,
    SwappedPeerData,
    TargetHistory,
)
from migtd.observer import Phase
from migtd.ratls.certificate import (
    OID_EKU_MIGTD,
    PrivateExtension,
    make_certificate,
    rebinding_extensions,
    report_data,
)
from migtd.ratls.core import RaTlsCore
from migtd.ratls.reader import pull_certificate
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Side
from migtd.testing import ScriptedServices
from migtd.testing_loop import run_in_virtual_time

PRIVATE = "1.2.840.113741.1.5.5.1."
OLD_DATA = push_peer_data(PeerData(b"old policy", b"old chain"))
NEW_DATA = push_peer_data(PeerData(b"new policy", b"new chain"))
TOKEN = bytes(range(32))
SERVTD_EXT = hashlib.shake_128(b"a history").digest(160) + bytes(112)
TDINFO = hashlib.shake_128(b"a TDINFO").digest(512)
REPORT = hashlib.shake_128(b"a TDREPORT").digest(1024)
LOG = b"event log\0"
SHOWN = TargetHistory(SERVTD_EXT, TDINFO)
REBINDING_CHECKS = [
    "tls-parameters",
    "certificate",
    "certificate-eku",
    "evidence-present",
    "peer-data-hash",
    "tdreport-mac",
    "reportdata",
    "certificate-signature",
]
"""Those of a strict side that knows one check of the judge's; the new MigTD makes `servtd-ext` besides."""


@dataclass
class StrictV2:
    """A mode of policy v2 that makes each check of the session; its judge refuses with `refusal`, if there is one."""

    peer_data: bytes = b""
    refusal: MigTDError | None = None
    unbound: MigTDError | None = None
    judged: list[PeerEvidence] = field(default_factory=list)
    roles: list[bool] = field(default_factory=list)
    rebinding_skips: dict[CheckName, str] = field(default_factory=dict)
    skips: dict[CheckName, str] = field(default_factory=dict)
    name: str = "strict"

    @property
    def v2(self) -> StrictV2:
        return self

    def check_initial_tdinfo(self, tdinfo: bytes) -> None:
        raise NotImplementedError

    async def local_report(self, report_data: bytes) -> Evidence:
        raise NotImplementedError

    async def local_evidence(self, report_data: bytes) -> Evidence:
        raise NotImplementedError

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> NoReturn:
        raise AssertionError(f"policy v1 has no say in it: {local} {is_source} {checks}")

    def judge_migration(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> StrictJudge:
        self.roles.append(is_source)
        assert local.event_log == LOG
        return StrictJudge(self, checks, CheckName.QUOTE_PEER)

    def judge_rebinding(self, local: Evidence, *, is_old: bool, checks: CheckRunner) -> StrictJudge:
        self.roles.append(is_old)
        assert local.event_log == LOG
        return StrictJudge(self, checks, CheckName.TDREPORT_MAC)


@dataclass
class StrictJudge:
    mode: StrictV2
    checks: CheckRunner
    check: CheckName

    def evaluate(self, peer: PeerEvidence) -> None:
        self.mode.judged.append(peer)
        self.checks.run(self.check, lambda: self._refuse(self.mode.refusal))

    def verify_report_data(self) -> None:
        self.checks.run(CheckName.REPORTDATA, lambda: self._refuse(self.mode.unbound))

    def _refuse(self, error: MigTDError | None) -> None:
        if error is not None:
            raise error


def rebinding_side(
    mode: StrictV2 | AcceptAllV2,
    old: OldSide | None,
    *,
    swapped: SwappedPeerData | None = None,
    evidence: Evidence | MigTDError | None = None,
) -> Side:
    checks: list[Check] = []
    ours = SwappedPeerData(OLD_DATA, NEW_DATA) if old is not None else SwappedPeerData(NEW_DATA, OLD_DATA)
    context = RebindingContext(mode, CheckRunner(mode.rebinding_skips, checks.append), swapped or ours, old)
    return Side(RaTls().rebinding(context), evidence or Evidence(REPORT, LOG), checks)


def rebinding_pair(
    old: StrictV2 | None = None, new: StrictV2 | None = None, *, shown: TargetHistory = SHOWN
) -> ConnectionPair:
    return ConnectionPair(
        rebinding_side(old or StrictV2(), OldSide(shown, TOKEN)), rebinding_side(new or StrictV2(), None)
    )


def refusing(part: str, refusal: MigTDError) -> StrictV2:
    return StrictV2(refusal=refusal) if part == "refusal" else StrictV2(unbound=refusal)


def made(side: Side) -> list[str]:
    return [check.name.value for check in side.checks]


def error_of(side: Side) -> MigTDError:
    assert side.error is not None
    return side.error


# --- rebinding -----------------------------------------------------------------------------------------------------
def test_a_rebinding_carries_the_token_and_the_history_of_the_target():
    old, new = StrictV2(), StrictV2()
    pair = rebinding_pair(old, new).run()

    for side in (pair.source, pair.destination):
        assert side.error is None
        assert side.agreed is not None
        assert (side.agreed.token, side.agreed.servtd_ext) == (TOKEN, SERVTD_EXT)
        assert [event.phase for event in side.events if isinstance(event, PhaseEntered)] == [
            Phase.HANDSHAKE,
            Phase.EXCHANGE,
        ]
    assert made(pair.source) == REBINDING_CHECKS
    assert made(pair.destination) == [*REBINDING_CHECKS, "servtd-ext"]
    assert (old.roles, new.roles) == ([True], [False])


def test_each_judge_sees_what_the_peer_showed_and_sent_before():
    old, new = StrictV2(), StrictV2()
    rebinding_pair(old, new).run()

    [of_new], [of_old] = old.judged, new.judged
    assert (of_new.quote, of_new.event_log, of_new.peer_data) == (REPORT, LOG, NEW_DATA)
    assert (of_new.servtd_ext, of_new.initial_tdinfo) == (b"", b"")
    assert (of_old.quote, of_old.event_log, of_old.peer_data) == (REPORT, LOG, OLD_DATA)
    assert (of_old.servtd_ext, of_old.initial_tdinfo) == (SERVTD_EXT, TDINFO)
    assert of_new.report_data != of_old.report_data
    assert {len(each.report_data) for each in (of_new, of_old)} == {64}


def test_the_old_side_is_complete_only_when_the_stream_has_ended():
    pair = rebinding_pair()
    pair.source.start()
    pair.destination.start()
    while (to_new := pair.source.take()) or (to_old := pair.destination.take()):
        if to_new:
            pair.destination.receive(to_new)
        else:
            pair.source.receive(to_old)

    assert pair.destination.agreed is not None
    assert not pair.source.ended
    pair.source.receive(b"")
    assert pair.source.agreed is not None


def single_bytes(data: bytes) -> Iterator[bytes]:
    return (bytes([byte]) for byte in data)


def test_bytes_one_at_a_time_give_the_same_events():
    whole, cut = rebinding_pair().run(), rebinding_pair().run(single_bytes, single_bytes)

    for one, other in ((whole.source, cut.source), (whole.destination, cut.destination)):
        assert [type(event) for event in one.events] == [type(event) for event in other.events]
        assert made(one) == made(other)
        assert other.agreed == one.agreed


@pytest.mark.parametrize("refuser", ["source", "destination"])
@pytest.mark.parametrize("part", ["refusal", "unbound"])
def test_a_refusal_is_the_refusers_to_report_and_no_token_is_agreed_on(refuser: str, part: str):
    refusal = PolicyUnsatisfiedError(failures.RTMRS_DIFFER, "as a test wants it")
    modes = {refuser: refusing(part, refusal)}
    pair = rebinding_pair(modes.get("source"), modes.get("destination")).run()

    sides = {"source": pair.source, "destination": pair.destination}
    other = sides["destination" if refuser == "source" else "source"]
    assert sides[refuser].error is refusal
    assert isinstance(error_of(other), SecureSessionError)
    assert pair.source.agreed is None
    assert pair.destination.agreed is None


def test_a_policy_other_than_the_one_that_came_before_is_an_invalid_policy():
    destination = rebinding_side(StrictV2(), None, swapped=SwappedPeerData(NEW_DATA, OLD_DATA + b"!"))
    pair = ConnectionPair(rebinding_side(StrictV2(), OldSide(SHOWN, TOKEN)), destination).run()

    assert isinstance(error_of(destination), InvalidPolicyError)
    assert error_of(destination).kind is failures.PEER_DATA_MISMATCH
    assert made(destination)[-1] == "peer-data-hash"
    assert isinstance(error_of(pair.source), SecureSessionError)


def test_current_attributes_in_servtd_ext_are_refused_by_the_new_side():
    extended = replace(pull_servtd_ext(SERVTD_EXT), current_attr=1).push()
    pair = rebinding_pair(shown=TargetHistory(extended, TDINFO)).run()

    assert isinstance(error_of(pair.destination), InvalidParameter)
    assert error_of(pair.destination).kind is failures.SERVTD_ATTR
    assert isinstance(error_of(pair.source), SecureSessionError)


def test_a_servtd_ext_that_is_too_short_is_refused_by_the_new_side():
    pair = rebinding_pair(shown=TargetHistory(SERVTD_EXT[:271], TDINFO)).run()

    assert error_of(pair.destination).kind is failures.SERVTD_EXT_MALFORMED
    assert pair.source.agreed is None


@pytest.mark.parametrize("who", ["source", "destination"])
def test_a_side_without_evidence_reports_why_and_never_agrees(who: str):
    missing = InvalidParameter(failures.INTERNAL, "no TDREPORT today")
    source = rebinding_side(StrictV2(), OldSide(SHOWN, TOKEN), evidence=missing if who == "source" else None)
    destination = rebinding_side(StrictV2(), None, evidence=missing if who == "destination" else None)
    pair = ConnectionPair(source, destination).run()

    side, other = (source, destination) if who == "source" else (destination, source)
    assert side.error is missing
    assert other.error is not None
    assert pair.source.agreed is None
    assert pair.destination.agreed is None


def test_a_token_that_is_cut_short_is_a_network_error():
    source = rebinding_side(StrictV2(), OldSide(SHOWN, TOKEN[:31]))
    destination = rebinding_side(StrictV2(), None)
    ConnectionPair(source, destination).run()

    assert isinstance(error_of(destination), NetworkError)
    assert "31 of 32" in str(error_of(destination))


def test_a_new_side_that_speaks_after_the_handshake_is_refused():
    source, destination = rebinding_side(StrictV2(), OldSide(SHOWN, TOKEN)), rebinding_side(StrictV2(), None)
    session = destination.session
    assert isinstance(session, RaTlsCore)
    complete = session._complete

    def speak_and_complete(event: object) -> None:
        assert session._tls is not None
        session._tls.write(b"?")
        complete(event)  # type: ignore[arg-type] # whatever it is

    session._complete = speak_and_complete  # type: ignore[method-assign] # a peer that we do not have
    ConnectionPair(source, destination).run()

    assert error_of(source).kind is failures.TLS_PROTOCOL
    assert source.agreed is None


def test_an_end_of_the_stream_during_the_handshake_is_no_agreement():
    source = rebinding_side(StrictV2(), OldSide(SHOWN, TOKEN))
    source.start()
    source.receive(b"")

    assert isinstance(error_of(source), NetworkError)


def test_accept_all_looks_at_nothing_but_the_history_that_it_needs():
    mode = AcceptAllV2(b"unused", lambda _: REPORT, lambda: LOG)
    source, destination = rebinding_side(mode, OldSide(SHOWN, TOKEN)), rebinding_side(mode, None)
    ConnectionPair(source, destination).run()

    assert destination.agreed is not None
    assert destination.agreed.servtd_ext == SERVTD_EXT
    skipped = {check.name for check in destination.checks if check.status is CheckStatus.SKIPPED}
    assert skipped == set(REBINDING_SKIPS)
    assert [check.name.value for check in source.checks if check.status is CheckStatus.PASSED] == ["tls-parameters"]
    assert [check.name.value for check in destination.checks if check.status is CheckStatus.PASSED] == [
        "tls-parameters",
        "servtd-ext",
    ]


def test_a_new_side_that_never_ends_the_stream_runs_the_old_one_into_its_deadline():
    async def main() -> None:
        here, there = ScriptedServices(), ScriptedServices()
        here.connect(there, 1)
        mode = AcceptAllV2(b"unused", lambda _: REPORT, lambda: LOG)

        def drive(services: ScriptedServices, old: OldSide | None) -> Coroutine[None, None, RebindingAgreed]:
            session, deadlines = rebinding_side(mode, old).session, Deadlines()
            return run_rebinding_session(session, services, 1, mode=mode, deadlines=deadlines, on_phase=lambda _: None)

        new = asyncio.create_task(drive(there, None))
        with pytest.raises(NetworkError) as ended:
            await drive(here, OldSide(SHOWN, TOKEN))
        assert ended.value.kind is failures.DEADLINE_SESSION
        assert (await new).token == TOKEN

    run_in_virtual_time(main())


# --- certificates --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shown", "numbers"),
    [pytest.param(SHOWN, "35467", id="old"), pytest.param(None, "354", id="new")],
)
def test_extensions_of_a_rebinding_stand_in_order_with_raw_values(shown: TargetHistory | None, numbers: str):
    extensions = rebinding_extensions(Evidence(REPORT, LOG), OLD_DATA, shown)
    der = make_certificate(ec.generate_private_key(ec.SECP384R1()), extensions)
    values = {"3": LOG, "5": REPORT, "4": hashlib.sha384(OLD_DATA).digest(), "6": SERVTD_EXT, "7": TDINFO}

    found = [
        (extension.oid.dotted_string, extension.value.value, extension.critical)
        for extension in x509.load_der_x509_certificate(der).extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    ]
    assert found == [(PRIVATE + number, values[number], False) for number in numbers]
    assert pull_certificate(der).extended_key_usage[-1] == OID_EKU_MIGTD


@pytest.mark.parametrize("missing", "3546" + "7")
def test_a_certificate_that_lacks_a_part_is_refused_by_the_new_side(missing: str):
    pair = rebinding_pair()
    session = pair.source.session
    assert isinstance(session, RaTlsCore)
    take = session._take_evidence

    def incomplete(evidence: Evidence) -> list[PrivateExtension]:
        return [each for each in take(evidence) if each[0] != PRIVATE + missing]

    session._take_evidence = incomplete  # type: ignore[method-assign] # an old MigTD that we do not have
    pair.run()

    assert error_of(pair.destination).kind is failures.CERTIFICATE_NO_EVIDENCE
    assert made(pair.destination)[-1] == "evidence-present"
    assert pair.source.agreed is None


def test_report_data_is_the_hash_of_the_key_in_the_certificate():
    key = ec.generate_private_key(ec.SECP384R1())
    point = pull_certificate(make_certificate(key, ())).public_point
    assert report_data(point) == hashlib.sha384(point).digest() + bytes(16)


# --- migration with policy v2 --------------------------------------------------------------------------------------
INFORMATION = ExchangeInformation(bytes(range(32)), 1, 2)
MIGRATION_CHECKS = [
    "tls-parameters",
    "certificate",
    "certificate-eku",
    "evidence-present",
    "peer-data-hash",
    "quote-peer",
    "reportdata",
    "certificate-signature",
    "exchange-information",
]


def migration_pair(
    source: StrictV2 | AcceptAll, destination: StrictV2 | AcceptAll, came: Callable[[bytes], bytes] = lambda blob: blob
) -> ConnectionPair:
    def side(mode: StrictV2 | AcceptAll, *, is_source: bool) -> Side:
        checks: list[Check] = []
        local, remote = (OLD_DATA, NEW_DATA) if is_source else (NEW_DATA, came(OLD_DATA))
        runner = CheckRunner(mode.skips, checks.append)
        swapped = SwappedPeerData(local, remote)
        context = SessionContext(is_source, INFORMATION, mode, runner, swapped)
        return Side(RaTls()(context), Evidence(b"a quote", LOG), checks)

    return ConnectionPair(side(source, is_source=True), side(destination, is_source=False))


def test_a_migration_with_policy_v2_binds_the_policies_and_judges_the_key_last():
    source, destination = StrictV2(), StrictV2()
    pair = migration_pair(source, destination).run()

    assert pair.source.information == pair.destination.information == INFORMATION
    assert made(pair.source) == made(pair.destination) == MIGRATION_CHECKS
    [of_source] = destination.judged
    assert (of_source.quote, of_source.event_log, of_source.peer_data) == (b"a quote", LOG, OLD_DATA)
    assert (source.roles, destination.roles) == ([True], [False])


def test_a_policy_that_was_changed_on_its_way_is_refused_before_anything_is_judged():
    destination = StrictV2()
    pair = migration_pair(StrictV2(), destination, lambda blob: blob[:-1] + b"!").run()

    assert error_of(pair.destination).kind is failures.PEER_DATA_MISMATCH
    assert destination.judged == []
    assert isinstance(error_of(pair.source), SecureSessionError)
    assert pair.source.information is None


@pytest.mark.parametrize("part", ["refusal", "unbound"])
def test_a_judge_of_policy_v2_refuses_a_migration(part: str):
    refusal = PolicyUnsatisfiedError(failures.RTMRS_DIFFER, "as a test wants it")
    pair = migration_pair(StrictV2(), refusing(part, refusal)).run()

    assert pair.destination.error is refusal
    assert pair.source.information is None


def test_accept_all_with_policy_v2_skips_the_hash_by_name():
    mode = AcceptAll(lambda: LOG, AcceptAllV2(OLD_DATA, lambda _: REPORT, lambda: LOG))
    pair = migration_pair(mode, mode, lambda _: b"whatever").run()

    assert pair.source.information == pair.destination.information == INFORMATION
    skipped: Iterable[CheckName] = (c.name for c in pair.source.checks if c.status is CheckStatus.SKIPPED)
    assert set(skipped) == set(mode.skips)
