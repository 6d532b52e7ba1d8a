# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated platform of stand-alone sides that rebind: what they share, and what outlives them (`--lab-dir`).

DIR/platform-MODE.json, mode 0600: the key of the report MAC, the TDCS of each target TD with the TDINFO of the MigTD
that it was bound to first, and what new MigTDs accepted. It is read and written under the folder's lock, so that two
sides may come and go at once. Each attestation mode is a platform of its own: what one measures no other would know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from lab import failures
from lab.errors import UsageError
from lab.evidence import read_file
from lab.pki import locked
from migtd.errors import LabFailure
from migtd.guest.abi import Field as MetadataField
from migtd.guest.interfaces import TargetTd
from vmm_stub import failures as vmm_failures
from vmm_stub.tdx_module.errors import TargetTdUnknown
from vmm_stub.tdx_module.metadata import ALL_ONES
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import REPORT_KEY_SIZE
from vmm_stub.tdx_module.randomness import RandomSource, draw
from vmm_stub.tdx_module.report import TDINFO_SIZE, TdInfo
from vmm_stub.tdx_module.service_td import ServiceTd, ServiceTdParams
from vmm_stub.tdx_module.tdcs import InitialBinding, KeptTdcs, Measured, Tdcs
from vmm_stub.vmm.control.models import U64, Model

_ACCEPTED: Final = (
    MetadataField.REBIND_ACCEPT_TOKEN,
    MetadataField.REBIND_ATTR,
    MetadataField.ACCEPT_SERVTD_EXT_HASH,
)
_WORD: Final = 8


def _unhex(value: object) -> object:
    return bytes.fromhex(value) if isinstance(value, str) else value


Hex = Annotated[bytes, BeforeValidator(_unhex), PlainSerializer(bytes.hex, return_type=str)]
TdInfoHex = Annotated[Hex, Field(min_length=TDINFO_SIZE, max_length=TDINFO_SIZE)]
Uuid4 = tuple[U64, U64, U64, U64]


class _Initial(Model):
    info_hash: Hex
    attr: U64
    cpusvn: Hex
    tee_tcb_svn: Hex


class _Target(Model):
    """One target TD (tdcs.KeptTdcs), and the TDINFO of its first MigTD."""

    uuid: Uuid4
    binding_handle: U64
    servtd_attr: U64
    enc_key: Hex = Field(repr=False)
    initial: _Initial | None
    bound_hash: Hex | None
    approved_token: Hex | None = Field(repr=False)
    initial_tdinfo: TdInfoHex


class _Accepted(Model):
    """What the new MigTD of a target TD wrote about itself (TDG.VM.WR), and what it is measured as."""

    uuid: Uuid4
    binding_handle: U64
    metadata: dict[int, Hex] = Field(repr=False)
    tdinfo: TdInfoHex
    cpusvn: Hex
    tee_tcb_svn: Hex


class _Platform(Model):
    schema_version: Literal[1] = Field(default=1, alias="schema")
    report_key: Annotated[Hex, Field(min_length=REPORT_KEY_SIZE, max_length=REPORT_KEY_SIZE)] = Field(repr=False)
    targets: list[_Target] = Field(default=[])
    accepted: list[_Accepted] = Field(default=[])


class KeptPlatform:
    """The platform of a folder. Methods raise UsageError (LAB-EVIDENCE-INVALID, LAB-FILE-UNWRITABLE)."""

    def __init__(self, folder: Path, mode: str, random: RandomSource) -> None:
        self._folder = folder
        self._file = folder / f"platform-{mode}.json"
        self._random = random

    def report_key(self) -> bytes:
        """The key of the report MAC, 32 bytes, drawn at first use."""
        with self._changing() as platform:
            return platform.report_key

    def restore(self, module: TdxModule, target: TargetTd, service_td: str) -> bool:
        """Give the module the target TD as it was kept, bound to the MigTD of that name; False: none was kept."""
        with self._changing() as platform:
            kept = next((each for each in platform.targets if _names(each, target)), None)
        if kept is not None:
            module.restore_target(Tdcs.restored(target, service_td, _tdcs_of(kept)))
        return kept is not None

    def initial_tdinfo(self, target: TargetTd) -> bytes | None:
        """TDINFO of the MigTD that a target TD was bound to first, 512 bytes; None: none was kept."""
        with self._changing() as platform:
            return next((each.initial_tdinfo for each in platform.targets if _names(each, target)), None)

    def keep_target(self, tdcs: Tdcs, tdinfo: bytes) -> None:
        """Keep the old MigTD's side: the target TD with the token that was approved; `tdinfo` is this MigTD's now."""
        with self._changing() as platform:
            _keep(platform, tdcs, tdinfo)

    def keep_accepted(self, module: TdxModule, target: TargetTd, service_td: str) -> None:
        """Keep the new MigTD's side: what it accepted, and what it is measured as. Raises ServiceTdUnknown."""
        new = module.service_td(service_td)
        measured = module.measured(new)
        values = {int(each): new.metadata(each).value for each in _ACCEPTED}
        accepted = _Accepted(
            uuid=target.uuid,
            binding_handle=target.binding_handle,
            metadata={number: value for number, value in values.items() if value is not None},
            tdinfo=measured.tdinfo.push(),
            cpusvn=measured.cpusvn,
            tee_tcb_svn=measured.tee_tcb_svn,
        )
        with self._changing() as platform:
            platform.accepted = [each for each in platform.accepted if not _names(each, target)] + [accepted]

    def finalize(self, target: TargetTd) -> None:
        """Move the binding of a target TD to the MigTD that accepted it, as the TDX module does (TdxModule).

        Raises TargetTdUnknown (VMM-TARGET-TD-UNKNOWN) or RebindRefused (VMM-REBIND-REFUSED): nothing changed.
        """
        with self._changing() as platform:
            kept = next((each for each in platform.targets if _names(each, target)), None)
            accepted = next((each for each in platform.accepted if _names(each, target)), None)
            if kept is None:
                raise TargetTdUnknown(vmm_failures.TARGET_TD_UNKNOWN, f"binding handle {target.binding_handle:#x}")
            tdcs = Tdcs.restored(target, "old", _tdcs_of(kept))
            new, measured = _new_migtd(accepted)
            tdcs.rebind(new, measured)
            _keep(platform, tdcs, kept.initial_tdinfo)
            platform.accepted = [each for each in platform.accepted if not _names(each, target)]

    @contextmanager
    def _changing(self) -> Iterator[_Platform]:
        """The platform, written back if it was changed; not if the block raises."""
        with locked(self._folder):
            before = read_file(str(self._file)) if self._file.exists() else b""
            platform = self._read(before) if before else _Platform(report_key=draw(self._random, REPORT_KEY_SIZE))
            yield platform
            text = platform.model_dump_json(by_alias=True).encode()
            if text != before:
                _write(self._file, text)

    def _read(self, text: bytes) -> _Platform:
        try:
            return _Platform.model_validate_json(text)
        except ValidationError as error:
            names = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
            raise UsageError(failures.EVIDENCE_INVALID, f"{self._file}: {', '.join(names)}") from None


def _names(kept: _Target | _Accepted, target: TargetTd) -> bool:
    return (kept.uuid, kept.binding_handle) == (target.uuid, target.binding_handle)


def _keep(platform: _Platform, tdcs: Tdcs, tdinfo: bytes) -> None:
    """`tdinfo` is that of the first MigTD, unless one was kept already."""
    kept, initial = tdcs.keep(), tdcs.initial_binding
    first = next((each.initial_tdinfo for each in platform.targets if _names(each, tdcs.target)), tdinfo)
    target = _Target(
        uuid=tdcs.target.uuid,
        binding_handle=tdcs.target.binding_handle,
        servtd_attr=kept.servtd_attr,
        enc_key=kept.enc_key,
        initial=initial
        and _Initial(
            info_hash=initial.info_hash, attr=initial.attr, cpusvn=initial.cpusvn, tee_tcb_svn=initial.tee_tcb_svn
        ),
        bound_hash=kept.bound_hash,
        approved_token=kept.approved_token,
        initial_tdinfo=first,
    )
    platform.targets = [each for each in platform.targets if not _names(each, tdcs.target)] + [target]


def _tdcs_of(kept: _Target) -> KeptTdcs:
    first = kept.initial
    initial = None
    if first is not None:
        initial = InitialBinding(first.info_hash, first.attr, first.cpusvn, first.tee_tcb_svn)
    return KeptTdcs(kept.servtd_attr, kept.enc_key, initial, kept.bound_hash, kept.approved_token)


def _new_migtd(accepted: _Accepted | None) -> tuple[ServiceTd, Measured]:
    """The MigTD that accepted, as the TDX module saw it; one that accepted nothing if there is none."""
    new = ServiceTd("new", ServiceTdParams(), 1)
    if accepted is None:
        return new, Measured(1, TdInfo(), bytes(16), bytes(16))
    for number, value in accepted.metadata.items():
        for index in range(0, len(value), _WORD):
            word = int.from_bytes(value[index : index + _WORD], "little")
            new.write(number + index // _WORD, word, ALL_ONES)
    try:
        tdinfo = TdInfo.pull(accepted.tdinfo)
    except LabFailure as error:
        raise UsageError(failures.EVIDENCE_INVALID, str(error)) from error
    return new, Measured(1, tdinfo, accepted.cpusvn, accepted.tee_tcb_svn)


def _write(file: Path, text: bytes) -> None:
    fresh = file.with_suffix(".new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text)
        fresh.replace(file)
    except OSError as error:
        raise UsageError(failures.FILE_UNWRITABLE, f"{file}: {error.strerror}") from error
