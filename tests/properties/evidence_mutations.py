# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every change of a byte of evidence, and what a judge makes of it: for the sampled tests and the exhaustive ones.

A `Subject` is one kind of evidence of a session that succeeds: its bytes, and a function that judges a changed copy as
a MigTD does, without the TLS around it. A change must be refused with one of the subject's results, or be accepted
with every decoded value unchanged. Accepted may be, and nothing else:

quote, collateral  PEM text without meaning: what is before, between and behind its sections, white space in a section,
                   and the bits of a last base64 digit that no byte takes. In a JSON document: the case of the hex
                   digits of the signature, white space outside of the signed text. A NUL more or less at the end.
                   Decoded are the DER of each certificate and CRL, value, signed text and signature of each document,
                   every field of the quote, the supplemental record and all else in `Verified`.
collateral         besides: its version, where it becomes another that policy.md 4.3 knows. Nothing signs it and
                   nothing follows from it.
event log          what no reader looks at (policy.md 3.1, 3.4): the Spec ID record, `count`, `algorithm` and data of
                   events (a digest is never worked out from the data), types that stand for no named event, what
                   follows the last event, and so its size as long as it is seen. Decoded are the RTMRs that the log
                   explains, and the named events.
certificate        nothing: the self-signature covers what the signature itself and the lengths around it do not.
TDREPORT           nothing: MAC and hashes cover all of it but the reserved bytes, which must be zero.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto

from lab.policies import default_v1
from migtd import event_log
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.attestation.policy_v1 import PolicyV1, Trust
from migtd.attestation.quote import failures
from migtd.attestation.quote.collateral import CollateralSet, pull_packed, push_packed
from migtd.attestation.quote.crl import _der_of
from migtd.attestation.quote.documents import parse_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import pull_quote
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem
from migtd.attestation.quote.prepare import VERSIONS
from migtd.checks import Check, CheckRunner
from migtd.errors import MigrationResult, MigTDError, MutualAttestationError, SecureSessionError
from migtd.failures import GET_QUOTE_MALFORMED, GET_QUOTE_REFUSED, INTERNAL, TLS_PROTOCOL
from migtd.guest.firmware import boot
from migtd.guest.quote_messages import QgsRefused, QuoteRequest, pull_quote_answer, push_request
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import SessionContext
from migtd.ratls.certificate import make_certificate, migration_extensions, public_point, report_data
from migtd.ratls.reader import pull_certificate
from migtd.ratls.session import RaTlsSession
from migtd.ratls.tls import PROFILE, PresentedCertificate
from migtd.testing import FakeTdCall
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.testing_quoting import PKI, machine

ATTESTATION: Final = int(MigrationResult.MutualAttestationError)
SESSION: Final = int(MigrationResult.SecureSessionError)
POLICY: Final = int(MigrationResult.PolicyUnsatisfiedError)


class Kind(enum.Enum):
    """How one byte is changed: a bit of it flipped, another value in its place, cut out, a blank put before it."""

    BIT = enum.auto()
    VALUE = enum.auto()
    CUT = enum.auto()
    BLANK = enum.auto()


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change at byte `at`; `value` is the number of the bit, or the value."""

    kind: Kind
    at: int
    value: int = 0

    def apply(self, data: bytes) -> bytes:
        """The changed copy; the same bytes where the value is there already."""
        before, byte, behind = data[: self.at], data[self.at], data[self.at + 1 :]
        match self.kind:
            case Kind.BIT:
                return before + bytes([byte ^ 1 << self.value]) + behind
            case Kind.VALUE:
                return before + bytes([self.value]) + behind
            case Kind.CUT:
                return before + behind
            case Kind.BLANK:
                return before + b" " + data[self.at :]


VALUES: Final = (0x00, 0x0A, 0x20, 0xFF)
IN_PLACE: Final = (
    *((Kind.BIT, bit) for bit in range(8)),
    *((Kind.VALUE, value) for value in VALUES),
)
"""Changes that keep the size."""
ALL: Final = (*IN_PLACE, (Kind.CUT, 0), (Kind.BLANK, 0))


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind of evidence.

    `judge` raises the MigTDError of the refusal, or returns every decoded value; `results` are those that a refusal may
    have; `ways` the kinds of changes.
    """

    name: str
    original: bytes
    judge: Callable[[bytes], Any]
    results: frozenset[int]
    ways: tuple[tuple[Kind, int], ...] = ALL
    changes_nothing: bool = False
    """Whether not a single change may be accepted."""
    idle: frozenset[int] | None = None
    """The bytes that no reader looks at, where that can be said: no other byte may be changed and accepted in place."""

    def mutations(self) -> Iterator[Mutation]:
        """Each way at each byte."""
        return (Mutation(kind, at, value) for at in range(len(self.original)) for kind, value in self.ways)

    def more(self, accepted: Iterable[Mutation]) -> Iterator[Mutation]:
        """Every value of every byte where a change in place was accepted, unless it is known why."""
        in_place = {each.at for each in accepted if (each.kind, each.value) in IN_PLACE}
        bytes_left = sorted(in_place) if self.idle is None else ()
        return (Mutation(Kind.VALUE, at, value) for at in bytes_left for value in range(256))

    def refused(self, mutation: Mutation) -> bool:
        """Judge a change, and raise AssertionError unless it ends as it must; False: it was accepted."""
        changed = mutation.apply(self.original)
        if changed == self.original:
            return True
        try:
            decoded = self.judge(changed)
        except MigTDError as error:
            if error.result not in self.results or error.kind is INTERNAL:
                raise AssertionError(self.name, mutation, error.kind.id, str(error)) from error
            return True
        assert not self.changes_nothing, (self.name, mutation)
        assert decoded == _original(self), (self.name, mutation)
        in_place = (mutation.kind, mutation.value) in IN_PLACE
        assert self.idle is None or not in_place or mutation.at in self.idle, (self.name, mutation)
        return False


@functools.cache
def _original(subject: Subject) -> Any:
    """What is decoded of the bytes as they are."""
    return subject.judge(subject.original)


class World:
    """Two sides of one lab on the same machine model, and the evidence that each has for one session's key."""

    def __init__(self) -> None:
        self.machine = machine()
        self.area = boot(FakeTdCall())
        policy = default_v1()
        for event in (event_log.policy_v1_event(policy), event_log.sgx_root_ca_event(PKI.root_ca)):
            event_log.measure(self.area, event, lambda _index, _digest: None)
        self.log = event_log.for_sending(self.area)
        rtmrs = event_log.replay(self.log)
        self.tdinfo = TdInfo(xfam=0x618E7, rtmr0=rtmrs[0], rtmr1=rtmrs[1], rtmr2=rtmrs[2], rtmr3=rtmrs[3])
        self.key = ec.derive_private_key(0x5A17, ec.SECP384R1())
        self.report_data = report_data(public_point(self.key.public_key()))
        self.report = self.machine.report(self.report_data, self.tdinfo)
        self.quote = self.machine.quote(report=self.report)
        self.collateral = self.machine.material.collateral
        self.certificate = make_certificate(self.key, migration_extensions(Evidence(self.quote, self.log)))
        # No quotes are asked for: evidence is given, and there is one platform model.
        quotes: Any = None
        self.mode = PolicyV1("lab", {}, tdcall=FakeTdCall(), quotes=quotes, log=self.area, trust=self.trust(policy))
        self.judging = self.judge()
        self.judging.verify_local()

    @staticmethod
    def trust(policy: bytes) -> Trust:
        """What both judge by."""
        return Trust(policy, PKI.root_key)

    def evidence(self, collateral: CollateralSet | None = None) -> Evidence:
        """The own side's."""
        return Evidence(self.quote, self.log, collateral or self.collateral)

    def judge(self, collateral: CollateralSet | None = None) -> Judge:
        """A judge of a new session, as the source's."""
        checks: list[Check] = []
        return self.mode.judge(self.evidence(collateral), is_source=True, checks=CheckRunner({}, checks.append))

    # --- judging a changed copy; one judge serves all, its own quote verified once -----------------------------------
    def judge_quote(self, quote: bytes) -> Any:
        """The peer's quote."""
        self._judge_peer(PeerEvidence(quote, self.log, self.report_data))
        pulled = pull_quote(quote)
        data = pulled.signature_data
        chain = pull_pem(data.pck_chain, CERTIFICATE, failures.QUOTE_PCK_CHAIN_INVALID)
        rest = replace(pulled, signature_data=replace(data, pck_chain=b""))
        return rest, chain, self.mode.verify(quote, self.collateral)

    def judge_log(self, log: bytes) -> Any:
        """The peer's event log."""
        self._judge_peer(PeerEvidence(self.quote, log, self.report_data))
        return event_log.replay(log), event_log.parse_events(log)

    def judge_collateral(self, packed: bytes) -> Any:
        """The own host's collateral, in its packed form, by which the own quote is judged before any other."""
        try:
            collateral = pull_packed(packed)
        except QuoteError as error:
            raise MutualAttestationError(GET_QUOTE_MALFORMED, str(error)) from error
        self.judge(collateral).verify_local()
        assert (collateral.major, collateral.minor) in VERSIONS
        return _decoded(collateral), self.mode.verify(self.quote, collateral)

    def judge_certificate(self, der: bytes) -> Any:
        """The peer's certificate, as the verify callback of a session does it."""
        try:
            certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
            key = certificate.get_pubkey().to_cryptography_key()
        except (crypto.Error, ValueError, TypeError) as error:
            # The TLS library refuses the handshake before anybody is asked.
            raise SecureSessionError(TLS_PROTOCOL, str(error)) from error
        point = public_point(key) if isinstance(key, ec.EllipticCurvePublicKey) else None
        self._session._check_peer(PresentedCertificate(der, point, 1))
        return pull_certificate(der)

    def judge_report(self, report: bytes) -> Any:
        """The own TDREPORT, on its way to the host for a quote."""
        answers: list[bytes] = []
        try:
            self._service.get_quote(push_request(QuoteRequest(report)), lambda _status, data: answers.append(data))
        except QuotingError as error:
            answers.append(error.answer)
        try:
            return pull_quote_answer(answers[0])
        except QgsRefused as error:
            raise MutualAttestationError(GET_QUOTE_REFUSED, str(error)) from error

    def _judge_peer(self, peer: PeerEvidence) -> None:
        self.judging.verify_quote(peer)
        self.judging.evaluate_policy()

    @functools.cached_property
    def _service(self) -> LabQuoting:
        return LabQuoting(self.machine.material, lambda: self.machine.platform)

    @functools.cached_property
    def _session(self) -> RaTlsSession:
        checks = CheckRunner({}, lambda _check: None)
        information = ExchangeInformation(bytes(32), 0, 1)
        session = RaTlsSession(SessionContext(is_source=True, local=information, mode=self.mode, checks=checks))
        session.provide_evidence(self.evidence())
        stands_in: Any = _Negotiated()
        # The handshake is what whole sessions are for; here the callback is called by itself.
        session._tls = stands_in
        judge: Any = _OwnQuoteWasVerified(self.judging)
        session._judge = judge
        return session


class _Negotiated:
    """A TLS endpoint whose handshake came as far as the verify callback."""

    negotiated = PROFILE


@dataclass
class _OwnQuoteWasVerified:
    """The judge of `World`, without the check that it has made: it costs as much as that of the peer's quote."""

    judge: Judge

    def verify_local(self) -> None:
        """It was verified."""

    def verify_quote(self, peer: PeerEvidence) -> None:
        """As the judge does."""
        self.judge.verify_quote(peer)

    def evaluate_policy(self) -> None:
        """As the judge does."""
        self.judge.evaluate_policy()


@functools.cache
def world() -> World:
    """The same for all tests of a process."""
    return World()


def subjects() -> dict[str, Subject]:
    """By name."""
    here = world()
    made = (
        Subject("quote", here.quote, here.judge_quote, frozenset({ATTESTATION})),
        Subject("event log", here.log, here.judge_log, frozenset({POLICY}), idle=_idle_bytes(here.log)),
        Subject("collateral", push_packed(here.collateral), here.judge_collateral, frozenset({ATTESTATION})),
        # A quote that was changed in it is found before the signature is.
        Subject(
            "certificate",
            here.certificate,
            here.judge_certificate,
            frozenset({SESSION, ATTESTATION}),
            changes_nothing=True,
        ),
        # Its size is not for anybody to change: the interface has no length of it.
        Subject(
            "TDREPORT", here.report, here.judge_report, frozenset({ATTESTATION}), ways=IN_PLACE, changes_nothing=True
        ),
    )
    return {subject.name: subject for subject in made}


SUBJECTS: Final = ("quote", "event log", "collateral", "certificate", "TDREPORT")


def _idle_bytes(log: bytes) -> frozenset[int]:
    """The Spec ID record, type, count, algorithm and data of each event, the size of the last, and what follows it.

    A type and the first bytes of data may matter; then a change of them changes the named events.
    """
    idle, at, size = set(range(event_log.SPEC_ID_SIZE)), event_log.SPEC_ID_SIZE, range(0)
    for event in event_log.read_events(log):
        data = at + len(event_log.push_event(event)) - len(event.data)
        idle |= {*range(at + 4, at + 14), *range(data, data + len(event.data))}
        size, at = range(data - 4, data), data + len(event.data)
    return frozenset({*idle, *size, *range(at, len(log))})


def _decoded(collateral: CollateralSet) -> Any:
    """Every part of a set without what its encoding leaves open; the version is none of it."""
    kind, limit = failures.COLLATERAL_MALFORMED, 1 << 20
    parts = dict(zip((field.name for field in fields(collateral)), astuple(collateral), strict=True))
    chains = [pull_pem(parts[name], CERTIFICATE, kind) for name in parts if name.endswith("_chain")]
    crls = [_der_of(parts[name]) for name in parts if name.endswith("_crl")]
    documents = [
        parse_signed(parts["tcb_info"], "tcbInfo", kind, limit=limit),
        parse_signed(parts["qe_identity"], "enclaveIdentity", kind, limit=limit),
    ]
    return chains, crls, documents
