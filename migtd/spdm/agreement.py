# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What both roles compute alike: transcript, TH1 and TH2, and the secrets that follow from them (spdm.md 5 and 6).

The methods are called once each, in their order.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.spdm.handshake import FINISH_HEADER, FINISH_RESPONSE_HEADER
from migtd.spdm.keys import ApplicationSecrets, HandshakeSecrets, derive_application, derive_handshake, mac
from migtd.spdm.transcript import Binding, Transcript


class Agreement:
    """One session's transcript and secrets. `binding` gives what stands in it for the identities."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._transcript = Transcript()
        self._handshake: HandshakeSecrets | None = None
        self._application: ApplicationSecrets | None = None
        self._th1 = b""
        self._th2 = b""

    @property
    def th1(self) -> bytes:
        """TH1, 48 bytes, after `agree`."""
        return self._th1

    @property
    def th2(self) -> bytes:
        """TH2, 48 bytes, after `finish`."""
        return self._th2

    @property
    def handshake(self) -> HandshakeSecrets:
        """The secrets that TH1 gives. Raises RuntimeError before `agree`."""
        if self._handshake is None:
            raise RuntimeError("there is no key agreement yet")
        return self._handshake

    def negotiate(self, message: bytes) -> None:
        """Add one message of part A."""
        self._transcript.add(message)

    def hash_for_responder(self, request: bytes, signed_part: bytes) -> bytes:
        """Add KEY_EXCHANGE and its response without signature; the hash that the responder signs."""
        return self._transcript.add(self._binding.responder_identity(), request, signed_part)

    def agree(self, signature: bytes, own: ec.EllipticCurvePrivateKey, peer: ec.EllipticCurvePublicKey) -> None:
        """Add the responder's signature, which was verified: TH1 and the handshake secrets."""
        self._th1 = self._transcript.add(signature)
        self._handshake = derive_handshake(own.exchange(ec.ECDH(), peer), self._th1)

    def hash_for_requester(self) -> bytes:
        """Add the evidence and the header of FINISH; the hash that the requester signs."""
        return self._transcript.add(self._binding.requester_identity(), FINISH_HEADER)

    def requester_verify_data(self, signature: bytes) -> bytes:
        """Add the requester's signature; the MAC of FINISH, 48 bytes."""
        return mac(self.handshake.requester_finished, self._transcript.add(signature))

    def responder_verify_data(self, requester_verify_data: bytes) -> bytes:
        """Add FINISH's MAC, which was verified, and the header of FINISH_RSP; the MAC of FINISH_RSP, 48 bytes."""
        digest = self._transcript.add(requester_verify_data, FINISH_RESPONSE_HEADER)
        return mac(self.handshake.responder_finished, digest)

    def finish(self, responder_verify_data: bytes) -> ApplicationSecrets:
        """Add FINISH_RSP's MAC, which was verified: TH2 and the secrets of the application."""
        self._th2 = self._transcript.add(responder_verify_data)
        self._application = derive_application(self.handshake, self._th2)
        return self._application

    def wipe(self) -> None:
        """Overwrite all secrets."""
        for secrets in (self._handshake, self._application):
            if secrets is not None:
                secrets.wipe()
