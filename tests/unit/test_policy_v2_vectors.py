# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Signed policies and collaterals of the reference, as far as ../shared is there."""

from __future__ import annotations

import pytest

from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.verify import verify_quote
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.v2.collaterals import read_collaterals
from migtd.policy.v2.decoding import decode
from migtd.policy.v2.peer import PolicyFiles, validate_peer_chains
from migtd.policy.v2.startup import init_policy

pytestmark = pytest.mark.shared


@pytest.fixture
def upstream(shared):
    return shared / "vectors/policy/upstream"


@pytest.fixture
def template(upstream):
    folder = upstream / "config/templates"
    chain = (folder / "policy_issuer_chain.pem").read_bytes()
    return PolicyFiles((folder / "policy_v2_signed.json").read_bytes(), chain)


@pytest.mark.parametrize(
    ("collaterals", "record"),
    [
        ("config/AzCVMEmu/collateral_azure_thim.json", "suppl_azure_thim.bin"),
        ("config/collateral_production_fmspc.json", "suppl_production.bin"),
    ],
)
def test_collaterals_verify_the_captured_quote_to_its_record(upstream, collaterals, record):
    quote = (upstream / "config/AzCVMEmu/az_migtd_quote.blob").read_bytes()
    found = decode((upstream / collaterals).read_text(), read_collaterals, PolicyErrorName.InvalidPolicy)
    platform = found.platform(quote_fmspc(quote))
    verified = verify_quote(quote, found.root_key(), found.set_of(platform))
    assert verified.record == (upstream / "computed" / record).read_bytes()
    assert platform.tcb_evaluation_number() == verified.tcb_evaluation_number
    assert (found.pck_crl_number(), found.root_ca_crl_number()) == (
        verified.pck_crl_number,
        verified.root_ca_crl_number,
    )


def test_a_policy_of_the_reference_starts_and_is_its_own_peer(template):
    own = init_policy(template)
    validate_peer_chains(own.policy, own.policy)
    assert own.policy.mapping.mappings
    assert own.policy.identity.levels


def test_another_chain_is_no_peer(upstream, template):
    folder = upstream / "src/policy/test/policy_v2"
    chain = (folder / "cert_chain/policy_issuer_chain.pem").read_bytes()
    other = init_policy(PolicyFiles((folder / "policy_v2.json").read_bytes(), chain))
    with pytest.raises(PolicyError) as error:
        validate_peer_chains(init_policy(template).policy, other.policy)
    assert error.value.name is PolicyErrorName.PeerCertChainValidation
