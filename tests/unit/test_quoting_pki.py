# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The PKI of a lab: who signs whom, what can be made again, and what stays hidden."""

import json
import os
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.keys import point_of
from vmm_stub.quoting.pki import LabPki, pull_pki, push_pki
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.tdx_module.errors import RandomSourceBroken

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
SETTINGS = PlatformSettings(machine="a")


def chain(pem):
    return x509.load_pem_x509_certificates(pem)


def common_name(certificate):
    return certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def test_a_seed_always_gives_the_same_pki():
    first, second = LabPki.from_seed("one"), LabPki.from_seed("one")
    assert push_pki(first) == push_pki(second)
    assert first.pck_chain(SETTINGS) == second.pck_chain(SETTINGS)
    assert LabPki.from_seed("two").root_ca != first.root_ca


def test_each_lab_has_another_root():
    roots = {LabPki.generate(os.urandom, NOW).root_ca for _ in range(3)}
    assert len(roots) == 3


def test_a_broken_random_source_makes_no_pki():
    with pytest.raises(RandomSourceBroken):
        LabPki.generate(bytes, NOW)


def test_the_chains_are_signed_up_to_the_root_and_named_as_sgx_names_them():
    pki = LabPki.generate(os.urandom, NOW)
    pck, ca, root = chain(pki.pck_chain(SETTINGS))
    pck.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    signer, same_root = chain(pki.signing_chain)
    signer.verify_directly_issued_by(root)
    assert same_root == root
    assert chain(pki.pck_crl_chain) == [ca, root]
    assert "SGX PCK Certificate" in common_name(pck)
    assert "PCK Platform CA" in common_name(ca)
    assert "SGX Root CA" in common_name(root)
    assert "SGX TCB Signing" in common_name(signer)
    assert all("MigTD Lab" in each.subject.rfc4514_string() for each in (pck, ca, root, signer))
    assert root.public_bytes(Encoding.DER) == pki.root_ca
    assert root.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) == pki.root_key


def test_a_pck_belongs_to_one_machine_at_one_tcb():
    pki = LabPki.from_seed("one")
    other_tcb = PlatformSettings(machine="a", pcesvn=12)
    keys = [point_of(pki.pck_key(each)) for each in (SETTINGS, other_tcb, PlatformSettings(machine="b"))]
    assert len(set(keys)) == 3
    pck = chain(pki.pck_chain(SETTINGS))[0]
    assert pck.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:] == keys[0]


def test_a_crl_lists_the_pck_of_a_revoked_machine_and_no_other():
    pki = LabPki.from_seed("one")
    crl = x509.load_pem_x509_crl(pki.pck_crl([SETTINGS], NOW, NOW.replace(year=2027)))
    revoked, kept = (chain(pki.pck_chain(each))[0] for each in (SETTINGS, PlatformSettings(machine="b")))
    assert crl.is_signature_valid(cast("Any", pki.platform_ca.public_key()))
    assert crl.get_revoked_certificate_by_serial_number(revoked.serial_number) is not None
    assert crl.get_revoked_certificate_by_serial_number(kept.serial_number) is None
    root_crl = x509.load_pem_x509_crl(pki.root_ca_crl(NOW, NOW.replace(year=2027)))
    assert root_crl.is_signature_valid(cast("Any", pki.root.public_key()))
    assert len(root_crl) == 0


def test_a_pki_that_was_kept_goes_on_as_before():
    pki = LabPki.generate(os.urandom, NOW, "http://127.0.0.1:9000")
    again = pull_pki(push_pki(pki))
    assert again == pki
    assert again.root_key == pki.root_key
    ca = chain(again.pck_chain(SETTINGS))[1]
    assert ca == pki.platform_ca


def test_no_secret_of_a_pki_is_shown():
    pki = LabPki.from_seed("one")
    assert pki.secret.hex() not in repr(pki)
    assert repr(pki.secret) not in repr(pki)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda kept: kept.pop("root"), "root"),
        (lambda kept: kept.update(secret="00"), "secret"),
        (lambda kept: kept.update(extra=1), "extra"),
        (lambda kept: kept.update(root="no certificate"), "certificate"),
    ],
)
def test_a_damaged_pki_is_refused_and_not_shown(change, named):
    kept = json.loads(push_pki(LabPki.from_seed("one")))
    secret = kept["secret"]
    change(kept)
    with pytest.raises(QuotingError) as refused:
        pull_pki(json.dumps(kept))
    assert refused.value.kind.id == "VMM-QUOTING-MATERIAL"
    assert named in refused.value.detail
    assert secret not in str(refused.value)


def test_text_that_is_no_json_is_refused():
    with pytest.raises(QuotingError):
        pull_pki("{")
