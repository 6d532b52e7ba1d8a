# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A lab on a real container engine: confined as promised, ready, repaired by a second `up`, and gone after `down`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from lab.compose import LAB_LABEL
from lab.engines.base import LabPlan, PublishedPort, RoleState, Service
from lab.engines.docker import DockerEngine
from lab.errors import EngineError, UsageError
from lab.evidence import new_pki
from lab.hosts import await_ready, connected
from lab.images import ensure_images
from lab.labfile import default_lab
from lab.migrations import MigrationRunner
from lab.plan import ResolvedLab, resolve

pytestmark = [pytest.mark.engine, pytest.mark.docker]

PKI = new_pki(os.urandom, time.time())
ROLES = {"host-a", "host-a/source", "host-b", "host-b/destination"}


class Lab:
    """A lab of its own for one test, and what the engine said while it was made."""

    def __init__(self) -> None:
        self.engine = DockerEngine()
        self.resolved: ResolvedLab = resolve(default_lab(), name=f"test-{secrets.token_hex(4)}").with_pki(PKI)
        self.said: list[str] = []

    @property
    def name(self) -> str:
        return self.resolved.name

    @property
    def plan(self) -> LabPlan:
        return self.resolved.plan()

    async def up(self, plan: LabPlan | None = None) -> None:
        self.said.clear()
        await self.engine.up(plan or self.plan, self.said.append)

    async def down(self) -> tuple[str, ...]:
        return (await self.engine.down(self.name, self.said.append)).names

    def status(self):
        (status,) = (each for each in self.engine.labs() if each.lab == self.name)
        return {role.host if role.role == "host" else f"{role.host}/{role.name}": role for role in status.roles}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    try:
        yield made
    finally:
        await made.down()


async def test_lab_is_confined_migrates_and_leaves_nothing(lab):
    await lab.up()
    status = lab.status()
    assert status.keys() == ROLES
    for path, role in status.items():
        _assert_confined(_inspect(role.id), lab.name, path)
    assert json.loads(_docker("network", "inspect", f"{lab.name}_wire"))[0]["Internal"] is True
    assert (await _migrate(lab)).success
    removed = await lab.down()
    assert sum(name.startswith("container") for name in removed) == len(ROLES)
    assert _left(lab.name) == []
    assert await lab.down() == ()


async def test_second_up_leaves_a_healthy_lab_alone(lab):
    await lab.up()
    before = {path: role.id for path, role in lab.status().items()}
    await lab.up()
    assert {path: role.id for path, role in lab.status().items()} == before
    assert not any("starting" in each for each in lab.said)


async def test_up_repairs_what_ended_and_says_so(lab):
    await lab.up()
    before = lab.status()
    _docker("kill", before["host-a"].id)
    await lab.up()
    after = lab.status()
    assert {path for path in ROLES if before[path].id != after[path].id} == {"host-a", "host-a/source"}
    assert all(role.state is RoleState.RUNNING for role in after.values())
    assert any("host-a has ended" in each for each in lab.said)
    assert (await _migrate(lab)).success


async def test_another_plan_recreates_the_lab_and_says_so(lab):
    await lab.up()
    before = lab.status()
    await lab.up(resolve(default_lab(), name=lab.name, deadline=7.0).with_pki(PKI).plan())
    assert not {role.id for role in before.values()} & {role.id for role in lab.status().values()}
    assert any("another plan" in each for each in lab.said)


async def test_two_labs_share_an_engine_without_meeting(lab):
    other = Lab()
    try:
        await asyncio.gather(lab.up(), other.up())
        outcomes = await asyncio.gather(_migrate(lab), _migrate(other))
        assert all(each.success for each in outcomes)
        await other.down()
        assert lab.status().keys() == ROLES
    finally:
        await other.down()


async def test_published_port_in_use_is_named(lab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first, *rest = lab.plan.hosts
        with pytest.raises(EngineError, match=str(port)) as raised:
            await lab.up(
                replace(
                    lab.plan, hosts=(replace(first, published=(PublishedPort(Service.WIRE, "127.0.0.1", port),)), *rest)
                )
            )
    assert raised.value.kind.id == "LAB-PORT-IN-USE"


async def test_host_that_dies_under_a_stream_is_named(lab):
    await lab.up()
    reader, writer = await lab.engine.control(lab.name, "host-a")
    writer.write(b"GET /v1/health?wait=60 HTTP/1.1\r\nHost: lab\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    _docker("kill", lab.status()["host-a"].id)
    with pytest.raises(EngineError, match="host-a") as raised:
        await reader.readuntil(b"this never comes")
    assert raised.value.kind.id == "LAB-HOST-LOST"
    writer.close()
    with pytest.raises(EngineError) as raised:
        await lab.engine.control(lab.name, "host-a")
    assert raised.value.kind.id == "LAB-HOST-LOST"


async def test_logs_tell_the_role(lab):
    await lab.up()
    await _ready(lab)
    roles = {role async for role, _ in lab.engine.logs(lab.name, follow=False)}
    assert roles <= ROLES


async def test_unknown_names_have_ids(lab):
    with pytest.raises(EngineError) as absent:
        await lab.engine.control(lab.name, "host-a")
    assert absent.value.kind.id == "LAB-NOT-RUNNING"
    await lab.up()
    with pytest.raises(UsageError) as unknown:
        lab.engine.shell_command(lab.name, "nobody")
    assert unknown.value.kind.id == "LAB-ROLE-UNKNOWN"
    assert lab.engine.shell_command(lab.name, "host-b/destination")[-1] == "sh"


async def test_engine_that_does_not_answer_has_an_id(lab, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    found = lab.engine.available()
    assert not found.usable
    assert found.detail.startswith("LAB-ENGINE-LOST")
    assert found.advice
    for use in (lab.up, lab.down):
        with pytest.raises(EngineError) as raised:
            await use()
        assert raised.value.kind.id == "LAB-ENGINE-LOST"
    monkeypatch.undo()


def test_migtd_images_carry_nothing_of_the_host():
    references = ensure_images(lambda _: None).references
    find = "import importlib.util as u, sys; sys.exit(bool(u.find_spec('vmm_stub')) or not u.find_spec('migtd'))"
    for target in ("source", "destination"):
        _docker("run", "--rm", "--network", "none", "--entrypoint", "python3", references[target], "-c", find)


def test_images_are_small():
    images = ensure_images(lambda _: None)
    sizes = {
        reference: int(_docker("image", "inspect", "--format", "{{.Size}}", reference))
        for reference in (images.base.reference, *images.references.values())
    }
    base = sizes.pop(images.base.reference)
    assert all(size - base <= 45_000_000 for size in sizes.values())


def _assert_confined(found: dict[str, Any], lab: str, path: str) -> None:
    host, config = found["HostConfig"], found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"][LAB_LABEL] == lab
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert not host["PortBindings"]
    networks = set(found["NetworkSettings"]["Networks"])
    assert networks == ({"none"} if "/" in path else {f"{lab}_wire"})
    assert {each["Type"] for each in found["Mounts"]} <= {"volume", "tmpfs"}


async def _ready(lab: Lab) -> None:
    async with connected(lab.engine, lab.name, [host.name for host in lab.plan.hosts]) as hosts:
        await await_ready(lab.engine, lab.name, hosts, lambda _: None)


async def _migrate(lab: Lab):
    async with connected(lab.engine, lab.name, [host.name for host in lab.plan.hosts]) as hosts:
        await await_ready(lab.engine, lab.name, hosts, lambda _: None)
        loop = asyncio.get_running_loop()
        runner = MigrationRunner(lab.resolved, "docker", hosts, monotonic=loop.time, say=lambda _: None)
        (outcome,) = [outcome async for _, outcome in runner.run(lab.resolved.jobs())]
        return outcome


def _inspect(container: str) -> dict[str, Any]:
    return dict(json.loads(_docker("container", "inspect", container))[0])


def _left(lab: str) -> list[str]:
    label = f"label={LAB_LABEL}={lab}"
    return [
        name
        for kind in (["ps", "--all"], ["network", "ls"], ["volume", "ls"])
        for name in _docker(*kind, "--quiet", "--filter", label).split()
    ]


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
