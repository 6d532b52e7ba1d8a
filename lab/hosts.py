# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The hosts of a running lab, as the lab's tasks talk to them.

A connection serves one request at a time, and an outcome is asked for by a long poll; a new connection to a container
costs a process. So each host has as many connections as there are questions at once, opened on demand and kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from lab import failures
from lab.engines.base import Engine, Progress, RoleState
from lab.errors import EngineError
from lab.programs import in_thread
from migtd.errors import LabFailure
from vmm_stub.vmm.control.client import ApiRefused, ControlClient, ControlLost
from vmm_stub.vmm.control.models import (
    Health,
    MigrationModel,
    MigrationRequest,
    MigTdModel,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    TargetTdModel,
    TargetTdRequest,
)

READY_LIMIT: Final = 60.0
"""Seconds that hosts and MigTDs have to become ready; a slow machine that starts many containers needs some."""
_READY_WAIT: Final = 2.0
"""Seconds of one question about health, after which the roles are looked at."""
_RETRY: Final = 0.1
ANSWER_LIMIT: Final = 30.0
"""Seconds that a host has to answer, beyond what it was asked to wait: an engine or host that hangs is no answer."""

T = TypeVar("T")


class Host:
    """The control API of one host. Methods raise EngineError (LAB-HOST-LOST) or what the host refuses with."""

    def __init__(self, engine: Engine, lab: str, name: str) -> None:
        self.name = name
        self._engine = engine
        self._lab = lab
        self._idle: list[ControlClient] = []
        self._open: set[ControlClient] = set()
        self._engine_lost: EngineError | None = None

    async def health(self, wait: float) -> Health:
        """Health once the host is ready, or after `wait` seconds."""
        return await self._ask(lambda client: client.health(wait), wait)

    async def target_tds(self) -> list[TargetTdModel]:
        """All target TDs."""
        return await self._ask(lambda client: client.target_tds())

    async def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        """Create a target TD."""
        return await self._ask(lambda client: client.create_target_td(request))

    async def migrations(self) -> list[MigrationModel]:
        """All migrations that the host remembers."""
        return await self._ask(lambda client: client.migrations())

    async def start_migration(self, request: MigrationRequest) -> MigrationModel:
        """Start one side; a destination listens when this returns."""
        return await self._ask(lambda client: client.start_migration(request))

    async def outcome(self, migtd: str, request_id: int, timeout: float) -> MigrationModel:  # noqa: ASYNC109 - the host waits
        """The migration once it ended, or as it is after `timeout` seconds."""
        return await self._ask(lambda client: client.outcome(migtd, request_id, timeout), timeout)

    async def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        """Move the binding of a target TD to the MigTD that prepared it."""
        return await self._ask(lambda client: client.finalize_rebinding(request))

    async def cancel(self, migtd: str, request_id: int) -> None:
        """Cancel one side."""
        await self._ask(lambda client: client.cancel(migtd, request_id))

    async def events(self, after: int = 0, *, follow: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """The history above a sequence number; with `follow` without end."""
        async with self._client() as client, contextlib.aclosing(client.events(after, follow=follow)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """End all connections."""
        for client in list(self._open):
            await self._drop(client)

    async def _ask(self, question: Callable[[ControlClient], Awaitable[T]], wait: float = 0.0) -> T:
        limit = wait + ANSWER_LIMIT
        try:
            async with asyncio.timeout(limit), self._client() as client:
                return await question(client)
        except TimeoutError as error:
            raise EngineError(failures.HOST_LOST, f"{self.name} of {self._lab}: no answer for {limit:g} s") from error

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncGenerator[ControlClient, None]:
        """A connection for one question; it is kept if the question was answered, with whatever answer."""
        client = self._idle.pop() if self._idle else await self._connect()
        whole = False
        try:
            yield client
            whole = True
        except ApiRefused:
            whole = True
            raise
        except ControlLost as error:
            raise EngineError(failures.HOST_LOST, f"{self.name} of {self._lab}: {error.detail}") from error
        except EngineError as error:
            self._remember(error)
            raise
        finally:
            if whole:
                self._idle.append(client)
            else:
                await self._drop(client)

    async def _connect(self) -> ControlClient:
        if self._engine_lost is not None:
            # Thousands of migrations would each start a program that finds out the same.
            raise EngineError(self._engine_lost.kind, self._engine_lost.detail)
        try:
            reader, writer = await self._engine.control(self._lab, self.name)
        except EngineError as error:
            self._remember(error)
            raise
        except OSError as error:
            raise EngineError(failures.HOST_LOST, f"{self.name} of {self._lab}: {error}") from error
        client = ControlClient(reader, writer)
        self._open.add(client)
        return client

    def _remember(self, error: EngineError) -> None:
        if error.kind is failures.ENGINE_LOST:
            self._engine_lost = error

    async def _drop(self, client: ControlClient) -> None:
        self._open.discard(client)
        # The engine may tell at the very end that it lost the stream; that it ended is all that is wanted here.
        with contextlib.suppress(LabFailure):
            await client.close()


@contextlib.asynccontextmanager
async def connected(engine: Engine, lab: str, names: Sequence[str]) -> AsyncGenerator[dict[str, Host], None]:
    """Hosts of a lab by name; connections are opened on demand and ended with the block."""
    hosts = {name: Host(engine, lab, name) for name in names}
    try:
        yield hosts
    finally:
        for host in hosts.values():
            await host.close()


async def await_ready(engine: Engine, lab: str, hosts: Mapping[str, Host], progress: Progress) -> None:
    """Wait until every host and MigTD is ready.

    Raises EngineError: LAB-ROLE-START-FAILED as soon as a role has ended, LAB-HOST-NOT-READY after READY_LIMIT.
    """
    progress("waiting for hosts and MigTDs")
    limit = asyncio.get_running_loop().time() + READY_LIMIT
    # Not a task group: its users would meet an exception group instead of the failure.
    waits = [asyncio.create_task(_ready(engine, lab, host, limit)) for host in hosts.values()]
    try:
        await asyncio.gather(*waits)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _ready(engine: Engine, lab: str, host: Host, limit: float) -> None:
    last = "it does not answer"
    while asyncio.get_running_loop().time() < limit:
        try:
            health = await host.health(_READY_WAIT)
            if health.status == "ready":
                return
            last = ", ".join(_state(migtd) for migtd in health.migtds)
        except EngineError as error:
            # A host that has just been started may not listen yet; whether it still runs is asked next.
            last = str(error)
            await asyncio.sleep(_RETRY)
        ended = await in_thread(_ended_role, engine, lab, host.name)
        if ended:
            raise EngineError(failures.ROLE_START_FAILED, f"{ended} of {lab}: {last}")
    raise EngineError(failures.HOST_NOT_READY, f"{host.name} of {lab}: {last}")


def _state(migtd: MigTdModel) -> str:
    error = f" ({migtd.error.id}: {migtd.error.message})" if migtd.error else ""
    return f"{migtd.name} {migtd.state.value}{error}"


def _ended_role(engine: Engine, lab: str, host: str) -> str | None:
    for status in engine.labs():
        for role in status.roles if status.lab == lab else ():
            if role.host == host and role.state is RoleState.EXITED:
                return role.path
    return None
