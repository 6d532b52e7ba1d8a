# SPDX-License-Identifier: BSD-2-Clause-Patent
"""From a host's configuration to its VMM. Imports no socket server: the stand-alone mode has none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from migtd.deadlines import Deadlines
from migtd.migration.data import VersionRange
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.vmm.control.models import HostConfig
from vmm_stub.vmm.history import History
from vmm_stub.vmm.migration import MigrationSettings
from vmm_stub.vmm.vmm import Vmm


def make_vmm(
    config: HostConfig,
    *,
    random: Callable[[int], bytes] = os.urandom,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Vmm:
    """The VMM of a host with a TDX module on a platform of its own. Raises HistoryFileError."""
    versions = VersionRange(config.versions.minimum, config.versions.maximum)
    settings = MigrationSettings(
        wire_address=config.wire_address,
        wire_name=config.wire_name,
        deadlines=Deadlines(**config.deadlines.model_dump()),
        log_level=config.log_level,
        clock=clock,
        monotonic=monotonic,
    )
    return Vmm(
        config.name,
        config.migtds,
        tdx_module=TdxModule(Platform.generate(random), versions, random),
        settings=settings,
        history=History(config.name, clock, Path(config.history) if config.history else None),
    )
