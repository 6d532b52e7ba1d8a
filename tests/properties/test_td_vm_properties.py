# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whatever registers and shared memory a guest presents: a call never raises, and nothing outside is touched."""

from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.errors import VmmInternalError
from migtd.guest.abi import SHARED_BIT, MigTdLeaf, VmCallLeaf
from migtd.guest.channel import REGISTER_NAMES, Registers
from migtd.guest.ghci import EnableLogArea, LogAreaRange, StartMigration
from migtd.guest.interfaces import TargetTd
from vmm_stub.testing import MIGTD, quiet_vmm
from vmm_stub.vmm.delivery import Delivery
from vmm_stub.vmm.guest_buffer import CallRefused, GuestMemory
from vmm_stub.vmm.log_area import LogAreaReader

SIZE = 64 << 10
GUARD = 8 << 10

u64 = st.integers(0, 2**64 - 1)
near = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 12, 13, 24, 4096, SIZE - 1, SIZE, SIZE + 1, 65524, 65536, 0x50, 0x52, 255, 256]),
    st.builds(lambda page, low: SHARED_BIT | (page << 12) | low, st.integers(0, 17), st.sampled_from([0, 0, 0, 1])),
    u64,
)
leaf = st.sampled_from([*VmCallLeaf, 0, 1, 2**64 - 1])
migtd_leaf = st.builds(lambda number, version: number | version << 16, st.sampled_from([*MigTdLeaf, 0, 9]), near)
migtd_right = st.builds(lambda number: number | 1 << 16, st.sampled_from(list(MigTdLeaf)))
vmcalls = st.builds(
    lambda values, r11, r12: Registers(
        **{**dict(zip(REGISTER_NAMES, values, strict=True)), "rax": 0, "r10": 0, "r11": r11, "r12": r12}
    ),
    st.lists(near, min_size=14, max_size=14),
    leaf,
    st.one_of(migtd_right, migtd_leaf, near),
)
anything = st.builds(
    lambda values: Registers(**dict(zip(REGISTER_NAMES, values, strict=True))), st.lists(near, min_size=14, max_size=14)
)


class Outlet:
    def send(self, payload):
        assert 0 < len(payload) <= 65524
        return True

    def resume_reading(self):
        pass


def make_td():
    """A TD in the middle of a memory whose borders must stay as they are, with two requests and one transport."""
    whole = bytearray(b"\xa5" * GUARD + bytes(SIZE) + b"\xa5" * GUARD)
    vmm = quiet_vmm()
    td = vmm.migtd(MIGTD).attach(memoryview(whole)[GUARD : GUARD + SIZE], lambda _: None, lambda: None)
    td.requests.put(EnableLogArea(1, 3))
    td.requests.put(StartMigration(2, is_source=True, target=TargetTd(3, (4, 5, 6, 7))))
    delivery = Delivery()
    delivery.open(Outlet())
    delivery.received(b"received" * 1000)
    td.open_transport(2, delivery)
    return td, whole


@settings(max_examples=60)
@given(st.lists(st.tuples(st.one_of(vmcalls, anything), st.binary(max_size=80)), max_size=12), st.binary(max_size=4096))
def test_no_call_raises_or_reaches_outside_the_shared_memory(calls, content):
    td, whole = make_td()
    for page in range(GUARD, GUARD + SIZE, 4096):
        whole[page : page + len(content)] = content
    for registers, data in calls:
        after, answer = td.handle_call(registers, data)
        assert all(0 <= value < 2**64 for value in after.values())
        assert isinstance(answer, bytes)
    td.end()
    assert whole[:GUARD] == whole[-GUARD:] == b"\xa5" * GUARD


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_an_event_is_understood_or_refused(data):
    td, _ = make_td()
    refused = None
    try:
        td.handle_event(data)
    except VmmInternalError as error:
        refused = error.kind.id
    assert refused in {None, "MIGTD-CHANNEL-MALFORMED"}


@settings(max_examples=60)
@given(
    st.lists(st.builds(LogAreaRange, near, st.one_of(st.just(4096), u64)), max_size=4),
    st.binary(max_size=400),
    st.lists(u64, min_size=2, max_size=2),
)
def test_log_areas_of_any_address_and_content_are_read_or_refused(areas, page, ring):
    header = b"MigTD LogArea 1\0" + bytes(8) + b"".join(each.to_bytes(8, "little") for each in ring)
    memory = GuestMemory(memoryview(bytearray((header + page).ljust(4096, page[-1:] or b"\0") * 16)))
    seen = []
    reader = LogAreaReader(2, lambda vcpu, entry: seen.append((vcpu, entry)))
    try:
        reader.enable(memory, areas)
    except CallRefused:
        assert seen == []
    else:
        assert all(vcpu in (0, 1) for vcpu, _ in seen)
