# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What one side attests with in the stand-alone mode: the same as one host of a lab, with what both sides share."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lab.evidence import CAPTURED, LAB, V2, read_evidence
from lab.labfile import HostEntry, LabFile, MigTdEntry
from lab.pki import shared_pki
from lab.standalone_options import PREPARE, StandaloneOptions
from lab.state import make_private, state_roots
from lab.volumes import volume_of
from migtd.guest.configuration import FileConfiguration, GivenConfiguration
from migtd.guest.interfaces import ConfigurationVolume
from vmm_stub.vmm.control.models import NO_DIGEST, CapturedQuotingConfig, LabQuotingConfig

PLATFORM: Final = "platform"
"""Name of the host that both MigTDs of a rebinding are on."""


@dataclass(frozen=True, slots=True)
class SideEvidence:
    """The configuration volume of the MigTD, the quoting service of its host, and the owner that its TD has, as hex."""

    configuration: ConfigurationVolume
    quoting: LabQuotingConfig | CapturedQuotingConfig | None
    mrowner: str = NO_DIGEST
    mrownerconfig: str = NO_DIGEST


def evidence_of(options: StandaloneOptions) -> SideEvidence:
    """Read the files, and take the PKI of the shared folder, making it if it is the first.

    Raises InvalidPolicyError (MIGTD-CONFIGURATION-MISSING) if policy or root cannot be read: policy.md 3.3. Raises
    UsageError and EngineError as `read_evidence` and `shared_pki` do. A mode without evidence looks at no file.
    """
    if options.attestation not in (LAB, CAPTURED) and options.policy_version != V2:
        return SideEvidence(FileConfiguration(), None)
    files = options.evidence
    # The two MigTDs of a rebinding are on one platform.
    host = PLATFORM if options.operation == PREPARE else options.role.value
    names = (files.policy_file, files.root_ca_file, files.policy_issuer_chain_file)
    FileConfiguration(*(Path(name) if name else None for name in names))
    lab = LabFile(
        schema=1,
        attestation=options.attestation,
        policy_version=2 if options.policy_version == V2 else 1,
        policy_file=files.policy_file,
        policy_issuer_chain_file=files.policy_issuer_chain_file,
        root_ca_file=files.root_ca_file,
        quote_file=files.quote_file,
        collateral_file=files.collateral_file,
        refuse_expired=files.refuse_expired,
        hosts={host: HostEntry(migtds={host: MigTdEntry()})},
    )
    evidence = read_evidence(lab)
    if evidence is None:
        raise RuntimeError(options.attestation)
    if options.attestation == LAB or options.policy_version == V2:
        evidence = replace(evidence, pki=shared_pki(shared_folder(files.lab_dir), os.urandom, time.time()))
    volume = volume_of(evidence, lab, host, host)
    given = volume.files
    configuration = GivenConfiguration(given.policy, given.root_ca, given.policy_issuer_chain)
    return SideEvidence(configuration, evidence.quoting(lab, host), volume.mrowner, volume.mrownerconfig)


def shared_folder(folder: Path) -> Path:
    """The shared folder, made with mode 0700 if need be. Raises EngineError (LAB-STATE-UNSAFE).

    The user's state may not be there yet: its folder is private as well.
    """
    if folder.parent in state_roots(os.environ) or not folder.parent.exists():
        make_private(folder.parent)
    return make_private(folder)
