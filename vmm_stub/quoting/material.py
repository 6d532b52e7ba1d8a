# SPDX-License-Identifier: BSD-2-Clause-Patent
"""All that one host needs to make quotes and to hand out collateral, made by the lab from its PKI.

A MigTD with policy v1 verifies its own and the peer's quote with collateral of its own host, so a host's collateral
knows the machines of the whole lab: one TCB info for each FMSPC, one PCK CRL, one QE identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.layout import QE_REPORT_SIZE, push_qe_report
from vmm_stub import failures
from vmm_stub.quoting.documents import qe_identity, qe_report, tcb_info
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.keys import SCALAR_SIZE, key_of, scalar_of
from vmm_stub.quoting.pki import COLLATERAL_LIFETIME, LabPki
from vmm_stub.quoting.settings import HexBytes, PlatformSettings
from vmm_stub.tdx_module.platform import Platform

TEE_TYPE_TDX: Final = 0x81
COLLATERAL_VERSION: Final = (1, 0)
"""As generated collateral carries it (policy.md 4.3)."""


@dataclass(frozen=True, slots=True)
class PlatformIdentity:
    """What the TDREPORTs of the machine must say for its quotes to match its collateral; None: any will do."""

    cpusvn: bytes
    tee_tcb_svn: bytes
    mrsignerseam: bytes
    mrseam: bytes | None


@dataclass(frozen=True, slots=True)
class QuotingMaterial:
    """Of one machine. The two private numbers (32 bytes each) are secrets, and never in its repr.

    `qe_report` is the 384-byte report of its quoting enclave without REPORTDATA, `pck_chain` PEM (PCK, CA, root),
    `root_ca` DER. `tcb_infos` has a document for each FMSPC (12 upper-case hex digits) of the lab; `collateral` is the
    set for this machine's own `fmspc`.
    """

    pck_scalar: bytes = field(repr=False)
    attestation_scalar: bytes = field(repr=False)
    pck_chain: bytes = field(repr=False)
    qe_report: bytes = field(repr=False)
    root_ca: bytes = field(repr=False)
    fmspc: str
    collateral: CollateralSet = field(repr=False)
    tcb_infos: Mapping[str, bytes] = field(repr=False)
    identity: PlatformIdentity = field(repr=False)

    def collateral_for(self, fmspc: str) -> CollateralSet | None:
        """The set for machines of that FMSPC, or None if the lab has none of them."""
        document = self.tcb_infos.get(fmspc)
        return None if document is None else replace(self.collateral, tcb_info=document)


def material_for(pki: LabPki, settings: PlatformSettings, others: Sequence[PlatformSettings] = ()) -> QuotingMaterial:
    """Material of one machine; `others` are the machines whose quotes it shall be able to judge too.

    Raises QuotingError (VMM-QUOTING-CONFLICT) where machines claim the same SVNs with different verdicts.
    """
    machines = list(dict.fromkeys([settings, *others]))
    issued = settings.collateral_issued or pki.issued
    expires = settings.collateral_expires or issued + COLLATERAL_LIFETIME
    if expires <= issued:
        raise QuotingError(failures.QUOTING_CONFLICT, f"collateral_issued and collateral_expires of {settings.machine}")
    tcb_infos = {
        fmspc.hex().upper(): tcb_info(
            [each for each in machines if each.fmspc == fmspc], issued, expires, pki.tcb_signing_key
        )
        for fmspc in dict.fromkeys(each.fmspc for each in machines)
    }
    fmspc = settings.fmspc.hex().upper()
    major, minor = COLLATERAL_VERSION
    return QuotingMaterial(
        pck_scalar=scalar_of(pki.pck_key(settings)),
        attestation_scalar=scalar_of(pki.attestation_key(settings)),
        pck_chain=pki.pck_chain(settings),
        qe_report=push_qe_report(qe_report(settings)),
        root_ca=pki.root_ca,
        fmspc=fmspc,
        collateral=CollateralSet(
            major=major,
            minor=minor,
            tee_type=TEE_TYPE_TDX,
            pck_crl_issuer_chain=pki.pck_crl_chain,
            root_ca_crl=pki.root_ca_crl(issued, expires),
            pck_crl=pki.pck_crl([each for each in machines if each.pck_revoked], issued, expires),
            tcb_info_issuer_chain=pki.signing_chain,
            tcb_info=tcb_infos[fmspc],
            qe_identity_issuer_chain=pki.signing_chain,
            qe_identity=qe_identity(machines, issued, expires, pki.tcb_signing_key),
        ),
        tcb_infos=tcb_infos,
        identity=PlatformIdentity(settings.sgx_components, settings.module_svn, settings.mrsignerseam, settings.mrseam),
    )


def platform_for(material: QuotingMaterial, report_key: bytes) -> Platform:
    """The platform whose TDREPORTs become quotes that match the material; `report_key` is 32 secret bytes of it."""
    identity = material.identity
    platform = Platform(
        report_key,
        cpusvn=identity.cpusvn,
        tee_tcb_svn=identity.tee_tcb_svn,
        mrsignerseam=identity.mrsignerseam,
    )
    return platform if identity.mrseam is None else replace(platform, mrseam=identity.mrseam)


class QuotingMaterialModel(BaseModel):
    """JSON of a QuotingMaterial: what the lab hands to a host. It holds two private keys."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    pck_key: Annotated[bytes, HexBytes(SCALAR_SIZE)] = Field(repr=False)
    attestation_key: Annotated[bytes, HexBytes(SCALAR_SIZE)] = Field(repr=False)
    pck_chain: str
    qe_report: Annotated[bytes, HexBytes(QE_REPORT_SIZE)]
    root_ca: str = Field(pattern=r"^([0-9a-f]{2})+$")
    fmspc: str = Field(pattern=r"^[0-9A-F]{12}$")
    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    signing_chain: str
    qe_identity: str
    tcb_infos: dict[str, str]
    cpusvn: Annotated[bytes, HexBytes(16)]
    tee_tcb_svn: Annotated[bytes, HexBytes(16)]
    mrsignerseam: Annotated[bytes, HexBytes(48)]
    mrseam: Annotated[bytes, HexBytes(48)] | None = None


def model_of(material: QuotingMaterial) -> QuotingMaterialModel:
    """The material as the control API takes it."""
    collateral, identity = material.collateral, material.identity
    return QuotingMaterialModel(
        pck_key=material.pck_scalar,
        attestation_key=material.attestation_scalar,
        pck_chain=material.pck_chain.decode(),
        qe_report=material.qe_report,
        root_ca=material.root_ca.hex(),
        fmspc=material.fmspc,
        pck_crl_issuer_chain=collateral.pck_crl_issuer_chain.decode(),
        root_ca_crl=collateral.root_ca_crl.decode(),
        pck_crl=collateral.pck_crl.decode(),
        signing_chain=collateral.tcb_info_issuer_chain.decode(),
        qe_identity=collateral.qe_identity.decode(),
        tcb_infos={fmspc: document.decode() for fmspc, document in material.tcb_infos.items()},
        cpusvn=identity.cpusvn,
        tee_tcb_svn=identity.tee_tcb_svn,
        mrsignerseam=identity.mrsignerseam,
        mrseam=identity.mrseam,
    )


def material_of(model: QuotingMaterialModel) -> QuotingMaterial:
    """The material in a model. Raises QuotingError (VMM-QUOTING-MATERIAL) if its parts do not fit together."""
    try:
        for scalar in (model.pck_key, model.attestation_key):
            key_of(scalar)
    except ValueError:
        raise QuotingError(failures.QUOTING_MATERIAL, "a private key is out of range") from None
    tcb_infos = {fmspc: document.encode() for fmspc, document in model.tcb_infos.items()}
    if model.fmspc not in tcb_infos:
        raise QuotingError(failures.QUOTING_MATERIAL, f"no TCB info for its own FMSPC {model.fmspc}")
    major, minor = COLLATERAL_VERSION
    signing_chain = model.signing_chain.encode()
    return QuotingMaterial(
        pck_scalar=model.pck_key,
        attestation_scalar=model.attestation_key,
        pck_chain=model.pck_chain.encode(),
        qe_report=model.qe_report,
        root_ca=bytes.fromhex(model.root_ca),
        fmspc=model.fmspc,
        collateral=CollateralSet(
            major=major,
            minor=minor,
            tee_type=TEE_TYPE_TDX,
            pck_crl_issuer_chain=model.pck_crl_issuer_chain.encode(),
            root_ca_crl=model.root_ca_crl.encode(),
            pck_crl=model.pck_crl.encode(),
            tcb_info_issuer_chain=signing_chain,
            tcb_info=tcb_infos[model.fmspc],
            qe_identity_issuer_chain=signing_chain,
            qe_identity=model.qe_identity.encode(),
        ),
        tcb_infos=tcb_infos,
        identity=PlatformIdentity(model.cpusvn, model.tee_tcb_svn, model.mrsignerseam, model.mrseam),
    )


def push_material(material: QuotingMaterial) -> str:
    """JSON text of a material. It holds two private keys: keep it in a file of mode 0600."""
    return model_of(material).model_dump_json()


def pull_material(text: str) -> QuotingMaterial:
    """The material of such a text. Raises QuotingError (VMM-QUOTING-MATERIAL), which shows nothing of the text."""
    try:
        model = QuotingMaterialModel.model_validate_json(text)
    except ValidationError as error:
        names = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
        raise QuotingError(failures.QUOTING_MATERIAL, ", ".join(names) or "no JSON") from None
    return material_of(model)
