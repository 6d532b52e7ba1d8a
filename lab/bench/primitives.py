# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The cryptography that any implementation of a session must run, in CPU time of this process.

One session, both sides together, with the profile of ghci-ratls.md 5 (all of it on P-384, with SHA-384):

| primitive | times | why |
|---|---|---|
| key generation | 4 | a key for each certificate, an ephemeral key for each side's key share |
| ECDH | 2 | each side derives the shared secret |
| ECDSA signature | 4 | each side signs its certificate and its CertificateVerify |
| ECDSA verification | 2, or 4 | each CertificateVerify; each self-signature too where the mode verifies it |
| AES-256-GCM | 12 | the records of both sides, sealed and opened; a certificate's is the largest |
| HKDF-SHA384 expansion | 24 | secrets, keys and nonces of the key schedule, on both sides |

With quotes (mode `lab`) there are besides, on P-256 with SHA-256:

| primitive | times | why |
|---|---|---|
| ECDSA signature | 2 | each host signs a quote; the QE report in it is of the attestation key and can be kept |
| ECDSA verification | 12 | each side verifies its own and the peer's quote: PCK certificate, QE report, quote |

With policy v2 (mode `lab`) each side has a second quote made, which stands for itself in the policy, and verifies that
and the peer's:

| primitive | times | why |
|---|---|---|
| ECDSA signature, P-256 | 4 | two quotes of each side |
| ECDSA verification, P-256 | 12 | as above |
| SHA-384 of policy and issuer chain | 2 | what the peer sent before the session is what its certificate names |

Collateral is the same in session after session. Whoever verified a set once need not do it again, nor what it holds of
a quote's chain (root and PCK CA), so its certificates, CRLs and documents are no part of the sum. So it is with the
peer's policy v2, its signatures and chains: whoever verified it once knows it by its hash.

Encodings, TLS framing, calls between guest and host are what an implementation adds; they are no part of the sum. The
last two rows are small, and counted generously rather than argued away.

The bare handshake is the second yardstick: the same session as OpenSSL runs it by itself, two ends in one process over
memory, certificates made and contexts set up, without the checks, the channel and the hosts of the lab.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from lab.bench.spread import Spread
from migtd.attestation.accept_all import QUOTE
from migtd.attestation.mode import Evidence
from migtd.ratls.certificate import make_certificate, migration_extensions
from migtd.ratls.tls import PresentedCertificate, TlsEndpoint, TlsRole

_CURVE: Final = ec.SECP384R1()
_SIGNATURE: Final = ec.ECDSA(SHA384())
_QUOTE_CURVE: Final = ec.SECP256R1()
_QUOTE_SIGNATURE: Final = ec.ECDSA(SHA256())
_QUOTE_SIZE: Final = 632
"""Bytes of a version 4 quote that are signed; what else is verified of it has about as many."""
_TBS_SIZE: Final = 1500
"""Bytes of the signed part of a certificate with an event log and a quote."""
_RECORD_SIZE: Final = 2048
_PEER_DATA_SIZE: Final = 18 << 10
"""Bytes of a policy v2 that the lab makes and its issuer chain, about."""
_SECRET_SIZE: Final = 48


@dataclass(frozen=True, slots=True)
class Primitive:
    """One primitive and how often a session needs it, both sides together."""

    name: str
    times: int
    run: Callable[[], object]


def primitives(*, self_signatures_verified: int) -> tuple[Primitive, ...]:
    """The table above. `self_signatures_verified` is 2 for a mode that verifies them and 0 for accept-all."""
    key, peer = ec.generate_private_key(_CURVE), ec.generate_private_key(_CURVE).public_key()
    public = key.public_key()
    signed, record = os.urandom(_TBS_SIZE), os.urandom(_RECORD_SIZE)
    signature = key.sign(signed, _SIGNATURE)
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    secret = os.urandom(_SECRET_SIZE)
    return (
        Primitive("key generation", 4, lambda: ec.generate_private_key(_CURVE)),
        Primitive("ECDH", 2, lambda: key.exchange(ec.ECDH(), peer)),
        Primitive("ECDSA signature", 4, lambda: key.sign(signed, _SIGNATURE)),
        Primitive(
            "ECDSA verification", 2 + self_signatures_verified, lambda: public.verify(signature, signed, _SIGNATURE)
        ),
        Primitive("AES-256-GCM", 12, lambda: cipher.encrypt(nonce, record, None)),
        Primitive("HKDF expansion", 24, lambda: HKDFExpand(SHA384(), _SECRET_SIZE, b"label").derive(secret)),
    )


def quote_primitives(*, quotes: int) -> tuple[Primitive, ...]:
    """The second table above: what a session with quotes needs besides. `quotes` are those that hosts sign for it."""
    key = ec.generate_private_key(_QUOTE_CURVE)
    public, signed = key.public_key(), os.urandom(_QUOTE_SIZE)
    signature = key.sign(signed, _QUOTE_SIGNATURE)
    return (
        Primitive("P-256 signature", quotes, lambda: key.sign(signed, _QUOTE_SIGNATURE)),
        Primitive("P-256 verification", 12, lambda: public.verify(signature, signed, _QUOTE_SIGNATURE)),
    )


def peer_data_primitives() -> tuple[Primitive, ...]:
    """What is in the third table above, and not in the second."""
    peer_data = os.urandom(_PEER_DATA_SIZE)
    return (Primitive("SHA-384 of peer data", 2, lambda: hashlib.sha384(peer_data).digest()),)


def milliseconds(run: Callable[[], object], repetitions: int, clock: Callable[[], int] = time.process_time_ns) -> float:
    """CPU milliseconds of one run, on average of `repetitions` (at least 1). `clock` is in nanoseconds."""
    run()
    started = clock()
    for _ in range(repetitions):
        run()
    return (clock() - started) / repetitions / 1e6


def primitive_sum(
    table: tuple[Primitive, ...], repetitions: int, clock: Callable[[], int] = time.process_time_ns
) -> float:
    """CPU milliseconds of a session's primitives."""
    return sum(each.times * milliseconds(each.run, repetitions, clock) for each in table)


def bare_handshake(repetitions: int) -> Spread:
    """CPU milliseconds of whole sessions in memory: certificates, contexts and handshake of both ends."""
    return Spread.of(milliseconds(_handshake, 1) for _ in range(repetitions))


def _handshake() -> None:
    extensions = migration_extensions(Evidence(QUOTE, bytes(256)))
    ends = []
    for role in (TlsRole.CLIENT, TlsRole.SERVER):
        key = ec.generate_private_key(_CURVE)
        ends.append(TlsEndpoint(role, key, make_certificate(key, extensions), _accept))
    client, server = ends
    client.handshake()
    while not (client.handshake_done and server.handshake_done):
        for sender, receiver in ((client, server), (server, client)):
            data = sender.data_to_send()
            if not data and not receiver.handshake_done:
                continue
            receiver.feed(data)
            receiver.handshake()


def _accept(_presented: PresentedCertificate) -> None:
    """No check: a bare handshake."""
