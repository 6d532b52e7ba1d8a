# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A container engine that ends, or is restarted, under a running lab is noticed and said, by every command.

To the lab an engine's restart is: calls and streams are cut, then nobody answers, then an engine answers whose
containers have ended. The first two are played by a proxy in front of the engine, the last by `docker kill`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator

import pytest

from lab.errors import ExitStatus
from tests.lab.commands import Checkout, copied_checkout, ended
from tests.lab.engine_proxy import EngineProxy, engine_socket

pytestmark = [pytest.mark.engine, pytest.mark.docker]

LAB = "restart"
DOCKER = ("--name", LAB, "--engine", "docker")
ROLES = {"host-a", "host-a/source", "host-b", "host-b/destination"}


@pytest.fixture(scope="module")
def inv() -> Iterator[Checkout]:
    with copied_checkout() as checkout:
        yield checkout


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(inv: Checkout) -> Iterator[None]:
    yield
    asyncio.run(inv.clear())


async def test_lab_whose_containers_an_engine_left_ended_is_told_by_id_and_started_again(inv: Checkout):
    assert (await inv.inv("up", *DOCKER)).status == ExitStatus.SUCCESS
    _docker("kill", *(role["id"] for role in (await _roles(inv)).values()))

    roles = await _roles(inv)
    assert {path: role["state"] for path, role in roles.items()} == dict.fromkeys(ROLES, "exited")
    assert all("Exited (137)" in role["detail"] for role in roles.values())
    for task in (("migrate", "--json"), ("events",), ("events", "--follow")):
        done = await inv.inv(*task, "--name", LAB)
        assert (done.status, done.error_id) == (ExitStatus.LAB, "LAB-ROLE-ENDED"), done
        assert "host-a (Exited (137)" in done.err, done
        assert "./inv up" in done.err
    logs = await inv.inv("logs", "--name", LAB)
    assert logs.status == ExitStatus.SUCCESS, logs
    assert {line.split(" | ")[0] for line in logs.out.splitlines()} >= {"host-a", "host-b"}

    again = await inv.inv("up", *DOCKER, "--json")
    assert again.status == ExitStatus.SUCCESS, again
    assert all(f"{path} has ended, starting it again" in again.err for path in ROLES), again.err
    assert again.documents[0]["success"] is True


async def test_role_that_somebody_removed_is_told_and_roles_that_the_engine_restarted_still_migrate(inv: Checkout):
    assert (await inv.inv("up", *DOCKER)).status == ExitStatus.SUCCESS
    _docker("restart", "--time", "1", *(role["id"] for role in (await _roles(inv)).values()))
    done = await inv.inv("up", *DOCKER, "--json")
    assert (done.status, done.documents[0]["success"]) == (ExitStatus.SUCCESS, True), done

    _docker("rm", "--force", (await _roles(inv))["host-b/destination"]["id"])
    assert (await _roles(inv))["host-b/destination"]["state"] == "gone"
    done = await inv.inv("migrate", "--name", LAB)
    assert (done.status, done.error_id) == (ExitStatus.LAB, "LAB-ROLE-ENDED")
    assert "host-b/destination (removed)" in done.err
    assert (await inv.inv("up", *DOCKER)).status == ExitStatus.SUCCESS


async def test_every_command_says_that_the_engine_is_gone_and_works_when_it_is_back(inv: Checkout):
    assert (await inv.inv("up", *DOCKER)).status == ExitStatus.SUCCESS
    async with _proxy(inv) as proxy:
        through = {"DOCKER_HOST": proxy.address}
        followed = {
            task: await inv.start(task, "--name", LAB, "--follow", *more, **through)
            for task, more in (("logs", ()), ("events", ("--json",)))
        }
        for process in followed.values():
            await _line_of(process, "out", "")
        migrating = await inv.start("migrate", "--name", LAB, "--json", "--migrations", "500", **through)
        await _line_of(migrating, "out", '"success":true')
        await proxy.close()

        for task, process in followed.items():
            done = await ended(process)
            assert (done.status, done.error_id) == (ExitStatus.LAB, "LAB-ENGINE-LOST"), f"{task}: {done}"
        done = await ended(migrating)
        assert done.status in (ExitStatus.NEGATIVE, ExitStatus.LAB), done.err
        assert "LAB-ENGINE-LOST" in done.out + done.err, done.err
        assert "Traceback" not in done.err
        for task in ("status", "migrate", "logs", "events", "shell", "down", "up"):
            done = await inv.inv(task, "--name", LAB, *(["--engine", "docker"] if task == "up" else []), **through)
            assert (done.status, done.error_id) == (ExitStatus.LAB, "LAB-ENGINE-LOST"), f"{task}: {done}"
        done = await inv.inv("status", "--json", **through)
        assert [(each["engine"], each["labs"]) for each in json.loads(done.out)["unreachable"]] == [("docker", [LAB])]

        await proxy.open()
        done = await inv.inv("up", *DOCKER, "--json", **through)
        assert (done.status, done.documents[0]["success"]) == (ExitStatus.SUCCESS, True), done
        assert (await inv.inv("down", "--name", LAB, **through)).status == ExitStatus.SUCCESS
    await _assert_nothing_is_left(inv)


@pytest.mark.parametrize("words", ["starting 4 containers", "running"])
async def test_up_that_loses_the_engine_says_so_and_leaves_nothing_that_down_does_not_remove(inv: Checkout, words: str):
    async with _proxy(inv) as proxy:
        through = {"DOCKER_HOST": proxy.address}
        process = await inv.start("up", *DOCKER, "--migrations", "500", **through)
        before = await _line_of(process, "err", words)
        await proxy.close()
        done = await ended(process)
        assert done.status in (ExitStatus.NEGATIVE, ExitStatus.LAB), before + done.err
        assert "LAB-ENGINE-LOST" in done.out + done.err, before + done.err
        assert "Traceback" not in done.err

        lost = await inv.inv("down", "--all", **through)
        assert (lost.status, lost.error_id) == (ExitStatus.LAB, "LAB-ENGINE-LOST"), lost
        await proxy.open()
        assert (await inv.inv("down", "--all", **through)).status == ExitStatus.SUCCESS
    await _assert_nothing_is_left(inv)


@contextlib.asynccontextmanager
async def _proxy(inv: Checkout) -> AsyncIterator[EngineProxy]:
    engine = engine_socket()
    if engine is None:
        pytest.skip("the engine is not behind a unix socket")
    proxy = EngineProxy(inv.path.parent / "engine.sock", engine)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()


async def _line_of(process: Process, stream: str, words: str) -> str:
    """Read on until a line has these words; what was read."""
    reader = process.stdout if stream == "out" else process.stderr
    assert reader is not None
    read = b""
    async with asyncio.timeout(60):
        while True:
            line = await reader.readline()
            read += line
            assert line, f"{words!r} never came: {read.decode()}"
            if words.encode() in line:
                return read.decode()


async def _roles(inv: Checkout) -> dict[str, dict[str, str]]:
    done = await inv.inv("status", "--name", LAB, "--json")
    [lab] = json.loads(done.out)["labs"]
    return {role["path"]: role for role in lab["roles"]}


async def _assert_nothing_is_left(inv: Checkout) -> None:
    assert inv.things() == []
    assert inv.processes() == []
    assert inv.files() == []


def _docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True)
