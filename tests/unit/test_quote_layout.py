# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Quotes, records and packed collateral: layouts (policy.md 4.2, 4.6, 4.7)."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.quote.collateral import (
    CollateralSet,
    pull_collaterals_json,
    pull_packed,
    push_packed,
)
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import (
    BodyType,
    QuoteHeader,
    pull_qe_report,
    pull_quote,
    push_body,
    push_header,
    push_qe_report,
    push_quote,
    push_signature_data,
    push_signed_part,
)
from migtd.attestation.quote.record import RANGES, RECORD_SIZE, pull_record, push_record
from migtd.attestation.quote.verify import verify_quote
from tests.unit.quote_world import World, qe_report, quote_body, with_part

WORLD = World()
QUOTE = WORLD.quote()
COLLATERAL = WORLD.collateral()
LENGTH_AT = 48 + 584
SIGNATURE_AT = LENGTH_AT + 4
AUTH_SIZE_AT = SIGNATURE_AT + 128 + 6 + 384 + 64
INNER_AT = AUTH_SIZE_AT + 2 + 32


def patched(offset: int, layout: str, value: int, quote: bytes = QUOTE) -> bytes:
    changed = bytearray(quote)
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


def version_5() -> bytes:
    return World(header=QuoteHeader(5), body_type=BodyType.TDX_1_0).quote()


def refusal(data: bytes) -> str:
    with pytest.raises(QuoteError) as caught:
        pull_quote(data)
    return caught.value.kind.id


# --- quote ---------------------------------------------------------------------------------------------------------
def test_quote_comes_apart_into_what_it_was_made_of():
    quote = pull_quote(QUOTE)

    assert (quote.header, quote.body_type, quote.body) == (WORLD.header, WORLD.body_type, WORLD.body)
    assert quote.signed == QUOTE[:LENGTH_AT]
    assert quote.body_bytes == QUOTE[48:LENGTH_AT]
    assert quote.signature_data.qe_auth_data == bytes(range(32))
    assert quote.signature_data.pck_chain == WORLD.chain(WORLD.pck_chain)
    assert push_quote(quote.signed, quote.signature_data) == QUOTE


def test_body_of_tdx_1_5_has_two_fields_more():
    body = quote_body(tee_tcb_svn2=b"\x71" * 16, mrservicetd=b"\x72" * 48)
    world = World(header=QuoteHeader(5), body_type=BodyType.TDX_1_5, body=body)

    quote = pull_quote(world.quote())

    assert quote.body == body
    assert quote.body_bytes[584:] == b"\x71" * 16 + b"\x72" * 48
    assert world.quote()[48:54] == struct.pack("<HI", 3, 648)


def test_fields_stand_where_the_specification_puts_them():
    body = push_body(WORLD.body)

    assert body[16:64] == WORLD.body.mrseam
    assert body[136:184] == WORLD.body.mrtd
    assert body[328:376] == WORLD.body.rtmr0
    assert body[520:584] == WORLD.body.report_data
    report = push_qe_report(replace(qe_report(), report_data=b"\x55" * 64))
    assert (report[16:20], report[48:64]) == (b"\1\0\0\xa0", qe_report().attributes)
    assert (report[64:96], report[128:160]) == (b"\xe1" * 32, b"\xe2" * 32)
    assert (report[256:260], report[320:]) == (b"\2\0\6\0", b"\x55" * 64)
    assert push_qe_report(pull_qe_report(report)) == report


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "MALFORMED"),
        (QUOTE[:47], "MALFORMED"),
        (QUOTE[:600], "MALFORMED"),
        (QUOTE[: LENGTH_AT + 3], "MALFORMED"),
        (QUOTE[:-1], "MALFORMED"),
        (QUOTE + b"\1", "TRAILING-DATA"),
        (QUOTE + bytes(60) + b"\1" + bytes(9), "TRAILING-DATA"),
        (patched(LENGTH_AT, "<I", 0xFFFF_FFFF), "MALFORMED"),
        (patched(LENGTH_AT, "<I", 0), "TRAILING-DATA"),
        (QUOTE[:LENGTH_AT] + bytes(4), "MALFORMED"),
        (QUOTE[:LENGTH_AT] + struct.pack("<I", 134) + bytes(128) + struct.pack("<HI", 6, 0), "MALFORMED"),
        (patched(SIGNATURE_AT + 128, "<H", 5), "UNSUPPORTED"),
        (patched(SIGNATURE_AT + 130, "<I", 0), "MALFORMED"),
        (patched(SIGNATURE_AT + 130, "<I", 1 << 31), "MALFORMED"),
        (patched(AUTH_SIZE_AT, "<H", 0xFFFF), "MALFORMED"),
        (patched(AUTH_SIZE_AT, "<H", 31), "UNSUPPORTED"),
        (patched(INNER_AT, "<H", 6), "UNSUPPORTED"),
        (patched(INNER_AT + 2, "<I", 0), "MALFORMED"),
        (patched(0, "<H", 5), "UNSUPPORTED"),
        (patched(0, "<H", 3), "UNSUPPORTED"),
        (version_5()[:52], "MALFORMED"),
        (patched(48, "<H", 1, version_5()), "UNSUPPORTED"),
        (patched(48, "<H", 4, version_5()), "UNSUPPORTED"),
        (patched(48, "<H", 3, version_5()), "MALFORMED"),
        (patched(50, "<I", 648, version_5()), "MALFORMED"),
    ],
)
def test_quote_that_breaks_its_layout_is_refused(data: bytes, reason: str):
    assert refusal(data) == f"MIGTD-QUOTE-{reason}"


@pytest.mark.parametrize("size", [383, 385])
def test_qe_report_has_one_size(size: int):
    with pytest.raises(QuoteError, match="QE report"):
        pull_qe_report(bytes(size))


def test_maker_is_told_of_fields_of_another_size():
    with pytest.raises(ValueError, match="body"):
        push_body(replace(WORLD.body, mrtd=bytes(47)))
    with pytest.raises(ValueError, match="body"):
        push_body(replace(WORLD.body, mrservicetd=bytes(48)))
    with pytest.raises(ValueError, match="header"):
        push_header(replace(WORLD.header, user_data=bytes(19)))
    with pytest.raises(ValueError, match="QE report"):
        push_qe_report(replace(qe_report(), mrsigner=b""))
    with pytest.raises(ValueError, match="signature data"):
        push_signature_data(replace(pull_quote(QUOTE).signature_data, signature=bytes(65)))
    with pytest.raises(ValueError, match="TDX_1_5"):
        push_signed_part(QuoteHeader(5), BodyType.TDX_1_5, WORLD.body)
    with pytest.raises(ValueError, match="version 4"):
        push_signed_part(
            QuoteHeader(4), BodyType.TDX_1_5, quote_body(tee_tcb_svn2=bytes(15) + b"\1", mrservicetd=bytes(48))
        )


# --- record --------------------------------------------------------------------------------------------------------
def test_ranges_fill_a_record_without_gaps():
    ranges = list(RANGES.values())

    assert (ranges[0].start, ranges[-1].stop) == (0, RECORD_SIZE)
    assert all(left.stop == right.start for left, right in pairwise(ranges))
    assert {name: RANGES[name] for name in ("fmspc", "tdx_components", "qe_mrsigner", "tcb_date", "qe_status")} == {
        "fmspc": slice(584, 590),
        "tdx_components": slice(590, 606),
        "qe_mrsigner": slice(698, 730),
        "tcb_date": slice(734, 742),
        "qe_status": slice(790, 822),
    }


def test_record_survives_pull_and_push():
    record = verify_quote(QUOTE, WORLD.root_key(), COLLATERAL).record

    assert len(record) == RECORD_SIZE
    assert push_record(pull_record(record)) == record
    assert record[RANGES["platform_status"]] == b"UpToDate" + bytes(24)
    assert record[RANGES["tcb_date"]] == (1710288000).to_bytes(8, "little")


def test_record_of_another_size_or_with_a_bad_status_is_refused():
    record = verify_quote(QUOTE, WORLD.root_key(), COLLATERAL).record
    bad = [record[:-1], record + b"\0", record[:790] + b"x" * 32, record[:790] + b"Up\0Date".ljust(32, b"\0")]

    for data in bad:
        with pytest.raises(QuoteError) as caught:
            pull_record(data)
        assert caught.value.kind.id == "MIGTD-QUOTE-RECORD-MALFORMED"


@pytest.mark.parametrize(
    "changes",
    [
        {"qe_status": "\u00e4"},
        {"pcesvn": 1 << 16},
        {"fmspc": bytes(5)},
        {"body": bytes(648)},
    ],
)
def test_record_that_does_not_fit_is_not_made(changes: dict[str, object]):
    record = pull_record(verify_quote(QUOTE, WORLD.root_key(), COLLATERAL).record)

    with pytest.raises(QuoteError) as caught:
        push_record(replace(record, **changes))  # type: ignore[arg-type]

    assert caught.value.kind.id == "MIGTD-QUOTE-RECORD-MALFORMED"


# --- collateral ----------------------------------------------------------------------------------------------------
def test_packed_set_survives_push_and_pull():
    packed = push_packed(COLLATERAL)

    assert pull_packed(packed) == COLLATERAL
    assert struct.unpack_from("<HHI", packed) == (3, 1, len(COLLATERAL.pck_crl_issuer_chain) + 1)
    assert packed.count(b"\0" + COLLATERAL.tcb_info + b"\0") == 1


def test_more_than_one_nul_at_the_end_of_a_blob_is_dropped():
    padded = replace(COLLATERAL, tcb_info=COLLATERAL.tcb_info + bytes(3))

    assert pull_packed(push_packed(padded)) == COLLATERAL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        push_packed(COLLATERAL)[:31],
        push_packed(COLLATERAL)[:-1],
        push_packed(COLLATERAL) + b"\0",
        push_packed(COLLATERAL)[:-1] + b"}",
        struct.pack("<HH7I", 3, 0, *(0,) * 7),
        struct.pack("<HH7I", 3, 0, *(0xFFFF_FFFF,) * 7) + bytes(7),
    ],
    ids=["empty", "no sizes", "short", "long", "no NUL", "empty blobs", "huge sizes"],
)
def test_packed_set_that_breaks_its_layout_is_refused(data: bytes):
    with pytest.raises(QuoteError) as caught:
        pull_packed(data)

    assert caught.value.kind.id == "MIGTD-COLLATERAL-MALFORMED"


@pytest.mark.parametrize("name", [field.name for field in fields(CollateralSet) if field.name.islower()][3:])
def test_part_that_is_empty_or_too_large_is_refused(name: str):
    part = getattr(COLLATERAL, name)
    for value in (b"", b"\0"):
        with pytest.raises(QuoteError) as caught:
            verify_quote(QUOTE, WORLD.root_key(), with_part(COLLATERAL, name, value))
        assert caught.value.kind.id.startswith("MIGTD-COLLATERAL-")

    with pytest.raises(QuoteError) as caught:
        verify_quote(QUOTE, WORLD.root_key(), with_part(COLLATERAL, name, part + b"\n" * (4 << 20)))
    assert caught.value.kind.id == "MIGTD-COLLATERAL-MALFORMED"


def collaterals_document(**changes: object) -> bytes:
    document = {
        "majorVersion": 1,
        "minorVersion": 0,
        "teeType": 129,
        "rootCa": WORLD.chain(["root"]).decode(),
        "pckCrlIssuerChain": COLLATERAL.pck_crl_issuer_chain.decode(),
        "rootCaCrl": COLLATERAL.root_ca_crl.decode(),
        "pckCrl": COLLATERAL.pck_crl.decode(),
        "platforms": [
            {"fmspc": "00806F050000", "tcbInfoIssuerChain": "", "tcbInfo": ""},
            {
                "fmspc": "A0B1C2D3E4F5",
                "tcbInfoIssuerChain": COLLATERAL.tcb_info_issuer_chain.decode(),
                "tcbInfo": COLLATERAL.tcb_info.decode(),
            },
        ],
        "qeIdentityIssuerChain": COLLATERAL.qe_identity_issuer_chain.decode(),
        "qeIdentity": COLLATERAL.qe_identity.decode(),
    }
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize("fmspc", ["A0B1C2D3E4F5", "a0b1c2d3e4f5"])
def test_set_of_a_platform_is_taken_from_a_collaterals_document(fmspc: str):
    collateral, root_ca = pull_collaterals_json(collaterals_document(), fmspc)

    assert collateral == replace(COLLATERAL, major=1, minor=0)
    assert root_ca == WORLD.certificate("root").public_bytes(Encoding.DER)


def test_unlisted_platform_is_named():
    with pytest.raises(QuoteError, match="FMSPC 112233445566") as caught:
        pull_collaterals_json(collaterals_document(), "112233445566")

    assert caught.value.kind.id == "MIGTD-COLLATERAL-PLATFORM-MISSING"


@pytest.mark.parametrize(
    "changes",
    [
        {"majorVersion": 1 << 16},
        {"majorVersion": None},
        {"teeType": "129"},
        {"rootCa": ""},
        {"rootCa": "-----BEGIN CERTIFICATE-----\nAAAA"},
        {"rootCa": WORLD.chain(["root", "root"]).decode()},
        {"pckCrl": 1},
        {"qeIdentity": "{}\0"},
        {"qeIdentity": "\ud800"},
        {"platforms": {}},
        {"platforms": ["A0B1C2D3E4F5"]},
        {"platforms": [{"fmspc": "A0B1C2D3E4F5"}]},
    ],
)
def test_collaterals_document_of_another_shape_is_refused(changes: dict[str, object]):
    with pytest.raises(QuoteError) as caught:
        pull_collaterals_json(collaterals_document(**changes), "A0B1C2D3E4F5")

    assert caught.value.kind.id == "MIGTD-COLLATERAL-MALFORMED"
