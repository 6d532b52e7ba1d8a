# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The requester, which is the source or the old MigTD, as a state table (spdm.md 4.9).

It walks R1 to R9 and takes only the response that belongs to each. It never sends ERROR: what it refuses, it leaves.
"""

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
from migtd.spdm.chunking import ROOM_IN_ACK, Assembler, Chunk, ChunkGet, cut, pull_chunk_ack
from migtd.spdm.core import RequesterApplication, SessionMaterial, SpdmEndpoint, code_of, push_evidence
from migtd.spdm.errors import Malformed, Unexpected, VersionMismatch, peer_error
from migtd.spdm.evidence import requester_report_data, responder_report_data
from migtd.spdm.framing import BodyType
from migtd.spdm.handshake import EndSession, Finish, KeyExchange
from migtd.spdm.keys import expect_mac
from migtd.spdm.negotiation import DATA_TRANSFER_SIZE, VERSION_10, VERSION_12, Code, GetVersion
from migtd.spdm.signing import (
    REQUESTER_CONTEXT,
    RESPONDER_CONTEXT,
    pull_public_key,
    pull_share,
    push_share,
    verify,
)
from migtd.spdm.vendor import Opcode
from migtd.spdm.vendor_messages import PublicKey, pull_evidence_response, pull_public_key_message

_HANDLE: Final = 1
"""Of the only large request of a session."""


class RequesterState(enum.Enum):
    """What a requester waits for. SENDING: the acknowledgement of a chunk; FETCHING: a chunk of a large response."""

    VERSION = enum.auto()
    CAPABILITIES = enum.auto()
    ALGORITHMS = enum.auto()
    PUBLIC_KEY = enum.auto()
    KEY_EXCHANGE = enum.auto()
    OWN_EVIDENCE = enum.auto()
    SENDING = enum.auto()
    EVIDENCE = enum.auto()
    FETCHING = enum.auto()
    FINISH = enum.auto()
    INFORMATION = enum.auto()
    END = enum.auto()
    DONE = enum.auto()


class Requester(SpdmEndpoint):
    """One requester, which has R1 to send at once.

    Errors: SpdmRefusal where the peer is refused here, the error that the peer named, or what the application raised.
    """

    def __init__(self, material: SessionMaterial, application: RequesterApplication) -> None:
        super().__init__(material)
        self._application = application
        self._state = RequesterState.VERSION
        self._asked = b""
        self._verify_data = b""
        self._peer_key: ec.EllipticCurvePublicKey | None = None
        self._chunks: list[Chunk] = []
        self._assembler: Assembler | None = None
        self._event: SessionEvent | None = None
        self._ask_negotiation(GetVersion().push())

    # --- one response ----------------------------------------------------------------------------------------------

    def _receive(self, kind: BodyType, body: bytes) -> None:
        secured = self._state in _SECURED
        if secured != (kind is BodyType.SECURED):
            raise Unexpected(f"a body of type {kind.name} in state {self._state.name}")
        self._dispatch(self._open(body) if secured else body)

    def _dispatch(self, message: bytes) -> None:
        code = code_of(message)
        row = TABLE[self._state]
        if code == Code.ERROR:
            self._error(message)
            return
        if row is None or code != row.code:
            raise Unexpected(f"a response with code {code:#04x} in state {self._state.name}")
        if message[0] != (VERSION_10 if code == Code.VERSION else VERSION_12):
            raise VersionMismatch(f"version {message[0]:#04x} in {row.code.name}")
        row.handler(self, message)
        if row.then is not None:
            self._state = row.then
        if self._state is RequesterState.DONE and self._event is not None:
            self._finish(self._event)

    def _error(self, message: bytes) -> None:
        error = handshake.pull_error(message)
        if error.handle is None:
            raise peer_error(error.code, error.data)
        # It stands for the evidence, instead of the acknowledgement of the last chunk if there were chunks.
        chunked = self._state is RequesterState.SENDING and not self._chunks[1:]
        if self._state is not RequesterState.EVIDENCE and not chunked:
            raise Unexpected(f"LargeResponse in state {self._state.name}")
        room = ROOM_IN_ACK if chunked else DATA_TRANSFER_SIZE
        self._state = RequesterState.FETCHING
        self._assembler = Assembler(Code.CHUNK_RESPONSE, error.handle, room)
        self._send(ChunkGet(error.handle, 0).push())

    # --- handlers, in the order of the table -----------------------------------------------------------------------

    def _ask_negotiation(self, request: bytes) -> None:
        self._agreement.negotiate(request)
        self._send(request)

    def _version(self, message: bytes) -> None:
        if negotiation.pull_version(message) != negotiation.PROFILE_VERSION:
            raise Malformed("VERSION: other versions than 1.2 alone")
        self._agreement.negotiate(message)
        self._ask_negotiation(negotiation.PROFILE_GET_CAPABILITIES.push())

    def _capabilities(self, message: bytes) -> None:
        if negotiation.pull_capabilities(message, Code.CAPABILITIES) != negotiation.PROFILE_CAPABILITIES:
            raise Malformed("CAPABILITIES: other capabilities than the profile's")
        self._agreement.negotiate(message)
        self._ask_negotiation(negotiation.PROFILE_NEGOTIATE.push())

    def _algorithms(self, message: bytes) -> None:
        if negotiation.pull_algorithms(message, Code.ALGORITHMS) != negotiation.PROFILE_ALGORITHMS:
            raise Malformed("ALGORITHMS: other algorithms than the profile's")
        self._agreement.negotiate(message)
        self._asked = PublicKey(Opcode.PUBLIC_KEY_REQUEST, self._material.signer.public_key).push()
        self._send(self._asked)

    def _public_key(self, message: bytes) -> None:
        self._peer_key = pull_public_key(pull_public_key_message(message, Opcode.PUBLIC_KEY_RESPONSE).public_key)
        self._binding.add_keys(self._asked, message)
        material = self._material
        self._asked = KeyExchange(material.random, push_share(material.ephemeral.public_key())).push()
        self._send(self._asked)

    def _key_exchange(self, message: bytes) -> None:
        response = handshake.pull_key_exchange_response(message)
        peer = pull_share(response.share, "share of KEY_EXCHANGE_RSP")
        if self._peer_key is None:
            raise RuntimeError("KEY_EXCHANGE without a public key")
        digest = self._agreement.hash_for_responder(self._asked, response.signed_part)
        verify(self._peer_key, response.signature, RESPONDER_CONTEXT, digest)
        self._agreement.agree(response.signature, self._material.ephemeral, peer)
        self._ask_for_evidence(requester_report_data(self._agreement.th1))

    def _show(self, evidence: Evidence) -> None:
        self._asked = push_evidence(self._application.show(evidence))
        if len(self._asked) <= DATA_TRANSFER_SIZE:
            self._state = RequesterState.EVIDENCE
            self._send(self._asked)
            return
        self._state = RequesterState.SENDING
        self._chunks = cut(self._asked, Code.CHUNK_SEND, _HANDLE)
        self._send(self._chunks[0].push())

    def _without_evidence(self, error: MigTDError) -> MigTDError:
        return self._application.without_evidence(error)

    def _acknowledged(self, message: bytes) -> None:
        acknowledged, sent = pull_chunk_ack(message), self._chunks[0]
        if (acknowledged.handle, acknowledged.sequence) != (sent.handle, sent.sequence):
            raise Malformed(f"CHUNK_SEND_ACK: handle {acknowledged.handle}, sequence {acknowledged.sequence}")
        if bool(acknowledged.response) != sent.last:
            raise Malformed(f"CHUNK_SEND_ACK: {len(acknowledged.response)} bytes of response, last chunk: {sent.last}")
        if not sent.last:
            del self._chunks[0]
            self._send(self._chunks[0].push())
            return
        if acknowledged.response[1:3] == _LARGE_RESPONSE:
            raise Malformed("CHUNK_SEND_ACK: LargeResponse inside")
        self._state = RequesterState.EVIDENCE
        self._dispatch(acknowledged.response)

    def _chunk(self, message: bytes) -> None:
        if self._assembler is None:
            raise RuntimeError("a chunk that was not asked for")
        chunk, whole = self._assembler.add(message)
        if whole is None:
            self._send(ChunkGet(chunk.handle, chunk.sequence + 1).push())
            return
        self._assembler = None
        self._state = RequesterState.EVIDENCE
        self._dispatch(whole)

    def _evidence(self, message: bytes) -> None:
        shown = pull_evidence_response(message, self._application.mode)
        self._application.judge(shown, responder_report_data(self._agreement.th1))
        self._binding.add_evidence(self._asked, message)
        signature = self._material.signer.sign(REQUESTER_CONTEXT, self._agreement.hash_for_requester())
        self._verify_data = self._agreement.requester_verify_data(signature)
        self._send(Finish(signature, self._verify_data).push())

    def _finished(self, message: bytes) -> None:
        response = handshake.pull_finish_response(message)
        expected = self._agreement.responder_verify_data(self._verify_data)
        expect_mac(expected, response.verify_data, "ResponderVerifyData")
        secrets = self._agreement.finish(response.verify_data)
        self._establish(sent=secrets.requester_keys, received=secrets.responder_keys)
        self._send_secured(self._application.request())

    def _information(self, message: bytes) -> None:
        self._event = self._application.take(message)
        self._send_secured(EndSession(Code.END_SESSION).push())

    def _end(self, message: bytes) -> None:
        handshake.pull_end_session(message, Code.END_SESSION_ACK)

    def _answer_failure(self, error: MigTDError) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """The response that belongs into a state, and what is done with it. With `then` None the handler chose the next."""

    code: Code
    handler: Callable[[Requester, bytes], None]
    then: RequesterState | None


_S = RequesterState
_VENDOR: Final = Code.VENDOR_DEFINED_RESPONSE
_LARGE_RESPONSE: Final = bytes((Code.ERROR, 0x0F))
_SECURED: Final = frozenset({_S.INFORMATION, _S.END})
"""States in which responses come in records, and only there."""
# The table is made of the class's own handlers.
# ruff: noqa: SLF001
TABLE: Final[Mapping[RequesterState, Row | None]] = {
    _S.VERSION: Row(Code.VERSION, Requester._version, _S.CAPABILITIES),
    _S.CAPABILITIES: Row(Code.CAPABILITIES, Requester._capabilities, _S.ALGORITHMS),
    _S.ALGORITHMS: Row(Code.ALGORITHMS, Requester._algorithms, _S.PUBLIC_KEY),
    _S.PUBLIC_KEY: Row(_VENDOR, Requester._public_key, _S.KEY_EXCHANGE),
    _S.KEY_EXCHANGE: Row(Code.KEY_EXCHANGE_RSP, Requester._key_exchange, _S.OWN_EVIDENCE),
    _S.OWN_EVIDENCE: None,
    _S.SENDING: Row(Code.CHUNK_SEND_ACK, Requester._acknowledged, None),
    _S.EVIDENCE: Row(_VENDOR, Requester._evidence, _S.FINISH),
    _S.FETCHING: Row(Code.CHUNK_RESPONSE, Requester._chunk, None),
    _S.FINISH: Row(Code.FINISH_RSP, Requester._finished, _S.INFORMATION),
    _S.INFORMATION: Row(_VENDOR, Requester._information, _S.END),
    _S.END: Row(Code.END_SESSION_ACK, Requester._end, _S.DONE),
    _S.DONE: None,
}
"""What a requester takes. Anything that is not here ends the session, and so does every ERROR but LargeResponse."""
