# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Issuer chains and CRL numbers (policy.md 2.1, 2.6, 2.7)."""

from __future__ import annotations

import base64
import datetime as dt

import pytest
from asn1crypto import x509 as lenient
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from migtd.policy.chain import crl_number, pull_chain, validate_peer_chain, verify_chain
from migtd.policy.errors import PolicyError, PolicyErrorName

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


def name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Issued:
    """A certificate with its key; expired, which nobody minds."""

    def __init__(self, common_name, issuer=None, *, ca=None, digest=None, curve=None, issuer_name=None):
        self.key = ec.generate_private_key(curve or ec.SECP384R1())
        self.subject = name(common_name)
        signer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(name(issuer_name) if issuer_name else signer.subject)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(LONG_AGO)
            .not_valid_after(LONG_AGO)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectKeyIdentifier(bytes(20)), critical=False)
        self.certificate = builder.sign(signer.key, digest or SHA384())
        self.pem = self.certificate.public_bytes(Encoding.PEM)


ROOT = Issued("Lab Root CA", ca=True)
CA = Issued("Lab Intermediate CA", ROOT, ca=True)
LEAF = Issued("Lab Policy Issuer", CA)
CHAIN = LEAF.pem + CA.pem + ROOT.pem


def refused(call, *arguments):
    with pytest.raises(PolicyError) as error:
        call(*arguments)
    return error.value.name


# --- a chain alone -------------------------------------------------------------------------------------------------
def test_each_certificate_is_verified_with_the_key_of_the_next_and_names_and_dates_do_not_count():
    assert [each.der for each in verify_chain(CHAIN)] == [
        each.certificate.public_bytes(Encoding.DER) for each in (LEAF, CA, ROOT)
    ]
    misnamed = Issued("Lab Policy Issuer", CA, issuer_name="Somebody else")
    verify_chain(misnamed.pem + CA.pem)


def test_a_single_certificate_has_nothing_to_verify():
    verify_chain(LEAF.pem)


def test_text_and_other_sections_between_certificates_are_skipped():
    other = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    assert len(verify_chain(b"text\n" + LEAF.pem + other + CA.pem + b"more")) == 2


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"text",
        b"\xff\xfe",
        LEAF.pem.replace(b"-----END CERTIFICATE-----", b""),
        LEAF.pem.replace(b"MII", b"M!I", 1),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        LEAF.pem + ROOT.pem,
        ROOT.pem + CA.pem,
        Issued("Leaf", CA, digest=SHA256()).pem + CA.pem,
        LEAF.pem + CA.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
    ids=["empty", "text", "not UTF-8", "no end", "not base64", "no certificate", "nothing in it", "gap", "reversed",
         "SHA-256", "broken last"],
)  # fmt: skip
def test_other_chains_are_refused(pem):
    assert refused(verify_chain, pem) is PolicyErrorName.SignatureVerificationFailed


def test_a_signer_with_a_key_of_another_curve_is_refused():
    signer = Issued("P-256", curve=ec.SECP256R1(), ca=True)
    leaf = Issued("Leaf", signer)
    assert refused(verify_chain, leaf.pem + signer.pem) is PolicyErrorName.SignatureVerificationFailed


@pytest.mark.parametrize("where", ["signature", "signed"])
def test_a_changed_certificate_is_refused(where):
    der = bytearray(LEAF.certificate.public_bytes(Encoding.DER))
    position = len(der) - 1 if where == "signature" else der.index(b"Lab Policy")
    der[position] ^= 1
    assert refused(verify_chain, pem_of(bytes(der)) + CA.pem) is PolicyErrorName.SignatureVerificationFailed


def test_a_certificate_of_version_1_is_refused():
    # Without extensions and with the version field taken out, as `openssl x509 -req` makes them.
    parsed = lenient.Certificate.load(LEAF.certificate.public_bytes(Encoding.DER))
    tbs = parsed["tbs_certificate"]
    body = b"".join(tbs[field].dump() for field in (
        "serial_number", "signature", "issuer", "validity", "subject", "subject_public_key_info"))  # fmt: skip
    rest = parsed["signature_algorithm"].dump() + parsed["signature_value"].dump()
    der = sequence(sequence(body) + rest)
    assert refused(pull_chain, pem_of(der)) is PolicyErrorName.SignatureVerificationFailed


def pem_of(der):
    return b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n"


def sequence(content):
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


# --- beside the own chain ------------------------------------------------------------------------------------------
def test_a_peers_chain_may_have_its_own_intermediate_and_leaf_key():
    other_ca = Issued("Lab Intermediate CA 2", ROOT, ca=True)
    other_leaf = Issued("Lab Policy Issuer", other_ca)
    validate_peer_chain(CHAIN, other_leaf.pem + other_ca.pem + ROOT.pem)
    validate_peer_chain(CHAIN, Issued("Lab Policy Issuer", ROOT).pem + ROOT.pem)


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(lambda: LEAF.pem + CA.pem, id="another last certificate"),
        pytest.param(lambda: _under(Issued("Lab Root CA", ca=True)), id="another root of the same name"),
        pytest.param(lambda: Issued("Lab Other Issuer", CA).pem + CA.pem + ROOT.pem, id="another subject"),
        pytest.param(lambda: Issued("Lab Policy Issuer", LEAF).pem + CHAIN, id="signed by a leaf"),
        pytest.param(lambda: LEAF.pem + ROOT.pem, id="broken signature"),
        pytest.param(lambda: b"", id="nothing"),
    ],
)
def test_other_peers_chains_are_refused(peer):
    assert refused(validate_peer_chain, CHAIN, peer()) is PolicyErrorName.PeerCertChainValidation


def _under(root):
    ca = Issued("Lab Intermediate CA", root, ca=True)
    return Issued("Lab Policy Issuer", ca).pem + ca.pem + root.pem


def test_ca_is_what_basic_constraints_say():
    not_ca = Issued("x", ca=False)
    assert [each.is_ca for each in pull_chain(LEAF.pem + CA.pem + not_ca.pem)] == [False, True, False]


# --- CRL numbers ---------------------------------------------------------------------------------------------------
def revocations(number, *, numbered=True):
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT.subject).last_update(LONG_AGO)
    builder = builder.next_update(LONG_AGO + dt.timedelta(days=1))
    if numbered:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(ROOT.key, SHA384()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("number", [0, 1, 2**32 - 1])
def test_the_number_of_the_first_crl_is_read(number):
    assert crl_number(ROOT.pem + revocations(number) + revocations(77)) == number


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        ROOT.pem,
        revocations(2**32),
        revocations(0, numbered=False),
        revocations(5).replace(b"-----\nMI", b"-----\nAI", 1),
    ],
    ids=["empty", "none", "33 bits", "no number", "broken"],
)
def test_a_crl_without_a_number_of_32_bits_is_invalid_collateral(pem):
    assert refused(crl_number, pem) is PolicyErrorName.InvalidCollateral
