# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the control API takes and gives (design.md, contract 5). The OpenAPI document is made from these models.

`SideOutcome` is one side of the outcome document (contract 2); the lab joins two of them.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from migtd.checks import CheckName, CheckStatus
from migtd.guest.ghci import TDINFO_SIZE
from migtd.observer import Phase

U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
U16 = Annotated[int, Field(ge=0, le=2**16 - 1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]
"""48 bytes as hex."""
NO_DIGEST = "00" * 48
FilePath = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A path as the system takes one."""


class Model(BaseModel):
    """Base of all: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class VersionRangeModel(Model):
    """Migration versions that a host's TDX module exports and imports.

    0..0 is allowed (the reference's emulation offers it).
    """

    minimum: U16 = 1
    maximum: U16 = 1

    @model_validator(mode="after")
    def _ordered(self) -> VersionRangeModel:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class DeadlinesModel(Model):
    """Waiting times in seconds (migtd.deadlines.Deadlines); what is left out keeps its default."""

    pre_session: Seconds = 60.0
    session: Seconds = 60.0
    read: Seconds = 60.0
    write: Seconds = 60.0
    call: Seconds = 30.0
    report: Seconds = 60.0
    connect: Seconds = 60.0


class ConfigurationVolume(Model):
    """Files of the configuration volume that the host gives a MigTD (policy.md 0.3).

    Besides the policy: with policy v1 the SGX root CA, with policy v2 the issuer chain.
    """

    policy: Base64Bytes
    root_ca: Base64Bytes | None = Field(default=None, description="DER")
    policy_issuer_chain: Base64Bytes | None = Field(default=None, description="PEM")


class MigTdConfig(Model):
    """One MigTD of a host: where its channel lives and what its TD looks like."""

    name: Name
    channel: FilePath = Field(description="folder for the channel's socket and shared memory")
    vcpus: Annotated[int, Field(ge=1, le=64)] = 1
    shared_memory: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 64 << 20
    """Bytes of shared memory of the TD; pages are only used once touched."""
    mrtd: Digest | None = Field(default=None, description="what it is measured as; None: the emulated MigTD")
    mrowner: Digest = NO_DIGEST
    mrownerconfig: Digest = NO_DIGEST
    configuration: ConfigurationVolume | None = Field(default=None, description="None: that of the host")


class LabQuotingConfig(Model):
    """A quoting service that makes fresh quotes, with the platform that they are of."""

    kind: Literal["lab"] = "lab"
    material: str = Field(repr=False, description="JSON of the platform's quoting material; it holds private keys")
    quote: Literal["v4", "v5", "v5-tdx-1.5"] = "v4"
    fail_first: Annotated[int, Field(ge=0, le=1000)] = 0
    """So many GetQuote calls of the host's MigTDs end in the error status, which they take as busy."""


class CapturedQuotingConfig(Model):
    """A quoting service with one quote from elsewhere, and a TDX module whose reports are derived from that quote."""

    kind: Literal["captured"] = "captured"
    quote: Base64Bytes
    collateral: Base64Bytes = Field(description="packed set (policy.md 4.6)")


class HostConfig(Model):
    """Configuration of one emulated host (`vmm-stub serve --config FILE`; `-` reads standard input)."""

    name: Name
    migtds: list[MigTdConfig] = Field(min_length=1)
    control: FilePath = Field(description="path of the control API's unix socket")
    control_tcp: str | None = Field(default=None, description="host:port on loopback, when asked for")
    wire_address: str = Field(default="127.0.0.1", description="address that destinations listen on")
    wire_name: str = Field(default="127.0.0.1", description="name under which the other host reaches wire_address")
    versions: VersionRangeModel = VersionRangeModel()
    """Of the TDX module, as on hardware: TDG.SYS.RD answers it to every MigTD of the host, for all target TDs."""
    deadlines: DeadlinesModel = DeadlinesModel()
    log_level: Annotated[int, Field(ge=1, le=5)] = 3
    """Level asked for by EnableLogArea; a MigTD never goes above info unless started for debugging."""
    quoting: Annotated[LabQuotingConfig | CapturedQuotingConfig, Field(discriminator="kind")] | None = None
    """None: there is no quoting service, every GetQuote ends in the error status."""
    pcs: str | None = Field(default=None, description="host:port on which the lab's collateral is served over HTTP")
    configuration: ConfigurationVolume | None = None
    """What every MigTD of the host finds beside its channel unless it has its own; None: nothing."""
    history: FilePath | None = Field(
        default=None, description="file that gets the history as JSON lines, besides the API"
    )

    @model_validator(mode="after")
    def _pcs_has_what_it_serves(self) -> HostConfig:
        if self.pcs is not None and not isinstance(self.quoting, LabQuotingConfig):
            raise ValueError("`pcs` serves the collateral of a quoting service of kind `lab`, and there is none")
        return self

    @model_validator(mode="after")
    def _names_and_channels_unique(self) -> HostConfig:
        for key in ("name", "channel"):
            # A plan leaves the channels empty until its engine knows where they live.
            values = [value for each in self.migtds if (value := getattr(each, key))]
            if len(set(values)) != len(values):
                raise ValueError(f"two MigTDs have the same {key}")
        return self


class TargetTdRequest(Model):
    """Create a target TD on this host and bind a MigTD to it."""

    migtd: Name
    uuid: tuple[U64, U64, U64, U64] | None = None
    """None: random."""
    binding_handle: U64 | None = None
    """None: random."""
    servtd_attr: U64 = 0


class TargetTdModel(Model):
    """A target TD with what may be told of it: fingerprints, never keys."""

    migtd: Name
    uuid: tuple[U64, U64, U64, U64]
    binding_handle: U64
    versions: VersionRangeModel
    """The host's: its TDX module has one range for all target TDs."""
    servtd_attr: U64
    enc_key_fingerprint: str
    dec_key_fingerprint: str | None
    """None until a MigTD wrote MIG_DEC_KEY."""
    mig_version: int | None


class Role(enum.StrEnum):
    """Side of a migration."""

    SOURCE = "source"
    DESTINATION = "destination"


class SessionOperation(enum.StrEnum):
    """What a session between two MigTDs is for."""

    MIGRATION = "migration"
    REBIND_PREPARE = "rebind-prepare"
    """Both MigTDs are of one host: the source is the old one, the destination the new one."""


class MigrationRequest(Model):
    """Start one migration on this host, on one side, or prepare a rebinding between two of its MigTDs.

    The host queues EnableLogArea, GetTDReport and StartMigration to the MigTD, in a rebinding EnableLogArea,
    GetMigtdData and StartRebinding. A source needs `peer` (host:port); a destination listens on `listen_port` (0: any
    free port; the answer tells which). A rebinding takes the same way; its peer is this very host.
    """

    migtd: Name
    role: Role
    request_id: Annotated[int, Field(ge=0, lt=2**62)]
    """Below 2**62: bits 62 and 63 mark the requests that go with a migration (ghci-ratls.md 3.1)."""
    uuid: tuple[U64, U64, U64, U64]
    binding_handle: U64
    peer: str | None = None
    listen_port: U16 = 0
    operation: SessionOperation = SessionOperation.MIGRATION
    initial_tdinfo: Base64Bytes | None = Field(
        default=None, description="initial TDINFO, 512 bytes, that goes with the start request (policy v2)"
    )

    @model_validator(mode="after")
    def _peer_for_source(self) -> MigrationRequest:
        if (self.role is Role.SOURCE) != (self.peer is not None):
            raise ValueError("a source needs `peer`, a destination has none")
        return self

    @model_validator(mode="after")
    def _whole_tdinfo(self) -> MigrationRequest:
        if self.initial_tdinfo is not None and len(self.initial_tdinfo) != TDINFO_SIZE:
            raise ValueError(f"`initial_tdinfo` has {len(self.initial_tdinfo)} bytes instead of {TDINFO_SIZE}")
        return self


class CheckModel(Model):
    """One check of a side (migtd.checks)."""

    name: CheckName
    status: CheckStatus
    detail: str = ""


class ErrorModel(Model):
    """A failure as people read it: stable id, sentence with detail, advice, and what a sentence cannot hold."""

    id: str
    message: str
    advice: str
    explain: list[str] = []


class Fingerprints(Model):
    """First 8 bytes of a SHA-256 over a session key, as hex: enough to compare, useless to decrypt.

    `sent` is of MIG_ENC_KEY, `received` of MIG_DEC_KEY as written by the MigTD (None: not written).
    """

    sent: str | None = None
    received: str | None = None


class SideOutcome(Model):
    """One side of a migration's outcome (design.md, contract 2).

    `result` is a MigrationResult name, or `Unknown` with code null where the side was lost.
    """

    result: str
    code: int | None
    phase: Phase
    error: ErrorModel | None
    key_written: bool
    version: int | None
    fingerprints: Fingerprints
    checks: list[CheckModel]
    trace: list[str]


class RebindFinalizeRequest(Model):
    """Move the binding of a target TD to `migtd`, which prepared it with success; no MigTD is asked."""

    migtd: Name
    uuid: tuple[U64, U64, U64, U64]
    binding_handle: U64


class RebindFinalizeModel(Model):
    """What became of it: `outcome.code` is 0, or 4 (TdxModuleError) where the TDX module did not move the binding.

    `migtd` is the MigTD that the target TD is bound to now, None if there is no such target TD.
    """

    migtd: Name | None
    uuid: tuple[U64, U64, U64, U64]
    binding_handle: U64
    outcome: SideOutcome


class MigrationState(enum.StrEnum):
    """Where a migration is, as the host sees it."""

    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"


class MigrationModel(Model):
    """A migration on this host, or the preparation of a rebinding."""

    migtd: Name
    request_id: int
    operation: SessionOperation = SessionOperation.MIGRATION
    role: Role
    state: MigrationState
    address: str | None
    """Where a destination is reached (wire_name:port); None for a source."""
    started: float
    """Seconds since 1970."""
    duration_ms: float | None
    phases_ms: dict[Phase, float]
    """Milliseconds spent in each phase that was left."""
    outcome: SideOutcome | None
    """None until it ended."""


class MigTdState(enum.StrEnum):
    """What a host knows of a MigTD."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    LOST = "lost"


class MigTdModel(Model):
    """A MigTD of this host. `ready` = it waits for requests."""

    name: Name
    state: MigTdState
    vcpus: int
    migrations: int
    """Migrations under way."""
    error: ErrorModel | None = None
    """Why it is lost, if it said so (ReportFatalError) or the channel broke."""


class Health(Model):
    """Health of a host: `ready` when every MigTD is."""

    host: Name
    status: Literal["ready", "starting", "degraded"]
    version: str
    migtds: list[MigTdModel]


class Problem(Model):
    """Body of every answer that is no success."""

    error: ErrorModel
