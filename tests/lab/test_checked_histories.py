# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The hook of conftest.py sees what it is there for: a lab that goes down, and a host that stops, have been read."""

import tempfile

import pytest

from lab.engines.process import ProcessEngine
from lab.hosts import await_ready, connected
from lab.labfile import default_lab
from lab.plan import resolve
from vmm_stub.testing import quiet_vmm
from vmm_stub.testing_live import live_side
from vmm_stub.vmm.control.models import Role
from vmm_stub.vmm.history import HistoryKind

NAME = "test-checked"


@pytest.mark.engine
async def test_history_of_a_lab_is_read_before_it_is_taken_down(checked_histories, monkeypatch):
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        engine, plan = ProcessEngine(), resolve(default_lab(), name=NAME, attestation="accept-all").plan()
        try:
            await engine.up(plan, lambda _: None)
            async with connected(engine, NAME, [host.name for host in plan.hosts]) as hosts:
                await await_ready(engine, NAME, hosts, lambda _: None)
        finally:
            await engine.down(NAME, lambda _: None)
    assert checked_histories.events[NAME] > 0


async def test_history_of_a_host_in_this_process_is_read_when_it_stops(checked_histories):
    async with live_side(Role.SOURCE) as side:
        name = side.vmm.name
    assert checked_histories.events[name] > 0


async def test_history_that_breaks_an_invariant_is_kept_for_the_end_of_the_test(checked_histories):
    vmm = quiet_vmm()
    vmm.migtds[0].history.record(HistoryKind.STATE, {"state": "ended", "result": "Success", "code": 0}, 1)
    await vmm.stop()
    assert [each.invariant for each in checked_histories.violations] == ["I3"]
    checked_histories.violations.clear()
