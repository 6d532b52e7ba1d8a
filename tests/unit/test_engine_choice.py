# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from lab import engines
from lab.engines.base import Availability, ControlStream, Engine, LabPlan, LabStatus, Progress, Removed
from lab.errors import EngineError, ExitStatus, UsageError


class FakeEngine:
    def __init__(self, name: str, *, usable: bool, labs: tuple[str, ...] = ()) -> None:
        self._name = name
        self._usable = usable
        self._labs = labs

    @property
    def name(self) -> str:
        return self._name

    def available(self) -> Availability:
        if self._usable:
            return Availability(usable=True, detail="fine")
        return Availability(usable=False, detail="nobody answers", advice="start it")

    async def up(self, plan: LabPlan, progress: Progress) -> None:
        raise NotImplementedError

    async def control(self, lab: str, host: str) -> ControlStream:
        raise NotImplementedError

    async def down(self, lab: str, progress: Progress) -> Removed:
        raise NotImplementedError

    def labs(self) -> list[LabStatus]:
        return [LabStatus(lab, self._name, "/here", "", ()) for lab in self._labs]

    def logs(self, lab: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        raise NotImplementedError

    def shell_command(self, lab: str, name: str) -> list[str]:
        raise NotImplementedError


def table(*, docker: bool, process: bool = True, labs: tuple[str, ...] = ()) -> dict[str, Callable[[], Engine]]:
    return {
        "docker": lambda: FakeEngine("docker", usable=docker),
        "process": lambda: FakeEngine("process", usable=process, labs=labs),
    }


def test_docker_is_preferred_where_it_answers_and_the_choice_is_told():
    said: list[str] = []

    engine = engines.choose(None, said.append, table(docker=True))

    assert engine.name == "docker"
    assert len(said) == 1
    assert said[0].startswith("engine docker")


def test_process_is_taken_otherwise_and_the_reason_is_told():
    said: list[str] = []

    engine = engines.choose(None, said.append, table(docker=False))

    assert engine.name == "process"
    assert "docker cannot be used: nobody answers" in said[0]


def test_engine_asked_for_is_not_replaced_by_another():
    said: list[str] = []

    with pytest.raises(EngineError) as caught:
        engines.choose("docker", said.append, table(docker=False))

    assert caught.value.kind.id == "LAB-ENGINE-UNAVAILABLE"
    assert caught.value.status is ExitStatus.LAB
    assert said == []


def test_no_engine_at_all_is_told_with_every_reason():
    with pytest.raises(EngineError) as caught:
        engines.choose(None, lambda _: None, table(docker=False, process=False))

    assert "docker" in str(caught.value)
    assert "process" in str(caught.value)


@pytest.mark.parametrize(("name", "id_"), [("swarm", "LAB-COMES-LATER"), ("podman", "LAB-VALUE-UNKNOWN")])
def test_other_engines_are_refused(name: str, id_: str):
    with pytest.raises(UsageError) as caught:
        engines.choose(name, lambda _: None, table(docker=True))

    assert caught.value.kind.id == id_


def test_running_lab_is_found_with_the_engine_that_has_it():
    engine, status = engines.find("mine", None, table(docker=True, labs=("other", "mine")))

    assert (engine.name, status.lab) == ("process", "mine")
    with pytest.raises(EngineError) as caught:
        engines.find("mine", "docker", table(docker=True, labs=("mine",)))
    assert caught.value.kind.id == "LAB-NOT-RUNNING"


def test_the_real_engines_are_those_of_the_choice():
    assert {name: make().name for name, make in engines.ENGINES.items()} == {"docker": "docker", "process": "process"}
