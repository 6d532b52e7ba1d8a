# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a quote that verifies is said to be: record, levels, dates (policy.md 4.2, 4.3, 4.9)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import BodyType, QuoteHeader
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import RANGES, pull_record
from migtd.attestation.quote.result import converge
from migtd.attestation.quote.tcb_level import Level
from migtd.attestation.quote.verify import Verified, prepare, root_key_of, verify_prepared, verify_quote
from tests.unit.quote_world import (
    FMSPC,
    LEVEL_SGX_COMPONENTS,
    TDX_COMPONENTS,
    YEAR_2030,
    World,
    platform_level,
    point,
    quote_body,
    sign,
    svn_level,
)

LOW = (0,) * 16


def verify(world: World) -> Verified:
    return verify_quote(world.quote(), world.root_key(), world.collateral())


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def with_levels(*levels: object) -> World:
    world = World()
    world.tcb_info["tcbLevels"] = list(levels)
    return world


def version_5(body_type: BodyType, **changes: bytes) -> World:
    return World(header=QuoteHeader(5), body_type=body_type, body=quote_body(**changes))


def test_record_says_what_the_quote_and_the_matched_levels_say():
    record = pull_record(verify(World()).record)

    assert (record.fmspc, record.pcesvn, record.module_major, record.module_svn) == (FMSPC, 13, 1, 5)
    assert record.tdx_components == bytes(TDX_COMPONENTS)
    assert record.sgx_components == bytes(LEVEL_SGX_COMPONENTS)
    assert (record.qe_isvprodid, record.qe_isvsvn) == (2, 4)
    assert (record.platform_status, record.qe_status) == ("UpToDate", "UpToDate")
    assert (record.platform_tcb_date, record.qe_tcb_date) == (seconds("2024-11-13"), seconds("2024-03-13"))
    assert record.tcb_date == seconds("2024-03-13")
    assert (record.qe_mrenclave, record.qe_mrsigner) == (b"\xe1" * 32, b"\xe2" * 32)


def test_record_has_the_qe_fields_masked_and_the_masks_as_written():
    record = verify(World()).record

    assert record[RANGES["qe_miscselect"]].hex() == "01000000"
    assert record[RANGES["qe_miscselect_mask"]].hex() == "ffffff0f"
    assert record[RANGES["qe_attributes"]].hex() == "11000000000000000000000000000000"
    assert record[RANGES["qe_attributes_mask"]].hex() == "fbffffffffffffff0000000000000000"


@pytest.mark.parametrize(
    "world",
    [
        World(),
        version_5(BodyType.TDX_1_0),
        version_5(BodyType.TDX_1_5, tee_tcb_svn2=b"\x77" * 16, mrservicetd=b"\x78" * 48),
    ],
    ids=["v4", "v5-type-2", "v5-type-3"],
)
def test_quotes_of_all_forms_give_the_same_record(world: World):
    verified = verify(world)

    assert verified.record == verify(World()).record
    assert verified.record[RANGES["report_data"]] == world.body.report_data
    assert verified.record[RANGES["mrtd"]] == world.body.mrtd


def test_zeros_behind_a_quote_change_nothing():
    world = World()

    assert verify_quote(world.quote() + bytes(70), world.root_key(), world.collateral()) == verify(world)


def test_prepared_collateral_serves_several_quotes():
    world, other = World(), World(body=quote_body(report_data=b"\x99" * 64))
    prepared = prepare(world.collateral(), world.root_key())

    assert verify_prepared(world.quote(), prepared) == verify(world)
    assert verify_prepared(other.quote(), prepared).record[RANGES["report_data"]] == b"\x99" * 64


def test_root_key_is_that_of_the_certificate():
    world = World()

    assert root_key_of(world.certificate("root").public_bytes(Encoding.DER)) == world.root_key()
    with pytest.raises(QuoteError, match="root CA"):
        root_key_of(b"\x30\x00")


def test_fmspc_of_a_quote_is_found_without_verifying_it():
    quote = bytearray(World().quote())
    quote[100] ^= 1

    assert quote_fmspc(bytes(quote)) == "A0B1C2D3E4F5"
    with pytest.raises(QuoteError, match="no certificate"):
        quote_fmspc(bytes(quote[:800]))


def test_the_chain_may_come_in_any_order():
    world = World()
    world.pck_chain, world.tcb_chain = ["root", "pck", "ca"], ["root", "signer"]

    assert verify(world) == verify(World())


def test_quote_may_have_a_ca_certificate_of_its_own_with_the_same_key():
    world, other = World(), World()
    world.certificates["ca"] = replace(world.certificates["ca"], serial=99)

    assert verify_quote(world.quote(), other.root_key(), other.collateral()).record == verify(other).record


# --- levels --------------------------------------------------------------------------------------------------------
def test_levels_are_sorted_before_one_is_taken():
    worst, middle, best = (
        platform_level("OutOfDate", sgx=LOW, date="2020-01-01T00:00:00Z"),
        platform_level("ConfigurationNeeded", pcesvn=12),
        platform_level("UpToDate", date="2024-11-13T00:00:00Z"),
    )

    assert verify(with_levels(worst, middle, best)).platform.status == "UpToDate"
    assert verify(with_levels(middle, worst)).platform.status == "ConfigurationNeeded"


def test_sgx_components_outrank_pcesvn_and_that_the_tdx_components():
    by_sgx = platform_level("UpToDate", pcesvn=1, tdx=LOW)
    by_pcesvn = platform_level("OutOfDate", sgx=LOW, pcesvn=13, tdx=LOW)
    by_tdx = platform_level("ConfigurationNeeded", sgx=LOW, pcesvn=12)

    assert verify(with_levels(by_tdx, by_pcesvn, by_sgx)).platform.status == "UpToDate"
    assert verify(with_levels(by_tdx, by_pcesvn)).platform.status == "OutOfDate"


@pytest.mark.parametrize(
    ("index", "major", "reached"),
    [(0, 1, True), (1, 1, True), (2, 1, False), (15, 1, False), (0, 0, False), (1, 0, False), (2, 0, False)],
)
def test_tdx_components_0_and_1_count_only_without_a_module_identity(index: int, major: int, *, reached: bool):
    needed = list(LOW)
    needed[index] = 9
    world = with_levels(platform_level(tdx=tuple(needed)))
    world.body = quote_body(tee_tcb_svn=bytes((5, major, 4, *(0,) * 13)))

    if reached:
        assert verify(world).platform.tdx_components == bytes(needed)
    else:
        with pytest.raises(QuoteError) as caught:
            verify(world)
        assert caught.value.kind.id == "MIGTD-QUOTE-TCB-LEVEL-MISSING"


def test_quote_without_module_identity_has_no_module_level():
    world = with_levels(platform_level(tdx=LOW))
    world.body = quote_body(tee_tcb_svn=bytes((5, 0, 4, *(0,) * 13)))

    verified = verify(world)

    assert verified.module is None
    assert (verified.record[RANGES["module_major"]], verified.record[RANGES["module_svn"]]) == (b"\0", b"\0")


def test_module_identity_is_found_by_its_number_in_either_case():
    world = World()
    world.body = quote_body(tee_tcb_svn=bytes((5, 0x1A, 4, *(0,) * 13)))
    world.tcb_info["tdxModuleIdentities"][0]["id"] = "tdx_1a"

    assert verify(world).record[RANGES["module_major"]] == b"\x1a"


def test_module_levels_are_sorted_and_qe_levels_are_not():
    world = World()
    world.tcb_info["tdxModuleIdentities"][0]["tcbLevels"] = [svn_level(1, "OutOfDate"), svn_level(5), svn_level(6)]
    world.qe_identity["tcbLevels"] = [svn_level(7), svn_level(1, "OutOfDate"), svn_level(6)]

    verified = verify(world)

    assert verified.module is not None
    assert (verified.module.isvsvn, verified.qe.isvsvn) == (5, 1)
    assert verified.record[RANGES["qe_isvsvn"]] == b"\1\0"
    assert pull_record(verified.record).qe_status == "OutOfDate"


def test_an_unknown_status_counts_only_where_it_is_reached():
    assert verify(with_levels(platform_level(), platform_level("Fine", sgx=LOW))).platform.status == "UpToDate"


@pytest.mark.parametrize(
    ("platform", "other", "converged"),
    [
        ("UpToDate", "UpToDate", "UpToDate"),
        ("SWHardeningNeeded", "UpToDate", "SWHardeningNeeded"),
        ("ConfigurationNeeded", "UpToDate", "ConfigurationNeeded"),
        ("UpToDate", "OutOfDate", "OutOfDate"),
        ("SWHardeningNeeded", "OutOfDate", "OutOfDate"),
        ("OutOfDate", "OutOfDate", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ],
)
@pytest.mark.parametrize("component", ["module", "qe"])
def test_status_converges_for_display_and_never_in_the_record(
    component: str, platform: str, other: str, converged: str
):
    world = with_levels(platform_level(platform))
    if component == "qe":
        world.qe_identity["tcbLevels"] = [svn_level(4, other)]
    else:
        world.tcb_info["tdxModuleIdentities"][0]["tcbLevels"] = [svn_level(4, other)]

    verified = verify(world)

    assert verified.converged_status == converged
    assert pull_record(verified.record).platform_status == platform


def test_a_status_that_is_too_long_for_the_record_is_refused():
    with pytest.raises(QuoteError, match="ConfigurationAndSWHardeningNeeded") as caught:
        verify(with_levels(platform_level("ConfigurationAndSWHardeningNeeded")))

    assert caught.value.kind.id == "MIGTD-QUOTE-STATUS-TOO-LONG"


@pytest.mark.parametrize(
    ("other", "converged"),
    [("UpToDate", "ConfigurationAndSWHardeningNeeded"), ("OutOfDate", "OutOfDateConfigurationNeeded")],
)
def test_the_longest_status_converges_as_the_others(other: str, converged: str):
    assert converge(Level("ConfigurationAndSWHardeningNeeded", 0, ()), [Level(other, 0, ())]) == converged


def test_advisories_are_those_of_the_matched_levels():
    world = with_levels(
        platform_level("OutOfDate", advisories=["INTEL-SA-2", "INTEL-SA-1"]),
        platform_level("OutOfDate", sgx=LOW, advisories=["INTEL-SA-9"]),
    )
    world.tcb_info["tdxModuleIdentities"][0]["tcbLevels"] = [svn_level(4, advisories=["INTEL-SA-3", "INTEL-SA-1"])]

    assert verify(world).advisories == ("INTEL-SA-00003", "INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3")


# --- data and dates ------------------------------------------------------------------------------------------------
def test_numbers_of_the_collateral_are_returned():
    verified = verify(World())

    assert (verified.tcb_evaluation_number, verified.qe_evaluation_number) == (17, 16)
    assert (verified.root_ca_crl_number, verified.pck_crl_number) == (3, 8)
    assert verified.fmspc == FMSPC


EARLY, LATE = datetime(2024, 2, 3, tzinfo=UTC), datetime(2031, 2, 3, tzinfo=UTC)


def change_dates(world: World, source: str, issued: datetime, expires: datetime) -> None:
    if source in world.certificates:
        world.certificates[source] = replace(world.certificates[source], issued=issued, expires=expires)
    elif source in ("root_crl", "pck_crl"):
        setattr(world, source, replace(getattr(world, source), issued=issued, expires=expires))
    else:
        form = "%Y-%m-%dT%H:%M:%SZ"
        getattr(world, source).update(issueDate=issued.strftime(form), nextUpdate=expires.strftime(form))


@pytest.mark.parametrize("source", ["root", "ca", "pck", "signer", "root_crl", "pck_crl", "tcb_info", "qe_identity"])
def test_window_is_over_everything_that_was_relied_on(source: str):
    world = World()
    change_dates(world, source, datetime(2026, 5, 6, tzinfo=UTC), datetime(2027, 5, 6, 7, 8, 9, tzinfo=UTC))

    verified = verify(world)

    assert verified.latest_issue == seconds("2026-05-06")
    assert verified.earliest_expiration == seconds("2027-05-06T07:08:09")


def test_expiry_is_judged_only_when_asked_with_a_time():
    verified = verify(World())
    expiry, issue = seconds("2029-06-01"), seconds("2025-07-01")

    assert (verified.earliest_expiration, verified.latest_issue) == (expiry, issue)
    assert [verified.collateral_expired(at) for at in (expiry - 1, expiry, expiry + 1)] == [False, True, True]
    assert [verified.not_yet_valid(at) for at in (issue - 1, issue, issue + 1)] == [True, False, False]
    assert verified.earliest_expiration < YEAR_2030.timestamp()


# --- text that is not signed ---------------------------------------------------------------------------------------
def test_white_space_and_key_order_outside_the_signed_text_do_not_matter():
    world = World()
    collateral = world.collateral()
    document = json.loads(collateral.tcb_info)
    text = json.dumps({"signature": document["signature"].upper(), "tcbInfo": document["tcbInfo"]}, indent=3)

    assert verify_quote(world.quote(), world.root_key(), replace(collateral, tcb_info=text.encode())) == verify(world)


def test_signature_holds_for_exactly_the_compact_text():
    world = World()
    collateral = world.collateral()
    spaced = collateral.tcb_info.replace(b'"id":"TDX"', b'"id":"TDX" ')
    reordered = collateral.tcb_info.replace(b'"id":"TDX","version":3', b'"version":3,"id":"TDX"')

    assert verify_quote(world.quote(), world.root_key(), replace(collateral, tcb_info=spaced)) == verify(world)
    assert spaced != collateral.tcb_info != reordered
    with pytest.raises(QuoteError) as caught:
        verify_quote(world.quote(), world.root_key(), replace(collateral, tcb_info=reordered))
    assert caught.value.kind.id == "MIGTD-COLLATERAL-TCB-INFO-SIGNATURE"


def test_crls_are_read_as_pem_der_and_hex():
    world = World()
    collateral = world.collateral()
    ders = [crl_der(crl) for crl in (collateral.root_ca_crl, collateral.pck_crl)]
    as_der = replace(collateral, root_ca_crl=ders[0], pck_crl=ders[1])
    as_hex = replace(collateral, root_ca_crl=ders[0].hex().encode(), pck_crl=ders[1].hex().upper().encode())

    for changed in (as_der, as_hex):
        assert verify_quote(world.quote(), world.root_key(), changed) == verify(world)


def crl_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)


def test_signatures_over_other_bytes_of_the_same_key_are_refused():
    world = World()
    quote = bytearray(world.quote())
    start = 48 + 584 + 4
    quote[start : start + 64] = sign(world.quote_key, b"another message")

    with pytest.raises(QuoteError) as caught:
        verify_quote(bytes(quote), point(world.trusted_key), world.collateral())

    assert caught.value.kind.id == "MIGTD-QUOTE-SIGNATURE"
