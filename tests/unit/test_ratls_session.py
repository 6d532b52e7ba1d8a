# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Two RA-TLS sessions with each other: what they agree on, in which order they check, and who learns what."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from migtd import failures
from migtd.attestation.accept_all import QUOTE, SKIPS, AcceptAll
from migtd.attestation.mode import AttestationMode, Evidence, PeerEvidence
from migtd.checks import ON_REQUEST, Check, CheckName, CheckRunner, CheckStatus
from migtd.errors import (
    InvalidParameter,
    MigTDError,
    MutualAttestationError,
    NetworkError,
    PolicyUnsatisfiedError,
    SecureSessionError,
)
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import EvidenceNeeded, PeerInformation, PhaseEntered, SessionFactory
from migtd.observer import Phase
from migtd.ratls import tls as tls_module
from migtd.ratls.core import MAX_EARLY
from migtd.ratls.reader import MAX_CERTIFICATE
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Side, make_side
from migtd.ratls.tls import Negotiated, TlsEndpoint

SOURCE = ExchangeInformation(bytes(range(32)), 1, 2)
DESTINATION = ExchangeInformation(bytes(range(100, 132)), 0, 3)
EVIDENCE = Evidence(QUOTE, b"source log\0")
OWN_CHECKS: list[CheckName] = [
    name for name in CheckName if name not in (*ON_REQUEST, CheckName.SERVTD_ATTR, CheckName.VERSIONS)
]
RATLS: SessionFactory = RaTls()
ACCEPT_ALL: AttestationMode = AcceptAll(lambda: b"log\0")


class StrictMode:
    """Makes every check; `failing` fails with `error`. Keeps the evidence that it judged."""

    name = "strict"
    v2 = None

    def __init__(self, failing: CheckName | None = None, error: MigTDError | None = None) -> None:
        self.skips: dict[CheckName, str] = {}
        self.seen: list[PeerEvidence] = []
        self._failing = failing
        self._error = error

    async def local_evidence(self, report_data: bytes) -> Evidence:
        return Evidence(report_data, b"\0")

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> StrictJudge:  # noqa: ARG002 - the seam's shape
        assert local.quote
        return StrictJudge(self, checks)

    def _make(self, checks: CheckRunner, *names: CheckName) -> None:
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
        self._mode._make(self._checks, CheckName.QUOTE_LOCAL)

    def verify_quote(self, peer: PeerEvidence) -> None:
        self._mode.seen.append(peer)
        self._mode._make(self._checks, CheckName.QUOTE_PEER, CheckName.REPORTDATA)

    def evaluate_policy(self) -> None:
        self._mode._make(self._checks, CheckName.EVENT_LOG_REPLAY, CheckName.RTMRS_EQUAL, CheckName.POLICY)


def pair(
    source_mode: AttestationMode = ACCEPT_ALL,
    destination_mode: AttestationMode = ACCEPT_ALL,
    source: Evidence | MigTDError = EVIDENCE,
    destination: Evidence | MigTDError = EVIDENCE,
) -> ConnectionPair:
    return ConnectionPair(
        make_side(RATLS, source_mode, source, SOURCE, is_source=True),
        make_side(RATLS, destination_mode, destination, DESTINATION, is_source=False),
    )


def names(checks: list[Check]) -> list[CheckName]:
    return [check.name for check in checks]


def kinds(side: Side) -> list[object]:
    return [event.phase if isinstance(event, PhaseEntered) else type(event) for event in side.events]


def assert_refused_by_peer(side: Side) -> None:
    assert isinstance(side.error, SecureSessionError)
    assert side.error.kind is failures.TLS_ALERT


def test_both_sides_get_what_the_other_sent() -> None:
    done = pair().run()
    assert done.source.error is None
    assert done.destination.error is None
    assert done.source.information == DESTINATION
    assert done.destination.information == SOURCE
    for side in (done.source, done.destination):
        assert kinds(side) == [EvidenceNeeded, Phase.HANDSHAKE, Phase.EXCHANGE, PeerInformation]


def test_every_session_has_a_key_of_its_own() -> None:
    sides = [make_side(RATLS, ACCEPT_ALL, EVIDENCE, SOURCE, is_source=True) for _ in range(3)]
    requests = [side.session.next_event() for side in sides]
    assert all(isinstance(request, EvidenceNeeded) and len(request.report_data) == 64 for request in requests)
    assert len(set(requests)) == 3


def test_accept_all_names_every_check_once_and_says_why_it_skips() -> None:
    done = pair().run()
    for side in (done.source, done.destination):
        assert names(side.checks) == OWN_CHECKS
        passed = [check.name.value for check in side.checks if check.status is CheckStatus.PASSED]
        assert passed == [
            "tls-parameters",
            "certificate",
            "certificate-eku",
            "evidence-present",
            "exchange-information",
        ]
        skipped = {check.name: check.detail for check in side.checks if check.status is CheckStatus.SKIPPED}
        assert skipped == dict(SKIPS)


async def test_accept_all_shows_822_zero_bytes_and_the_log_it_was_given() -> None:
    mode = AcceptAll(lambda: b"measured\0")
    assert mode.name == "accept-all"
    assert await mode.local_evidence(bytes(64)) == Evidence(bytes(822), b"measured\0")


def test_accept_all_accepts_nothing_for_a_session_that_does_not_skip() -> None:
    checks: list[Check] = []
    judge = ACCEPT_ALL.judge(EVIDENCE, is_source=True, checks=CheckRunner({}, checks.append))
    peer = PeerEvidence(b"", b"", b"")
    for step in (judge.verify_local, lambda: judge.verify_quote(peer), judge.evaluate_policy):
        with pytest.raises(MutualAttestationError):
            step()
    assert [check.status for check in checks] == [CheckStatus.FAILED] * 3


def test_a_mode_that_skips_nothing_makes_every_check_in_the_order_of_the_specification() -> None:
    done = pair(StrictMode(), StrictMode()).run()
    for side in (done.source, done.destination):
        assert side.information
        assert names(side.checks) == OWN_CHECKS
        assert {check.status for check in side.checks} == {CheckStatus.PASSED}


def test_a_mode_is_given_the_evidence_of_the_peer_and_the_report_data_of_its_key() -> None:
    mode = StrictMode()
    other = Evidence(b"quote of the destination", bytes(range(256)) * 256)
    done = pair(source_mode=mode, destination=other).run()
    needed = done.destination.events[0]
    assert isinstance(needed, EvidenceNeeded)
    assert mode.seen == [PeerEvidence(other.quote, other.event_log, needed.report_data)]


@pytest.mark.parametrize("refuser", ["source", "destination"])
@pytest.mark.parametrize(
    "failing", [name for name in SKIPS if name is not CheckName.CERTIFICATE_SIGNATURE], ids=lambda name: name.value
)
def test_the_refusing_side_says_why_and_the_other_learns_only_that(refuser: str, failing: CheckName) -> None:
    error = PolicyUnsatisfiedError(failures.INTERNAL, "as told")
    strict = StrictMode(failing, error)
    done = (pair(source_mode=strict) if refuser == "source" else pair(destination_mode=strict)).run()
    refusing, refused = (done.source, done.destination)[:: 1 if refuser == "source" else -1]
    assert refusing.error is error
    assert names(refusing.checks) == OWN_CHECKS[: OWN_CHECKS.index(failing) + 1]
    assert refusing.checks[-1].status is CheckStatus.FAILED
    assert Phase.EXCHANGE not in kinds(refusing)
    assert refused.information is None
    assert_refused_by_peer(refused)


@pytest.mark.parametrize("mode", [ACCEPT_ALL, StrictMode()], ids=["accept-all", "strict"])
@pytest.mark.parametrize("failed", ["source", "destination"])
def test_evidence_that_could_not_be_had_is_reported_at_its_place_in_the_order(
    mode: AttestationMode, failed: str
) -> None:
    error = MutualAttestationError(failures.INTERNAL, "no quote")
    done = (pair(mode, source=error) if failed == "source" else pair(destination_mode=mode, destination=error)).run()
    failing, other = (done.source, done.destination)[:: 1 if failed == "source" else -1]
    assert failing.error is error
    last = CheckStatus.SKIPPED if mode is ACCEPT_ALL else CheckStatus.FAILED
    assert [(check.name, check.status) for check in failing.checks[-1:]] == [(CheckName.QUOTE_LOCAL, last)]
    assert other.information is None
    # A client never shows its certificate then; a server does, and the client sees that there is nothing in it.
    expected = failures.TLS_ALERT if failed == "source" else failures.CERTIFICATE_NO_EVIDENCE
    assert isinstance(other.error, SecureSessionError)
    assert other.error.kind is expected


@pytest.mark.parametrize("evidence", [Evidence(b"", b"log\0"), Evidence(b"quote", b"")], ids=["quote", "log"])
def test_empty_evidence_counts_as_missing(evidence: Evidence) -> None:
    done = pair(destination=evidence).run()
    assert isinstance(done.source.error, SecureSessionError)
    assert done.source.error.kind is failures.CERTIFICATE_NO_EVIDENCE
    assert_refused_by_peer(done.destination)


@pytest.mark.parametrize(
    ("version", "suite", "group"),
    [
        (0x0303, "TLS_AES_256_GCM_SHA384", "secp384r1"),
        (0x0304, "TLS_AES_128_GCM_SHA256", "secp384r1"),
        (0x0304, "TLS_AES_256_GCM_SHA384", "x25519"),
    ],
)
def test_a_session_with_other_parameters_is_refused_before_any_other_check(
    monkeypatch: pytest.MonkeyPatch, version: int, suite: str, group: str
) -> None:
    monkeypatch.setattr(TlsEndpoint, "negotiated", Negotiated(version, suite, group))
    done = pair().run()
    assert isinstance(done.source.error, SecureSessionError)
    assert done.source.error.kind is failures.TLS_PARAMETERS
    assert names(done.source.checks) == [CheckName.TLS_PARAMETERS]
    assert_refused_by_peer(done.destination)


def test_a_key_that_the_tls_library_reads_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "_public_point", lambda _: bytes(97))
    done = pair().run()
    assert isinstance(done.source.error, SecureSessionError)
    assert done.source.error.kind is failures.CERTIFICATE_MALFORMED
    assert_refused_by_peer(done.destination)


@pytest.mark.parametrize("size", [65_536, 110_000])
def test_a_certificate_is_taken_up_to_the_limit_of_the_tls_library(size: int) -> None:
    done = pair(destination=Evidence(QUOTE, bytes(size))).run()
    if size < MAX_CERTIFICATE:
        assert done.source.information == DESTINATION
    else:
        assert isinstance(done.source.error, SecureSessionError)
        assert done.source.error.kind is failures.TLS_PROTOCOL
        assert_refused_by_peer(done.destination)


def test_a_mode_that_breaks_down_lets_nobody_through() -> None:
    class BrokenMode(StrictMode):
        def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> StrictJudge:  # noqa: ARG002 - the seam's shape
            return BrokenJudge(self, checks)

    class BrokenJudge(StrictJudge):
        def verify_quote(self, peer: PeerEvidence) -> None:
            raise ZeroDivisionError(peer)

    done = pair(source_mode=BrokenMode())
    done.source.start()
    done.destination.start()
    done.destination.receive(done.source.take())
    with pytest.raises(ZeroDivisionError):
        done.source.receive(done.destination.take())
    done.destination.receive(done.source.take())
    assert_refused_by_peer(done.destination)
    assert done.source.information is None


def test_a_server_keeps_what_comes_before_its_evidence_is_there() -> None:
    source, destination = pair().source, pair().destination
    source.start()
    request = destination.session.next_event()
    assert isinstance(request, EvidenceNeeded)
    destination.session.receive_data(source.take())
    assert destination.session.data_to_send() == b""
    destination.session.provide_evidence(EVIDENCE)
    source.receive(destination.take())
    destination.receive(source.take())
    source.receive(destination.take())
    assert source.information == DESTINATION
    assert destination.information == SOURCE


def test_a_flood_before_the_evidence_is_refused() -> None:
    session = pair().destination.session
    session.receive_data(bytes(MAX_EARLY))
    with pytest.raises(SecureSessionError):
        session.receive_data(b"\0")
    with pytest.raises(RuntimeError):
        session.provide_evidence(EVIDENCE)


def test_the_stream_may_end_once_the_session_is_complete() -> None:
    done = pair().run()
    for side in (done.source, done.destination):
        side.receive(b"ignored")
        side.receive(b"")
        assert side.error is None
        assert side.take() == b""


@pytest.mark.parametrize("receiver", ["source", "destination"])
def test_a_stream_that_ends_early_is_a_network_error_wherever_it_ends(receiver: str) -> None:
    whole = pair().run()
    total = len((whole.destination if receiver == "source" else whole.source).sent)
    # Totals differ by a few bytes (signatures); the last record, with the 40 bytes, has 62.
    for limit in (0, 1, 5, 100, total // 2, total - 20):
        left = limit

        def cut(data: bytes) -> Iterable[bytes]:
            nonlocal left
            portion, left = data[:left], max(0, left - len(data))
            return (portion,) if portion else ()

        done = pair().run(**{"to_source" if receiver == "source" else "to_destination": cut})
        side = done.source if receiver == "source" else done.destination
        assert side.information is None, limit
        assert isinstance(side.error, NetworkError), limit
        assert side.error.kind is failures.TRANSPORT_ENDED


def test_calls_out_of_order_are_the_callers_own_mistake() -> None:
    side = pair().source
    side.start()
    with pytest.raises(RuntimeError):
        side.session.provide_evidence(EVIDENCE)
    with pytest.raises(NetworkError):
        side.session.receive_data(b"")
    with pytest.raises(RuntimeError):
        side.session.receive_data(b"x")


def test_no_key_is_ever_part_of_a_representation_or_a_message() -> None:
    bad = pair(StrictMode(CheckName.POLICY, InvalidParameter(failures.INTERNAL))).run()
    good = pair().run()
    for side in (bad.source, bad.destination, good.source, good.destination):
        text = f"{side!r} {side.session!r} {side.error!r} {side.error} {side.events} {side.checks}"
        for msk in (SOURCE.msk, DESTINATION.msk):
            assert repr(msk)[2:-1] not in text
            assert msk.hex() not in text
