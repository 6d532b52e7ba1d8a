# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Two SPDM sessions with each other: what they agree on, in which order they check, and who learns what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

from migtd import failures as migtd_failures
from migtd.attestation.accept_all_v2 import AcceptAllV2
from migtd.attestation.mode import Evidence, PeerEvidence, PolicyV2Mode
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.errors import (
    InvalidPolicyError,
    MigrationResult,
    MigTDError,
    MutualAttestationError,
    PolicyUnsatisfiedError,
    SecureSessionError,
    TdxModuleError,
)
from migtd.migration.session import (
    EvidenceNeeded,
    OldSide,
    PeerInformation,
    PhaseEntered,
    RebindingAgreed,
    RebindingContext,
    SessionContext,
    SessionFactory,
    SwappedPeerData,
    TargetHistory,
)
from migtd.observer import Phase
from migtd.spdm import failures
from migtd.spdm.core import MAX_EARLY, SessionMaterial, SpdmEndpoint, fresh_material
from migtd.spdm.framing import BodyType, push_frame
from migtd.spdm.rebinding import make_rebinding
from migtd.spdm.requester import RequesterState
from migtd.spdm.responder import ResponderState
from migtd.spdm.session import Spdm
from migtd.spdm.testing import KNOWN_REQUESTER, KNOWN_RESPONDER, Body, SpdmSide, bodies, converse, known_material
from migtd.spdm.vendor_messages import Mode, pull_evidence_request, pull_evidence_response
from tests.unit.spdm_pairs import (
    ACCEPT_ALL,
    DESTINATION,
    DESTINATION_EVIDENCE,
    SOURCE,
    SOURCE_EVIDENCE,
    End,
    at_requester,
    at_responder,
    make_end,
    make_ends,
)

V1_CHECKS = [
    CheckName.QUOTE_LOCAL,
    CheckName.EVIDENCE_PRESENT,
    CheckName.QUOTE_PEER,
    CheckName.REPORTDATA,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
    CheckName.EXCHANGE_INFORMATION,
]
V2_CHECKS = [
    CheckName.EVIDENCE_PRESENT,
    CheckName.PEER_DATA_HASH,
    CheckName.QUOTE_LOCAL,
    CheckName.QUOTE_PEER,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
    CheckName.REPORTDATA,
    CheckName.EXCHANGE_INFORMATION,
]
HISTORY = TargetHistory(bytes(range(160)) + bytes(112), bytes(range(256)) * 2)
PEER_DATA = {
    True: SwappedPeerData(b"source's", b"destination's"),
    False: SwappedPeerData(b"destination's", b"source's"),
}


class StrictMode:
    """Makes every check of policy v1 and v2; `failing` fails with `error`. Keeps the evidence that it judged."""

    name = "strict"
    peer_data = b""

    def __init__(self, failing: CheckName | None = None, error: MigTDError | None = None) -> None:
        self.skips: dict[CheckName, str] = {}
        self.rebinding_skips: dict[CheckName, str] = {}
        self.seen: list[PeerEvidence] = []
        self._failing = failing
        self._error = error

    @property
    def v2(self) -> PolicyV2Mode:
        return self

    async def local_evidence(self, report_data: bytes) -> Evidence:
        return Evidence(report_data, b"\0")

    local_report = local_evidence

    def check_initial_tdinfo(self, tdinfo: bytes) -> None:
        raise NotImplementedError

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> StrictJudge:  # noqa: ARG002 - the seam's shape
        return StrictJudge(self, checks)

    def judge_migration(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> StrictJudge:  # noqa: ARG002 - as above
        return StrictJudge(self, checks)

    def judge_rebinding(self, local: Evidence, *, is_old: bool, checks: CheckRunner) -> StrictJudge:  # noqa: ARG002 - as above
        return StrictJudge(self, checks)

    def make(self, checks: CheckRunner, *names: CheckName) -> None:
        for name in names:
            checks.run(name, lambda name=name: self._check(name))  # type: ignore[misc]

    def _check(self, name: CheckName) -> None:
        if name is self._failing and self._error is not None:
            raise self._error


class StrictJudge:
    def __init__(self, mode: StrictMode, checks: CheckRunner) -> None:
        self._mode = mode
        self._checks = checks

    def verify_local(self) -> None:
        self._mode.make(self._checks, CheckName.QUOTE_LOCAL)

    def verify_quote(self, peer: PeerEvidence) -> None:
        self._mode.seen.append(peer)
        self._mode.make(self._checks, CheckName.QUOTE_PEER, CheckName.REPORTDATA)

    def evaluate_policy(self) -> None:
        self._mode.make(self._checks, CheckName.EVENT_LOG_REPLAY, CheckName.RTMRS_EQUAL, CheckName.POLICY)

    def evaluate(self, peer: PeerEvidence) -> None:
        self._mode.seen.append(peer)
        self._mode.make(self._checks, CheckName.QUOTE_LOCAL, CheckName.QUOTE_PEER)
        self.evaluate_policy()

    def verify_report_data(self) -> None:
        self._mode.make(self._checks, CheckName.REPORTDATA)


def names(end: End) -> list[CheckName]:
    return [check.name for check in end.checks]


def kinds(side: SpdmSide) -> list[object]:
    return [event.phase if isinstance(event, PhaseEntered) else type(event) for event in side.events]


def needed(end: End) -> bytes:
    return next(event.report_data for event in end.side.events if isinstance(event, EvidenceNeeded))


def judged_pair(version: int, source: StrictMode, destination: StrictMode) -> tuple[End, End]:
    return tuple(  # type: ignore[return-value]
        make_end(
            is_source=is_source,
            mode=mode,
            peer_data=PEER_DATA[is_source] if version == 2 else None,
            history=HISTORY,
        )
        for is_source, mode in ((True, source), (False, destination))
    )


def test_both_sides_get_what_the_other_sent_and_write_it_once() -> None:
    source, destination = make_ends()
    converse(source.side, destination.side)
    for end, peer in ((source, DESTINATION), (destination, SOURCE)):
        assert end.side.error is None
        assert kinds(end.side) == [Phase.HANDSHAKE, EvidenceNeeded, Phase.EXCHANGE, PeerInformation]
        assert end.side.end == PeerInformation(peer)
        assert end.committed.keys == [peer]
        assert len(end.side.sent) == 9


def test_every_session_has_keys_and_a_binding_of_its_own() -> None:
    factory: SessionFactory = Spdm(lambda size: b"r" * size)
    assert factory.name == "spdm"
    seen = set()
    for _ in range(3):
        sides = []
        for is_source in (True, False):
            context = SessionContext(
                is_source, SOURCE if is_source else DESTINATION, ACCEPT_ALL, CheckRunner(ACCEPT_ALL.skips, print)
            )
            sides.append(SpdmSide(factory(context), SOURCE_EVIDENCE).start())
        converse(sides[0], sides[1])
        assert [side.end for side in sides] == [PeerInformation(DESTINATION), PeerInformation(SOURCE)]
        seen |= {event.report_data for side in sides for event in side.events if isinstance(event, EvidenceNeeded)}
    assert len(seen) == 6
    assert all(len(each) == 64 and each.endswith(bytes(16)) for each in seen)


def test_fresh_material_takes_its_random_bytes_from_its_caller() -> None:
    material = fresh_material(lambda size: bytes(range(size)))
    assert material.random == bytes(range(32))
    assert material.signer.key != material.ephemeral


@pytest.mark.parametrize(("version", "expected"), [(1, V1_CHECKS), (2, V2_CHECKS)])
def test_checks_are_made_in_the_order_of_the_policy(version: int, expected: list[CheckName]) -> None:
    modes = StrictMode(), StrictMode()
    source, destination = judged_pair(version, *modes)
    converse(source.side, destination.side)
    for end in (source, destination):
        assert end.side.error is None
        assert names(end) == expected
        assert {check.status for check in end.checks} == {CheckStatus.PASSED}
    by_source, by_destination = modes[0].seen[0], modes[1].seen[0]
    assert (by_source.quote, by_source.event_log) == (DESTINATION_EVIDENCE.quote, DESTINATION_EVIDENCE.event_log)
    assert (by_destination.quote, by_destination.event_log) == (SOURCE_EVIDENCE.quote, SOURCE_EVIDENCE.event_log)
    # Each side expects what the other one was asked for, and never its own.
    assert by_source.report_data == needed(destination)
    assert by_destination.report_data == needed(source)
    assert by_source.report_data != by_destination.report_data
    assert (by_destination.servtd_ext, by_destination.initial_tdinfo) == (HISTORY.servtd_ext, HISTORY.initial_tdinfo)
    assert (by_source.servtd_ext, by_source.initial_tdinfo) == (b"", b"")
    assert by_source.peer_data == (b"destination's" if version == 2 else b"")
    assert destination.committed.servtd_ext == [HISTORY.servtd_ext]


def test_accept_all_skips_what_it_cannot_check_and_says_so() -> None:
    source, destination = make_ends()
    converse(source.side, destination.side)
    for end in (source, destination):
        assert names(end) == V1_CHECKS
        passed = [check.name for check in end.checks if check.status is CheckStatus.PASSED]
        assert passed == [CheckName.EVIDENCE_PRESENT, CheckName.EXCHANGE_INFORMATION]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        (CheckName.QUOTE_LOCAL, MutualAttestationError(migtd_failures.GET_QUOTE_REFUSED)),
        (CheckName.QUOTE_PEER, MutualAttestationError(migtd_failures.GET_QUOTE_REFUSED)),
        (CheckName.REPORTDATA, MutualAttestationError(migtd_failures.REPORTDATA_MISMATCH)),
        (CheckName.POLICY, PolicyUnsatisfiedError(migtd_failures.RTMRS_DIFFER)),
        (CheckName.POLICY, InvalidPolicyError(migtd_failures.POLICY_TOO_LARGE)),
    ],
)
@pytest.mark.parametrize("at_source", [True, False])
def test_who_refuses_says_why_and_nobody_writes_a_key(
    version: int,
    name: CheckName,
    error: MigTDError,
    at_source: bool,  # noqa: FBT001
) -> None:
    refusing, believing = StrictMode(name, error), StrictMode()
    source, destination = judged_pair(version, *((refusing, believing) if at_source else (believing, refusing)))
    converse(source.side, destination.side)
    judge, peer = (source, destination) if at_source else (destination, source)
    assert judge.side.error is error
    assert peer.side.error is not None
    # A destination can say why; a source leaves, and its peer sees the end of the stream.
    assert peer.side.error.result is (MigrationResult.SecureSessionError if at_source else error.result)
    assert source.committed.keys == destination.committed.keys == []
    assert Phase.EXCHANGE not in kinds(judge.side)
    assert judge.checks[-1].name is name
    assert judge.checks[-1].status is CheckStatus.FAILED


@pytest.mark.parametrize("version", [1, 2])
def test_evidence_of_another_session_is_an_attestation_failure_and_other_refusals_stay(version: int) -> None:
    for kind, result in ((migtd_failures.REPORTDATA_MISMATCH, 7), (migtd_failures.INTERNAL, 6)):
        refusing = StrictMode(CheckName.REPORTDATA, SecureSessionError(kind))
        source, destination = judged_pair(version, StrictMode(), refusing)
        converse(source.side, destination.side)
        for end in (source, destination):
            assert end.side.error is not None
            assert end.side.error.result == result


@pytest.mark.parametrize("at_source", [True, False])
def test_another_policy_than_the_one_that_came_before_is_refused(at_source: bool) -> None:  # noqa: FBT001
    swapped = {**PEER_DATA, at_source: SwappedPeerData(PEER_DATA[at_source].local, b"another")}
    source, destination = (
        make_end(is_source=is_source, mode=StrictMode(), peer_data=swapped[is_source]) for is_source in (True, False)
    )
    converse(source.side, destination.side)
    judge = source if at_source else destination
    assert isinstance(judge.side.error, InvalidPolicyError)
    assert judge.side.error.kind is migtd_failures.PEER_DATA_MISMATCH
    assert names(judge) == [CheckName.EVIDENCE_PRESENT, CheckName.PEER_DATA_HASH]
    if not at_source:
        assert source.side.error is not None
        assert source.side.error.result is MigrationResult.InvalidPolicyError


def test_the_policy_element_is_the_hash_of_the_policy_or_of_the_blob() -> None:
    for peer_data, expected in ((None, (b"pol", b"pol")), (PEER_DATA, (b"source's", b"destination's"))):
        source, destination = (
            make_end(is_source=each, mode=StrictMode(), peer_data=peer_data[each] if peer_data else None)
            for each in (True, False)
        )
        converse(source.side, destination.side)
        request = pull_evidence_request(source.side.sent[5][1], Mode.MIGRATION)
        response = pull_evidence_response(destination.side.sent[5][1], Mode.MIGRATION)
        assert request.policy_hash == hashlib.sha384(expected[0]).digest()
        assert response.policy_hash == hashlib.sha384(expected[1]).digest()


def test_with_policy_v1_nobody_looks_at_the_policy_element() -> None:
    source = make_end(is_source=True, mode=StrictMode(), policy=b"another")
    destination = make_end(is_source=False, mode=StrictMode())
    converse(source.side, destination.side)
    assert source.side.error is None
    assert destination.side.error is None


@pytest.mark.parametrize("evidence", [Evidence(b"", b"e"), Evidence(b"q", b"")])
@pytest.mark.parametrize("at_source", [True, False])
def test_empty_evidence_is_refused(evidence: Evidence, at_source: bool) -> None:  # noqa: FBT001
    source = make_end(is_source=True, evidence=evidence if at_source else None)
    destination = make_end(is_source=False, evidence=None if at_source else evidence)
    converse(source.side, destination.side)
    judge = destination if at_source else source
    assert judge.side.error is not None
    assert judge.side.error.kind is failures.SPDM_VENDOR
    assert names(judge)[-1] is CheckName.EVIDENCE_PRESENT


@pytest.mark.parametrize("is_source", [True, False])
def test_missing_evidence_fails_the_check_of_the_own_quote(is_source: bool) -> None:  # noqa: FBT001
    error = TdxModuleError(migtd_failures.TDCALL_FAILED)
    end = make_end(is_source=is_source, mode=StrictMode(), evidence=error)
    other = make_end(is_source=not is_source)
    source, destination = (end, other) if is_source else (other, end)
    converse(source.side, destination.side)
    assert end.side.error is error
    assert [(check.name, check.status) for check in end.checks] == [(CheckName.QUOTE_LOCAL, CheckStatus.FAILED)]
    assert other.side.error is not None
    assert other.side.error.result is (MigrationResult.SecureSessionError if is_source else error.result)


def overhead(elements: int) -> int:
    return 13 + 4 + 6 * elements


@pytest.mark.parametrize(
    ("request_size", "response_size", "requests", "responses"),
    [
        (4032, 4032, 9, 9),
        (4032, 4033, 11, 11),
        (4033, 4026, 10, 10),
        (4033, 4027, 12, 12),
        (4033, 4032, 12, 12),
        (4033, 4033, 12, 12),
        (8036, 8036, 12, 12),
        (8037, 8037, 14, 14),
        (65_536, 65_536, 42, 42),
    ],
)
def test_messages_of_every_size_cross(request_size: int, response_size: int, requests: int, responses: int) -> None:
    logs = request_size - overhead(5) - 48 - 272 - 512 - 822, response_size - overhead(3) - 48 - 822
    source = make_end(is_source=True, evidence=Evidence(b"Q" * 822, b"E" * logs[0]))
    destination = make_end(is_source=False, evidence=Evidence(b"q" * 822, b"e" * logs[1]))
    converse(source.side, destination.side)
    assert source.side.error is None
    assert destination.side.error is None
    assert (len(source.side.sent), len(destination.side.sent)) == (requests, responses)
    assert max(len(body) for _, body in source.side.sent + destination.side.sent) <= 4032
    assert source.committed.keys == [DESTINATION]


def test_a_peer_that_goes_on_while_evidence_is_made_is_kept_waiting_up_to_a_limit() -> None:
    source, destination = make_ends()
    kind, request = at_responder(ResponderState.HANDSHAKE, source, destination)
    session = destination.side.session
    session.receive_data(push_frame(kind, request))
    assert isinstance(session.next_event(), EvidenceNeeded)
    finish = push_frame(BodyType.PLAIN, bytes.fromhex("12e501ff") + bytes(144))
    session.receive_data(finish)
    assert session.data_to_send() == b""
    with pytest.raises(MigTDError) as refusal:
        session.provide_evidence(DESTINATION_EVIDENCE)
    # The evidence was answered, then FINISH judged.
    assert refusal.value.kind is failures.SPDM_SIGNATURE
    answers = bodies(session.data_to_send())
    assert [answer[1] for _, answer in answers] == [0x7E, 0x7F]

    source, destination = make_ends()
    kind, request = at_responder(ResponderState.HANDSHAKE, source, destination)
    session = destination.side.session
    session.receive_data(push_frame(kind, request))
    session.receive_data(bytes(MAX_EARLY))
    with pytest.raises(MigTDError) as refusal:
        session.receive_data(b"\0")
    assert refusal.value.kind is failures.SPDM_EARLY


def test_evidence_is_taken_once_and_only_when_asked_for() -> None:
    for end in make_ends():
        with pytest.raises(RuntimeError):
            end.side.session.provide_evidence(SOURCE_EVIDENCE)
    source, destination = make_ends()
    at_requester(RequesterState.EVIDENCE, source, destination)
    with pytest.raises(RuntimeError):
        source.side.session.provide_evidence(SOURCE_EVIDENCE)


def test_a_reflected_session_fails() -> None:
    """A source that talks to itself, as a responder with its own keys, still shows evidence of the wrong role."""
    modes = StrictMode(), StrictMode()
    source = make_end(is_source=True, mode=modes[0])
    destination = make_end(is_source=False, mode=modes[1], material=KNOWN_REQUESTER)
    converse(source.side, destination.side)
    assert modes[0].seen[0].report_data != needed(source)
    echo = make_end(is_source=True)
    echo.side.receive(echo.side.take())
    assert echo.side.error is not None
    assert echo.side.error.kind is failures.SPDM_UNEXPECTED


def rebinding_ends(
    modes: tuple[PolicyV2Mode, PolicyV2Mode],
    errors: tuple[MigTDError | None, MigTDError | None] = (None, None),
    history: TargetHistory = HISTORY,
    remote: bytes = b"source's",
) -> tuple[list[SpdmSide], list[list[Check]], list[list[RebindingAgreed]]]:
    sides, checks, agreed = [], [], []
    materials: list[SessionMaterial] = [KNOWN_REQUESTER, KNOWN_RESPONDER]
    for is_old, mode, material, error in zip((True, False), modes, materials, errors, strict=True):
        made: list[Check] = []
        taken: list[RebindingAgreed] = []

        def commit(agreement: RebindingAgreed, taken: Any = taken, error: Any = error) -> None:
            if error is not None:
                raise error
            taken.append(agreement)

        old = OldSide(history, bytes(range(32))) if is_old else None
        swapped = PEER_DATA[True] if is_old else SwappedPeerData(b"destination's", remote)
        context = RebindingContext(mode, CheckRunner(mode.rebinding_skips, made.append), swapped, old)
        session = make_rebinding(context, material, commit)
        sides.append(SpdmSide(session, Evidence(b"r" * 1024, b"log\0")).start())
        checks.append(made)
        agreed.append(taken)
    return sides, checks, agreed


def test_a_rebinding_hands_the_token_over_and_both_sides_act_on_it() -> None:
    modes = StrictMode(), StrictMode()
    sides, _, agreed = rebinding_ends(modes)
    converse(sides[0], sides[1])
    assert [side.error for side in sides] == [None, None]
    expected = RebindingAgreed(bytes(range(32)), HISTORY.servtd_ext)
    assert agreed == [[expected], [expected]]
    assert [side.end for side in sides] == [expected, expected]
    assert [len(body) for _, body in sides[0].sent][-3:] == [148, 87, 36]
    assert [len(body) for _, body in sides[1].sent][-3:] == [52, 49, 36]
    assert modes[1].seen[0].initial_tdinfo == HISTORY.initial_tdinfo
    assert modes[1].seen[0].peer_data == b"source's"


def test_accept_all_rebinds_and_says_what_it_did_not_look_at() -> None:
    mode = AcceptAllV2(b"blob", lambda _: bytes(1024), lambda: b"log\0")
    sides, checks, agreed = rebinding_ends((mode, mode))
    converse(sides[0], sides[1])
    assert [len(each) for each in agreed] == [1, 1]
    assert {check.status for check in checks[0]} == {CheckStatus.SKIPPED}
    assert [check.name for check in checks[1] if check.status is CheckStatus.PASSED] == [CheckName.SERVTD_EXT]


def test_a_token_that_cannot_be_written_is_told_to_the_old_side() -> None:
    error = TdxModuleError(migtd_failures.TDCALL_FAILED)
    sides, _, agreed = rebinding_ends((StrictMode(), StrictMode()), (None, error))
    converse(sides[0], sides[1])
    assert agreed == [[], []]
    assert sides[1].error is error
    assert sides[0].error is not None
    assert sides[0].error.result is MigrationResult.TdxModuleError


def test_another_policy_is_refused_in_a_rebinding_too() -> None:
    sides, checks, agreed = rebinding_ends((StrictMode(), StrictMode()), remote=b"another")
    converse(sides[0], sides[1])
    assert isinstance(sides[1].error, InvalidPolicyError)
    assert [check.name for check in checks[1]] == [CheckName.PEER_DATA_HASH]
    assert agreed == [[], []]


def test_a_rebinding_of_a_target_td_with_attributes_is_refused() -> None:
    shown = TargetHistory(bytes(160) + b"\1" + bytes(111), bytes(512))
    sides, checks, agreed = rebinding_ends((StrictMode(), StrictMode()), history=shown)
    converse(sides[0], sides[1])
    assert sides[1].error is not None
    assert sides[1].error.kind is migtd_failures.SERVTD_ATTR
    assert (checks[1][-1].name, checks[1][-1].status) == (CheckName.SERVTD_EXT, CheckStatus.FAILED)
    assert agreed == [[], []]


def test_secrets_are_wiped_when_they_are_no_longer_needed() -> None:
    for state in (ResponderState.ATTESTED, ResponderState.ESTABLISHED):
        source, destination = make_ends()
        at_responder(state, source, destination)
        sessions = [end.side.session for end in (source, destination)]
        assert all(isinstance(session, SpdmEndpoint) for session in sessions)
        kept = [session._agreement.handshake.handshake for session in sessions]  # type: ignore[attr-defined]
        if state is ResponderState.ATTESTED:
            assert bytes(48) not in kept
            for end in (source, destination):
                end.side.receive(b"")
        assert kept == [bytes(48), bytes(48)]


def test_a_rebinding_and_a_migration_do_not_understand_each_other() -> None:
    old, _ = rebinding_ends((StrictMode(), StrictMode()))[0]
    destination = make_end(is_source=False)
    converse(old, destination.side)
    assert destination.side.error is not None
    assert destination.side.error.kind is failures.SPDM_VENDOR
    assert destination.committed.keys == []
    assert old.error is not None
    assert old.error.result is MigrationResult.SecureSessionError


def test_no_secret_shows_in_what_a_session_tells() -> None:
    source, destination = make_ends()
    converse(source.side, destination.side)
    shown = repr([*source.side.events, *destination.side.events, source.checks, destination.checks])
    for secret in (SOURCE.msk, DESTINATION.msk):
        assert secret.hex() not in shown
        assert repr(secret)[2:20] not in shown


def test_another_key_after_key_exchange_is_not_taken() -> None:
    """The reference takes it and verifies FINISH with it."""
    source, destination = make_ends()
    first = at_responder(ResponderState.NEGOTIATED, source, destination)
    destination.side.receive(push_frame(*first))
    source.side.receive(destination.side.take())
    destination.side.receive(source.side.take())
    stranger = make_end(is_source=True, material=known_material(0x9999, 0x8888, bytes(32)))
    again = at_responder(ResponderState.NEGOTIATED, stranger, make_end(is_source=False))
    destination.side.receive(push_frame(*again))
    assert destination.side.error is not None
    assert destination.side.error.kind is failures.SPDM_VENDOR


def test_duplicated_requests_and_responses_end_the_session() -> None:
    def twice_at(wanted: int) -> Any:
        def change(number: int, kind: BodyType, body: bytes) -> Iterable[Body]:
            return ((kind, body),) * (2 if number == wanted else 1)

        return change

    for number in range(9):
        source, destination = make_ends()
        converse(source.side, destination.side, to_responder=twice_at(number))
        last = number == 8
        assert (destination.side.error is None) == last
        assert (source.side.error is None) == last
