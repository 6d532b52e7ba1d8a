# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whatever a host does, its MigTD copies once, checks, and fails closed (ghci-ratls.md 2 and 3).

Time is virtual: every deadline has its real value and costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain, repeat

from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.errors import MigrationResult
from migtd.guest.abi import PAGE_SIZE, TRANSPORT_VECTOR, VMCALL_SERVICE_VECTOR
from migtd.guest.ghci import MAX_SEND, EnableLogArea, GetTdReport, StartMigration, push_request
from migtd.guest.interfaces import TargetTd
from migtd.migration.logging import LogLevel
from migtd.observer import Phase
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing_hostile import CANCELED, PEER_GONE, GuestCall, ScriptedHost
from vmm_stub.testing_pair import N, ScriptedSide, migrate, scripted_pair, scripted_side

SUCCESS = MigrationResult.Success
U64 = st.integers(0, (1 << 64) - 1)
SOME_IDS = st.one_of(st.integers(0, 3), U64)

statuses = st.one_of(
    st.sampled_from([0, 1, 2, 3, PEER_GONE, CANCELED, 0xFF, 1 << 63]),
    st.builds(lambda operation, low: low | operation << 8, st.integers(0, 6), st.sampled_from([1, 1, 1, 2])),
    U64,
)
lengths = st.one_of(
    st.none(), st.sampled_from([0, 1, 8, 16, 56, 72, 4084, 4085, MAX_SEND, MAX_SEND + 1, (1 << 32) - 1])
)
well_formed = st.one_of(
    st.builds(EnableLogArea, SOME_IDS, st.integers(0, 255)),
    st.builds(GetTdReport, SOME_IDS, st.one_of(st.none(), st.binary(min_size=64, max_size=64))),
    st.builds(StartMigration, SOME_IDS, st.booleans(), st.builds(TargetTd, U64, st.tuples(U64, U64, U64, U64))),
).map(push_request)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, bytes, int | None]:
    """An answer to WaitForRequest: a good request, one with a byte changed, or anything."""
    kind = draw(st.sampled_from(["good", "spoilt", "any"]))
    if kind == "any":
        return draw(statuses), draw(st.binary(max_size=100)), draw(lengths)
    operation, payload = draw(well_formed)
    if kind == "spoilt" and payload:
        at = draw(st.integers(0, len(payload) - 1))
        payload = payload[:at] + bytes([draw(st.integers(0, 255))]) + payload[at + 1 :]
        payload = payload[: draw(st.integers(0, len(payload)))] if draw(st.booleans()) else payload + b"\0" * 3
    return 1 | operation << 8, payload, None


answers = st.tuples(statuses, st.binary(max_size=40), lengths)
"""status, payload and the length that is claimed (None: the true one)."""
behaviours = st.one_of(
    st.builds(lambda answer: ("answers", answer), answers),
    st.builds(lambda answer: ("answers silently", answer), answers),
    st.builds(lambda answer: ("answers twice", answer), answers),
    st.builds(
        lambda status: ("refuses", (status, b"", None)), st.one_of(st.sampled_from([1, 1 << 63]), st.integers(1))
    ),
    st.just(("keeps", (0, b"", None))),
)


def misbehave(script: Iterator[tuple[str, tuple[int, bytes, int | None]]]) -> Callable[[GuestCall], int]:
    def serve(call: GuestCall) -> int:
        how, (status, payload, length) = next(script)
        match how:
            case "refuses":
                return status & ((1 << 64) - 1)
            case "answers":
                call.answer(status, payload, length)
            case "answers silently":
                call.write(status, payload, length)
            case "answers twice":
                call.answer(status, payload, length)
                call.answer(3, b"again", 1)
        return 0

    return serve


def endless(
    script: list[tuple[str, tuple[int, bytes, int | None]]],
) -> Iterator[tuple[str, tuple[int, bytes, int | None]]]:
    return chain(script, repeat(("answers", (CANCELED, b"", None))))


async def all_reported(side: ScriptedSide) -> None:
    """Wait until every request that was accepted has ended; longer than all deadlines together is too long."""
    await asyncio.sleep(1000)
    side.expect_one_report_for_each_accepted_request()


def expect_fail_closed(side: ScriptedSide) -> None:
    """A key stands there only behind a migration that passed everything, and the log says no more than it may."""
    done = [each for each, phases in side.observer.phases.items() if Phase.COMMIT in phases and Phase.DONE in phases]
    assert side.host.dec_key_writes == 4 * len(done)
    assert all(entry.level <= LogLevel.INFO for entry in side.td.logged)


@given(st.lists(requests(), max_size=12))
@settings(max_examples=120, deadline=None)
def test_any_requests_end_in_one_report_each_and_the_next_is_served(
    script: list[tuple[int, bytes, int | None]],
) -> None:
    async def main() -> None:
        host = ScriptedHost()
        waiting = iter(script)

        def wait(call: GuestCall) -> int:
            request = next(waiting, None)
            if request is None:
                host.on_wait = host.wait
                return host.wait(call)
            call.answer(*request)
            if not request[0] and not call.host.raw[call.offset + 8 : call.offset + 12].tobytes().strip(b"\0"):
                # All zeros is no answer: the guest waits on.
                host.on_wait = host.wait
                return host.wait(call)
            return 0

        host.on_wait = wait
        async with scripted_side(host) as side:
            await all_reported(side)
            expect_fail_closed(side)
            side.expect_no_key()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@given(
    is_source=st.booleans(),
    sends=st.lists(behaviours, max_size=3),
    receives=st.lists(behaviours, max_size=4),
    reports=st.lists(behaviours, max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_any_answers_to_send_receive_and_report_give_no_key_and_one_report(
    sends: list[tuple[str, tuple[int, bytes, int | None]]],
    receives: list[tuple[str, tuple[int, bytes, int | None]]],
    reports: list[tuple[str, tuple[int, bytes, int | None]]],
    *,
    is_source: bool,
) -> None:
    async def main() -> None:
        host = ScriptedHost()
        host.on_send = misbehave(endless(sends))
        host.on_receive = misbehave(endless(receives))
        host.on_report = misbehave(chain(reports, repeat(("answers", (1, b"", None)))))
        async with scripted_side(host) as side:
            side.start(is_source=is_source)
            await all_reported(side)
            assert len(host.reports_of(N)) == 1
            side.expect_no_key()
            host.on_report = host.acknowledge
            await side.still_serves()

    run_in_virtual_time(main())


changes = st.lists(
    st.tuples(
        st.integers(0, 120),
        st.one_of(st.tuples(st.just(1), st.integers(-16, 80)), st.tuples(st.just(0), st.integers(0, 60 * PAGE_SIZE))),
        st.one_of(st.sampled_from([b"\1", b"\xff" * 8, bytes(12)]), st.binary(min_size=1, max_size=16)),
    ),
    max_size=6,
)
"""Behind which read of the guest, where (near that read, or anywhere in the memory), and what is written there."""


@given(changes, st.booleans())
@settings(max_examples=150, deadline=None)
def test_memory_that_changes_anywhere_behind_any_read_never_gives_a_wrong_key(
    script: list[tuple[int, tuple[int, int], bytes]],
    spoil_source: bool,  # noqa: FBT001 - drawn by position
) -> None:
    async def main() -> None:
        host = ScriptedHost()
        reads = 0

        def change(offset: int, _length: int) -> None:
            nonlocal reads
            for at, (near, where), data in script:
                if at == reads:
                    where = max(near * offset + where, 0)  # noqa: PLW2901 - now within the memory
                    host.raw[where : where + len(data)] = data
            reads += 1

        host.lie_in_memory(change)
        async with scripted_pair(**{"source" if spoil_source else "destination": host}) as (here, there):
            host.put(EnableLogArea(1, 5))
            here.start(is_source=True)
            there.start(is_source=False)
            for side, other in ((here, there), (there, here)):
                await all_reported(side)
                expect_fail_closed(side)
                key = side.host.tdcs().dec_key_fingerprint
                assert key in (None, other.host.tdcs().enc_key_fingerprint)
            script.clear()
            other_side = there if spoil_source else here
            await other_side.still_serves()

    run_in_virtual_time(main())


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([VMCALL_SERVICE_VECTOR, TRANSPORT_VECTOR, 0x20, 0xFF]))),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_spurious_interrupts_at_any_call_change_nothing(
    script: list[tuple[int, int]],
    source: bool,  # noqa: FBT001 - drawn by position
) -> None:
    async def main() -> None:
        host = ScriptedHost()
        calls = 0

        def before(_: object) -> None:
            nonlocal calls
            for at, vector in script:
                if at == calls:
                    host.fire(vector)
            calls += 1

        host.on_call = before
        async with scripted_pair(**{"source" if source else "destination": host}) as sides:
            assert await migrate(*sides) == (SUCCESS, SUCCESS)
            for side in sides:
                side.expect_one_report_for_each_accepted_request()
                await side.at_rest()

    run_in_virtual_time(main())
