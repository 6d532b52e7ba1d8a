# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: one host with two real MigTDs in this process, which rebind a target TD from one to the other."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from migtd.choices import StartAttestation, attestation_choice
from migtd.deadlines import Deadlines
from migtd.guest.configuration import GivenConfiguration
from migtd.guest.emulated import ChannelObserver
from migtd.guest.interfaces import Guest
from vmm_stub.testing import FAST, SMALL_MEMORY, quiet_vmm
from vmm_stub.testing_live import WatchedChannel
from vmm_stub.testing_td import running_migtd
from vmm_stub.vmm.control.models import (
    DeadlinesModel,
    MigrationRequest,
    MigTdConfig,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    Role,
    SessionOperation,
    SideOutcome,
    TargetTdModel,
    TargetTdRequest,
)
from vmm_stub.vmm.vmm import Vmm

OLD: Final = "old"
NEW: Final = "new"
POLICY: Final = b'{"policy": "of a test"}'
CHAIN: Final = b"-----BEGIN CERTIFICATE-----\nof a test\n-----END CERTIFICATE-----\n"


def with_policy_v2(policy: bytes = POLICY, chain: bytes = CHAIN) -> Callable[[Guest], Guest]:
    """Give a guest a configuration volume with a policy v2: a `platform` of `running_migtd`."""
    configuration = GivenConfiguration(policy, given_policy_issuer_chain=chain)
    return lambda guest: replace(guest, configuration=configuration)


@dataclass(slots=True)
class RebindingHost:
    """The host. `target` is bound to the MigTD `old`; `channels` are the two MigTDs' by name."""

    vmm: Vmm
    target: TargetTdModel
    channels: dict[str, WatchedChannel]

    async def prepare(
        self, request_id: int = 1, *, old: dict[str, Any] | None = None, new: dict[str, Any] | None = None
    ) -> tuple[SideOutcome, SideOutcome]:
        """Prepare a rebinding; the outcomes of the old and the new MigTD. `old` and `new` change their requests."""
        there = await self.vmm.start_migration(self.request(NEW, request_id, **(new or {})))
        address = there.model().address
        here = await self.vmm.start_migration(self.request(OLD, request_id, **{"peer": address, **(old or {})}))
        outcomes = []
        for migration in (here, there):
            await migration.ended.wait()
            outcome = migration.model().outcome
            assert outcome is not None  # noqa: S101 - it has ended
            outcomes.append(outcome)
        return outcomes[0], outcomes[1]

    def request(self, migtd: str, request_id: int = 1, **changes: Any) -> MigrationRequest:
        """What starts one side."""
        values = {
            "migtd": migtd,
            "role": Role.SOURCE if migtd == OLD else Role.DESTINATION,
            "request_id": request_id,
            "uuid": self.target.uuid,
            "binding_handle": self.target.binding_handle,
            "operation": SessionOperation.REBIND_PREPARE,
            **changes,
        }
        return MigrationRequest.model_validate(values)

    def finalize(self, migtd: str = NEW) -> RebindFinalizeModel:
        """Let the TDX module move the binding."""
        request = RebindFinalizeRequest(migtd=migtd, uuid=self.target.uuid, binding_handle=self.target.binding_handle)
        return self.vmm.finalize_rebinding(request)

    def bound_to(self) -> str:
        """Name of the MigTD that the target TD is bound to."""
        (target,) = self.vmm.target_tds()
        return target.migtd


@contextlib.asynccontextmanager
async def rebinding_host(
    deadlines: Deadlines = FAST,
    *,
    attestation: StartAttestation | None = None,
    old: Callable[[Guest], Guest] | None = None,
    new: Callable[[Guest], Guest] | None = None,
    servtd_attr: int = 0,
    **host: Any,
) -> AsyncIterator[RebindingHost]:
    """A host whose two MigTDs wait for requests. `old` and `new` are the platforms of `running_migtd`."""
    names = (OLD, NEW)
    migtds = [MigTdConfig(name=name, channel="", shared_memory=SMALL_MEMORY) for name in names]
    vmm = quiet_vmm("host", **{"migtds": migtds, "deadlines": DeadlinesModel(**asdict(deadlines)), **host})
    async with contextlib.AsyncExitStack() as stack:
        channels = {}
        for name, platform in zip(names, (old, new), strict=True):
            channel = channels[name] = WatchedChannel(vmm.migtd(name))
            await stack.enter_async_context(
                running_migtd(
                    channel,
                    attestation=attestation or attestation_choice("accept-all"),
                    deadlines=deadlines,
                    observer=ChannelObserver(channel),
                    platform=platform or with_policy_v2(),
                )
            )
        assert (await vmm.ready(deadlines.session)).status == "ready"  # noqa: S101 - an assertion of tests
        target = vmm.create_target_td(TargetTdRequest(migtd=OLD, servtd_attr=servtd_attr))
        try:
            yield RebindingHost(vmm, target, channels)
        finally:
            await vmm.stop()
            vmm.history.close()


def encoded(data: bytes) -> bytes:
    """Bytes as the control API's models take them."""
    return base64.b64encode(data)
