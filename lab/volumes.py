# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The configuration volume of each MigTD of a lab, and the owner that its TD is built with (policy.md 0.3, 2.9)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from lab import failures
from lab.errors import UsageError
from lab.evidence import CAPTURED, LAB, V2, Evidence, pull_pki_text
from lab.labfile import LabFile
from lab.labfile_policy import PolicySigningEntry
from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import NO_DIGEST, ConfigurationVolume, HostConfig


@dataclass(frozen=True, slots=True)
class MigTdVolume:
    """Files, and MROWNER and MROWNERCONFIG as hex: zeros where nobody provisions them."""

    files: ConfigurationVolume
    mrowner: str = NO_DIGEST
    mrownerconfig: str = NO_DIGEST


def configure(config: HostConfig, evidence: Evidence, lab: LabFile) -> None:
    """Give each MigTD of a host its volume and owner: what the first one has is the host's, others have their own.

    Raises UsageError (LAB-EVIDENCE-INVALID).
    """
    volumes = [volume_of(evidence, lab, config.name, each.name) for each in config.migtds]
    config.configuration = volumes[0].files
    for migtd, volume in zip(config.migtds, volumes, strict=True):
        migtd.configuration = None if volume.files == config.configuration else volume.files
        migtd.mrowner, migtd.mrownerconfig = volume.mrowner, volume.mrownerconfig


def volume_of(evidence: Evidence, lab: LabFile, host: str, migtd: str) -> MigTdVolume:
    """The volume and owner of one MigTD. Raises UsageError (LAB-EVIDENCE-INVALID)."""
    if lab.policy_version != V2:
        root_ca = evidence.root_ca or pull_pki_text(evidence.pki).root_ca
        return MigTdVolume(_files(evidence.policies[host], root_ca=root_ca))
    policy, chain = evidence.policies[host], evidence.chains[host]
    if policy:
        volume = MigTdVolume(_files(policy, chain=chain))
        return _owned(volume, policy, chain) if lab.attestation == LAB else volume
    return _made(evidence, lab, host, migtd)


def _made(evidence: Evidence, lab: LabFile, host: str, migtd: str) -> MigTdVolume:
    """With a policy of the lab's own making."""
    # Loaded where it is used: it brings the policy tools and libraries for certificates.
    from lab import policy_making as making  # noqa: PLC0415

    pki = pull_pki_text(evidence.pki)
    own = _signing(lab, host, migtd)
    try:
        if lab.attestation == CAPTURED:
            measured = [making.captured_measurements(evidence.quote)]
        else:
            everybody = [
                own,
                *(_signing(lab, name, each) for name, entry in lab.hosts.items() for each in entry.migtds),
            ]
            chains = dict.fromkeys(making.policy_signer(pki, each).chain for each in everybody)
            measured = [making.emulated_measurements(each) for each in chains]
        made = making.make_policy(pki, own, _collaterals(evidence, lab, host), measured)
    except LabFailure as error:
        raise UsageError(failures.EVIDENCE_INVALID, f"policy of {host}/{migtd}: {error.kind.id}: {error}") from error
    volume = MigTdVolume(_files(made.policy, chain=made.chain))
    if lab.attestation != LAB:
        return volume
    return replace(volume, mrowner=made.mrowner.hex(), mrownerconfig=made.mrownerconfig.hex())


def _owned(volume: MigTdVolume, policy: bytes, chain: bytes) -> MigTdVolume:
    """With the owner of a policy that was given; as it is where that does not verify: its MigTD will say so."""
    from lab.policy_making import owner_config  # noqa: PLC0415 - as above
    from lab.policy_tools.verifier import verify  # noqa: PLC0415 - as above
    from migtd.policy.errors import PolicyError  # noqa: PLC0415 - as above

    try:
        verified = verify(policy, chain)
    except PolicyError:
        return volume
    config = owner_config(verified.data.policy_svn)
    return replace(volume, mrowner=verified.signer_hash.hex(), mrownerconfig=config.hex())


def _signing(lab: LabFile, host: str, migtd: str) -> PolicySigningEntry:
    entry = lab.hosts[host]
    return entry.migtds[migtd].policy_v2 or entry.policy_v2 or PolicySigningEntry()


def _collaterals(evidence: Evidence, lab: LabFile, host: str) -> bytes:
    from lab.policy_making import collaterals_of  # noqa: PLC0415 - as above

    if lab.attestation == CAPTURED:
        from migtd.attestation.quote.collateral import pull_packed  # noqa: PLC0415 - as above
        from migtd.attestation.quote.pck import quote_fmspc  # noqa: PLC0415 - as above

        collateral = pull_packed(evidence.collateral)
        fmspc = quote_fmspc(evidence.quote)
        return collaterals_of(collateral, {fmspc: collateral.tcb_info}, evidence.root_ca)
    material = evidence.material(lab, host)
    return collaterals_of(material.collateral, dict(material.tcb_infos), material.root_ca)


def _files(policy: bytes, *, root_ca: bytes | None = None, chain: bytes | None = None) -> ConfigurationVolume:
    # The model takes text and holds bytes.
    return ConfigurationVolume(
        policy=base64.b64encode(policy),
        root_ca=None if root_ca is None else base64.b64encode(root_ca),
        policy_issuer_chain=None if chain is None else base64.b64encode(chain),
    )
