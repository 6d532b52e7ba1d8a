# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`up` ended by Ctrl-C or SIGKILL anywhere leaves nothing that `down --all` does not remove.

It is cut short in three ways: before each step by which it changes something (cut_short.py), as each line of its
progress appears, and at what the container engine tells of itself while Compose works.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lab.compose import LAB_LABEL
from lab.errors import ExitStatus
from tests.lab.commands import LIMIT, Checkout, Done, copied_checkout, ended

pytestmark = pytest.mark.engine

CUT_SHORT = Path(__file__).with_name("cut_short.py")
AT_ONCE = 4
"""Commands that run at the same time: each test starts dozens."""
MIGRATIONS = 30
"""So many that a signal at "running" meets some of them in the middle."""
SIGNALS = ("SIGINT", "SIGKILL")
LINES = ("starting", "waiting for hosts", "running", " outcomes of ")
MOMENTS = ("network create 1", "volume create 2", "container create 1", "container create 4", "container start 1")
"""What the engine tells while Compose starts a lab, and the how-manieth of its kind."""

Cut = Callable[[str, str], Awaitable[Done]]
"""Run `up` of a lab and send it the signal at some point."""


@pytest.fixture
def inv() -> Iterator[Checkout]:
    with copied_checkout() as checkout:
        yield checkout


async def test_up_of_processes_may_end_before_any_step_and_at_any_line(inv: Checkout):
    steps = await _steps(inv, "process")
    assert len(steps) >= 25
    points = {
        **{f"SIGKILL before {name}": ("SIGKILL", _before(inv, "process", number)) for number, name in steps},
        **{f"SIGINT before {name}": ("SIGINT", _before(inv, "process", number)) for number, name in steps[::2]},
        **{f"{signal} at {line}": (signal, _at_line(inv, "process", line)) for signal in SIGNALS for line in LINES},
    }
    await _cut_everywhere(inv, "process", points, again=5)


@pytest.mark.docker
async def test_up_of_containers_may_end_before_any_step_and_at_any_line_and_event(inv: Checkout):
    steps = await _steps(inv, "docker")
    assert len(steps) > 10
    async with _engine_events() as moments:
        points = {
            **{f"SIGKILL before {name}": ("SIGKILL", _before(inv, "docker", number)) for number, name in steps[::3]},
            **{f"SIGINT before {name}": ("SIGINT", _before(inv, "docker", number)) for number, name in steps[1::3]},
            **{f"{signal} at {line}": (signal, _at_line(inv, "docker", line)) for signal in SIGNALS for line in LINES},
            **{
                f"{signal} at {moment}": (signal, _at_moment(inv, moments, moment))
                for signal in SIGNALS
                for moment in MOMENTS
            },
        }
        await _cut_everywhere(inv, "docker", points, again=7)


async def _cut_everywhere(inv: Checkout, engine: str, points: dict[str, tuple[str, Cut]], *, again: int) -> None:
    """Cut a lab of its own short at each point; then `up` some of them again, and take all of them down at once."""
    names = {point: f"cut-{secrets.token_hex(3)}" for point in points}
    gate = asyncio.Semaphore(AT_ONCE)

    async def cut(point: str) -> Done:
        async with gate:
            return await points[point][1](names[point], points[point][0])

    async with asyncio.TaskGroup() as group:
        cuts = {point: group.create_task(cut(point)) for point in points}
    ends = {point: task.result() for point, task in cuts.items()}
    for point, done in ends.items():
        if points[point][0] == "SIGKILL":
            assert done.status == -signal.SIGKILL, f"{point}: {done}"
            continue
        assert done.status == ExitStatus.INTERRUPTED, f"{point}: {done}"
        assert "Traceback" not in done.err, f"{point}: {done}"
        assert done.err.endswith("interrupted\n"), f"{point}: {done}"
        if _is_there(inv, engine, names[point]):
            assert f"`./inv down --name {names[point]}` removes it" in done.err, f"{point}: {done}"

    # What a killed command had started may still hold the name for a moment.
    for point in [point for point in points if "SIGINT" in point or engine == "process"][::again]:
        done = await inv.inv("up", "--name", names[point], "--engine", engine, "--json")
        assert (done.status, [each["success"] for each in done.documents]) == (0, [True]), f"{point}: {done}"

    await _down_all(inv, engine)
    done = await inv.inv("up", "--name", names.popitem()[1], "--engine", engine, "--json")
    assert (done.status, [each["success"] for each in done.documents]) == (0, [True]), done
    await _down_all(inv, engine)


async def _down_all(inv: Checkout, engine: str) -> None:
    done = await inv.inv("down", "--all")
    assert done.status == ExitStatus.SUCCESS, done
    if engine == "docker":
        assert inv.things() == [], done
    assert inv.processes() == []
    assert inv.files() == []


async def _steps(inv: Checkout, engine: str) -> list[tuple[int, str]]:
    """Number and name of each step of an `up`; of those that repeat, the first and the last."""
    file = inv.path / "steps"
    if engine == "docker":
        assert (await inv.inv("images")).status == ExitStatus.SUCCESS
    command = ("up", "--name", "listed", "--engine", engine, "--json")
    done = await ended(await inv.start_program(inv.python, "-P", str(CUT_SHORT), "list", str(file), *command))
    assert done.status == ExitStatus.SUCCESS, done
    assert (await inv.inv("down", "--name", "listed")).status == ExitStatus.SUCCESS
    all_steps = [
        (int(number), name) for number, _, name in (line.partition(" ") for line in file.read_text().splitlines())
    ]
    first = {name: number for number, name in reversed(all_steps)}
    last = {name: number for number, name in all_steps if not name.startswith("socket")}
    return sorted({(number, name) for found in (first, last) for name, number in found.items()})


def _before(inv: Checkout, engine: str, number: int) -> Cut:
    async def cut(lab: str, signal_name: str) -> Done:
        command = ("up", "--name", lab, "--engine", engine, "--json")
        program = (inv.python, "-P", str(CUT_SHORT), signal_name, str(number))
        return await ended(await inv.start_program(*program, *command))

    return cut


def _at_line(inv: Checkout, engine: str, words: str) -> Cut:
    async def cut(lab: str, signal_name: str) -> Done:
        process = await _start_up(inv, engine, lab)
        assert process.stderr is not None
        before = b""
        # Nobody reads the outcomes meanwhile: a command that goes on beyond this line may wait for that without end.
        async with asyncio.timeout(LIMIT):
            while words.encode() not in before:
                line = await process.stderr.readline()
                assert line, f"{words!r} never came: {before!r}"
                before += line
        _send(process, signal_name)
        done = await ended(process)
        return Done(done.status, done.out, before.decode() + done.err)

    return cut


def _at_moment(inv: Checkout, moments: dict[str, asyncio.Queue[str]], moment: str) -> Cut:
    async def cut(lab: str, signal_name: str) -> Done:
        moments[lab] = asyncio.Queue()
        process = await _start_up(inv, "docker", lab)
        kind, _, count = moment.rpartition(" ")
        async with asyncio.timeout(60):
            for _ in range(int(count)):
                while await moments[lab].get() != kind:
                    pass
        _send(process, signal_name)
        return await ended(process)

    return cut


async def _start_up(inv: Checkout, engine: str, lab: str) -> Process:
    return await inv.start("up", "--name", lab, "--engine", engine, "--json", "--migrations", str(MIGRATIONS))


def _send(process: Process, name: str) -> None:
    """Ctrl-C goes to the whole group, and `kill` to one process: what that started goes on."""
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()


@contextlib.asynccontextmanager
async def _engine_events() -> AsyncIterator[dict[str, asyncio.Queue[str]]]:
    """What the engine tells of labs, by name, for those that are put in."""
    process = await asyncio.create_subprocess_exec("docker", "events", "--format", "{{json .}}", stdout=PIPE)
    assert process.stdout is not None
    moments: dict[str, asyncio.Queue[str]] = {}

    async def read(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            event = json.loads(line)
            attributes = event["Actor"]["Attributes"]
            # Networks and volumes carry no labels here, but their names begin with the lab's.
            name = attributes.get("name", event["Actor"]["ID"])
            lab = attributes.get(LAB_LABEL, name.partition("_")[0])
            if lab in moments:
                moments[lab].put_nowait(f"{event['Type']} {event['Action']}")

    reading = asyncio.create_task(read(process.stdout))
    try:
        yield moments
    finally:
        process.kill()
        await process.wait()
        await reading


def _is_there(inv: Checkout, engine: str, lab: str) -> bool:
    return bool(inv.things(lab)) if engine == "docker" else (inv.state / "migtd-lab" / lab / "lab.json").exists()
