# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Signatures, key schedule, transcript binding and records against known answers of the specification."""

from __future__ import annotations

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd.spdm.errors import FinishRefused, Malformed, SilentRefusal
from migtd.spdm.evidence import requester_report_data, responder_report_data
from migtd.spdm.keys import DirectionKeys, bin_concat, derive_application, derive_handshake, expand, expect_mac, mac
from migtd.spdm.records import RecordOpener, RecordSealer
from migtd.spdm.signing import (
    REQUESTER_CONTEXT,
    RESPONDER_CONTEXT,
    Signer,
    pull_public_key,
    pull_share,
    push_share,
    signature_input,
    verify,
)
from migtd.spdm.transcript import MigTdBinding, StandardBinding, Transcript

SIGNER = Signer(ec.derive_private_key(0x1111, ec.SECP384R1()), ec.ECDSA(SHA384(), deterministic_signing=True))
DIGEST = bytes(range(48))
KEYS = DirectionKeys(bytearray(range(32)), bytearray(range(100, 112)))


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (
            RESPONDER_CONTEXT,
            "24071aac36c65f210248d0f247fbfb0029d031425555fc3aec50277c01ff4b9cc0556c7d6c7154b280b46a9841a86024",
        ),
        (
            REQUESTER_CONTEXT,
            "60777e07a3189d8c42a2d69e8340484838487bfb3651a9b465aba81efe812c167aa7fadecb36cbb57163697fae13059c",
        ),
    ],
)
def test_signature_input_has_the_known_hash(context: bytes, expected: str) -> None:
    data = signature_input(context, bytes(48))
    assert len(data) == 148
    assert hashlib.sha384(data).hexdigest() == expected


def test_report_data_has_the_known_values() -> None:
    assert requester_report_data(bytes(48)).hex() == (
        "2da859eaa43c786093d7e94e5fa916fa640825d38a10b5987a11e261d1d931275f486cf773c2d445a7c6a7da61e80732" + "00" * 16
    )
    assert responder_report_data(bytes(48)).hex() == (
        "57e4ce36ed17fd01b27ee3fbc3204bc9961c698e194528d02bca6327465520edce9759b9cf0fe37025f28b2f295776da" + "00" * 16
    )


def test_bin_concat_is_the_example_of_the_specification() -> None:
    assert bin_concat(48, b"finished").hex() == "30007370646d312e322066696e6973686564"


def test_expand_is_hkdf_over_sha384() -> None:
    # Computed by hand from HMAC: one block of HKDF-Expand is HMAC(secret, info || 01).
    import hmac  # noqa: PLC0415 - the definition, used here only

    block = hmac.digest(b"s" * 48, bin_concat(48, b"req hs data", DIGEST) + b"\x01", "sha384")
    assert expand(bytearray(b"s" * 48), 48, b"req hs data", DIGEST) == block


def test_a_signature_holds_for_its_context_and_transcript_only() -> None:
    signature = SIGNER.sign(RESPONDER_CONTEXT, DIGEST)
    key = pull_public_key(SIGNER.public_key)
    assert len(signature) == 96
    verify(key, signature, RESPONDER_CONTEXT, DIGEST)
    swapped = signature[48:] + signature[:48]
    zero_r, zero_s = bytes(48) + signature[48:], signature[:48] + bytes(48)
    for wrong, context, digest in (
        (signature, REQUESTER_CONTEXT, DIGEST),
        (signature, RESPONDER_CONTEXT, bytes(48)),
        (swapped, RESPONDER_CONTEXT, DIGEST),
        (zero_r, RESPONDER_CONTEXT, DIGEST),
        (zero_s, RESPONDER_CONTEXT, DIGEST),
        (b"\xff" * 96, RESPONDER_CONTEXT, DIGEST),
    ):
        with pytest.raises(FinishRefused):
            verify(key, wrong, context, digest)


def test_only_the_canonical_public_key_is_read() -> None:
    good = SIGNER.public_key
    public = SIGNER.key.public_key()
    assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == good
    compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    other_curve = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    for wrong in (
        b"",
        good[:-1],
        good + b"\0",
        b"\x30\x81" + good[1:],
        good[:24] + bytes(96),
        good[:23] + compressed.ljust(97, b"\0"),
        other_curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        bytes([good[0] ^ 1]) + good[1:],
    ):
        with pytest.raises(Malformed):
            pull_public_key(wrong)


def test_a_share_off_the_curve_is_refused() -> None:
    share = bytearray(push_share(SIGNER.key.public_key()))
    assert push_share(pull_share(bytes(share), "share")) == share
    share[95] ^= 1
    for wrong in (bytes(share), bytes(96), b"\xff" * 96):
        with pytest.raises(Malformed, match="not a point"):
            pull_share(wrong, "share")


def test_a_mac_of_another_key_is_refused() -> None:
    secrets = derive_handshake(b"z" * 48, DIGEST)
    ours = mac(secrets.requester_finished, DIGEST)
    expect_mac(ours, mac(secrets.requester_finished, DIGEST), "RequesterVerifyData")
    with pytest.raises(FinishRefused, match="RequesterVerifyData"):
        expect_mac(ours, mac(secrets.responder_finished, DIGEST), "RequesterVerifyData")


def test_wiped_secrets_are_gone() -> None:
    secrets = derive_handshake(b"z" * 48, DIGEST)
    application = derive_application(secrets, DIGEST)
    secrets.wipe()
    application.wipe()
    kept = [
        secrets.handshake,
        secrets.requester,
        secrets.responder,
        secrets.requester_finished,
        secrets.responder_finished,
        application.master,
        application.requester,
        application.responder,
        application.requester_keys.key,
        application.requester_keys.iv,
        application.responder_keys.key,
        application.responder_keys.iv,
    ]
    assert [bytes(each) for each in kept] == [bytes(len(each)) for each in kept]


def test_secrets_do_not_show() -> None:
    secrets = derive_handshake(b"z" * 48, DIGEST)
    shown = repr((secrets, derive_application(secrets, DIGEST)))
    assert "bytearray" not in shown


def test_bindings_stand_in_the_transcript_as_hashes() -> None:
    binding = MigTdBinding()
    with pytest.raises(RuntimeError):
        binding.responder_identity()
    binding.add_keys(b"R4", b"r4")
    binding.add_evidence(b"R6", b"r6")
    hashes = [hashlib.sha384(each).digest() for each in (b"R4", b"r4", b"R6", b"r6", b"req", b"rsp")]
    assert binding.responder_identity() == hashes[0] + hashes[1]
    assert binding.requester_identity() == hashes[2] + hashes[3]
    standard = StandardBinding(requester_key=b"req", responder_key=b"rsp")
    assert (standard.requester_identity(), standard.responder_identity()) == (hashes[4], hashes[5])


def test_a_transcript_hashes_all_so_far() -> None:
    transcript = Transcript()
    assert transcript.add(b"a", b"b") == hashlib.sha384(b"ab").digest()
    assert transcript.add(b"c") == transcript.digest() == hashlib.sha384(b"abc").digest()


def test_records_open_in_their_order_only() -> None:
    sealer, opener = RecordSealer(KEYS), RecordOpener(KEYS)
    first, second = sealer.seal(b"\x12\xfe\0\0one"), sealer.seal(b"\x12\xec\0\0")
    assert (len(first), len(second)) == (7 + 32, 36)
    assert first[:14].hex() == "fdfffdff" + "00" * 8 + "1900"
    with pytest.raises(SilentRefusal, match="sequence"):
        RecordOpener(KEYS).open(second)
    assert opener.open(first) == b"\x12\xfe\0\0one"
    with pytest.raises(SilentRefusal, match="sequence"):
        opener.open(first)
    assert opener.open(second) == b"\x12\xec\0\0"


@pytest.mark.parametrize(
    ("session_id", "length", "size"),
    [
        (0xFFFDFFFE, 22, 4),
        (0, 22, 4),
        (0xFFFDFFFD, 21, 4),
        (0xFFFDFFFD, 23, 4),
        (0xFFFDFFFD, 22, 3),
        (0xFFFDFFFD, 22, 5),
    ],
)
def test_a_wrong_header_is_refused_though_its_tag_is_right(session_id: int, length: int, size: int) -> None:
    head = struct.pack("<IQH", session_id, 0, length)
    plain = struct.pack("<H", size) + b"\x12\xec\0\0"
    sealed = AESGCM(bytes(KEYS.key)).encrypt(bytes(KEYS.iv), plain, head)
    with pytest.raises(SilentRefusal):
        RecordOpener(KEYS).open(head + sealed)


def test_no_byte_of_a_record_can_be_changed() -> None:
    record = RecordSealer(KEYS).seal(b"\x12\xec\0\0")
    for offset in range(len(record)):
        changed = bytearray(record)
        changed[offset] ^= 1
        with pytest.raises(SilentRefusal):
            RecordOpener(KEYS).open(bytes(changed))
    for wrong in (record[:-1], record + b"\0", record[:20], b""):
        with pytest.raises(SilentRefusal):
            RecordOpener(KEYS).open(wrong)
    with pytest.raises(SilentRefusal):
        RecordOpener(DirectionKeys(bytearray(32), bytearray(12))).open(record)
