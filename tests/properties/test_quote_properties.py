# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whatever bytes come in, the quote verifier answers with a value or a typed error, and no change goes unnoticed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import pull_certificate, raw_signed_by, root_key_of
from migtd.attestation.quote.chain import SIGNER_NAME, verify_issuer_chain, verify_pck_chain
from migtd.attestation.quote.collateral import CollateralSet, pull_collaterals_json, pull_packed, push_packed
from migtd.attestation.quote.crl import verify_crl
from migtd.attestation.quote.documents import parse_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import pull_qe_report, pull_quote, push_quote
from migtd.attestation.quote.pck import pull_extension, quote_fmspc
from migtd.attestation.quote.pem import CERTIFICATE, X509_CRL, pull_pem, push_pem
from migtd.attestation.quote.record import RECORD_SIZE, pull_record, push_record
from migtd.attestation.quote.verify import prepare, verify_prepared, verify_quote
from migtd.errors import FailureKind
from tests.unit.quote_world import ROOT, SIGNER, World, sgx_extension, sign, signed_document, with_part

WORLD = World()
QUOTE = WORLD.quote()
ROOT_KEY = WORLD.root_key()
COLLATERAL = WORLD.collateral()
PREPARED = prepare(COLLATERAL, ROOT_KEY)
GOOD = verify_prepared(QUOTE, PREPARED)
RECORD = GOOD.record
DERS = {name: WORLD.certificate(name).public_bytes(Encoding.DER) for name in WORLD.certificates}
ROOT_CERTIFICATE = pull_certificate(DERS["root"], failures.COLLATERAL_CHAIN_INVALID)
CRL = pull_pem(COLLATERAL.root_ca_crl, X509_CRL, failures.COLLATERAL_CRL_INVALID)[0]
PARTS = [field.name for field in fields(CollateralSet) if field.type == "bytes"]
READS = settings(max_examples=150, deadline=None)


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` with a few bytes replaced, or a stretch of it cut out, doubled or replaced by others."""
    data = bytearray(original)
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(data)
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 64)))
    data[start:end] = draw(st.sampled_from([b"", bytes(data[start:end]) * 2]) | st.binary(max_size=64))
    return bytes(data)


def pull_platform(data: bytes) -> object:
    return pull_collaterals_json(data, "A0B1C2D3E4F5")


def pull_signer(data: bytes) -> object:
    return verify_issuer_chain(data, SIGNER_NAME, ROOT_KEY, ())


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "quote": (pull_quote, QUOTE),
    "QE report": (pull_qe_report, pull_quote(QUOTE).signature_data.qe_report),
    "FMSPC": (quote_fmspc, QUOTE),
    "record": (pull_record, RECORD),
    "packed set": (pull_packed, push_packed(COLLATERAL)),
    "collaterals": (pull_platform, b'{"platforms":[{"fmspc":"A0B1C2D3E4F5"}]}'),
    "root CA": (root_key_of, DERS["root"]),
    "PCK certificate": (lambda data: pull_certificate(data, failures.QUOTE_PCK_CHAIN_INVALID), DERS["pck"]),
    "SGX extension": (pull_extension, WORLD.certificate("pck").tbs_certificate_bytes),
    "PCK chain": (lambda data: verify_pck_chain(data, ROOT_KEY, ()), WORLD.chain(WORLD.pck_chain)),
    "issuer chain": (
        lambda data: verify_issuer_chain(data, SIGNER_NAME, ROOT_KEY, ()),
        COLLATERAL.tcb_info_issuer_chain,
    ),
    "CRL": (lambda data: verify_crl(data, ROOT_CERTIFICATE), COLLATERAL.root_ca_crl),
    "DER CRL": (lambda data: verify_crl(data, ROOT_CERTIFICATE), CRL),
    "signed document": (
        lambda data: parse_signed(data, "tcbInfo", failures.COLLATERAL_TCB_INFO_MALFORMED, limit=1 << 20),
        COLLATERAL.tcb_info,
    ),
    "verifier": (lambda data: verify_prepared(data, PREPARED), QUOTE),
}


def refusal_of(parse: Callable[[bytes], object], data: bytes) -> FailureKind | None:
    """The kind with which `data` is refused; None if it is read. Any other exception is the test's failure."""
    try:
        parse(data)
    except QuoteError as error:
        return error.kind
    return None


@pytest.mark.parametrize("name", PARSERS)
@READS
@given(data=st.data())
def test_hostile_bytes_end_in_a_value_or_a_typed_error(name: str, data: st.DataObject):
    parse, original = PARSERS[name]
    hostile = data.draw(st.binary(max_size=2000) | changed(original))

    kind = refusal_of(parse, hostile)

    assert kind is None or kind.id.startswith(("MIGTD-QUOTE-", "MIGTD-COLLATERAL-"))


@READS
@given(data=st.data())
def test_no_change_of_a_quote_changes_what_it_says(data: st.DataObject):
    quote = data.draw(changed(QUOTE + bytes(20)))

    try:
        verified = verify_prepared(quote, PREPARED)
    except QuoteError:
        return
    assert verified == GOOD


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_change_of_collateral_changes_what_a_quote_says(part: str, data: st.DataObject):
    collateral = with_part(COLLATERAL, part, data.draw(changed(getattr(COLLATERAL, part))))

    try:
        verified = verify_quote(QUOTE, ROOT_KEY, collateral)
    except QuoteError:
        return
    assert verified == GOOD


@pytest.mark.parametrize("name", ["pck", "ca", "root"])
@READS
@given(data=st.data())
def test_no_byte_of_a_certificate_can_be_changed(name: str, data: st.DataObject):
    der = data.draw(changed(DERS[name]).filter(lambda der: der != DERS[name]))
    chain = b"".join(push_pem(der if each == name else DERS[each], CERTIFICATE) for each in WORLD.pck_chain)
    quote = pull_quote(QUOTE)
    quote = replace(quote, signature_data=replace(quote.signature_data, pck_chain=chain))

    with pytest.raises(QuoteError) as caught:
        verify_prepared(push_quote(quote.signed, quote.signature_data), PREPARED)

    assert caught.value.kind in (failures.QUOTE_PCK_CHAIN_INVALID, failures.QUOTE_ROOT_UNTRUSTED)


@READS
@given(data=st.data())
def test_no_byte_of_a_crl_can_be_changed(data: st.DataObject):
    der = data.draw(changed(CRL).filter(lambda der: der != CRL))

    with pytest.raises(QuoteError) as caught:
        verify_crl(push_pem(der, X509_CRL), ROOT_CERTIFICATE)

    assert caught.value.kind is failures.COLLATERAL_CRL_INVALID


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sgx_extension_of_any_bytes_is_read_or_refused(data: st.DataObject):
    good = sgx_extension(WORLD.sgx)
    world = World()
    world.certificates["pck"].sgx = data.draw(st.binary(max_size=400) | changed(good))

    try:
        found = pull_extension(world.certificate("pck").tbs_certificate_bytes)
    except QuoteError as error:
        assert error.kind is failures.QUOTE_PCK_EXTENSION_INVALID  # noqa: PT017 - either way is fine
    else:
        assert (len(found.components), len(found.pceid), len(found.fmspc)) == (16, 2, 6)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@READS
@given(data=st.data())
def test_signed_documents_of_any_shape_are_judged_or_refused(document: str, data: st.DataObject):
    world = World()
    spot = getattr(world, document)
    # Walk down to any field, and put anything there.
    while True:
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.integers(0, 3)) == 0:
            break
        spot = spot[key]
    spot[key] = data.draw(JSON)

    name = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}[document]
    text = signed_document(name, getattr(world, document), SIGNER)
    try:
        record = verify_quote(QUOTE, ROOT_KEY, with_part(COLLATERAL, document, text)).record
    except QuoteError:
        return
    assert len(record) == RECORD_SIZE
    assert push_record(pull_record(record)) == record


@READS
@given(value=st.dictionaries(st.text(max_size=8), JSON, max_size=4), indent=st.none() | st.integers(0, 4))
def test_message_of_a_document_does_not_depend_on_its_white_space(value: dict[str, object], indent: int | None):
    compact = json.dumps(value, separators=(",", ":"))
    text = json.dumps({"tcbInfo": value, "signature": "00" * 64}, indent=indent)

    read = functools.partial(parse_signed, name="tcbInfo", kind=failures.COLLATERAL_TCB_INFO_MALFORMED, limit=1 << 20)

    assert read(text.encode()).message == compact.encode()


@READS
@given(signature=st.binary(min_size=64, max_size=64))
def test_no_signature_is_good_by_chance(signature: bytes):
    message = b"message"

    assert raw_signed_by(ROOT.public_key(), sign(ROOT, message), message)
    assert not raw_signed_by(ROOT.public_key(), signature, message)


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\1" * 32, b"\1" * 32 + bytes(32)])
def test_signatures_out_of_range_are_refused(signature: bytes):
    assert not raw_signed_by(ROOT.public_key(), signature, b"message")
