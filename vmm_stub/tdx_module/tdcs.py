# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The TDCS of a target TD, as far as its MigTD reaches it (ghci-ratls.md 2 and 6; policy.md 6.7)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from migtd.guest.abi import Field
from migtd.guest.interfaces import TargetTd
from migtd.migration.servtd_ext import ServtdExt, approved_hash
from vmm_stub import failures
from vmm_stub.tdx_module.errors import RebindRefused
from vmm_stub.tdx_module.metadata import TARGET_TD_FIELDS, readable, staged_fields, writable
from vmm_stub.tdx_module.report import TdInfo, servtd_info_hash
from vmm_stub.tdx_module.service_td import ServiceTd

NO_INSTANCE: Final = 0
"""Instances of service TDs count up from 1."""
_FINGERPRINT_LABEL: Final = b"MigTD Lab MSK"
_FINGERPRINT_SIZE: Final = 8
_TEE_MODEL: Final = bytes(12)
"""TEE model of an emulated platform (policy.md 6.7)."""


def key_fingerprint(key: bytes) -> str:
    """16 hex digits that tell keys apart: the first 8 bytes of SHA-256(`MigTD Lab MSK` ‖ 32-byte key)."""
    return hashlib.sha256(_FINGERPRINT_LABEL + key).digest()[:_FINGERPRINT_SIZE].hex()


@dataclass(frozen=True, slots=True)
class InitialBinding:
    """What the first binding of a target TD left behind for good: half of its SERVTD_EXT."""

    info_hash: bytes
    attr: int
    cpusvn: bytes
    tee_tcb_svn: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """What a TDREPORT of a running service TD says: its instance, its TDINFO, and the SVNs of the platform."""

    instance: int
    tdinfo: TdInfo
    cpusvn: bytes
    tee_tcb_svn: bytes


@dataclass(frozen=True, slots=True)
class Binding:
    """The service TD that is bound now: its instance and first-level hash."""

    instance: int
    info_hash: bytes


@dataclass(frozen=True, slots=True)
class TdcsState:
    """What may be told of a target TD: fingerprints, never keys.

    `dec_key_writes` counts complete writes of MIG_DEC_KEY, so that two looks tell whether a migration wrote one.
    `dec_key_fingerprint` and `mig_version` are None until written.
    """

    target: TargetTd
    service_td: str
    servtd_attr: int
    enc_key_fingerprint: str
    dec_key_fingerprint: str | None
    dec_key_writes: int
    mig_version: int | None
    mig_version_writes: int


@dataclass(frozen=True, slots=True)
class KeptTdcs:
    """What outlives the TDX module that a target TD was made by. `enc_key` and `approved_token` are secrets."""

    servtd_attr: int
    enc_key: bytes = field(repr=False)
    initial_binding: InitialBinding | None
    bound_hash: bytes | None
    approved_token: bytes | None = field(repr=False)


class Tdcs:
    """One target TD. `service_td` is the name of the MigTD that it belongs to; the running TD is bound by `bind`.

    `enc_key` is the 32 random bytes of MIG_ENC_KEY. MIG_DEC_KEY has no value until all its elements were written,
    and keeps it until all were written again.
    """

    def __init__(self, target: TargetTd, service_td: str, servtd_attr: int, enc_key: bytes) -> None:
        self.target = target
        self.service_td = service_td
        self.servtd_attr = servtd_attr
        self.initial_binding: InitialBinding | None = None
        self.binding: Binding | None = None
        self._approved_token: bytes | None = None
        self._enc_key = enc_key
        self._written = staged_fields(TARGET_TD_FIELDS)

    def __repr__(self) -> str:
        return f"Tdcs({self.state()})"

    @classmethod
    def restored(cls, target: TargetTd, service_td: str, kept: KeptTdcs) -> Tdcs:
        """A target TD that was kept, now of the MigTD of that name; no running service TD is bound to it yet."""
        tdcs = cls(target, service_td, kept.servtd_attr, kept.enc_key)
        tdcs.initial_binding = kept.initial_binding
        tdcs.binding = None if kept.bound_hash is None else Binding(NO_INSTANCE, kept.bound_hash)
        tdcs._approved_token = kept.approved_token
        return tdcs

    def keep(self) -> KeptTdcs:
        """What `restored` takes. What was written to MIG_DEC_KEY and MIG_VERSION is not kept."""
        bound = None if self.binding is None else self.binding.info_hash
        return KeptTdcs(self.servtd_attr, self._enc_key, self.initial_binding, bound, self._approved_token)

    def state(self) -> TdcsState:
        """A look at the target TD now."""
        dec_key, version = self._written[Field.MIG_DEC_KEY], self._written[Field.MIG_VERSION]
        return TdcsState(
            target=self.target,
            service_td=self.service_td,
            servtd_attr=self.servtd_attr,
            enc_key_fingerprint=key_fingerprint(self._enc_key),
            dec_key_fingerprint=None if dec_key.value is None else key_fingerprint(dec_key.value),
            dec_key_writes=dec_key.writes,
            mig_version=None if version.value is None else int.from_bytes(version.value, "little"),
            mig_version_writes=version.writes,
        )

    @property
    def servtd_ext(self) -> ServtdExt:
        """SERVTD_EXT as it is now. The target must be bound."""
        initial, binding = self._bindings()
        return ServtdExt(
            init_info_hash=initial.info_hash,
            init_attr=initial.attr,
            init_cpusvn=initial.cpusvn,
            init_tee_tcb_svn=initial.tee_tcb_svn,
            init_tee_model=_TEE_MODEL,
            current_info_hash=binding.info_hash,
            current_attr=self.servtd_attr,
        )

    def bind(self, measured: Measured) -> None:
        """Bind a running service TD (TDH.SERVTD.BIND): take its hash now, and as the initial one if it is the first.

        The stored hashes are first-level ones (policy.md 6.2, D3).
        """
        info_hash = servtd_info_hash(measured.tdinfo, self.servtd_attr)
        self.binding = Binding(measured.instance, info_hash)
        if self.initial_binding is None:
            self.initial_binding = InitialBinding(info_hash, self.servtd_attr, measured.cpusvn, measured.tee_tcb_svn)

    def approve(self, token: bytes) -> None:
        """TDG.SERVTD.REBIND.APPROVE by the bound service TD: who accepted it may be bound. The last counts."""
        self._approved_token = token

    def rebind(self, service_td: ServiceTd, measured: Measured) -> None:
        """Move the binding to a service TD which accepted the token that was approved, and this very SERVTD_EXT.

        Its REBIND_ATTR becomes SERVTD_ATTR; it and both tokens are cleared. Raises RebindRefused (VMM-REBIND-REFUSED)
        otherwise; then nothing changed.
        """
        token = service_td.metadata(Field.REBIND_ACCEPT_TOKEN).value
        attr = service_td.metadata(Field.REBIND_ATTR).value
        if self._approved_token is None or token is None:
            missing = "the old MigTD approved none" if self._approved_token is None else "the new MigTD accepted none"
            raise RebindRefused(failures.REBIND_REFUSED, f"there is no token: {missing}")
        if not hmac.compare_digest(token, self._approved_token):
            raise RebindRefused(failures.REBIND_REFUSED, "the accepted token is not the approved one")
        if service_td.metadata(Field.ACCEPT_SERVTD_EXT_HASH).value != approved_hash(self.servtd_ext.push()):
            raise RebindRefused(failures.REBIND_REFUSED, "the new MigTD accepted another SERVTD_EXT")
        if attr is None:
            raise RebindRefused(failures.REBIND_REFUSED, "the new MigTD wrote no REBIND_ATTR")
        self._approved_token = None
        service_td.clear_rebinding()
        self.service_td = service_td.name
        self.servtd_attr = int.from_bytes(attr, "little")
        self.bind(measured)

    def read(self, field: int) -> int:
        """TDG.SERVTD.RD of one element. Raises OperandInvalid (RDX). The target must be bound."""
        element = readable(TARGET_TD_FIELDS, field)
        size = element.layout.element_size
        start = element.index * size
        return int.from_bytes(self._value(element.layout.field)[start : start + size], "little")

    def write(self, field: int, value: int, mask: int) -> None:
        """TDG.SERVTD.WR of one element. Raises OperandInvalid (RDX, R8, R9)."""
        element = writable(TARGET_TD_FIELDS, field, value, mask)
        self._written[element.layout.field].write(element.index, value)

    def _value(self, field: Field) -> bytes:
        """A readable field as bytes, elements little-endian."""
        extended = self.servtd_ext
        values = {
            Field.MIG_ENC_KEY: self._enc_key,
            Field.SERVTD_INIT_SERVTD_INFO_HASH: extended.init_info_hash,
            Field.SERVTD_INIT_ATTR: extended.init_attr.to_bytes(8, "little"),
            Field.INIT_CPUSVN: extended.init_cpusvn,
            Field.INIT_TEE_TCB_SVN: extended.init_tee_tcb_svn,
            Field.INIT_TEE_MODEL: extended.init_tee_model,
            Field.SERVTD_INFO_HASH: extended.current_info_hash,
            Field.SERVTD_ATTR: extended.current_attr.to_bytes(8, "little"),
        }
        return values[field]

    def _bindings(self) -> tuple[InitialBinding, Binding]:
        if self.binding is None or self.initial_binding is None:
            raise RuntimeError("a target TD is bound before its fields are read")
        return self.initial_binding, self.binding
