# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Recorded sessions: read one, compute every value in it again, and replay it against our own side.

The format is that of known answers and recordings alike: an object with the messages in wire order, one side's private
inputs and every secret. For `./inv conform` and tests; a recording holds secrets, so make none of sessions that matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.checks import CheckRunner
from migtd.errors import MigTDError
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import SessionContext, TargetHistory
from migtd.spdm import handshake
from migtd.spdm.agreement import Agreement
from migtd.spdm.chunking import ACK_SIZE, Assembler
from migtd.spdm.core import SpdmEndpoint
from migtd.spdm.evidence import requester_report_data, responder_report_data
from migtd.spdm.framing import BodyType
from migtd.spdm.keys import expect_mac
from migtd.spdm.migration import DestinationOfMigration, PolicySteps, SourceOfMigration
from migtd.spdm.negotiation import Code
from migtd.spdm.records import RecordOpener
from migtd.spdm.requester import Requester
from migtd.spdm.responder import Responder
from migtd.spdm.session import commit_later
from migtd.spdm.signing import REQUESTER_CONTEXT, RESPONDER_CONTEXT, pull_public_key, pull_share, push_share, verify
from migtd.spdm.testing import KNOWN_RESPONDER, Body, SpdmSide, known_material, replay
from migtd.spdm.transcript import MigTdBinding
from migtd.spdm.vendor import Opcode
from migtd.spdm.vendor_messages import (
    Mode,
    pull_evidence_request,
    pull_evidence_response,
    pull_migration_information,
    pull_public_key_message,
)

_SECRETS: Final = (
    *("shared_x", "th1", "th2", "handshake", "master", "req_hs", "rsp_hs", "req_fin", "rsp_fin", "req_app", "rsp_app"),
    *("req_key", "rsp_key", "req_iv", "rsp_iv", "reportdata_req", "reportdata_rsp"),
)
_PLAIN: Final = 14
"""Number of plain messages of a session, chunks put together."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One session. `is_requester` says whose inputs are known; with `knows_both` the responder is KNOWN_RESPONDER.

    `messages` are the bodies in wire order, each with whether it went to the responder. Scalars are P-384's.
    """

    is_requester: bool
    knows_both: bool
    signing: int = field(repr=False)
    ephemeral: int = field(repr=False)
    random: bytes
    secrets: Mapping[str, bytes] = field(repr=False)
    messages: tuple[tuple[bool, Body], ...] = field(repr=False)

    @property
    def replayed_as_source(self) -> tuple[bool, ...]:
        """For which of our sides it can be replayed: True is the source."""
        return (True, False) if self.knows_both else (self.is_requester,)

    def said(self, *, to_responder: bool) -> list[Body]:
        """The bodies of one direction."""
        return [body for way, body in self.messages if way == to_responder]


def pull_recording(document: Mapping[str, Any]) -> Recording:
    """Read a recording from its JSON object. Raises ValueError, which names what is wrong."""
    try:
        role = document["role"]
        recording = Recording(
            role.startswith("requester"),
            role not in ("requester", "responder"),
            int(document["sign_scalar"]),
            int(document["eph_scalar"]),
            bytes.fromhex(document["random"]),
            {name: bytes.fromhex(document[name]) for name in _SECRETS},
            tuple(_message(each) for each in document["messages"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a recorded SPDM session: {error!r}") from error
    return recording


def _message(entry: Mapping[str, Any]) -> tuple[bool, Body]:
    kind = BodyType.SECURED if entry["secured"] else BodyType.PLAIN
    return {"->": True, "<-": False}[entry["dir"]], (kind, bytes.fromhex(entry["bytes"]))


def plain_messages(recording: Recording) -> list[bytes]:
    """R1, r1 to R7, r7: chunks put together, their headers left out. Raises MigTDError or ValueError."""
    messages = list(_reassembled([body for _, (kind, body) in recording.messages if kind is BodyType.PLAIN]))
    if len(messages) != _PLAIN:
        raise ValueError(f"{len(messages)} plain messages instead of {_PLAIN}")
    return messages


def _reassembled(bodies: list[bytes]) -> Iterator[bytes]:
    assemblers = {code: Assembler(code) for code in (Code.CHUNK_SEND, Code.CHUNK_RESPONSE)}
    for body in bodies:
        code = body[1]
        if code in assemblers:
            _, whole = assemblers[Code(code)].add(body)
            if whole is not None:
                yield whole
        elif code == Code.CHUNK_SEND_ACK:
            if body[ACK_SIZE:]:
                yield body[ACK_SIZE:]
        elif code not in (Code.CHUNK_GET, Code.ERROR):
            yield body


@dataclass(frozen=True, slots=True)
class Verified:
    """What a recording holds that a replay needs: the information of source and destination."""

    source: ExchangeInformation
    destination: ExchangeInformation


def verify_recording(recording: Recording) -> Verified:
    """Compute every value again: signatures, MACs, TH1, TH2, secrets, keys, REPORTDATA and records.

    Raises MigTDError where a message is not as it must be, ValueError, which names it, where a value differs.
    """
    messages = plain_messages(recording)
    r4, r4_answer, r5, r5_answer, r6, r6_answer, r7, r7_answer = messages[6:]
    binding = MigTdBinding()
    agreement = Agreement(binding)
    for message in messages[:6]:
        agreement.negotiate(message)
    binding.add_keys(r4, r4_answer)
    binding.add_evidence(r6, r6_answer)
    keys = (
        pull_public_key_message(r4, Opcode.PUBLIC_KEY_REQUEST).public_key,
        pull_public_key_message(r4_answer, Opcode.PUBLIC_KEY_RESPONSE).public_key,
    )
    requester, responder = (pull_public_key(key) for key in keys)
    request, response = handshake.pull_key_exchange(r5), handshake.pull_key_exchange_response(r5_answer)
    inputs = known_material(recording.signing, recording.ephemeral, recording.random)
    shown = (keys[0], request) if recording.is_requester else (keys[1], response)
    if (inputs.signer.public_key, push_share(inputs.ephemeral.public_key())) != (shown[0], shown[1].share):
        raise ValueError("the scalars are not those of the keys in the messages")
    verify(responder, response.signature, RESPONDER_CONTEXT, agreement.hash_for_responder(r5, response.signed_part))
    own = inputs.ephemeral
    peer = pull_share(response.share if recording.is_requester else request.share, "share")
    agreement.agree(response.signature, own, peer)
    finish, finished = handshake.pull_finish(r7), handshake.pull_finish_response(r7_answer)
    verify(requester, finish.signature, REQUESTER_CONTEXT, agreement.hash_for_requester())
    expect_mac(agreement.requester_verify_data(finish.signature), finish.verify_data, "RequesterVerifyData")
    expect_mac(agreement.responder_verify_data(finish.verify_data), finished.verify_data, "ResponderVerifyData")
    application = agreement.finish(finished.verify_data)
    secrets = agreement.handshake
    to_responder, to_requester = application.requester_keys, application.responder_keys
    _expect_equal(
        recording,
        random=request.random if recording.is_requester else response.random,
        shared_x=own.exchange(ec.ECDH(), peer),
        th1=agreement.th1,
        th2=agreement.th2,
        handshake=secrets.handshake,
        req_hs=secrets.requester,
        rsp_hs=secrets.responder,
        req_fin=secrets.requester_finished,
        rsp_fin=secrets.responder_finished,
        master=application.master,
        req_app=application.requester,
        rsp_app=application.responder,
        req_key=to_responder.key,
        req_iv=to_responder.iv,
        rsp_key=to_requester.key,
        rsp_iv=to_requester.iv,
        reportdata_req=requester_report_data(agreement.th1),
        reportdata_rsp=responder_report_data(agreement.th1),
    )
    requests = _opened(recording, RecordOpener(to_responder), to_responder=True)
    responses = _opened(recording, RecordOpener(to_requester), to_responder=False)
    if len(requests) != len(responses) or [requests[1:], responses[1:]] != [[_END], [_ENDED]]:
        raise ValueError("the records are not the information and the end of the session")
    return Verified(
        pull_migration_information(requests[0], Opcode.MIGRATION_INFORMATION_REQUEST).information,
        pull_migration_information(responses[0], Opcode.MIGRATION_INFORMATION_RESPONSE).information,
    )


_END: Final = handshake.EndSession(Code.END_SESSION).push()
_ENDED: Final = handshake.EndSession(Code.END_SESSION_ACK).push()


def _opened(recording: Recording, opener: RecordOpener, *, to_responder: bool) -> list[bytes]:
    said = recording.said(to_responder=to_responder)
    return [opener.open(body) for kind, body in said if kind is BodyType.SECURED]


def _expect_equal(recording: Recording, *, random: bytes, **computed: bytes | bytearray) -> None:
    if random != recording.random:
        raise ValueError("random is not the one in the message")
    for name in _SECRETS:
        if recording.secrets[name] != computed[name]:
            raise ValueError(f"{name} is {bytes(computed[name]).hex()} instead of {recording.secrets[name].hex()}")


class _Recorded(PolicySteps):
    """Shows the hash that was recorded, and accepts everybody: the evidence of recordings is filler."""

    def __init__(self, policy_hash: bytes) -> None:
        self._policy_hash = policy_hash

    @property
    def policy_hash(self) -> bytes:
        """As recorded."""
        return self._policy_hash

    def judge(self, local: Evidence, peer: PeerEvidence, policy_hash: bytes) -> None:
        """Accept."""

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """There always is."""
        return error


def replay_recording(recording: Recording, *, as_source: bool) -> SpdmSide:
    """Replay the other side's messages against ours, which has the recorded inputs; our side when it is done.

    Raises MigTDError where ours refuses, ValueError where a byte that it says differs or it does not complete.
    """
    found = verify_recording(recording)
    messages = plain_messages(recording)
    request = pull_evidence_request(messages[10], Mode.MIGRATION)
    response = pull_evidence_response(messages[11], Mode.MIGRATION)
    shown = request if as_source else response
    mode = AcceptAll(bytes)
    context = SessionContext(
        as_source, found.source if as_source else found.destination, mode, CheckRunner(mode.skips, lambda _: None)
    )
    material = known_material(recording.signing, recording.ephemeral, recording.random)
    steps = _Recorded(shown.policy_hash)
    session: SpdmEndpoint
    if as_source:
        history = TargetHistory(request.servtd_ext, request.initial_tdinfo)
        session = Requester(material, SourceOfMigration(context, steps, history, commit_later))
    else:
        known = material if not recording.is_requester else KNOWN_RESPONDER
        session = Responder(known, DestinationOfMigration(context, steps, commit_later))
    side = SpdmSide(session, Evidence(shown.quote, shown.event_log)).start()
    replay(side, recording.said(to_responder=not as_source))
    if side.error is not None:
        raise side.error
    expected = recording.said(to_responder=as_source)
    for number, (ours, theirs) in enumerate(zip(side.sent, expected, strict=False)):
        if ours != theirs:
            raise ValueError(f"message {number} is {ours[1].hex()} instead of {theirs[1].hex()}")
    if len(side.sent) != len(expected) or side.end is None:
        raise ValueError(f"{len(side.sent)} messages instead of {len(expected)}, complete: {side.end is not None}")
    return side
