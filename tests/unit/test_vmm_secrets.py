# SPDX-License-Identifier: BSD-2-Clause-Patent
"""After a real migration between two hosts no key stands in anything that a host tells (design.md, I7)."""

import asyncio
import base64
import contextlib

import pytest

from migtd.errors import TdxModuleError
from migtd.guest.abi import MSK_ELEMENTS, Field
from migtd.guest.interfaces import TargetTd
from vmm_stub.testing import MIGTD, ScriptedGuest, quiet_vmm, target_td
from vmm_stub.testing_live import live_side, outcome_of
from vmm_stub.vmm.control.dispatch import dispatch
from vmm_stub.vmm.control.models import Role
from vmm_stub.vmm.control.route import Json
from vmm_stub.vmm.control.routes import ROUTES


def spellings(key):
    """How a key, or a quarter of it, could stand in a text."""
    for part in (key, *(key[start : start + 8] for start in range(0, len(key), 8))):
        for value in (part, part[::-1]):
            yield value.hex()
            yield str(int.from_bytes(value, "big"))
            yield f"{int.from_bytes(value, 'big'):x}"
            yield base64.b64encode(value).decode().rstrip("=")
            yield repr(value)[2:-1]


async def told(vmm):
    """All that a host tells, by its history, its logs and every answer of its control API."""
    text = b"".join(vmm.history.read(limit=100_000) + vmm.logs.read(0, 100_000)).decode()
    for route in ROUTES:
        if route.method == "GET":
            path = route.path.replace("{migtd}", MIGTD).replace("{request_id}", "1")
            answer = await dispatch(vmm, "GET", path, b"")
            if isinstance(answer, Json):
                text += answer.body.model_dump_json()
            else:
                text += b"".join([batch async for batch in answer.batches]).decode()
    return text


async def test_no_key_stands_in_what_the_hosts_tell_of_a_migration(capfd):
    async with live_side(Role.SOURCE) as source, live_side(Role.DESTINATION) as destination:
        there = await destination.begin()
        here = await source.begin(there.model().address)
        await asyncio.gather(here.ended.wait(), there.ended.wait())
        assert [outcome_of(each).result for each in (here, there)] == ["Success", "Success"]
        keys = [tdcs._enc_key for side in (source, destination) for tdcs in side.vmm.tdx_module.targets()]
        text = await told(source.vmm) + await told(destination.vmm)
    printed = "".join(capfd.readouterr())
    assert len(keys) == len(set(keys)) == 2
    for key in keys:
        for spelling in spellings(key):
            assert spelling not in text
            assert spelling not in printed
    # each side read its own key and wrote the other one's, element by element; told twice, by history and by API
    assert text.count('"r8":"redacted"') == 2 * 2 * 2 * 2 * MSK_ELEMENTS
    # and this way of looking does find what is there
    assert outcome_of(here).fingerprints.sent in text


@pytest.mark.parametrize("handle", ["right", "wrong"])
async def test_a_key_is_left_out_of_calls_that_fail_too(handle):
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    key = bytes.fromhex("5ec2e75ec2e75ec2")
    bound = TargetTd(target.binding_handle ^ (handle == "wrong"), target.uuid)
    for field in (Field.MIG_DEC_KEY, Field.MIG_DEC_KEY + 3, Field.MIG_ENC_KEY):
        # Whether it is refused is another test's business.
        with contextlib.suppress(TdxModuleError):
            guest.guest.tdcall.servtd_wr(bound, field, int.from_bytes(key, "big"))
    guest.guest.tdcall.vm_wr(Field.REBIND_ACCEPT_TOKEN, int.from_bytes(key, "big"))
    text = await told(vmm)
    for spelling in spellings(key):
        assert spelling not in text
    guest.channel.close()
    await vmm.stop()
