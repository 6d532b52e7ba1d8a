# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Migrations for minutes on one resident pair: every history is in order, and memory does not go on growing."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from lab.bench.resident import resident_lab
from lab.bench.roles import memory
from lab.engines.process import ProcessEngine
from lab.invariants.follow import following

pytestmark = [pytest.mark.engine, pytest.mark.soak]

AT_ONCE = 16
ROUND = 256
"""Sessions between two looks at memory. The target TDs stay the same: each is migrated again and again."""
FULL = 3000
"""Migrations after which everything that a host remembers of the past is full: history, log lines, ends."""
GROWTH = 4.0
"""MB that a role may be above what it had then: what an allocator keeps back. 16 sessions at once need more."""
TOLD = 30.0
"""Seconds between two lines for people."""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state folder of this test's own. Not tmp_path: a unix socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


def say(text: str) -> None:
    """For people who wait; `./inv test --soak` shows it."""
    sys.stdout.write(f"soak: {text}\n")
    sys.stdout.flush()


@pytest.mark.usefixtures("state")
async def test_resident_pair_goes_on_migrating_in_order_and_in_the_same_memory(request: pytest.FixtureRequest):
    end = time.monotonic() + request.config.getoption("--soak-seconds")
    async with resident_lab(ProcessEngine(), lambda _: None) as lab:
        async with following(lab._hosts) as follower:
            targets = await lab.make_targets(ROUND)
            done, told, full = 0, 0.0, None
            while time.monotonic() < end or full is None:
                await lab.run(targets, AT_ONCE)
                done += ROUND
                rss = {role: memory(pid).rss for role, pid in lab.pids.items()}
                assert [str(each) for each in follower.violations] == []
                if done >= FULL and full is None:
                    full = rss
                if time.monotonic() - told >= TOLD:
                    told = time.monotonic()
                    shown = ", ".join(f"{role} {used:.1f} MB" for role, used in rss.items())
                    say(f"{done} migrations, {follower.checker.events} events; {shown}")
        assert [str(each) for each in follower.violations] == []
        assert follower.checker.runs == 2 * done
    say(f"{done} migrations; at first {full}, at last {rss}")
    assert {role: used for role, used in rss.items() if used - full[role] > GROWTH} == {}, f"at first {full}"
