# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The seam between a lab and where it runs (design.md, engines).

An engine starts the roles of a plan, opens byte streams to the control API of its hosts, and removes everything again
by the lab's name alone. It knows nothing of migrations.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from lab.errors import TaskError
from migtd.deadlines import Deadlines
from migtd.guest.quote_messages import QuoteForm
from vmm_stub.vmm.control.models import HostConfig

Progress: TypeAlias = Callable[[str], None]
"""Told of each longer step, for people; prints elapsed time on its own."""

ControlStream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""One HTTP/1.1 byte stream to a host's control API."""


@dataclass(frozen=True, slots=True)
class MigTdPlan:
    """One MigTD to start: the command line of `migtd-td` follows from these."""

    name: str
    host: str
    attestation: str
    session: str
    deadlines: Deadlines
    debug: bool = False
    configured: bool = False
    """Its host gives it a configuration volume, beside the channel."""
    refuse_expired: bool = False
    policy_version: int = 1
    quote_form: QuoteForm = QuoteForm.QGS


class Service(enum.StrEnum):
    """What of a host can be reached from outside the lab."""

    WIRE = "wire"
    """Its destinations, by an external source. Each listens for its own migration only."""
    PCS = "pcs"
    """Its collateral over HTTP, while the host runs."""


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """A port of a host that is open on an address of this machine, under the same number."""

    service: Service
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One emulated host and its MigTDs.

    The places in `config` (control socket, channels, wire and collateral addresses) are the engine's to fill in: a plan
    says which hosts there are, the engine where they live. `published` ports are reachable from outside the lab, and
    `reaches_outside` lets the host open connections there; both only where the lab file asks for it. All ports of one
    service are on the same address.
    """

    name: str
    config: HostConfig
    migtds: tuple[MigTdPlan, ...]
    published: tuple[PublishedPort, ...] = ()
    reaches_outside: bool = False

    def published_by(self, service: Service) -> tuple[PublishedPort, ...]:
        """The ports of one service."""
        return tuple(each for each in self.published if each.service is service)


@dataclass(frozen=True, slots=True)
class LabPlan:
    """What an engine is asked to run. `fingerprint` of two plans is equal exactly if nothing needs to be recreated."""

    lab: str
    hosts: tuple[HostPlan, ...]
    fingerprint: str


class RoleState(enum.StrEnum):
    """What an engine sees of a role from outside."""

    RUNNING = "running"
    EXITED = "exited"
    GONE = "gone"
    """Nothing of it is there any more, although nobody took the lab down."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One container or process. `role` is `host` or `migtd`; `name` the host's or MigTD's; `detail` an exit status.

    `control` is the path of a host's control socket, where this machine can reach it.
    """

    role: str
    host: str
    name: str
    state: RoleState
    id: str
    detail: str = ""
    control: str = ""

    @property
    def path(self) -> str:
        """`HOST` or `HOST/MIGTD`, as people name roles."""
        return self.host if self.role == "host" else f"{self.host}/{self.name}"


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A lab that an engine knows of."""

    lab: str
    engine: str
    checkout: str
    fingerprint: str
    roles: tuple[RoleStatus, ...]


def absent_roles(plan: LabPlan, status: LabStatus) -> list[str]:
    """Paths of a plan's roles of which the engine has nothing: somebody else removed them."""
    there = {role.path for role in status.roles}
    wanted = ((host.name, *(f"{host.name}/{each.name}" for each in host.migtds)) for host in plan.hosts)
    return [path for paths in wanted for path in paths if path not in there]


def ended_roles(plan: LabPlan, status: LabStatus) -> list[str]:
    """Paths of a plan's roles that do not run, each with what the engine says of it."""
    exited = {role.path: role.detail for role in status.roles if role.state is RoleState.EXITED}
    gone = dict.fromkeys(absent_roles(plan, status), "removed")
    return [f"{path} ({detail})" if detail else path for path, detail in sorted({**exited, **gone}.items())]


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether an engine can be used here, and if not, why and what to do; `failure` where that has an id of its own."""

    usable: bool
    detail: str
    advice: str = ""
    failure: TaskError | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What `down` took away, for people: container, network, volume or process names."""

    names: tuple[str, ...] = field(default=())


class Engine(Protocol):
    """Where labs run. Every method raises EngineError with an id when the engine itself fails."""

    @property
    def name(self) -> str:
        """The value of `--engine`."""

    def available(self) -> Availability:
        """Look, without starting anything."""

    async def up(self, plan: LabPlan, progress: Progress) -> None:
        """Start what is not running, recreate what differs (saying so), leave the rest. Readiness is not awaited."""

    async def control(self, lab: str, host: str) -> ControlStream:
        """A new byte stream to the control API of a host of a running lab."""

    async def down(self, lab: str, progress: Progress) -> Removed:
        """Remove everything that carries the lab's name. Nothing there is fine: the answer is empty."""

    def labs(self) -> list[LabStatus]:
        """All labs of all checkouts that this engine knows of."""

    def logs(self, lab: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """(role name, line) of all that the roles printed, oldest first per role; `follow` goes on until cancelled."""

    def shell_command(self, lab: str, name: str) -> list[str]:
        """Command that gives a shell inside a role, to be run on the user's terminal."""
