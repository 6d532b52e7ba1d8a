# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every field of quote, certificates and collateral, wrong one at a time and signed anew: refused by its own name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.quote import failures
from migtd.attestation.quote.chain import verify_pck_chain
from migtd.attestation.quote.der import pull_elements, pull_signed, push_element
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import X509_CRL, pull_pem, push_pem
from migtd.attestation.quote.verify import prepare, root_key_of, verify_prepared, verify_quote
from tests.unit.quote_world import (
    CA,
    LEVEL_SGX_COMPONENTS,
    PCK,
    ROOT,
    SGX_COMPONENTS,
    SIGNER,
    STRANGER,
    TDX_COMPONENTS,
    TEE_TCB_SVN,
    World,
    platform_level,
    sgx_extension,
    svn_level,
    with_part,
)

P384 = ec.derive_private_key(0x5A17, ec.SECP384R1())
Change = Callable[[World], object]


def body(**changes: bytes) -> Change:
    return lambda world: setattr(world, "body", replace(world.body, **changes))


def header(**changes: Any) -> Change:
    return lambda world: setattr(world, "header", replace(world.header, **changes))


def qe(**changes: Any) -> Change:
    return lambda world: setattr(world, "qe_report", replace(world.qe_report, **changes))


def set_to(name: str, value: object) -> Change:
    return lambda world: setattr(world, name, value)


def certificate(which: str, **changes: Any) -> Change:
    return lambda world: world.certificates.update({which: replace(world.certificates[which], **changes)})


def crl(which: str, **changes: Any) -> Change:
    return lambda world: setattr(world, which, replace(getattr(world, which), **changes))


def info(**changes: Any) -> Change:
    return lambda world: world.tcb_info.update(changes)


def without(which: str, name: str) -> Change:
    return lambda world: getattr(world, which).pop(name)


def module(**changes: Any) -> Change:
    return lambda world: world.tcb_info["tdxModuleIdentities"][0].update(changes)


def identity(**changes: Any) -> Change:
    return lambda world: world.qe_identity.update(changes)


def sgx(**changes: Any) -> Change:
    return lambda world: setattr(world, "sgx", replace(world.sgx, **changes))


def extension(**changes: Any) -> Change:
    return lambda world: certificate("pck", sgx=sgx_extension(world.sgx, **changes))(world)


def fmspc_twice(world: World) -> None:
    certificate("pck", sgx=sgx_extension(world.sgx, twice=True))(world)


def levels(*all_levels: dict[str, Any]) -> Change:
    return info(tcbLevels=list(all_levels))


def with_byte(values: tuple[int, ...] | bytes, index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


def both(*changes: Change) -> Change:
    return lambda world: [change(world) for change in changes]


QUOTE: list[tuple[str, Change, str]] = [
    ("version 3", header(version=3), "UNSUPPORTED"),
    ("key type", header(attestation_key_type=3), "UNSUPPORTED"),
    ("SGX quote", header(tee_type=0), "UNSUPPORTED"),
    ("QE vendor", header(qe_vendor_id=bytes(16)), "UNSUPPORTED"),
    ("another signer of the quote", set_to("quote_key", STRANGER), "SIGNATURE"),
    ("a key that is no point", set_to("attestation_point", bytes(64)), "SIGNATURE"),
    ("another signer of the QE report", set_to("qe_report_key", STRANGER), "QE-SIGNATURE"),
    ("QE report vouches for another key", set_to("qe_report_data", bytes(64)), "QE-BINDING"),
    ("MISCSELECT", qe(miscselect=0xA0000000), "QE-MISMATCH"),
    ("QE ATTRIBUTES", qe(attributes=bytes(16)), "QE-MISMATCH"),
    ("QE MRSIGNER", qe(mrsigner=bytes(32)), "QE-MISMATCH"),
    ("QE ISVPRODID", qe(isvprodid=1), "QE-MISMATCH"),
    ("QE too old", qe(isvsvn=3), "QE-LEVEL-MISSING"),
    ("module without identity", body(tee_tcb_svn=bytes((5, 2, *TEE_TCB_SVN[2:]))), "TDX-MODULE-UNKNOWN"),
    ("module signer", body(mrsignerseam=b"\1" * 48), "TDX-MODULE-MISMATCH"),
    ("debug module", body(seam_attributes=b"\1" + bytes(7)), "TDX-MODULE-MISMATCH"),
    (
        "debug module that the TCB info knows",
        both(body(seam_attributes=b"\1" + bytes(7)), module(attributes="01" + "00" * 7)),
        "TDX-MODULE-MISMATCH",
    ),
    ("module too old", body(tee_tcb_svn=bytes((1, *TEE_TCB_SVN[1:]))), "TDX-MODULE-LEVEL-MISSING"),
    ("TDX component 2", body(tee_tcb_svn=bytes(with_byte(TEE_TCB_SVN, 2, 2))), "TCB-LEVEL-MISSING"),
    ("SGX component 0", sgx(components=with_byte(SGX_COMPONENTS, 0, 5)), "TCB-LEVEL-MISSING"),
    ("SGX component 7", sgx(components=with_byte(SGX_COMPONENTS, 7, 4)), "TCB-LEVEL-MISSING"),
    ("PCESVN", sgx(pcesvn=12), "TCB-LEVEL-MISSING"),
    ("FMSPC", sgx(fmspc=bytes(6)), "FMSPC-MISMATCH"),
    ("PCEID", sgx(pceid=b"\1\0"), "PCEID-MISMATCH"),
    ("no SGX extension", certificate("pck", sgx=b""), "PCK-EXTENSION-INVALID"),
    ("SGX extension without FMSPC", extension(fmspc=None), "PCK-EXTENSION-INVALID"),
    ("SGX extension with FMSPC twice", fmspc_twice, "PCK-EXTENSION-INVALID"),
    ("FMSPC of 5 bytes", extension(fmspc=core.OctetString(bytes(5))), "PCK-EXTENSION-INVALID"),
    ("SGX extension without PCEID", extension(pceid=None), "PCK-EXTENSION-INVALID"),
    ("SGX extension without a component", extension(tcb_16=None), "PCK-EXTENSION-INVALID"),
    ("SGX component beyond a byte", extension(tcb_1=core.Integer(256)), "PCK-EXTENSION-INVALID"),
    ("negative SGX component", extension(tcb_1=core.Integer(-1)), "PCK-EXTENSION-INVALID"),
    ("PCESVN as octets", extension(tcb_17=core.OctetString(b"\x0d")), "PCK-EXTENSION-INVALID"),
    ("two certificates", set_to("pck_chain", ["pck", "root"]), "PCK-CHAIN-INVALID"),
    ("four certificates", set_to("pck_chain", ["pck", "ca", "root", "root"]), "PCK-CHAIN-INVALID"),
    ("no root", set_to("pck_chain", ["pck", "ca", "signer"]), "PCK-CHAIN-INVALID"),
    ("no PCK certificate", set_to("pck_chain", ["signer", "ca", "root"]), "PCK-CHAIN-INVALID"),
    ("two PCK certificates", set_to("pck_chain", ["pck", "pck", "root"]), "PCK-CHAIN-INVALID"),
    ("PCK certificate's name", certificate("pck", name="Lab Certificate"), "PCK-CHAIN-INVALID"),
    (
        "PCK certificate named as a CA",
        both(certificate("pck", name="Lab SGX Platform CA 2"), set_to("pck_chain", ["ca", "pck", "root"])),
        "PCK-CHAIN-INVALID",
    ),
    ("PCK key on another curve", certificate("pck", key=P384), "PCK-CHAIN-INVALID"),
    ("PCK not issued by the CA", certificate("pck", issuer="Lab SGX Root CA"), "PCK-CHAIN-INVALID"),
    ("PCK not signed by the CA", certificate("pck", issuer_key=STRANGER), "PCK-CHAIN-INVALID"),
    ("PCK signed by the root", certificate("pck", issuer_key=ROOT), "PCK-CHAIN-INVALID"),
    ("PCK signed with SHA-384", certificate("pck", digest=SHA384), "PCK-CHAIN-INVALID"),
    ("PCK revoked", crl("pck_crl", revoked=[9, 3]), "PCK-REVOKED"),
    ("PCK CA revoked", crl("root_crl", revoked=[2]), "PCK-CA-REVOKED"),
    ("level revoked", levels(platform_level("Revoked")), "TCB-REVOKED"),
    ("module level revoked", module(tcbLevels=[svn_level(5, "Revoked")]), "TDX-MODULE-REVOKED"),
    ("QE level revoked", identity(tcbLevels=[svn_level(4, "Revoked"), svn_level(1)]), "QE-REVOKED"),
    ("no level at all", levels(), "TCB-LEVEL-MISSING"),
    ("no module level", module(tcbLevels=[]), "TDX-MODULE-LEVEL-MISSING"),
    ("no QE level", identity(tcbLevels=[]), "QE-LEVEL-MISSING"),
    ("collateral of another FMSPC", info(fmspc="00" * 6), "FMSPC-MISMATCH"),
    ("collateral of another PCE", info(pceId="0100"), "PCEID-MISMATCH"),
    ("collateral without modules", without("tcb_info", "tdxModuleIdentities"), "TDX-MODULE-UNKNOWN"),
    ("module identity's signer", module(mrsigner="01" * 48), "TDX-MODULE-MISMATCH"),
    ("identity's MISCSELECT", identity(miscselect="00000000"), "QE-MISMATCH"),
    ("identity's MISCSELECT mask", identity(miscselectMask="FFFFFFFF"), "QE-MISMATCH"),
    ("identity's ATTRIBUTES", identity(attributes="10" + "00" * 15), "QE-MISMATCH"),
    ("identity's ATTRIBUTES mask", identity(attributesMask="FF" * 16), "QE-MISMATCH"),
    ("identity's MRSIGNER", identity(mrsigner="E3" * 32), "QE-MISMATCH"),
    ("identity's ISVPRODID", identity(isvprodid=3), "QE-MISMATCH"),
]

WRONG_TCB_INFO: dict[str, list[Any]] = {
    "id": ["SGX", "", None, 3],
    "version": [2, 4, 3.0, "3", True],
    "tcbType": [1, False, -1, None],
    "issueDate": ["2025-06-01", "2025-13-01T00:00:00Z", "2025-06-01T00:00:00+00:00", 0],
    "nextUpdate": ["", "2025-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "2029-06-01T00:00:00Z\n"],
    "fmspc": ["A0B1C2D3E4", "A0B1C2D3E4F5F6", "G0B1C2D3E4F5", "A0B1C2 D3E4F", None],
    "pceId": ["00", "\uff10000", 0],
    "tcbEvaluationDataNumber": [-1, 1 << 32, 1.5, "17", None],
    "tdxModule": [None, [], {}, {"mrsigner": "00" * 48}],
    "tdxModuleIdentities": [None, {}, [1], [{}]],
    "tcbLevels": [None, {}, [None], [{}], [platform_level() | {"tcbStatus": 1}]],
}
WRONG_QE_IDENTITY: dict[str, list[Any]] = {
    "id": ["QE", None],
    "version": [1, 3, "2"],
    "issueDate": ["2025"],
    "nextUpdate": [None],
    "tcbEvaluationDataNumber": [-1],
    "miscselect": ["0000000", 0],
    "miscselectMask": ["FFFFFFFFF"],
    "attributes": ["11" * 17],
    "attributesMask": [""],
    "mrsigner": ["E2" * 31],
    "isvprodid": [1 << 16, -1],
    "tcbLevels": [None, [{"tcb": {}}], [svn_level(1 << 16)], [svn_level(-1)]],
}

COLLATERAL: list[tuple[str, Change, str]] = [
    ("version 2.0", set_to("version", (2, 0)), "VERSION"),
    ("version 1.1", set_to("version", (1, 1)), "VERSION"),
    ("another trusted root", set_to("trusted_key", STRANGER), "ROOT-UNTRUSTED"),
    ("root's name", certificate("root", name="Lab Root", issuer="Lab Root"), "CHAIN-INVALID"),
    ("TCB chain of one", set_to("tcb_chain", ["root"]), "CHAIN-INVALID"),
    ("TCB chain of three", set_to("tcb_chain", ["signer", "ca", "root"]), "CHAIN-INVALID"),
    ("TCB chain of the CA", set_to("tcb_chain", ["ca", "root"]), "CHAIN-INVALID"),
    ("TCB chain without root", set_to("tcb_chain", ["signer", "ca"]), "CHAIN-INVALID"),
    ("QE chain of one", set_to("qe_chain", ["root"]), "CHAIN-INVALID"),
    ("QE chain of the CA", set_to("qe_chain", ["ca", "root"]), "CHAIN-INVALID"),
    ("CRL chain of one", set_to("crl_chain", ["root"]), "CHAIN-INVALID"),
    ("CRL chain of the signer", set_to("crl_chain", ["signer", "root"]), "CHAIN-INVALID"),
    ("signer's name", certificate("signer", name="Lab Signing"), "CHAIN-INVALID"),
    ("signer not issued by the root", certificate("signer", issuer="Lab SGX PCK Platform CA"), "CHAIN-INVALID"),
    ("signer not signed by the root", certificate("signer", issuer_key=CA), "CHAIN-INVALID"),
    ("CA not issued by the root", certificate("ca", issuer="Lab SGX Root CB"), "CHAIN-INVALID"),
    ("CA not signed by the root", certificate("ca", issuer_key=STRANGER), "CHAIN-INVALID"),
    ("root not signed by itself", certificate("root", issuer_key=STRANGER), "CHAIN-INVALID"),
    ("signer revoked", crl("root_crl", revoked=[4]), "SIGNER-REVOKED"),
    ("root CRL's issuer", crl("root_crl", issuer="Lab SGX Root CB"), "CRL-INVALID"),
    ("root CRL's signer", crl("root_crl", key=CA), "CRL-INVALID"),
    ("root CRL without number", crl("root_crl", number=None), "CRL-INVALID"),
    ("root CRL without key identifier", crl("root_crl", key_identifier=False), "CRL-INVALID"),
    ("PCK CRL's issuer", crl("pck_crl", issuer="Lab SGX Root CA"), "CRL-INVALID"),
    ("PCK CRL's signer", crl("pck_crl", key=ROOT), "CRL-INVALID"),
    ("PCK CRL without number", crl("pck_crl", number=None), "CRL-INVALID"),
    ("PCK CRL without key identifier", crl("pck_crl", key_identifier=False), "CRL-INVALID"),
    ("TCB info's signer", set_to("tcb_info_key", PCK), "TCB-INFO-SIGNATURE"),
    ("QE identity's signer", set_to("qe_identity_key", PCK), "QE-IDENTITY-SIGNATURE"),
    ("repeated levels", levels(platform_level(), platform_level("OutOfDate")), "TCB-LEVELS-REPEATED"),
    ("status of the level", levels(platform_level("Fine")), "STATUS-UNKNOWN"),
    ("status of the module level", module(tcbLevels=[svn_level(5, "ConfigurationNeeded")]), "STATUS-UNKNOWN"),
    ("status of the QE level", identity(tcbLevels=[svn_level(4, "uptodate")]), "STATUS-UNKNOWN"),
    *(
        (f"TCB info {name} {value!r}", info(**{name: value}), "TCB-INFO-MALFORMED")
        for name, values in WRONG_TCB_INFO.items()
        for value in values
    ),
    *(
        (f"level {name}", levels(changed), "TCB-INFO-MALFORMED")
        for name, changed in {
            "with 15 SGX components": platform_level(sgx=LEVEL_SGX_COMPONENTS[:15]),
            "with 17 TDX components": platform_level(tdx=(*TDX_COMPONENTS, 0)),
            "with a component of two bytes": platform_level(sgx=with_byte(LEVEL_SGX_COMPONENTS, 3, 256)),
            "with a negative component": platform_level(tdx=with_byte(TDX_COMPONENTS, 3, -1)),
            "with PCESVN beyond a word": platform_level(pcesvn=1 << 16),
            "with a date of another form": platform_level(date="today"),
            "with advisories that are no text": platform_level() | {"advisoryIDs": [1]},
            "with one advisory": platform_level() | {"advisoryIDs": "INTEL-SA-00001"},
            "without date": {"tcb": platform_level()["tcb"], "tcbStatus": "UpToDate"},
        }.items()
    ),
    *(
        (f"QE identity {name} {value!r}", identity(**{name: value}), "QE-IDENTITY-MALFORMED")
        for name, values in WRONG_QE_IDENTITY.items()
        for value in values
    ),
    *(
        (f"TCB info without {name}", without("tcb_info", name), "TCB-INFO-MALFORMED")
        for name in World().tcb_info
        if name != "tdxModuleIdentities"
    ),
    *(
        (f"QE identity without {name}", without("qe_identity", name), "QE-IDENTITY-MALFORMED")
        for name in World().qe_identity
    ),
]

ROWS = [
    *(pytest.param(change, f"MIGTD-QUOTE-{reason}", id=name) for name, change, reason in QUOTE),
    *(pytest.param(change, f"MIGTD-COLLATERAL-{reason}", id=name) for name, change, reason in COLLATERAL),
]


@pytest.mark.parametrize(("change", "reason"), ROWS)
def test_what_is_wrong_is_refused_by_its_name(change: Change, reason: str):
    world = World()
    change(world)

    with pytest.raises(QuoteError) as caught:
        verify_quote(world.quote(), world.root_key(), world.collateral())

    assert caught.value.kind.id == reason


def test_quote_of_another_pki_is_refused_under_our_root():
    ours, theirs = World(), World()
    certificate("root", key=STRANGER, issuer_key=STRANGER)(theirs)
    certificate("ca", issuer_key=STRANGER)(theirs)

    with pytest.raises(QuoteError) as caught:
        verify_quote(theirs.quote(), ours.root_key(), ours.collateral())

    assert caught.value.kind.id == "MIGTD-QUOTE-ROOT-UNTRUSTED"


def test_quote_with_another_root_certificate_of_the_trusted_key_is_refused():
    ours, theirs = World(), World()
    certificate("root", serial=77)(theirs)

    with pytest.raises(QuoteError) as caught:
        verify_quote(theirs.quote(), ours.root_key(), ours.collateral())

    assert caught.value.kind.id == "MIGTD-QUOTE-ROOT-UNTRUSTED"


@pytest.mark.parametrize("chain", ["qe_chain", "crl_chain"])
def test_collateral_with_two_root_certificates_of_one_key_is_refused(chain: str):
    world, other = World(), World()
    certificate("root", serial=77)(other)
    part = {"qe_chain": "qe_identity_issuer_chain", "crl_chain": "pck_crl_issuer_chain"}[chain]
    collateral = with_part(world.collateral(), part, other.chain(getattr(other, chain)))

    with pytest.raises(QuoteError) as caught:
        verify_quote(world.quote(), world.root_key(), collateral)

    assert caught.value.kind.id == "MIGTD-COLLATERAL-ROOT-UNTRUSTED"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Lab SGX PCK Processor CA", "MIGTD-COLLATERAL-CRL-INVALID"),
        ("Lab SGX PCK Other CA", "MIGTD-QUOTE-PCK-CHAIN-INVALID"),
        ("Lab SGX PCK Platform", "MIGTD-QUOTE-PCK-CHAIN-INVALID"),
    ],
)
def test_crl_of_one_ca_says_nothing_of_another(name: str, reason: str):
    ours, theirs = World(), World()
    certificate("ca", name=name)(theirs)
    certificate("pck", issuer=name)(theirs)

    with pytest.raises(QuoteError) as caught:
        verify_quote(theirs.quote(), ours.root_key(), ours.collateral())

    assert caught.value.kind.id == reason


@pytest.mark.parametrize("issuer", ["Lab SGX Root CA", "Lab SGX PCK Platform CA 2"])
def test_ca_of_a_quote_must_itself_be_signed_by_the_root(issuer: str):
    ours, theirs = World(), World()
    certificate("ca", serial=99, issuer=issuer, issuer_key=STRANGER)(theirs)

    with pytest.raises(QuoteError) as caught:
        verify_quote(theirs.quote(), ours.root_key(), ours.collateral())

    assert caught.value.kind.id == "MIGTD-QUOTE-PCK-CHAIN-INVALID"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": STRANGER, "issuer_key": STRANGER}, "MIGTD-QUOTE-ROOT-UNTRUSTED"),
        ({"issuer_key": STRANGER}, "MIGTD-QUOTE-PCK-CHAIN-INVALID"),
        ({"name": "Lab Root CA", "issuer": "Lab Root CA"}, "MIGTD-QUOTE-PCK-CHAIN-INVALID"),
    ],
)
def test_pck_chain_alone_is_verified_up_to_the_root(changes: dict[str, Any], reason: str):
    world = World()
    certificate("root", **changes)(world)

    with pytest.raises(QuoteError) as caught:
        verify_pck_chain(world.chain(world.pck_chain), world.root_key(), ())

    assert caught.value.kind.id == reason


def test_root_ca_must_have_a_p256_key():
    world = World()
    certificate("root", key=P384, issuer_key=P384)(world)

    with pytest.raises(QuoteError, match="P-256") as caught:
        root_key_of(world.certificate("root").public_bytes(Encoding.DER))

    assert caught.value.kind.id == "MIGTD-COLLATERAL-ROOT-CA-INVALID"


def test_crl_without_next_update_is_refused():
    world = World()
    collateral = world.collateral()
    (der,) = pull_pem(collateral.root_ca_crl, X509_CRL, failures.COLLATERAL_CRL_INVALID)
    signed, _ = pull_signed(der)
    (whole,) = pull_elements(signed)
    version, algorithm, issuer, this_update, _next_update, *rest = (
        each.encoded for each in pull_elements(whole.content)
    )
    changed = push_element(0x30, version, algorithm, issuer, this_update, *rest)
    signature = ROOT.sign(changed, ec.ECDSA(SHA256()))
    crl = push_pem(push_element(0x30, changed, algorithm, push_element(0x03, b"\0", signature)), X509_CRL)

    with pytest.raises(QuoteError, match="nextUpdate") as caught:
        prepare(with_part(collateral, "root_ca_crl", crl), world.root_key())

    assert caught.value.kind is failures.COLLATERAL_CRL_INVALID


def test_signer_of_the_qe_identity_alone_is_checked_for_revocation():
    world = World()
    crl("root_crl", revoked=[5])(world)
    world.certificates["qe signer"] = replace(world.certificates["signer"], serial=5, key=PCK)
    world.qe_chain, world.qe_identity_key = ["qe signer", "root"], PCK

    with pytest.raises(QuoteError) as caught:
        prepare(world.collateral(), world.root_key())

    assert caught.value.kind.id == "MIGTD-COLLATERAL-SIGNER-REVOKED"


def test_tcb_info_is_judged_by_its_own_signer():
    world = World()
    world.certificates["qe signer"] = replace(world.certificates["signer"], serial=5, key=PCK)
    world.qe_chain, world.qe_identity_key = ["qe signer", "root"], PCK
    verify_quote(world.quote(), world.root_key(), world.collateral())

    world.tcb_info_key, world.qe_identity_key = PCK, SIGNER
    with pytest.raises(QuoteError) as caught:
        prepare(world.collateral(), world.root_key())

    assert caught.value.kind.id == "MIGTD-COLLATERAL-TCB-INFO-SIGNATURE"


def test_expiry_of_everything_refuses_nothing():
    world = World()
    long_ago = {"issued": datetime(1999, 1, 1, tzinfo=UTC), "expires": datetime(2000, 1, 1, tzinfo=UTC)}
    for which in world.certificates:
        certificate(which, **long_ago)(world)
    crl("root_crl", **long_ago)(world)
    crl("pck_crl", **long_ago)(world)
    for document in (world.tcb_info, world.qe_identity):
        document.update(issueDate="1999-01-01T00:00:00Z", nextUpdate="1998-01-01T00:00:00Z")

    verified = verify_prepared(world.quote(), prepare(world.collateral(), world.root_key()))

    assert verified.earliest_expiration == datetime(1998, 1, 1, tzinfo=UTC).timestamp()
    assert verified.latest_issue == datetime(1999, 1, 1, tzinfo=UTC).timestamp()
