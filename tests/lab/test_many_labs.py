# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Many labs on one machine at once: each its own, and each gone after its `down`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.errors import ExitStatus
from tests.lab.commands import Checkout, copied_checkout

pytestmark = pytest.mark.engine

ENGINES = [pytest.param("docker", marks=pytest.mark.docker), "process"]
LABS = [f"many-{number}" for number in range(8)]
ROLES = ["host-a", "host-a/source", "host-b", "host-b/destination"]


@pytest.fixture(scope="module")
def inv() -> Iterator[Checkout]:
    with copied_checkout() as checkout:
        yield checkout


@pytest.mark.parametrize("engine", ENGINES)
async def test_eight_labs_at_once_do_not_meet_and_each_leaves_nothing(inv: Checkout, engine: str):
    started = await asyncio.gather(*(inv.inv("up", "--name", lab, "--engine", engine, "--json") for lab in LABS))

    for lab, done in zip(LABS, started, strict=True):
        assert done.status == ExitStatus.SUCCESS, done.err
        assert [(each["lab"], each["success"], each["msk_match"]) for each in done.documents] == [(lab, True, True)]
    roles = await _roles(inv)
    assert {lab: [role["path"] for role in found] for lab, found in roles.items()} == dict.fromkeys(LABS, ROLES)
    assert {role["state"] for found in roles.values() for role in found} == {"running"}
    assert len({role["id"] for found in roles.values() for role in found}) == len(LABS) * len(ROLES)
    keys = {done.documents[0]["source"]["fingerprints"]["sent"] for done in started}
    assert len(keys) == len(LABS)

    first, rest = LABS[:4], LABS[4:]
    await _down(inv, first)
    if engine == "docker":
        assert {thing.split()[1].partition("_")[0][: len(LABS[0])] for thing in inv.things()} == set(rest)
    assert {lab: found for lab, found in roles.items() if lab in rest} == await _roles(inv)
    again = await inv.inv("migrate", "--name", rest[0], "--json")
    assert [each["request_id"] for each in again.documents] == [2], again.err
    await _down(inv, rest)
    await _assert_nothing_is_left(inv, engine)


async def test_commands_on_one_name_at_once_make_one_lab_or_say_that_it_is_busy(inv: Checkout):
    started = await asyncio.gather(
        *(inv.inv("up", "--name", "same", "--engine", "process", "--json") for _ in range(6))
    )

    outcomes = [done.documents[0] for done in started if done.status == ExitStatus.SUCCESS]
    others = [done for done in started if done.status != ExitStatus.SUCCESS]
    assert outcomes
    assert {done.error_id for done in others} <= {"LAB-BUSY"}
    assert all(each["success"] for each in outcomes)
    assert sorted(each["request_id"] for each in outcomes) == list(range(1, len(outcomes) + 1))
    assert [role["path"] for role in (await _roles(inv))["same"]] == ROLES
    assert len(inv.processes()) == len(ROLES)

    ended = await asyncio.gather(*(inv.inv("down", "--name", "same", "--json") for _ in range(4)))
    assert {done.status for done in ended} == {ExitStatus.SUCCESS}, [done.err for done in ended]
    assert sum(bool(done.documents[0]["removed"]["same"]) for done in ended) == 1, "one removed it, the others waited"
    await _assert_nothing_is_left(inv, "process")


async def _down(inv: Checkout, labs: list[str]) -> None:
    ended = await asyncio.gather(*(inv.inv("down", "--name", lab) for lab in labs))
    assert [done.status for done in ended] == [ExitStatus.SUCCESS] * len(labs), [done.err for done in ended]


async def _roles(inv: Checkout) -> dict[str, list[dict[str, Any]]]:
    done = await inv.inv("status", "--json")
    assert done.status == ExitStatus.SUCCESS, done.err
    return {lab["lab"]: lab["roles"] for lab in json.loads(done.out)["labs"]}


async def _assert_nothing_is_left(inv: Checkout, engine: str) -> None:
    if engine == "docker":
        assert inv.things() == []
    assert inv.processes() == []
    assert inv.files() == []
