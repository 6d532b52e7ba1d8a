# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What it costs to verify a quote: here, and by dcap-qvl where it is installed, on one core.

Both get the same quote of a lab's machine, its collateral and the root. dcap-qvl is a development dependency: without
it there is one row less.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from lab.bench import rows
from lab.bench.primitives import milliseconds
from lab.bench.rows import Quantity, Row
from lab.bench.spread import Spread
from migtd.attestation.quote import failures
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.pem import X509_CRL, pull_pem
from migtd.attestation.quote.verify import prepare, verify_prepared, verify_quote
from vmm_stub.quoting.maker import make_quote
from vmm_stub.quoting.material import material_for, platform_for
from vmm_stub.quoting.pki import LabPki
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.tdx_module.platform import REPORT_KEY_SIZE
from vmm_stub.tdx_module.report import TdInfo, make_report

ATTRIBUTES: Final = 1 << 28
"""SEPT_VE_DISABLE: dcap-qvl refuses TDs without it."""


def measure(times: int) -> list[Row]:
    """CPU milliseconds of each verifier, `times` samples each."""
    return [
        Row(quantity, "", Spread.of(milliseconds(verify, 1) for _ in range(times)), note)
        for quantity, verify, note in _verifiers()
    ]


def _verifiers() -> Iterator[tuple[Quantity, Callable[[], object], str]]:
    issued = datetime.now(UTC)
    pki = LabPki.generate(os.urandom, issued)
    material = material_for(pki, PlatformSettings())
    platform = platform_for(material, os.urandom(REPORT_KEY_SIZE))
    quote = make_quote(material, platform, make_report(platform, TdInfo(attributes=ATTRIBUTES), bytes(64)).push())
    collateral, root_key = material.collateral, pki.root_key
    prepared = prepare(collateral, root_key)
    yield rows.QUOTE, lambda: verify_quote(quote, root_key, collateral), "collateral verified each time"
    yield rows.QUOTE_PREPARED, lambda: verify_prepared(quote, prepared), "as a session does from the second one on"
    try:
        # Typed as anything: it has no types, and need not be there.
        dcap_qvl: Any = importlib.import_module("dcap_qvl")
    except ImportError:
        return
    theirs = _collateral_of(dcap_qvl, collateral)
    at = int(issued.timestamp())
    yield rows.QUOTE_DCAP, lambda: dcap_qvl.verify_with_root_ca(quote, theirs, pki.root_ca, at), ""


def _collateral_of(dcap_qvl: Any, collateral: CollateralSet) -> Any:
    tcb_info, qe_identity = json.loads(collateral.tcb_info), json.loads(collateral.qe_identity)
    kind = failures.COLLATERAL_CRL_INVALID
    return dcap_qvl.QuoteCollateralV3(
        collateral.pck_crl_issuer_chain.decode(),
        *pull_pem(collateral.root_ca_crl, X509_CRL, kind),
        *pull_pem(collateral.pck_crl, X509_CRL, kind),
        collateral.tcb_info_issuer_chain.decode(),
        json.dumps(tcb_info["tcbInfo"], separators=(",", ":")),
        bytes.fromhex(tcb_info["signature"]),
        collateral.qe_identity_issuer_chain.decode(),
        json.dumps(qe_identity["enclaveIdentity"], separators=(",", ":")),
        bytes.fromhex(qe_identity["signature"]),
    )
