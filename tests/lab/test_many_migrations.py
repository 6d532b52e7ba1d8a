# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Many migrations through one pair of resident MigTDs: none lost, each reported once, and memory that stays.

The hosts' histories are followed while the migrations run: they remember only the last of so many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from lab.bench.resident import LISTENERS, ResidentLab, Target, resident_lab
from lab.bench.roles import memory, reset_peak
from lab.engines.base import Engine
from lab.engines.docker import DockerEngine
from lab.engines.process import ProcessEngine
from lab.invariants.follow import Follower, following
from lab.plan import Party
from vmm_stub.vmm.control.models import MigrationModel, MigrationRequest, Role

pytestmark = pytest.mark.engine

AT_ONCE = 256
MANY = 1000
KB = 1000
"""In an MB, as memory is measured."""
SESSION_KB = 64
"""Kilobytes by which a role may be larger after one more burst, per session of it.

A session that was not let go takes more. Hosts remember the ends of 1,024 migrations and their last log lines, and
allocators keep what they got.
"""
PATIENCE = 60.0
"""Seconds that 256 migrations may take at most."""
EXTRA_KB = 512
"""Kilobytes that a session may take in each role while it runs."""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state folder of this test's own. Not tmp_path: a unix socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@dataclass(slots=True)
class Followed:
    """A resident pair and the checker beside it. `done` counts the migrations."""

    lab: ResidentLab
    follower: Follower
    done: int = 0

    async def run(self, targets: list[Target], at_once: int) -> None:
        """All of them end in Success on both sides, or this raises; each has received what the other sent."""
        request_ids = await self.lab.run(targets, at_once)
        assert len(set(request_ids)) == len(targets)
        self.done += len(targets)

    async def burst(self, targets: list[Target], hold: Callable[[], AbstractContextManager[None]]) -> None:
        """All of them under way at the same time: while `hold` holds the destination, no session can end.

        All end in Success on both sides.
        """
        source, destination = self.lab._source, self.lab._destination
        ids = {next(self.lab._request_ids): target for target in targets}
        with hold():
            listening = await _few_at_once(self._start(destination, *each, None) for each in ids.items())
            at_work = asyncio.create_task(self._entered(source, set(ids), "handshake"))
            peers = [each.address for each in listening]
            await _few_at_once(self._start(source, *each, peer) for each, peer in zip(ids.items(), peers, strict=True))
            await at_work
        for party in (source, destination):
            host = self.lab._hosts[party.host]
            ended = await _few_at_once(host.outcome(party.migtd, request_id, PATIENCE) for request_id in ids)
            assert {each.outcome and each.outcome.result for each in ended} == {"Success"}
        self.done += len(targets)

    async def _start(self, party: Party, request_id: int, target: Target, peer: str | None) -> MigrationModel:
        """Start one side."""
        return await self.lab._hosts[party.host].start_migration(
            MigrationRequest(
                migtd=party.migtd,
                role=Role.DESTINATION if peer is None else Role.SOURCE,
                request_id=request_id,
                uuid=target.uuid,
                binding_handle=target.binding_handle,
                peer=peer,
            )
        )

    async def _entered(self, party: Party, ids: set[int], phase: str) -> None:
        """Return once these migrations have entered a phase on that side."""
        async with asyncio.timeout(PATIENCE), aclosing(self.lab._hosts[party.host].events(follow=True)) as events:
            async for event in events:
                if event["kind"] == "phase" and event["data"]["phase"] == phase:
                    ids.discard(event["request_id"])
                if not ids:
                    return

    async def assert_keys_match(self) -> None:
        """Every target TD holds on each host the key that the other host's has sent."""
        source, destination = [
            {each.uuid: (each.enc_key_fingerprint, each.dec_key_fingerprint) for each in await host.target_tds()}
            for host in self.lab._hosts.values()
        ]
        assert len(source) == len(destination)
        for uuid, (sent, received) in source.items():
            assert destination[uuid] == (received, sent)
            assert received is not None


@asynccontextmanager
async def followed_pair(engine: Engine) -> AsyncIterator[Followed]:
    async with resident_lab(engine, lambda _: None) as lab:
        async with following(lab._hosts) as follower:
            followed = Followed(lab, follower)
            yield followed
        assert [str(each) for each in follower.violations] == []
        assert follower.checker.runs == 2 * followed.done, "each side of each migration has ended, once"


async def _few_at_once(questions: Iterable[Coroutine[Any, Any, MigrationModel]]) -> list[MigrationModel]:
    """Ask as many at once as a host can take; a container answers each through a process of its own."""
    turns = asyncio.Semaphore(LISTENERS)

    async def ask(question: Coroutine[Any, Any, MigrationModel]) -> MigrationModel:
        async with turns:
            return await question

    return await asyncio.gather(*map(ask, questions))


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Hold a process."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("state")
async def test_1000_migrations_with_bursts_of_256_at_once_are_all_done_and_memory_stays():
    async with followed_pair(ProcessEngine()) as pair:
        pids = pair.lab.pids
        await pair.run(await pair.lab.make_targets(MANY - 2 * AT_ONCE), at_once=16)
        bursts = [await pair.lab.make_targets(AT_ONCE) for _ in range(2)]
        used = [{role: memory(pid) for role, pid in pids.items()}]
        for targets in bursts:
            for pid in pids.values():
                reset_peak(pid)
            await pair.burst(targets, lambda: held(pids[pair.lab.migtds[1]]))
            used.append({role: memory(pid) for role, pid in pids.items()})
        await pair.assert_keys_match()
    assert pair.done == MANY
    for role, before in used[0].items():
        extra = (used[1][role].peak - before.rss) * KB / AT_ONCE
        growth = (used[2][role].rss - used[1][role].rss) * KB / AT_ONCE
        sys.stdout.write(
            f"{role}: {before.rss:.1f} MB, {extra:.0f} kB per extra session, {growth:.0f} kB stay of each\n"
        )
        assert extra <= EXTRA_KB, f"{role} while {AT_ONCE} sessions run"
        assert growth <= SESSION_KB, f"{role} after {AT_ONCE} more sessions"


@pytest.mark.docker
async def test_256_migrations_at_once_between_containers_are_all_done():
    async with followed_pair(DockerEngine()) as pair:
        await pair.burst(await pair.lab.make_targets(AT_ONCE), nullcontext)
        await pair.assert_keys_match()
