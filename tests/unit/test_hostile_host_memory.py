# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Hosts that change shared memory between the guest's reads, and guests that run out of it (ghci-ratls.md 3)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT, TdCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.ghci import HEADER, EnableLogArea, GetTdReport, StartMigration, push_request
from migtd.guest.interfaces import Guest
from migtd.observer import Phase
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing_hostile import GuestCall, ScriptedHost
from vmm_stub.testing_pair import N, ScriptedSide, migrate, scripted_pair, scripted_side
from vmm_stub.testing_td import ShortMemory, until

SUCCESS = MigrationResult.Success
SPOILT = 0xEE
RESERVE = 2
"""Index of the allocation of the page that is kept for reports: behind the log area and the first WaitForRequest."""
BOTH_ROLES = pytest.mark.parametrize("role", ["source", "destination"])


class SpoilingHost(ScriptedHost):
    """Once it has answered a buffer, it spoils what the guest reads of it: right behind the read."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: dict[int, int] = {}
        """Size of each answered buffer by its offset, until it is lent again."""
        self.spoilt = 0
        self.lie_in_memory(self.spoil)
        self.on_answered = self.remember
        self.on_call = self.forget

    def remember(self, call: GuestCall) -> None:
        self.answered[call.offset] = call.size

    def forget(self, registers: Registers) -> None:
        for gpa in (registers.r14, registers.r15, registers.rbx):
            self.answered.pop(gpa ^ SHARED_BIT, None)

    def spoil(self, offset: int, length: int) -> None:
        for start, size in self.answered.items():
            if start <= offset < start + size:
                self.spoilt += length
                self.raw[offset : offset + length] = bytes([SPOILT]) * length


@BOTH_ROLES
def test_what_was_read_once_is_never_read_again(role: str) -> None:
    async def main() -> None:
        host = SpoilingHost()
        async with scripted_pair(**{role: host}) as (here, there):
            side = here if role == "source" else there
            host.put(EnableLogArea(1, 3))
            host.put(GetTdReport(2))
            assert await migrate(here, there) == (SUCCESS, SUCCESS)
            assert host.spoilt > 2000
            assert host.tdcs().dec_key_fingerprint == host.peer.tdcs().enc_key_fingerprint  # type: ignore[union-attr]
            side.expect_one_report_for_each_accepted_request()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("what", ["length", "payload", "status"])
@BOTH_ROLES
def test_what_changes_while_it_is_read_ends_in_a_failure_without_a_key(role: str, what: str) -> None:
    """Between the copy of the status and what is read next, the rest of an answered Receive changes."""

    async def main() -> None:
        host = ScriptedHost()
        lent: dict[int, GuestCall] = {}

        def change(offset: int, _length: int) -> None:
            call = lent.get(offset)
            if call is None or not host.raw[offset]:
                return
            if what == "length":
                host.raw[offset + 8 : offset + 12] = b"\xff" * 4
            elif what == "payload":
                host.raw[offset + HEADER.size + 5 : offset + HEADER.size + 9] = b"\x5a" * 4
            else:
                host.raw[offset + 8 : offset + 12] = bytes(4)

        def receive(call: GuestCall) -> int:
            lent[call.offset] = call
            return host.keep_receive(call)

        host.lie_in_memory(change)
        host.on_receive = receive
        async with scripted_pair(**{role: host}) as (here, there):
            side = here if role == "source" else there
            results = await migrate(here, there)
            assert (await side.result()) in (MigrationResult.NetworkError, MigrationResult.SecureSessionError)
            assert SUCCESS not in results
            here.expect_no_key()
            there.expect_no_key()
            lent.clear()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


def test_a_request_that_changes_behind_its_copy_is_served_as_it_was_copied() -> None:
    """The request id, the role and the target are those of one copy: the one that was checked."""

    async def main() -> None:
        host = ScriptedHost()
        request = bytearray()

        def change(offset: int, length: int) -> None:
            if request and length == len(request):
                # All of the payload was copied in one read; from now on it names another request.
                host.raw[offset : offset + 8] = (77).to_bytes(8, "little")
                request.clear()

        host.lie_in_memory(change)
        async with scripted_side(host) as side:
            request += (3).to_bytes(8, "little") + bytes(64)
            host.put(GetTdReport(3, bytes(64)))
            assert await side.result(3) is SUCCESS
            assert not request
            assert not host.reports_of(77)
            side.expect_one_report_for_each_accepted_request()

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    "part", [slice(0, 8), slice(8, 9), slice(16, 48), slice(48, 56)], ids=["id", "role", "uuid", "handle"]
)
@BOTH_ROLES
def test_a_migration_whose_request_changes_behind_its_copy_is_the_one_that_was_copied(role: str, part: slice) -> None:
    async def main() -> None:
        host = ScriptedHost()
        request = StartMigration(N, is_source=role == "source", target=host.target)
        _, payload = push_request(request)
        changed = []

        def change(offset: int, length: int) -> None:
            if length == len(payload) and bytes(host.raw[offset : offset + length]) == payload:
                host.raw[offset + part.start : offset + part.stop] = b"\1" * (part.stop - part.start)
                if role == "source" and part.start == 8:
                    host.raw[offset + 8] = 0
                changed.append(offset)

        host.lie_in_memory(change)
        async with scripted_pair(**{role: host}) as (here, there):
            assert await migrate(here, there) == (SUCCESS, SUCCESS)
            assert len(changed) == 1
            assert host.dec_key_writes == 4
            for side in (here, there):
                side.expect_one_report_for_each_accepted_request()
                await side.at_rest()

    run_in_virtual_time(main())


def test_nothing_of_the_guest_but_what_it_sends_ever_stands_in_shared_memory() -> None:
    """Neither the own key nor the peer's is found anywhere in the memory that the host can read."""

    async def main() -> None:
        async with scripted_pair() as (here, there):
            keys = []
            for side in (here, there):
                state = side.host._tdcs  # the key itself, which no interface tells
                keys.append(state._enc_key)
            seen = {side: bytearray() for side in ("a", "b")}

            def look(name: str, host: ScriptedHost) -> None:
                host.on_call = lambda _: seen[name].extend(host.raw[: 64 * PAGE_SIZE])

            look("a", here.host)
            look("b", there.host)
            assert await migrate(here, there) == (SUCCESS, SUCCESS)
            for key in keys:
                for part in (key, key[:8], key[24:]):
                    assert part not in seen["a"]
                    assert part not in seen["b"]

    run_in_virtual_time(main())


# --- memory that runs out ------------------------------------------------------------------------------------------
def shorten(fails: Callable[[int], bool], made: list[ShortMemory]) -> Callable[[Guest], Guest]:
    def platform(guest: Guest) -> Guest:
        made.append(ShortMemory(guest.memory, fails))
        return replace(guest, memory=made[-1])

    return platform


async def allocations_of_a_migration(role: str) -> int:
    made: list[ShortMemory] = []
    async with side_of_pair(role, shorten(lambda _: False, made)) as (side, results):
        assert await results() == (SUCCESS, SUCCESS)
        await side.still_serves()
    return made[0].allocations


@contextlib.asynccontextmanager
async def side_of_pair(
    role: str, platform: Callable[[Guest], Guest]
) -> AsyncIterator[tuple[ScriptedSide, Callable[[], Awaitable[tuple[MigrationResult, MigrationResult]]]]]:
    """A pair of which one side has another platform: that side, and what lets the two migrate."""
    limits = Deadlines().with_all(2.0)
    async with scripted_side(platform=platform, deadlines=limits) as special, scripted_side(deadlines=limits) as other:
        special.host.peer, other.host.peer = other.host, special.host
        pair = (special, other) if role == "source" else (other, special)
        yield special, lambda: migrate(*pair)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
@BOTH_ROLES
def test_memory_that_runs_out_at_any_allocation_ends_in_one_report_or_in_the_end_of_the_migtd(
    role: str, *, lasting: bool
) -> None:
    total = run_in_virtual_time(allocations_of_a_migration(role))
    assert total >= 8
    ends = [run_in_virtual_time(run_out_at(role, index, lasting=lasting)) for index in range(total)]
    # the log area, and the first buffer to wait with: no MigTD can start without
    assert ends[:2] == ["fatal", "fatal"]
    assert set(ends[2:]) == {"fatal"} if lasting else "reported" in ends


async def run_out_at(role: str, index: int, *, lasting: bool) -> str:
    """Run one migration on a side whose allocation `index` fails, and perhaps all later ones. How it ended."""
    made: list[ShortMemory] = []
    platform = shorten(lambda at: at >= index if lasting else at == index, made)
    async with side_of_pair(role, platform) as (side, results):
        if side.td.alive:
            reporting = asyncio.ensure_future(results())
            await asyncio.wait({reporting, side.td.task}, return_when=asyncio.FIRST_COMPLETED)
            reporting.cancel()
            await asyncio.wait({reporting})
            if lasting:
                side.host.put(GetTdReport(2))
                await asyncio.wait({side.td.task})
        assert side.host.dec_key_writes == 4 * (Phase.DONE in side.observer.phases[N])
        if index > RESERVE:
            side.expect_one_report_for_each_accepted_request()
        if not side.td.alive:
            # The host was told, as far as a host can be told without shared memory: by the code alone.
            assert side.host.fatal == [MigrationResult.OutOfResource]
            return "fatal"
        assert (await side.result() is SUCCESS) is (side.host.dec_key_writes == 4)
        await side.still_serves()
        # The page in reserve may have been what failed at the start, and may be there now.
        await until(lambda: side.td.pages.free_pages in (side.rest, side.rest - 1))
        return "reported"


@pytest.mark.parametrize("spare", [1, 2, 3])
def test_an_answer_that_is_larger_than_all_memory_is_reported_as_that_and_its_replays_are_ignored(spare: int) -> None:
    """The log areas of 300 vCPUs make an answer of two pages; the page in reserve holds one without data."""
    vcpus = 300

    async def main() -> None:
        host = ScriptedHost(memory=memoryview(bytearray((vcpus + 1 + spare) * PAGE_SIZE)))

        def many(call: Registers, answer: Registers) -> None:
            if call.rax == TdCallLeaf.VP_INFO:
                answer.r8 = vcpus

        host.on_return = many
        async with scripted_side(host) as side:
            replays = 5
            for _ in range(replays):
                host.put(EnableLogArea(1, 3))
                await asyncio.sleep(1)
            # Two pages in a row beside the open WaitForRequest and the reserve
            fits = spare >= 3
            assert len(side.observer.notes[1]) == (0 if fits else replays - 1)
            assert await side.result(1) is (SUCCESS if fits else MigrationResult.OutOfResource)
            side.expect_one_report_for_each_accepted_request()
            host.put(EnableLogArea(2, 3))
            assert await side.result(2) is await side.result(1)

    run_in_virtual_time(main())
