# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What one side attests with in the stand-alone mode: the same as one host of a lab, with what both sides share."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lab.evidence import CAPTURED, LAB, read_evidence
from lab.labfile import HostEntry, LabFile, MigTdEntry
from lab.pki import shared_pki
from lab.standalone_options import StandaloneOptions
from lab.state import make_private, state_roots
from migtd.guest.configuration import FileConfiguration, GivenConfiguration
from migtd.guest.interfaces import ConfigurationVolume
from vmm_stub.vmm.control.models import CapturedQuotingConfig, LabQuotingConfig


@dataclass(frozen=True, slots=True)
class SideEvidence:
    """The configuration volume of the MigTD, and the quoting service of its host."""

    configuration: ConfigurationVolume
    quoting: LabQuotingConfig | CapturedQuotingConfig | None


def evidence_of(options: StandaloneOptions) -> SideEvidence:
    """Read the files, and take the PKI of the shared folder, making it if it is the first.

    Raises InvalidPolicyError (MIGTD-CONFIGURATION-MISSING) if policy or root cannot be read: policy.md 3.3. Raises
    UsageError and EngineError as `read_evidence` and `shared_pki` do. A mode without evidence looks at no file.
    """
    if options.attestation not in (LAB, CAPTURED):
        return SideEvidence(FileConfiguration(), None)
    files, host = options.evidence, options.role.value
    FileConfiguration(*(Path(name) if name else None for name in (files.policy_file, files.root_ca_file)))
    lab = LabFile(
        schema=1,
        attestation=options.attestation,
        policy_file=files.policy_file,
        root_ca_file=files.root_ca_file,
        quote_file=files.quote_file,
        collateral_file=files.collateral_file,
        refuse_expired=files.refuse_expired,
        hosts={host: HostEntry(migtds={host: MigTdEntry()})},
    )
    evidence = read_evidence(lab)
    if evidence is None:
        raise RuntimeError(options.attestation)
    if options.attestation == LAB:
        evidence = replace(evidence, pki=_shared_pki(files.lab_dir))
    volume = evidence.configuration(host)
    return SideEvidence(GivenConfiguration(volume.policy, volume.root_ca), evidence.quoting(lab, host))


def _shared_pki(folder: Path) -> str:
    """The PKI of the shared folder. The user's state may not be there yet: its folder is private as well."""
    if folder.parent in state_roots(os.environ) or not folder.parent.exists():
        make_private(folder.parent)
    return shared_pki(folder, os.urandom, time.time())
