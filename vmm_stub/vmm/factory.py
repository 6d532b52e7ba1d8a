# SPDX-License-Identifier: BSD-2-Clause-Patent
"""From a host's configuration to its VMM. Imports no socket server: the stand-alone mode has none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migtd.deadlines import Deadlines
from migtd.migration.data import VersionRange
from vmm_stub.quoting.interface import Quoting
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import REPORT_KEY_SIZE, Platform
from vmm_stub.tdx_module.randomness import draw
from vmm_stub.vmm.control.models import CapturedQuotingConfig, HostConfig, LabQuotingConfig
from vmm_stub.vmm.history import History
from vmm_stub.vmm.migration import MigrationSettings
from vmm_stub.vmm.vmm import Vmm


@dataclass(frozen=True, slots=True)
class Machine:
    """The platform under a host, and who makes quotes for it. `fixed_report`: what its TDREPORTs are, if not fresh."""

    platform: Platform
    quoting: Quoting | None = None
    fixed_report: bytes | None = None


def make_vmm(
    config: HostConfig,
    *,
    random: Callable[[int], bytes] = os.urandom,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    machine: Machine | None = None,
) -> Vmm:
    """The VMM of a host, on the machine that its configuration describes or on `machine`.

    Raises HistoryFileError, QuotingError (VMM-QUOTING-MATERIAL, VMM-QUOTING-QUOTE-FILE) and QuoteError
    (MIGTD-COLLATERAL-MALFORMED).
    """
    versions = VersionRange(config.versions.minimum, config.versions.maximum)
    settings = MigrationSettings(
        wire_address=config.wire_address,
        wire_name=config.wire_name,
        deadlines=Deadlines(**config.deadlines.model_dump()),
        log_level=config.log_level,
        clock=clock,
        monotonic=monotonic,
    )
    machine = machine or make_machine(config.quoting, random)
    return Vmm(
        config.name,
        config.migtds,
        tdx_module=TdxModule(machine.platform, versions, random, fixed_report=machine.fixed_report),
        settings=settings,
        history=History(config.name, clock, Path(config.history) if config.history else None),
        quoting=machine.quoting,
    )


def make_machine(
    quoting: LabQuotingConfig | CapturedQuotingConfig | None, random: Callable[[int], bytes] = os.urandom
) -> Machine:
    """The machine that a configuration describes; its report key is drawn. Raises as `make_vmm` does."""
    match quoting:
        case LabQuotingConfig():
            return _lab_machine(quoting, draw(random, REPORT_KEY_SIZE))
        case CapturedQuotingConfig():
            return _captured_machine(quoting, Platform.generate(random))
        case None:
            return Machine(Platform.generate(random))


# Loaded by those who use it only: libraries for certificates are a large part of a host.
def _lab_machine(config: LabQuotingConfig, report_key: bytes) -> Machine:
    from vmm_stub.quoting.maker import FORMATS  # noqa: PLC0415
    from vmm_stub.quoting.material import platform_for, pull_material  # noqa: PLC0415
    from vmm_stub.quoting.service import LabQuoting, StagedQuoting  # noqa: PLC0415

    material = pull_material(config.material)
    platform = platform_for(material, report_key)
    quoting: Quoting = LabQuoting(material, lambda: platform, FORMATS[config.quote])
    if config.fail_first:
        quoting = StagedQuoting(quoting, failures=config.fail_first)
    return Machine(platform, quoting)


def _captured_machine(config: CapturedQuotingConfig, platform: Platform) -> Machine:
    from migtd.attestation.quote.collateral import pull_packed  # noqa: PLC0415
    from vmm_stub.quoting.captured import CapturedQuoting, mock_report  # noqa: PLC0415

    return Machine(
        platform, CapturedQuoting(config.quote, pull_packed(config.collateral)), fixed_report=mock_report(config.quote)
    )
