# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the container engine has of labs, found by labels, and its removal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from lab import docker_cli, failures
from lab.compose import (
    CHECKOUT_LABEL,
    DIGEST_LABEL,
    FINGERPRINT_LABEL,
    HOST_LABEL,
    LAB_LABEL,
    NAME_LABEL,
    ROLE_LABEL,
    migtd_service_name,
)
from lab.engines.base import Removed
from lab.errors import EngineError
from lab.programs import in_thread

REMOVAL_LIMIT: Final = 30.0
"""Seconds that the engine has to remove what it was told to."""

_FIELDS: Final = "\t".join(
    (
        "{{.ID}}",
        "{{.Names}}",
        "{{.State}}",
        "{{.Status}}",
        *(
            f'{{{{.Label "{label}"}}}}'
            for label in (
                LAB_LABEL,
                ROLE_LABEL,
                HOST_LABEL,
                NAME_LABEL,
                FINGERPRINT_LABEL,
                DIGEST_LABEL,
                CHECKOUT_LABEL,
            )
        ),
    )
)
_GONE: Final = ("No such", "not found", "already in progress")
_REMOVAL_POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a lab. `detail` is the engine's own word on its state; the rest of the fields are labels."""

    id: str
    container_name: str
    state: str
    detail: str
    lab: str
    role: str
    host: str
    name: str
    fingerprint: str
    digest: str
    checkout: str

    @property
    def running(self) -> bool:
        """Whether it does what it was started for."""
        return self.state == "running"

    @property
    def path(self) -> str:
        """`HOST` or `HOST/MIGTD`, as people name roles."""
        return self.host if self.role == "host" else f"{self.host}/{self.name}"

    @property
    def service(self) -> str:
        """Name of its service in the Compose document."""
        return self.host if self.role == "host" else migtd_service_name(self.host, self.name)


def containers(lab: str | None = None) -> list[Container]:
    """Containers of one lab, or of all, hosts before their MigTDs. Raises as docker_cli.run does."""
    listed = docker_cli.docker("ps", "--all", "--no-trunc", "--filter", _filter(lab), "--format", _FIELDS)
    found = (Container(*line.split("\t", maxsplit=10)) for line in listed.splitlines())
    return sorted(found, key=lambda each: (each.lab, each.host, each.role != "host", each.name))


def labels_of(kind: str) -> list[dict[str, str]]:
    """Lab and checkout labels of every `network` or `volume` of labs."""
    form = f'{{{{.Label "{LAB_LABEL}"}}}}\t{{{{.Label "{CHECKOUT_LABEL}"}}}}'
    listed = docker_cli.docker(kind, "ls", "--filter", _filter(None), "--format", form)
    return [dict(zip((LAB_LABEL, CHECKOUT_LABEL), line.split("\t"), strict=True)) for line in listed.splitlines()]


async def remove_containers(leave: list[Container]) -> None:
    """Remove containers, running or not, all at once; one that is gone meanwhile is fine."""
    await asyncio.gather(*(_remove("rm", "--force", "--volumes", each.id) for each in leave))


async def remove_everything(lab: str) -> Removed:
    """Remove the containers, networks and volumes of a lab. Raises EngineError (LAB-ENGINE-REFUSED) if some stay."""
    removed: dict[str, None] = {}
    limit = asyncio.get_running_loop().time() + REMOVAL_LIMIT
    while True:
        found = await in_thread(containers, lab)
        networks = await in_thread(_names, "network", lab)
        volumes = await in_thread(_names, "volume", lab)
        if not (found or networks or volumes):
            return Removed(tuple(removed))
        if asyncio.get_running_loop().time() > limit:
            left = ", ".join([*(each.container_name for each in found), *networks, *volumes])
            raise EngineError(failures.ENGINE_REFUSED, f"still there after {REMOVAL_LIMIT:g} s: {left}")
        if removed:
            # Somebody else is removing the same: the engine offers no event for "it is gone now" on all its versions.
            await asyncio.sleep(_REMOVAL_POLL)
        removed |= dict.fromkeys(f"container {each.container_name}" for each in found)
        removed |= dict.fromkeys(f"network {each}" for each in networks)
        removed |= dict.fromkeys(f"volume {each}" for each in volumes)
        await remove_containers(found)
        await asyncio.gather(
            *(_remove("network", "rm", name) for name in networks),
            *(_remove("volume", "rm", "--force", name) for name in volumes),
        )


async def _remove(*arguments: str) -> None:
    """Remove one thing. What is gone, or in use by what is just being removed, is looked at again by the caller."""
    done = await in_thread(docker_cli.attempt, [docker_cli.CLIENT, *arguments], limit=docker_cli.ANSWER_LIMIT)
    if done.status:
        failure = docker_cli.refusal(done.stderr, failures.ENGINE_REFUSED)
        passing = (*_GONE, "in use", "has active endpoints")
        if failure.kind is not failures.ENGINE_REFUSED or not any(word in done.stderr for word in passing):
            raise failure


def _names(kind: str, lab: str) -> list[str]:
    return docker_cli.docker(kind, "ls", "--filter", _filter(lab), "--format", "{{.Name}}").split()


def _filter(lab: str | None) -> str:
    return f"label={LAB_LABEL}" if lab is None else f"label={LAB_LABEL}={lab}"
