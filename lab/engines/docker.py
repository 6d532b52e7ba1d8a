# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The engine `docker`: every role of a lab is a container, started by Compose (design.md, engines).

Nothing is written down: labels on containers, networks and volumes say which lab they belong to, who started it and
from what (compose.py). The engine's command line client is used throughout (docker_cli.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from lab import compose, docker_cli, failures
from lab.engines.base import Availability, ControlStream, LabPlan, LabStatus, Progress, Removed, RoleState, RoleStatus
from lab.engines.docker_objects import Container, containers, labels_of, remove_containers, remove_everything
from lab.engines.docker_streams import ExecStreams, follow_logs
from lab.errors import EngineError, TaskError, UsageError
from lab.images import ensure_images
from lab.names import checkout_path
from lab.programs import in_thread
from lab.state import held_locks

CONNECT_LIMIT: Final = 15.0
"""Seconds that a host has to open its control socket."""
START_LIMIT: Final = 300.0
"""Seconds that Compose has to start containers: a slow machine that starts many at once needs some."""
_SHELL: Final = "sh"


class DockerEngine:
    """Roles as containers of the engine that the user's `docker` command reaches."""

    def __init__(self, checkout: Path | None = None) -> None:
        self._checkout = checkout or checkout_path()
        self._streams = ExecStreams()

    @property
    def name(self) -> str:
        """`docker`."""
        return "docker"

    def available(self) -> Availability:
        """Whether an engine answers and Compose is there; the detail of a refusal begins with its id."""
        try:
            version = docker_cli.server_version()
            docker_cli.compose_command()
        except TaskError as failure:
            detail = f"{failure.kind.id}: {failure}"
            return Availability(usable=False, detail=detail, advice=failure.kind.advice, failure=failure)
        return Availability(usable=True, detail=f"container engine {version}")

    async def up(self, plan: LabPlan, progress: Progress) -> None:
        """Build images as needed, remove what differs or has ended, and let Compose start what is not there.

        Raises EngineError: LAB-PORT-IN-USE, LAB-ENGINE-LOST, LAB-IMAGE-…, LAB-BASE-…, LAB-ENGINE-REFUSED.
        """
        images = await in_thread(ensure_images, progress, root=self._checkout)
        document = compose.compose_document(plan, images.references, self._checkout)
        found = await in_thread(containers, plan.lab)
        if any(each.fingerprint != plan.fingerprint for each in found):
            progress(f"{plan.lab} runs from another plan, recreating it")
            await remove_everything(plan.lab)
            found = []
        leave = _stale(found, document["services"])
        for each in leave:
            progress(f"{each.path} {'differs' if each.running else 'has ended'}, starting it again")
        await remove_containers(leave)
        if len(found) - len(leave) < len(document["services"]):
            progress(f"starting {len(document['services']) - len(found) + len(leave)} containers")
        await in_thread(_compose_up, plan.lab, document)

    async def control(self, lab: str, host: str) -> ControlStream:
        """A stream through `docker exec -i` into the host's container, which works with remote engines too.

        The reader raises EngineError where the engine ends the stream (LAB-ENGINE-LOST, LAB-HOST-LOST). Raises
        EngineError (LAB-NOT-RUNNING, LAB-HOST-LOST) and UsageError (LAB-ROLE-UNKNOWN).
        """
        container = await in_thread(self._role, lab, host, "host")
        if not container.running:
            raise EngineError(failures.HOST_LOST, f"{host} of {lab}: {container.detail}")
        return await self._streams.open(
            f"{host} of {lab}",
            [
                *(docker_cli.CLIENT, "exec", "--interactive", container.id),
                *("python3", "-m", "vmm_stub", "control-stdio", "--control", compose.CONTROL_SOCKET),
                *("--wait", f"{CONNECT_LIMIT:g}"),
            ],
        )

    async def down(self, lab: str, progress: Progress) -> Removed:
        """Remove all containers, networks and volumes with the lab's label."""
        found = await in_thread(containers, lab)
        if found:
            progress(f"removing {len(found)} containers of {lab}")
        return await remove_everything(lab)

    def labs(self) -> list[LabStatus]:
        """Every lab of which a container, network or volume is left; without containers there are no roles."""
        labs: dict[str, list[Container]] = {}
        for container in containers():
            labs.setdefault(container.lab, []).append(container)
        statuses = [
            LabStatus(
                lab, self.name, roles[0].checkout, roles[0].fingerprint, tuple(_role_status(each) for each in roles)
            )
            for lab, roles in labs.items()
        ]
        remains = {labels[compose.LAB_LABEL]: labels for labels in labels_of("network") + labels_of("volume")}
        statuses += [
            LabStatus(lab, self.name, labels.get(compose.CHECKOUT_LABEL, ""), "", ())
            for lab, labels in remains.items()
            if lab not in labs
        ]
        return sorted(statuses, key=lambda status: status.lab)

    async def logs(self, lab: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """Lines of the containers' logs, by role path (`HOST` or `HOST/MIGTD`)."""
        found = await in_thread(self._containers, lab)
        command = [docker_cli.CLIENT, "logs", *(["--follow"] if follow else [])]
        async with contextlib.aclosing(follow_logs({each.path: [*command, each.id] for each in found})) as lines:
            async for line in lines:
                yield line

    def shell_command(self, lab: str, name: str) -> list[str]:
        """A shell in the container of a role (`HOST`, `HOST/MIGTD` or `MIGTD`)."""
        container = self._role(lab, name)
        return [docker_cli.CLIENT, "exec", "--interactive", "--tty", container.id, _SHELL]

    def _containers(self, lab: str) -> list[Container]:
        found = containers(lab)
        if not found:
            raise EngineError(failures.NOT_RUNNING, lab)
        return found

    def _role(self, lab: str, name: str, role: str | None = None) -> Container:
        for container in self._containers(lab):
            if name in (container.path, container.name) and role in (None, container.role):
                return container
        raise UsageError(failures.ROLE_UNKNOWN, f"{name} in {lab}")


def _compose_up(lab: str, document: compose.Document) -> None:
    docker_cli.run(
        [
            *docker_cli.compose_command(),
            *("--project-name", lab, "--file", "-"),
            *("up", "--detach", "--no-build", "--pull", "never", "--remove-orphans"),
        ],
        stdin=json.dumps(document).encode(),
        limit=START_LIMIT,
        # If this command is killed, Compose goes on for a moment: until then nobody is to remove, or start, this lab.
        keep_open=held_locks(),
    )


def _stale(found: list[Container], services: Mapping[str, compose.Document]) -> list[Container]:
    """Containers that must go. A host that goes takes its MigTDs along: their channel ends."""

    def fits(container: Container) -> bool:
        service = services.get(container.service)
        return container.running and service is not None and service["labels"][compose.DIGEST_LABEL] == container.digest

    hosts = {each.host for each in found if each.role == "host" and fits(each)}
    return [each for each in found if not fits(each) or each.host not in hosts]


def _role_status(container: Container) -> RoleStatus:
    return RoleStatus(
        container.role,
        container.host,
        container.name,
        RoleState.RUNNING if container.running else RoleState.EXITED,
        container.id[:12],
        "" if container.running else container.detail,
    )
