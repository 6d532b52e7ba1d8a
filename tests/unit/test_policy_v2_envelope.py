# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The envelope of a v2 policy and its signature over the text as it is (policy.md 2.1, 2.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from migtd.policy.chain import MAX_CHAIN
from migtd.policy.errors import PolicyError
from migtd.policy.v2.decoding import Signed
from migtd.policy.v2.document import verify_policy
from migtd.policy.v2.envelope import MAX_POLICY, parse_envelope, signature_bytes, verify_signed
from tests.unit.policy_v2_world import (
    CA,
    IDENTITY,
    MAPPING,
    POLICY,
    STRANGER,
    Chain,
    World,
    compact,
    issued,
    key_number,
    object_of,
    point,
    signature_of,
    signed,
)

CHAIN = Chain("Policy issuer", POLICY)
TEXT = '{ "a" : [1, "\\u0041"] }'


def verdict(call, *arguments):
    try:
        call(*arguments)
    except PolicyError as error:
        return error.name.name
    return "OK"


def policy_verdict(policy, chain=None):
    return verdict(lambda: verify_policy(parse_envelope(policy), CHAIN.pem() if chain is None else chain))


# --- the envelope --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"policyData":1,"signature":""}', "1"),
        (' \t\r\n{ "signature" : "00" , "policyData" : { "a" : 1 } } \n', '{ "a" : 1 }'),
        ('{"policyData":null,"signature":"\\u0030"}', "null"),
        ('{"policyData":"\\ud800","signature":"x"}', '"\\ud800"'),
        ('{"policyData":1e999,"signature":"","z":"\\udc00","z":{}}', "1e999"),
        ('[ [ 1 ] ,"00"]', "[ 1 ]"),
        ('{"\\u0070olicyData":0,"signature":""}', "0"),
    ],
)
def test_the_raw_value_is_kept_as_it_is_written(text, value):
    assert parse_envelope(text.encode()).value == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1",
        b'{"policyData":1}',
        b'{"signature":""}',
        b'{"policyData":1,"signature":null}',
        b'{"policyData":1,"signature":"\\ud800"}',
        b'{"policyData":1,"signature":"","signature":""}',
        b'{"policyData":1,"policyData":1,"signature":""}',
        b'{"policyData":01,"signature":""}',
        b'{"policyData":1,"signature":""}\0',
        b'\0{"policyData":1,"signature":""}',
        b'\xef\xbb\xbf{"policyData":1,"signature":""}',
        b'{"policyData":"\xff","signature":""}',
        b'{"policyData":1,"signature":""}x',
        b'[1,"",1]',
        b"[1]",
    ],
)
def test_what_is_no_envelope_is_an_invalid_policy(data):
    assert verdict(parse_envelope, data) == "InvalidPolicy"


def test_a_policy_beyond_the_limit_is_refused_unread():
    assert verdict(parse_envelope, b" " * (MAX_POLICY + 1)) == "InvalidPolicy"
    largest = b'{"policyData":1,"signature":""}'.ljust(MAX_POLICY)
    assert parse_envelope(largest) == Signed("1", "")


# --- the text of a signature ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"), [("aB", "ab"), ("+f", "0f"), ("+f+0ff", "0f00ff"), ("00", "00"), ("0a" * 500, "0a" * 500)]
)
def test_signature_text_is_pairs_of_hex_digits_where_a_plus_may_come_first(text, value):
    assert signature_bytes(text).hex() == value


@pytest.mark.parametrize(
    "text", ["", "a", "abc", "-f", "0x", "f+", "++", "a\n", " a", "é", "1_", "\u0661\u0661", "aa\n"]
)
def test_other_signature_text_is_an_invalid_parameter(text):
    assert verdict(signature_bytes, text) == "InvalidParameter"


# --- the signature -------------------------------------------------------------------------------------------------
def test_the_message_is_the_text_first_character_to_last():
    envelope = parse_envelope(signed("policyData", TEXT, POLICY).encode())
    assert envelope.value == TEXT
    verify_signed(envelope, CHAIN.pem())
    # Meaning the same is not being the same.
    for other in (TEXT.replace("\\u0041", "A"), TEXT.replace(" ", ""), TEXT.replace("[1,", "[1 ,")):
        assert verdict(verify_signed, replace(envelope, value=other), CHAIN.pem()) == "SignatureVerificationFailed"


def test_white_space_around_the_value_and_the_document_does_not_count_and_inside_it_does():
    world = World()
    text = world.policy_data_text()
    signature = signature_of(POLICY, text.encode()).hex()
    around = f' {{\n"policyData" :\t{text}\r,"signature"\n: "{signature}" }} '
    assert policy_verdict(around.encode()) == "OK"
    inside = text.replace('"version":', '"version": ', 1)
    assert policy_verdict(f'{{"policyData":{inside},"signature":"{signature}"}}'.encode()) == (
        "SignatureVerificationFailed"
    )


def test_any_byte_of_the_value_flipped_is_refused():
    message = TEXT.encode()
    signature = signature_of(POLICY, message).hex()
    leaf = CHAIN.pem()
    for place in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[place] ^= 1 << bit
            if not changed.isascii():
                continue
            envelope = Signed(changed.decode(), signature)
            assert verdict(verify_signed, envelope, leaf) == "SignatureVerificationFailed"


def test_a_byte_flipped_in_a_whole_policy_is_refused_wherever_it_is():
    policy = World().policy()
    end = policy.rindex(b',"signature"')
    for place in range(len(b'{"policyData":'), end, 997):
        changed = bytearray(policy)
        changed[place] ^= 1
        assert policy_verdict(bytes(changed)) in ("InvalidPolicy", "SignatureVerificationFailed")


@pytest.mark.parametrize(
    "change",
    [
        lambda der: der + b"\0",
        lambda der: der[:-1],
        lambda der: b"\x30\x81" + der[1:],
        lambda der: b"".join(number.to_bytes(48, "big") for number in decode_dss_signature(der)),
        lambda _: POLICY.sign(TEXT.encode(), ec.ECDSA(SHA256())),
        lambda _: signature_of(STRANGER, TEXT.encode()),
        lambda _: bytes.fromhex("3006020100020100"),
    ],
)
def test_a_signature_must_be_strict_der_of_p384_with_sha384(change):
    good = signature_of(POLICY, TEXT.encode())
    envelope = Signed(TEXT, change(good).hex())
    assert verdict(verify_signed, envelope, CHAIN.pem()) == "SignatureVerificationFailed"


def test_the_leaf_certificates_own_algorithm_is_looked_at_and_not_its_keys():
    signature = Signed(TEXT, signature_of(POLICY, TEXT.encode()).hex())
    self_signed = issued("Policy issuer", POLICY, "Policy issuer", POLICY)
    verify_signed(signature, self_signed)
    weak = issued("Policy issuer", POLICY, "Intermediate", CA, digest=SHA256)
    assert verdict(verify_signed, signature, weak) == "SignatureVerificationFailed"
    # Issued with a P-256 key all the same: the certificate's own signature is of another algorithm.
    other = key_number(40, ec.SECP256R1)
    foreign = issued("Policy issuer", POLICY, "Root", other, digest=SHA256)
    assert verdict(verify_signed, signature, foreign) == "SignatureVerificationFailed"


@pytest.mark.parametrize(
    "chain",
    [
        b"",
        b"no PEM",
        b"-----BEGIN CERTIFICATE-----\nMII",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_chain_that_cannot_be_read_is_a_failed_signature(chain):
    assert policy_verdict(World().policy(), chain) == "SignatureVerificationFailed"


def test_a_chain_beyond_its_limit_is_refused_unread():
    assert policy_verdict(World().policy(), CHAIN.pem().ljust(MAX_CHAIN + 1)) == "SignatureVerificationFailed"
    assert policy_verdict(World().policy(), CHAIN.pem().ljust(MAX_CHAIN)) == "OK"


# --- the order of one policy's verification ------------------------------------------------------------------------
def test_a_policy_as_signed_verifies_and_names_its_signer():
    world = World()
    verified = verify_policy(parse_envelope(world.policy()), CHAIN.pem())
    assert verified.signer_point == point(POLICY)
    assert verified.data.policy_svn == world.policy_svn
    assert verified.identity.levels[0].isvsvn == 3


def test_the_first_trouble_in_the_specifications_order_decides():
    world = World(data={"id": "", "version": "2.1"})
    bad_mapping = {"servtdTcbMapping": {"tdTcbMapping": {}, "signature": "00"}}
    # Everything is wrong; what comes first is repaired one by one.
    assert policy_verdict(b'{"policyData":1,"signature":"x"}', b"\xff") == "InvalidPolicy"
    assert policy_verdict(b'{"policyData":1,"signature":"x"}', b"") == "InvalidParameter"
    assert policy_verdict(b'{"policyData":1,"signature":"00"}') == "SignatureVerificationFailed"
    assert policy_verdict(signed("policyData", "1", POLICY).encode()) == "InvalidPolicy"
    assert servtd_verdict(world, servtdIdentity='{"tdIdentity":1,"signature":"x"}') == "InvalidParameter"
    assert servtd_verdict(world, servtdIdentity='{"tdIdentity":1,"signature":"00"}') == "SignatureVerificationFailed"
    unreadable = {
        "servtdIdentity": signed("tdIdentity", "1", IDENTITY),
        "servtdTcbMapping": compact(bad_mapping["servtdTcbMapping"]),
    }
    assert servtd_verdict(world, **unreadable) == "InvalidServtdIdentity"
    assert servtd_verdict(world, servtdTcbMapping='{"tdTcbMapping":1,"signature":"-f"}') == "InvalidParameter"
    assert servtd_verdict(world, servtdTcbMapping='{"tdTcbMapping":1,"signature":"+f"}') == (
        "SignatureVerificationFailed"
    )
    assert servtd_verdict(world, servtdTcbMapping=signed("tdTcbMapping", "1", MAPPING)) == "InvalidServtdTcbMapping"
    assert policy_verdict(world.policy()) == "InvalidParameter"


def servtd_verdict(world, **members):
    """The verdict on a signed policy with other texts in its servtd collateral."""
    text = world.policy_data_text()
    collateral = world.servtd_collateral_text()
    identity, mapping = (
        collateral[collateral.index(f'"{name}":') + len(name) + 3 :] for name in ("servtdIdentity", "servtdTcbMapping")
    )
    identity, mapping = identity.partition(',"servtdTcbMappingIssuerChain":')[0], mapping[:-1]
    parts = {
        "majorVersion": "1",
        "minorVersion": "0",
        "servtdIdentityIssuerChain": compact(world.identity_chain.pem().decode()),
        "servtdIdentity": identity,
        "servtdTcbMappingIssuerChain": compact(world.mapping_chain.pem().decode()),
        "servtdTcbMapping": mapping,
    }
    changed = text.replace(collateral, object_of(parts | members))
    return policy_verdict(signed("policyData", changed, POLICY).encode())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "OK"),
        ({"id": ""}, "InvalidParameter"),
        ({"version": "2"}, "InvalidParameter"),
        ({"version": " 2.0"}, "InvalidParameter"),
    ],
)
def test_an_id_and_exactly_version_2_0_are_wanted(data, expected):
    assert policy_verdict(World(data=data).policy()) == expected


def test_each_embedded_document_is_verified_with_the_chain_beside_it():
    swapped = World(identity_chain=Chain("Identity issuer", MAPPING), mapping_chain=Chain("Mapping issuer", IDENTITY))
    assert policy_verdict(swapped.policy()) == "OK"
    text = World().policy_data_text()
    identity, mapping = (
        compact(Chain(name, key).pem().decode())
        for name, key in (("Identity issuer", IDENTITY), ("Mapping issuer", MAPPING))
    )
    crossed = text.replace(identity, "@").replace(mapping, identity).replace("@", mapping)
    assert policy_verdict(signed("policyData", crossed, POLICY).encode()) == "SignatureVerificationFailed"
