# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv up --policy-version 2` and `./inv rebind` as users type them, on both engines; and stand-alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.commands import Checkout, copied_checkout

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
ENGINES = [pytest.param("docker", marks=pytest.mark.docker), "process"]
PROCESS = ("--engine", "process")


@pytest.fixture(scope="module")
def inv() -> Iterator[Checkout]:
    with copied_checkout() as made:
        yield made


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def checks(side: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for check in side["checks"]:
        found[check["status"]].append(check["name"])
    return found


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_migration_with_policy_v2_passes_every_check(inv: Checkout, engine: str):
    lab = ("--engine", engine, "--name", f"v2-{engine}")
    done = await inv.inv("up", *lab, "--policy-version", "2", "--json")

    assert done.status == 0, done.err
    (document,) = done.documents
    assert (document["policy_version"], document["success"], document["msk_match"]) == (2, True, True)
    for side in (document["source"], document["destination"]):
        assert checks(side)["failed"] == checks(side)["skipped"] == []
        assert {"peer-data-hash", "policy", "reportdata", "rtmrs-equal"} <= set(checks(side)["passed"])

    again = await inv.inv("migrate", *lab, "--json")

    assert (again.status, again.documents[0]["policy_version"]) == (0, 2), again.err


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_rebinding_is_prepared_by_both_migtds_and_then_finalized_by_the_host(inv: Checkout, engine: str):
    done = await inv.inv("rebind", "--engine", engine, "--name", f"rebind-{engine}", "--json")

    assert done.status == 0, done.err
    prepared, finalized = done.documents
    assert [each["operation"] for each in done.documents] == ["rebind-prepare", "rebind-finalize"]
    assert prepared["request_id"] == finalized["request_id"]
    for document in done.documents:
        assert (document["policy_version"], document["success"], document["msk_match"]) == (2, True, None)
    for side in (prepared["source"], prepared["destination"]):
        assert checks(side)["failed"] == checks(side)["skipped"] == []
        assert not side["key_written"]
        assert {"tdreport-mac", "tdreport-hashes", "policy"} <= set(checks(side)["passed"])
    assert {"initial-tdinfo", "servtd-ext"} <= set(checks(prepared["destination"])["passed"])
    assert finalized["source"] is None
    assert (finalized["destination"]["result"], finalized["destination"]["code"]) == ("Success", 0)


async def test_a_running_lab_rebinds_again_and_people_see_who_was_old_and_who_is_new(inv: Checkout):
    lab = ("rebind", *PROCESS, "--name", "rebind-again")
    first = await inv.inv(*lab, "--rebindings", "0")
    assert first.status == 0, first.err
    again = await inv.inv(*lab, "--rebindings", "2")

    assert again.status == 0, again.err
    assert "starting host-a" not in again.err
    assert "4 of 4 operations succeeded." in again.out


async def test_a_lab_without_rebindings_has_nothing_to_rebind(inv: Checkout):
    up = await inv.inv("up", *PROCESS, "--name", "plain", "--attestation", "accept-all", "--migrations", "0")
    assert up.status == 0, up.err

    refused = await inv.inv("rebind", *PROCESS, "--name", "plain")

    assert (refused.status, "LAB-USAGE-VALUE-INVALID" in refused.err) == (2, True)


async def migtd(state: Path, *arguments: str) -> tuple[int | None, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "migtd", "--json", "--deadline", "15", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(state)},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, json.loads(out)


async def pair(state: Path, *arguments: str) -> list[tuple[int | None, dict[str, Any]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    roles = ("source", "destination")
    return await asyncio.gather(*(migtd(state, "--role", role, "-t", port, *arguments) for role in roles))


async def test_two_stand_alone_sides_meet_with_policy_v2_and_rebind(private: Path):
    for operation in (("--policy-version", "2"), ("--operation", "rebind-prepare")):
        for (status, document), side in zip(await pair(private, *operation), ("source", "destination"), strict=True):
            assert (status, document["policy_version"]) == (0, 2), document
            assert checks(document[side])["failed"] == checks(document[side])["skipped"] == []

    finalize = ("--role", "source", "--operation", "rebind-finalize")
    status, document = await migtd(private, *finalize)
    assert (status, document["operation"], document["success"]) == (0, "rebind-finalize", True)
    status, document = await migtd(private, *finalize)
    assert (status, document["destination"]["error"]["id"]) == (4, "VMM-REBIND-REFUSED")
