# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The responder, which is the destination or the new MigTD, as a state table (spdm.md 4.9 and 9.3)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.mode import Evidence
from migtd.errors import MigTDError
from migtd.migration.session import SessionEvent
from migtd.spdm import handshake, negotiation
from migtd.spdm.accepted import EXACT, AcceptedRequests
from migtd.spdm.chunking import ROOM_IN_ACK, Assembler, Chunk, ChunkAck, cut, pull_chunk_get
from migtd.spdm.core import ResponderApplication, SessionMaterial, SpdmEndpoint, code_of, push_evidence
from migtd.spdm.errors import (
    ErrorCode,
    Malformed,
    Unexpected,
    UnsupportedCode,
    VendorMalformed,
    VersionMismatch,
    reply_to,
)
from migtd.spdm.evidence import requester_report_data, responder_report_data
from migtd.spdm.framing import BodyType
from migtd.spdm.handshake import EndSession, Error, FinishResponse, KeyExchangeResponse
from migtd.spdm.keys import expect_mac
from migtd.spdm.negotiation import DATA_TRANSFER_SIZE, REQUESTS, VERSION_10, VERSION_12, Code
from migtd.spdm.signing import (
    REQUESTER_CONTEXT,
    RESPONDER_CONTEXT,
    pull_public_key,
    pull_share,
    push_share,
    verify,
)
from migtd.spdm.vendor import Opcode, pull_envelope
from migtd.spdm.vendor_messages import EvidenceRequest, PublicKey, pull_evidence_request, pull_public_key_message

_HANDLE: Final = 1
"""Of the only large response of a session."""


class ResponderState(enum.Enum):
    """Where a responder is. TRANSFER: a large request is coming; STAGED: a large response is being fetched."""

    START = enum.auto()
    VERSIONED = enum.auto()
    CAPABLE = enum.auto()
    NEGOTIATED = enum.auto()
    KEYED = enum.auto()
    HANDSHAKE = enum.auto()
    TRANSFER = enum.auto()
    EVIDENCE = enum.auto()
    STAGED = enum.auto()
    ATTESTED = enum.auto()
    ESTABLISHED = enum.auto()
    INFORMED = enum.auto()
    DONE = enum.auto()


class Responder(SpdmEndpoint):
    """One responder. Errors: SpdmRefusal where the peer is refused here, or what the application raised.

    `accepted` says which requests of a negotiation it takes; its answers are always the profile's.
    """

    def __init__(
        self,
        material: SessionMaterial,
        application: ResponderApplication,
        accepted: AcceptedRequests = EXACT,
    ) -> None:
        super().__init__(material)
        self._application = application
        self._negotiation = accepted
        self._state = ResponderState.START
        self._error_version = VERSION_10
        self._answers_secured = False
        self._peer_key: ec.EllipticCurvePublicKey | None = None
        self._assembler: Assembler | None = None
        self._last_chunk: Chunk | None = None
        self._staged: list[Chunk] = []
        self._shown: tuple[bytes, EvidenceRequest] | None = None
        self._event: SessionEvent | None = None

    # --- one request -----------------------------------------------------------------------------------------------

    def _receive(self, kind: BodyType, body: bytes) -> None:
        self._answers_secured = False
        message = body
        if kind is BodyType.SECURED:
            message = self._open(body)
            self._answers_secured = True
        self._dispatch(message)

    def _dispatch(self, message: bytes) -> None:
        code = code_of(message)
        if code not in REQUESTS:
            raise UnsupportedCode(code)
        self._expect_version(code, message[0])
        row = TABLE[self._state].get(Code(code))
        if row is None or self._answers_secured != (self._state in _SECURED):
            raise self._unexpected(Code(code), message)
        response = row.handler(self, message)
        if row.then is not None:
            self._state = row.then
        if response is not None:
            self._answer(response)
        if self._state is ResponderState.DONE and self._event is not None:
            self._finish(self._event)

    def _expect_version(self, code: int, version: int) -> None:
        expected = VERSION_10 if code == Code.GET_VERSION else VERSION_12
        if version != expected:
            raise VersionMismatch(f"version {version:#04x} in a request with code {code:#04x}")
        if code == Code.GET_CAPABILITIES and self._state is ResponderState.VERSIONED:
            self._error_version = VERSION_12

    def _unexpected(self, code: Code, message: bytes) -> MigTDError:
        secured = self._state in _SECURED
        where = f"{code.name} in state {self._state.name}"
        if code is not Code.VENDOR_DEFINED_REQUEST or self._state is ResponderState.START:
            return Unexpected(where)
        if secured and not self._answers_secured:
            return Unexpected(f"{where}, not in a record")
        pull_envelope(message, Code.VENDOR_DEFINED_REQUEST)
        return VendorMalformed(where)

    # --- handlers, in the order of the table -----------------------------------------------------------------------

    def _version(self, message: bytes) -> bytes:
        negotiation.pull_get_version(message)
        return self._negotiated(message, negotiation.PROFILE_VERSION.push())

    def _capabilities(self, message: bytes) -> bytes:
        self._negotiation.expect_capabilities(message)
        return self._negotiated(message, negotiation.PROFILE_CAPABILITIES.push())

    def _algorithms(self, message: bytes) -> bytes:
        self._negotiation.expect_algorithms(message)
        return self._negotiated(message, negotiation.PROFILE_ALGORITHMS.push())

    def _negotiated(self, request: bytes, response: bytes) -> bytes:
        self._agreement.negotiate(request)
        self._agreement.negotiate(response)
        return response

    def _public_key(self, message: bytes) -> bytes:
        shown = pull_public_key_message(message, Opcode.PUBLIC_KEY_REQUEST)
        try:
            self._peer_key = pull_public_key(shown.public_key)
        except Malformed as error:
            raise VendorMalformed(error.detail) from error
        response = PublicKey(Opcode.PUBLIC_KEY_RESPONSE, self._material.signer.public_key).push()
        self._binding.add_keys(message, response)
        return response

    def _key_exchange(self, message: bytes) -> bytes:
        request = handshake.pull_key_exchange(message)
        peer = pull_share(request.share, "share of KEY_EXCHANGE")
        material = self._material
        unsigned = KeyExchangeResponse(material.random, push_share(material.ephemeral.public_key()), b"")
        digest = self._agreement.hash_for_responder(message, unsigned.signed_part)
        signature = material.signer.sign(RESPONDER_CONTEXT, digest)
        self._agreement.agree(signature, material.ephemeral, peer)
        return unsigned.signed_part + signature

    def _evidence(self, message: bytes) -> None:
        self._shown = (message, pull_evidence_request(message, self._application.mode))
        self._state = ResponderState.EVIDENCE
        self._ask_for_evidence(responder_report_data(self._agreement.th1))

    def _chunk(self, message: bytes) -> None:
        self._assembler = self._assembler or Assembler(Code.CHUNK_SEND)
        chunk, whole = self._assembler.add(message)
        self._state = ResponderState.TRANSFER
        if whole is None:
            self._send(ChunkAck(chunk.handle, chunk.sequence).push())
            return
        self._last_chunk = chunk
        self._assembler = None
        if whole[1] in (Code.CHUNK_SEND, Code.CHUNK_GET):
            raise Malformed("a chunk message inside a message that came in chunks")
        # The whole is judged as if it had come at once, but no other kind of message may be this large.
        self._state = ResponderState.HANDSHAKE
        self._dispatch(whole)

    def _chunk_get(self, message: bytes) -> bytes:
        request, chunk = pull_chunk_get(message), self._staged[0]
        if (request.handle, request.sequence) != (chunk.handle, chunk.sequence):
            wanted = f"handle {chunk.handle}, sequence {chunk.sequence}"
            raise Malformed(f"CHUNK_GET: handle {request.handle}, sequence {request.sequence} instead of {wanted}")
        del self._staged[0]
        if not self._staged:
            self._state = ResponderState.ATTESTED
        return chunk.push()

    def _finish_request(self, message: bytes) -> bytes:
        request = handshake.pull_finish(message)
        if self._peer_key is None:
            raise RuntimeError("FINISH without a public key")
        verify(self._peer_key, request.signature, REQUESTER_CONTEXT, self._agreement.hash_for_requester())
        expected = self._agreement.requester_verify_data(request.signature)
        expect_mac(expected, request.verify_data, "RequesterVerifyData")
        verify_data = self._agreement.responder_verify_data(request.verify_data)
        response = FinishResponse(verify_data).push()
        secrets = self._agreement.finish(verify_data)
        self._establish(sent=secrets.responder_keys, received=secrets.requester_keys)
        return response

    def _information(self, message: bytes) -> bytes:
        response, self._event = self._application.take(message)
        return response

    def _end_session(self, message: bytes) -> bytes:
        handshake.pull_end_session(message, Code.END_SESSION)
        return EndSession(Code.END_SESSION_ACK).push()

    # --- answers ---------------------------------------------------------------------------------------------------

    def _show(self, evidence: Evidence) -> None:
        if self._shown is None:
            raise RuntimeError("evidence before the peer's")
        request, shown = self._shown
        self._application.judge(evidence, shown, requester_report_data(self._agreement.th1))
        response = push_evidence(self._application.show(evidence))
        self._shown = None
        self._binding.add_evidence(request, response)
        self._state = ResponderState.ATTESTED
        self._answer(response)

    def _without_evidence(self, error: MigTDError) -> MigTDError:
        return self._application.without_evidence(error)

    def _answer(self, response: bytes) -> None:
        """Say `response` as it belongs: in a record, in the last acknowledgement, whole, or staged."""
        if self._answers_secured:
            self._send_secured(response)
            return
        room = DATA_TRANSFER_SIZE if self._last_chunk is None else ROOM_IN_ACK
        if len(response) <= room:
            self._send(self._acknowledged(response))
            return
        self._staged = cut(response, Code.CHUNK_RESPONSE, _HANDLE, room)
        self._last_chunk = None
        self._state = ResponderState.STAGED
        self._send(Error(ErrorCode.LargeResponse, 0, handle=_HANDLE).push())

    def _acknowledged(self, response: bytes) -> bytes:
        chunk, self._last_chunk = self._last_chunk, None
        return response if chunk is None else ChunkAck(chunk.handle, chunk.sequence, response).push()

    def _answer_failure(self, error: MigTDError) -> None:
        reply = reply_to(error)
        if reply is None:
            return
        message = Error(reply.code, reply.data, self._error_version).push()
        if self._answers_secured:
            self._send_secured(message)
        else:
            self._send(self._acknowledged(message))


@dataclass(frozen=True, slots=True)
class Row:
    """What is done with one request in one state. `then` is the next state; with None the handler chose it."""

    handler: Callable[[Responder, bytes], bytes | None]
    then: ResponderState | None = None


_S = ResponderState
_VENDOR: Final = Code.VENDOR_DEFINED_REQUEST
_SECURED: Final = frozenset({_S.ESTABLISHED, _S.INFORMED})
"""States in which requests come in records, and only there."""
# The table is made of the class's own handlers.
# ruff: noqa: SLF001
TABLE: Final[Mapping[ResponderState, Mapping[Code, Row]]] = {
    _S.START: {Code.GET_VERSION: Row(Responder._version, _S.VERSIONED)},
    _S.VERSIONED: {Code.GET_CAPABILITIES: Row(Responder._capabilities, _S.CAPABLE)},
    _S.CAPABLE: {Code.NEGOTIATE_ALGORITHMS: Row(Responder._algorithms, _S.NEGOTIATED)},
    _S.NEGOTIATED: {_VENDOR: Row(Responder._public_key, _S.KEYED)},
    _S.KEYED: {Code.KEY_EXCHANGE: Row(Responder._key_exchange, _S.HANDSHAKE)},
    _S.HANDSHAKE: {_VENDOR: Row(Responder._evidence), Code.CHUNK_SEND: Row(Responder._chunk)},
    _S.TRANSFER: {Code.CHUNK_SEND: Row(Responder._chunk)},
    _S.EVIDENCE: {},
    _S.STAGED: {Code.CHUNK_GET: Row(Responder._chunk_get)},
    _S.ATTESTED: {Code.FINISH: Row(Responder._finish_request, _S.ESTABLISHED)},
    _S.ESTABLISHED: {_VENDOR: Row(Responder._information, _S.INFORMED)},
    _S.INFORMED: {Code.END_SESSION: Row(Responder._end_session, _S.DONE)},
    _S.DONE: {},
}
"""What a responder takes. Anything that is not here ends the session."""
