# SPDX-License-Identifier: BSD-2-Clause-Patent
"""dcap-qvl as a second opinion: quotes that verify here verify there, and it reads the same out of them (policy.md 8).

It refuses TDs without SEPT_VE_DISABLE, TDs with MIGRATABLE and a non-zero mrservicetd, and always looks at dates: the
quotes here avoid the one and pass a time within the window for the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.failures import COLLATERAL_CRL_INVALID
from migtd.attestation.quote.layout import BodyType, QuoteHeader
from migtd.attestation.quote.pck import pull_extension, quote_fmspc
from migtd.attestation.quote.pem import X509_CRL, pull_pem
from migtd.attestation.quote.verify import Verified, verify_quote
from tests.unit.quote_world import STRANGER, World, platform_level, quote_body, svn_level

FORMS = {
    "v4": World,
    "v5-type-2": lambda: World(header=QuoteHeader(5)),
    "v5-type-3": lambda: World(
        header=QuoteHeader(5),
        body_type=BodyType.TDX_1_5,
        body=quote_body(tee_tcb_svn2=b"\5\1\4" + bytes(13), mrservicetd=bytes(48)),
    ),
}


def theirs(collateral: CollateralSet) -> Any:
    tcb_info, qe_identity = json.loads(collateral.tcb_info), json.loads(collateral.qe_identity)
    return dcap_qvl.QuoteCollateralV3(
        collateral.pck_crl_issuer_chain.decode(),
        *pull_pem(collateral.root_ca_crl, X509_CRL, COLLATERAL_CRL_INVALID),
        *pull_pem(collateral.pck_crl, X509_CRL, COLLATERAL_CRL_INVALID),
        collateral.tcb_info_issuer_chain.decode(),
        json.dumps(tcb_info["tcbInfo"], separators=(",", ":")),
        bytes.fromhex(tcb_info["signature"]),
        collateral.qe_identity_issuer_chain.decode(),
        json.dumps(qe_identity["enclaveIdentity"], separators=(",", ":")),
        bytes.fromhex(qe_identity["signature"]),
    )


def ask_them(world: World, at: int) -> Any:
    root = world.certificate("root").public_bytes(Encoding.DER)
    return dcap_qvl.verify_with_root_ca(world.quote(), theirs(world.collateral()), root, at)


def ask_us(world: World) -> Verified:
    return verify_quote(world.quote(), world.root_key(), world.collateral())


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_both_accept_the_same_quotes(make: Callable[[], World]):
    world = make()
    ours = ask_us(world)

    report = ask_them(world, ours.latest_issue)

    assert report.status == ours.converged_status
    assert tuple(sorted(report.advisory_ids)) == ours.advisories


@pytest.mark.parametrize(
    "status", ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"]
)
@pytest.mark.parametrize("qe_status", ["UpToDate", "OutOfDate"])
def test_both_converge_statuses_alike(status: str, qe_status: str):
    world = World()
    world.tcb_info["tcbLevels"] = [platform_level(status, advisories=["INTEL-SA-1"])]
    world.qe_identity["tcbLevels"] = [svn_level(4, qe_status, advisories=["INTEL-SA-2"])]
    ours = ask_us(world)

    report = ask_them(world, ours.latest_issue)

    assert (report.status, sorted(report.advisory_ids)) == (ours.converged_status, ["INTEL-SA-1", "INTEL-SA-2"])


def test_both_end_at_the_same_second():
    world = World()
    ours = ask_us(world)

    ask_them(world, ours.earliest_expiration - 1)
    with pytest.raises(ValueError, match=r"(?i)expired"):
        ask_them(world, ours.earliest_expiration + 1)
    with pytest.raises(ValueError, match=r"(?i)future|not yet|valid"):
        ask_them(world, ours.latest_issue - 1)


def revoke_pck(world: World) -> None:
    world.pck_crl.revoked = [3]


def revoke_signer(world: World) -> None:
    world.root_crl.revoked = [4]


def forge_quote(world: World) -> None:
    world.quote_key = STRANGER


def forge_qe_report(world: World) -> None:
    world.qe_report_key = STRANGER


def forge_tcb_info(world: World) -> None:
    world.tcb_info_key = STRANGER


def forge_qe_identity(world: World) -> None:
    world.qe_identity_key = STRANGER


def bind_another_key(world: World) -> None:
    world.qe_report_data = bytes(64)


def change_fmspc(world: World) -> None:
    world.tcb_info["fmspc"] = "00" * 6


def raise_tdx_component(world: World) -> None:
    world.tcb_info["tcbLevels"] = [platform_level(tdx=(0, 0, 9, *(0,) * 13))]


def raise_sgx_component(world: World) -> None:
    world.tcb_info["tcbLevels"] = [platform_level(sgx=(9, *(0,) * 15))]


@pytest.mark.parametrize(
    "change",
    [
        revoke_pck,
        revoke_signer,
        forge_quote,
        forge_qe_report,
        forge_tcb_info,
        forge_qe_identity,
        bind_another_key,
        change_fmspc,
        raise_tdx_component,
        raise_sgx_component,
    ],
)
def test_both_refuse_the_same(change: Callable[[World], None]):
    at = ask_us(World()).latest_issue
    world = World()
    change(world)

    with pytest.raises(QuoteError):
        ask_us(world)
    with pytest.raises(ValueError, match=r"\S"):
        ask_them(world, at)


def test_components_0_and_1_do_not_count_for_both():
    world = World()
    world.tcb_info["tcbLevels"] = [platform_level(tdx=(255, 255, 4, *(0,) * 13))]

    assert ask_them(world, ask_us(world).latest_issue).status == "UpToDate"


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_both_read_the_same_fields(make: Callable[[], World]):
    world = make()
    quote = dcap_qvl.parse_quote(world.quote())
    names = {
        "mr_seam": "mrseam",
        "mr_signer_seam": "mrsignerseam",
        "mr_td": "mrtd",
        "mr_config_id": "mrconfigid",
        "mr_owner": "mrowner",
        "mr_owner_config": "mrownerconfig",
        **{f"rt_mr{index}": f"rtmr{index}" for index in range(4)},
        **{name: name for name in ("tee_tcb_svn", "seam_attributes", "td_attributes", "xfam", "report_data")},
    }

    assert {ours: getattr(quote.report, name) for name, ours in names.items()} == {
        ours: getattr(world.body, ours) for ours in names.values()
    }
    assert quote.fmspc().upper() == quote_fmspc(world.quote())


def test_both_read_the_same_sgx_extension():
    world = World()
    theirs = dcap_qvl.parse_pck_extension_from_pem(world.chain(["pck"]))
    ours = pull_extension(world.certificate("pck").tbs_certificate_bytes)

    assert (theirs.fmspc, theirs.pce_id, theirs.pce_svn) == (ours.fmspc, ours.pceid, ours.pcesvn)
    assert theirs.cpu_svn == bytes(ours.components)
