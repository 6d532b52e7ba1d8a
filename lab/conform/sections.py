# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The sections that can be run: what runs a row, and which of the row's fields are results to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from lab.conform import certificates, evidence, policy_v1, policy_v2, policy_v2_rules, supplemental
from lab.conform.files import Data, Row

Run: TypeAlias = Callable[[Row, Data], Mapping[str, object]]
"""Runs a row; answers what was got for each result field."""


@dataclass(frozen=True, slots=True)
class Section:
    """How the rows of a section are run.

    Results in `required` must be in every row, those in `further` are compared where a row has them. Of `hex` the case
    of letters does not count.
    """

    run: Run
    required: tuple[str, ...] = ("expected",)
    further: tuple[str, ...] = ()
    hex: frozenset[str] = frozenset()


SECTIONS: Final[Mapping[str, Section]] = {
    "v1_verify": Section(policy_v1.verify),
    "v1_parse": Section(policy_v1.parse, further=("blocks",)),
    "v1_property": Section(policy_v1.apply_property),
    "v1_masks": Section(policy_v1.mask, hex=frozenset({"expected"})),
    "v2_parse": Section(policy_v2.parse, further=("raw_length", "signature_length", "entries", "validate")),
    "v2_signature": Section(policy_v2.signature),
    "v2_collateral_lookup": Section(policy_v2.collateral_lookup),
    "v2_global": Section(policy_v2_rules.global_entry),
    "v2_block": Section(policy_v2_rules.block),
    "v2_prop_int": Section(policy_v2_rules.integer_property),
    "v2_prop_str": Section(policy_v2_rules.string_property),
    "v2_prop_tcb_status": Section(policy_v2_rules.platform_status_property),
    "v2_prop_servtd_status": Section(policy_v2_rules.servtd_status_property),
    "v2_status_rank": Section(policy_v2_rules.status_rank, required=("rank",)),
    "v2_hex": Section(policy_v2.signature_text, hex=frozenset({"expected"})),
    "v2_svn_mapping": Section(policy_v2_rules.svn_mapping),
    "v2_engine_not_older": Section(policy_v2_rules.engine_not_older),
    "v2_tcb_level": Section(policy_v2_rules.tcb_level),
    "init_tdinfo_owner": Section(policy_v2_rules.init_tdinfo_owner),
    "event_log_parse": Section(evidence.event_log_parse),
    "tdinfo_rtmrs": Section(evidence.rtmrs_of_tdinfo, hex=frozenset({"expected"})),
    "servtd_info_hash": Section(evidence.servtd_info_hash),
    "unix_to_iso": Section(evidence.iso_date),
    "cert_chain": Section(certificates.chain, further=("chain_verifies",)),
    "is_ca": Section(certificates.is_ca),
    "crl_number": Section(certificates.crl_numbers),
    "mock_quote_supplemental": Section(
        supplemental.mock_quote_supplemental,
        required=("supplemental_file",),
        further=(
            "sha256",
            "fmspc",
            "tdx_components",
            "sgx_components",
            "pcesvn",
            "module_major",
            "module_svn",
            "qe_isvprodid",
            "qe_isvsvn",
            "tcb_date_unix",
            "platform_tcb_date",
            "qe_tcb_date",
            "tcb_status",
            "qe_status",
            "tcb_evaluation_data_number",
            "latest_issue_unix",
            "earliest_expiration_unix",
        ),
        hex=frozenset({"sha256", "fmspc", "tdx_components", "sgx_components"}),
    ),
}
