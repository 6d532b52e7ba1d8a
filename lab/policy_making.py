# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The policy v2 that a lab makes for one of its MigTDs, signed, and what its TD is built with because of it.

It is what the policy tools would make of the lab's collateral: default blocks, the collateral of all platforms, a
servtd identity, and a TCB mapping that knows every MigTD of the lab, whichever chain it measures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lab.labfile_policy import PolicySigningEntry
from lab.policies import default_v2
from lab.policy_chains import IDENTITY, MAPPING, POLICY, Signer, make_signer
from lab.policy_tools import servtd
from lab.policy_tools.compact import push_json
from lab.policy_tools.generate import policy_v2
from lab.policy_tools.items import Chained, Items, collaterals_document
from lab.policy_tools.measurements import pull_measurements
from migtd import event_log
from vmm_stub.tdx_module.service_td import ServiceTdParams

if TYPE_CHECKING:
    from migtd.attestation.quote.collateral import CollateralSet
    from vmm_stub.quoting.pki import LabPki

POLICY_DATA: Final = "policyData"
OWNER_CONFIG_SIZE: Final = 48

Measured = dict[str, Any]
"""A measurement file of the policy tools: hex texts by name."""


@dataclass(frozen=True, slots=True)
class MadePolicy:
    """A signed policy v2 and its issuer chain, PEM; MROWNER and MROWNERCONFIG, 48 bytes each, of who is to run it."""

    policy: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    mrowner: bytes
    mrownerconfig: bytes


def make_policy(
    pki: LabPki, signing: PolicySigningEntry, collaterals: bytes, measured: Sequence[Measured]
) -> MadePolicy:
    """The policy of a MigTD. `collaterals` as `collaterals_of` makes them; `measured`: all MigTDs that it shall know.

    The same arguments give the same bytes. Raises ToolError where the collateral is not what it should be.
    """
    identity_signer, mapping_signer = (_signer(pki, signing, each) for each in (IDENTITY, MAPPING))
    identity = servtd.identity(push_json(measured[0]))
    bundle = servtd.bundle(
        identity_signer.sign(servtd.IDENTITY, identity),
        identity_signer.chain,
        mapping_signer.sign(servtd.MAPPING, _mapping(measured)),
        mapping_signer.chain,
    )
    base = json.dumps({**json.loads(default_v2()), "policySvn": signing.policy_svn}).encode()
    signer = policy_signer(pki, signing)
    policy = signer.sign(POLICY_DATA, policy_v2(base, collaterals, bundle))
    return MadePolicy(policy, signer.chain, signer.owner, owner_config(signing.policy_svn))


def policy_signer(pki: LabPki, signing: PolicySigningEntry) -> Signer:
    """Who signs the policy itself."""
    return _signer(pki, signing, POLICY)


def owner_config(policy_svn: int) -> bytes:
    """MROWNERCONFIG of a MigTD whose policy has this SVN: 4 bytes, then zeros (policy.md 2.9)."""
    return policy_svn.to_bytes(4, "little").ljust(OWNER_CONFIG_SIZE, b"\0")


def emulated_measurements(chain: bytes) -> Measured:
    """What an emulated MigTD measures that has this issuer chain in its configuration volume (policy.md 3.2, 3.6)."""
    tdinfo = ServiceTdParams().tdinfo
    separator = _extended(bytes(48), event_log.separator_event(1).digest)
    return {
        "mrtd": tdinfo.mrtd.hex(),
        "rtmr0": separator.hex(),
        "rtmr1": _extended(separator, hashlib.sha384(chain).digest()).hex(),
        "xfam": tdinfo.xfam.to_bytes(8, "little").hex(),
        "attributes": tdinfo.attributes.to_bytes(8, "little").hex(),
        **dict.fromkeys(("mrConfigId", "mrOwner", "mrOwnerConfig"), bytes(48).hex()),
    }


def captured_measurements(quote: bytes) -> Measured:
    """What a captured quote says. Raises ToolError (LAB-TOOL-EVIDENCE-UNREADABLE)."""
    return dict(pull_measurements(quote).document())


def collaterals_of(collateral: CollateralSet, tcb_infos: dict[str, bytes], root_ca: bytes) -> bytes:
    """The collaterals document of a set, with the TCB info of each FMSPC. Raises ToolError as collaterals_document."""
    tcb_chain = _text(collateral.tcb_info_issuer_chain)
    return collaterals_document(
        Items(
            {fmspc: Chained(_bare(each), tcb_chain) for fmspc, each in tcb_infos.items()},
            Chained(_bare(collateral.qe_identity), _text(collateral.qe_identity_issuer_chain)),
            Chained(_bare(collateral.pck_crl), _text(collateral.pck_crl_issuer_chain)),
            root_ca,
            _bare(collateral.root_ca_crl),
        )
    )


def _signer(pki: LabPki, signing: PolicySigningEntry, purpose: str) -> Signer:
    key = {POLICY: signing.policy_key, IDENTITY: signing.identity_key, MAPPING: signing.mapping_key}[purpose]
    return make_signer(pki, purpose, key, root=signing.root, intermediate=signing.intermediate)


def _mapping(measured: Sequence[Measured]) -> bytes:
    """A mapping with an entry for each; those that measure the same are one."""
    entries: dict[str, Any] = {}
    for each in measured:
        document = json.loads(servtd.mapping(push_json(each)))
        entry = document["svnMappings"][0]
        entries.setdefault(json.dumps(entry), entry)
    return push_json({**document, "svnMappings": list(entries.values())})


def _extended(register: bytes, digest: bytes) -> bytes:
    return hashlib.sha384(register + digest).digest()


def _bare(blob: bytes) -> bytes:
    """Without the NULs that collateral from a quoting service ends with: no text of a policy may hold one."""
    return blob.rstrip(b"\0")


def _text(chain: bytes) -> str:
    return _bare(chain).decode("utf-8", "replace")
