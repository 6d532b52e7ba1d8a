# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Section mock_quote_supplemental: a quote is verified, its record and the data beside it are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from lab.conform.files import Data, Row, RowError
from migtd.attestation.quote.collateral import CollateralSet, pull_collaterals_json, pull_packed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import pull_record
from migtd.attestation.quote.verify import root_key_of, verify_quote


def mock_quote_supplemental(row: Row, data: Data) -> Mapping[str, object]:
    """The record as a file and its fields, the dates of collateral; or the failure's id in the place of the record."""
    quote, wanted = data.file(row["quote"]), data.file(row["supplemental_file"])
    try:
        collateral, root = _collateral(row, data, quote)
        verified = verify_quote(quote, root_key_of(root), collateral)
    except QuoteError as error:
        return {"supplemental_file": f"{error.kind.id}: {error}"}
    record = pull_record(verified.record)
    return {
        "supplemental_file": row["supplemental_file"]
        if verified.record == wanted
        else _difference(verified.record, wanted),
        "sha256": hashlib.sha256(verified.record).hexdigest(),
        "fmspc": record.fmspc.hex(),
        "tdx_components": record.tdx_components.hex(),
        "sgx_components": record.sgx_components.hex(),
        "pcesvn": record.pcesvn,
        "module_major": record.module_major,
        "module_svn": record.module_svn,
        "qe_isvprodid": record.qe_isvprodid,
        "qe_isvsvn": record.qe_isvsvn,
        "tcb_date_unix": record.tcb_date,
        "platform_tcb_date": record.platform_tcb_date,
        "qe_tcb_date": record.qe_tcb_date,
        "tcb_status": record.platform_status,
        "qe_status": record.qe_status,
        "tcb_evaluation_data_number": verified.tcb_evaluation_number,
        "latest_issue_unix": verified.latest_issue,
        "earliest_expiration_unix": verified.earliest_expiration,
    }


def _collateral(row: Row, data: Data, quote: bytes) -> tuple[CollateralSet, bytes]:
    """The set that the quote is judged by, and the root CA as DER."""
    content = data.file(row["collateral"])
    match row["collateral_format"]:
        case "json":
            return pull_collaterals_json(content, quote_fmspc(quote))
        case "binary":
            return pull_packed(content), data.file(row["root_ca"])
    raise RowError(f"there is no collateral format {row['collateral_format']!r}")


def _difference(record: bytes, wanted: bytes) -> str:
    if len(record) != len(wanted):
        return f"{len(record)} bytes, {len(wanted)} in the file"
    first = next(index for index, pair in enumerate(zip(record, wanted, strict=True)) if pair[0] != pair[1])
    return f"another record from byte {first} on"
