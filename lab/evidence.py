# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a lab attests with, by content: policies, roots, captured quotes, its PKI, and what each host gets of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab import failures
from lab.errors import UsageError
from lab.labfile import LabFile
from lab.policies import default_v1
from migtd.errors import LabFailure
from vmm_stub.tdx_module.randomness import RandomSource
from vmm_stub.vmm.control.models import CapturedQuotingConfig, LabQuotingConfig

if TYPE_CHECKING:
    from vmm_stub.quoting.material import QuotingMaterial
    from vmm_stub.quoting.pki import LabPki

LAB: Final = "lab"
CAPTURED: Final = "captured"
ACCEPT_ALL: Final = "accept-all"
V2: Final = 2
"""Of `policy_version`."""
PKI_FILE: Final = "pki.json"
"""In the folder that `pki.make` makes: everything, the secret too."""
MAX_FILE: Final = 16 << 20
"""Bytes of a file that a lab reads; a collateral document of many platforms has some hundred KiB."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one lab. `policies` by host; `root_ca` DER, empty: that of the lab's PKI; `pki` JSON, empty: none yet.

    With policy v2 `chains`, PEM, are the issuer chains of the policies; both are empty for a host whose policy the lab
    makes itself. `quote` and `collateral` (packed, policy.md 4.6) are those of mode `captured`.
    """

    policies: Mapping[str, bytes]
    root_ca: bytes = b""
    quote: bytes = b""
    collateral: bytes = b""
    pki: str = field(default="", repr=False)
    chains: Mapping[str, bytes] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, Any]:
        """What tells two labs apart; the PKI is no part of it, for `migrate` need not know that."""
        chains = {f" chain {host}": chain for host, chain in self.chains.items()}
        others = {" root": self.root_ca, " quote": self.quote, " collateral": self.collateral}
        parts = {**self.policies, **chains, **others}
        return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}

    def to_facts(self) -> dict[str, Any]:
        """The whole of it for JSON. It holds the PKI's secret."""
        facts = asdict(replace(self, policies={}, chains={}))
        policies, chains = (
            {host: _text(each) for host, each in files.items()} for files in (self.policies, self.chains)
        )
        texts = {key: _text(value) if isinstance(value, bytes) else value for key, value in facts.items()}
        return {**texts, "policies": policies, "chains": chains}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Evidence:
        """What `to_facts` gave. Raises KeyError, TypeError or ValueError on anything else."""
        policies, chains = (
            {host: base64.b64decode(text) for host, text in facts[key].items()} for key in ("policies", "chains")
        )
        root_ca, quote, collateral = (base64.b64decode(facts[key]) for key in ("root_ca", "quote", "collateral"))
        return cls(policies, root_ca, quote, collateral, facts["pki"], chains)

    def quoting(self, lab: LabFile, host: str) -> LabQuotingConfig | CapturedQuotingConfig | None:
        """The quoting service of a host. Raises UsageError (LAB-EVIDENCE-INVALID) where platforms contradict."""
        from vmm_stub.quoting.material import push_material  # noqa: PLC0415

        if lab.attestation == ACCEPT_ALL:
            return None
        if lab.attestation == CAPTURED:
            return CapturedQuotingConfig(
                quote=base64.b64encode(self.quote), collateral=base64.b64encode(self.collateral)
            )
        entry = lab.hosts[host]
        return LabQuotingConfig(
            material=push_material(self.material(lab, host)), quote=entry.quote, fail_first=entry.quoting.fail_first
        )

    def material(self, lab: LabFile, host: str) -> QuotingMaterial:
        """What a host makes quotes with and serves as collateral, in mode `lab` with a PKI. Raises as `quoting`."""
        return _material(self.pki, lab, host)


def read_evidence(lab: LabFile) -> Evidence | None:
    """Read the files that a lab names; None for a mode without evidence.

    Raises UsageError: LAB-FILE-MISSING, LAB-EVIDENCE-INCOMPLETE, LAB-EVIDENCE-UNUSED, LAB-EVIDENCE-INVALID.
    """
    _expect_used(lab)
    if lab.attestation not in (LAB, CAPTURED) and lab.policy_version != V2:
        return None
    policies, chains = _policies(lab)
    root_ca = read_file(lab.root_ca_file) if lab.root_ca_file else b""
    if lab.attestation != CAPTURED:
        pki = read_file(str(Path(lab.pki) / PKI_FILE)).decode("utf-8", "replace") if lab.pki else ""
        if pki:
            pull_pki_text(pki)
        return Evidence(policies, root_ca, pki=pki, chains=chains)
    if not lab.quote_file or not lab.collateral_file:
        missing = " and ".join(key for key in ("quote_file", "collateral_file") if not getattr(lab, key))
        raise UsageError(failures.EVIDENCE_INCOMPLETE, f"captured without {missing}")
    quote = read_file(lab.quote_file)
    collateral, root_in_it = read_collateral(lab.collateral_file, quote)
    if not (root_ca or root_in_it):
        raise UsageError(failures.EVIDENCE_INCOMPLETE, "packed collateral holds no root CA: give root_ca_file too")
    return Evidence(policies, root_ca or root_in_it, quote, collateral, chains=chains)


def _policies(lab: LabFile) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Policies and, with policy v2, issuer chains by host. Raises UsageError (LAB-EVIDENCE-INCOMPLETE, …)."""
    names = {name: entry.policy_file or lab.policy_file for name, entry in lab.hosts.items()}
    if lab.policy_version != V2:
        return {name: read_file(file) if file else default_v1() for name, file in names.items()}, {}
    chains = {name: entry.policy_issuer_chain_file or lab.policy_issuer_chain_file for name, entry in lab.hosts.items()}
    for name, entry in lab.hosts.items():
        if bool(names[name]) != bool(chains[name]):
            present, absent = ("a", "no") if names[name] else ("no", "a")
            detail = f"{name} has {present} policy_file and {absent} policy_issuer_chain_file"
            raise UsageError(failures.EVIDENCE_INCOMPLETE, detail)
        if names[name] and any((entry.policy_v2, *(each.policy_v2 for each in entry.migtds.values()))):
            raise UsageError(failures.EVIDENCE_UNUSED, f"policy_v2 of {name}, whose policy is signed already")
    contents = [{name: read_file(file) if file else b"" for name, file in files.items()} for files in (names, chains)]
    return contents[0], contents[1]


def read_collateral(name: str, quote: bytes) -> tuple[bytes, bytes]:
    """Collateral for a quote from a file: the packed form, or a collateral generator's JSON with its root CA (DER).

    Returns the packed set, and the root or nothing. Raises UsageError (LAB-FILE-MISSING, LAB-EVIDENCE-INVALID).
    """
    # Loaded by those who need it: the readers of quotes and certificates are not small.
    from migtd.attestation.quote.collateral import pull_collaterals_json, pull_packed, push_packed  # noqa: PLC0415
    from migtd.attestation.quote.pck import quote_fmspc  # noqa: PLC0415

    data = read_file(name)
    try:
        if data.lstrip()[:1] != b"{":
            return push_packed(pull_packed(data)), b""
        collateral, root_ca = pull_collaterals_json(data, quote_fmspc(quote))
        return push_packed(collateral), root_ca
    except LabFailure as error:
        raise UsageError(failures.EVIDENCE_INVALID, f"{name}: {error.kind.id}: {error}") from error


def read_file(name: str) -> bytes:
    """A file, up to MAX_FILE bytes. Raises UsageError: LAB-FILE-MISSING, LAB-EVIDENCE-INVALID (too large, or empty)."""
    try:
        with Path(name).open("rb") as stream:
            content = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UsageError(failures.FILE_MISSING, f"{name}: {getattr(error, 'strerror', error)}") from error
    if not 0 < len(content) <= MAX_FILE:
        raise UsageError(failures.EVIDENCE_INVALID, f"{name}: {len(content)} bytes; 1 to {MAX_FILE} are expected")
    return content


def new_pki(random: RandomSource, now: float) -> str:
    """A PKI for one lab, made at `now`, seconds since 1970; as JSON."""
    from vmm_stub.quoting.pki import LabPki, push_pki  # noqa: PLC0415

    return push_pki(LabPki.generate(random, datetime.fromtimestamp(int(now), UTC)))


def pull_pki_text(text: str) -> LabPki:
    """A PKI from its JSON. Raises UsageError (LAB-EVIDENCE-INVALID)."""
    from vmm_stub.quoting.pki import pull_pki  # noqa: PLC0415

    try:
        return pull_pki(text)
    except LabFailure as error:
        raise UsageError(failures.EVIDENCE_INVALID, str(error)) from error


def _material(pki: str, lab: LabFile, host: str) -> QuotingMaterial:
    from pydantic import ValidationError  # noqa: PLC0415

    from vmm_stub.quoting.material import material_for  # noqa: PLC0415
    from vmm_stub.quoting.settings import PlatformSettings  # noqa: PLC0415

    try:
        settings = {
            name: PlatformSettings.model_validate(entry.platform.settings(name)) for name, entry in lab.hosts.items()
        }
        return material_for(pull_pki_text(pki), settings[host], list(settings.values()))
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise UsageError(failures.EVIDENCE_INVALID, f"platform of {host}: {details}") from error
    except LabFailure as error:
        raise UsageError(failures.EVIDENCE_INVALID, f"platform of {host}: {error.kind.id}: {error}") from error


def _expect_used(lab: LabFile) -> None:
    """Refuse files that the mode would not look at: somebody means something by them."""
    v2 = lab.policy_version == V2
    policies = (LAB, CAPTURED, ACCEPT_ALL) if v2 else (LAB, CAPTURED)
    modes = {
        "policy_file": policies,
        "policy_issuer_chain_file": policies if v2 else (),
        # A policy v2 says itself in which root quotes must end.
        "root_ca_file": (CAPTURED,) if v2 else (LAB, CAPTURED),
        "refuse_expired": (LAB, CAPTURED),
        "quote_file": (CAPTURED,),
        "collateral_file": (CAPTURED,),
        "pki": policies if v2 else (LAB,),
    }
    for key, used in modes.items():
        if getattr(lab, key) and lab.attestation not in used:
            raise _unused(key, lab)
    for name, entry in lab.hosts.items():
        of_host = (
            ("policy_file", entry.policy_file, policies),
            ("policy_issuer_chain_file", entry.policy_issuer_chain_file, policies if v2 else ()),
            ("policy_v2", entry.policy_v2, policies if v2 else ()),
            *(("policy_v2", each.policy_v2, policies if v2 else ()) for each in entry.migtds.values()),
            *(("quote_form", each.quote_form != "qgs", (LAB, CAPTURED)) for each in entry.migtds.values()),
            ("quoting", entry.quoting.fail_first, (LAB,)),
            ("pcs", entry.pcs, (LAB,)),
        )
        for key, value, used in of_host:
            if value and lab.attestation not in used:
                raise _unused(f"{key} of {name}", lab)


def _unused(what: str, lab: LabFile) -> UsageError:
    detail = f"{what} with attestation {lab.attestation} and policy_version {lab.policy_version}"
    return UsageError(failures.EVIDENCE_UNUSED, detail)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
