# SPDX-License-Identifier: BSD-2-Clause-Patent
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lab import doctor, failures
from lab.doctor import GIB, DoctorOptions, Machine, Verdict, diagnose
from lab.engines.base import Availability
from lab.errors import EngineError, ExitStatus

GOOD = Machine(
    platform="linux",
    kernel="6.1.0",
    python="3.13.1",
    cores=4,
    memory=8 * GIB,
    free_disk=50 * GIB,
    state_folder=Path("/run/user/1000/migtd-lab"),
    processes=Availability(usable=True, detail="local processes"),
    engine="28.0.1",
    compose="2.30.0 (plugin)",
    mmdebstrap="/usr/bin/mmdebstrap",
    tpm=False,
    gnutls=True,
)


def finding(machine, name):
    (found,) = [each for each in diagnose(machine).findings if each.name == name]
    return found


def test_good_machine_can_do_everything_and_needs_no_advice():
    diagnosis = diagnose(GOOD)
    assert diagnosis.engines == {"docker": True, "process": True}
    assert {each.verdict for each in diagnosis.findings} == {Verdict.OK, Verdict.INFORMATION}
    assert not any(each.advice for each in diagnosis.findings)


@pytest.mark.parametrize(
    ("change", "name", "verdict", "engines"),
    [
        ({"platform": "darwin"}, "platform", Verdict.MISSING, (False, False)),
        ({"cores": 1}, "cores", Verdict.LIMITED, (True, True)),
        ({"memory": GIB // 2}, "memory", Verdict.LIMITED, (True, True)),
        ({"free_disk": GIB}, "disk", Verdict.LIMITED, (True, True)),
        ({"state_folder": Path("/" + "x" * 90)}, "sockets", Verdict.MISSING, (True, False)),
        ({"state_folder": None}, "sockets", Verdict.MISSING, (True, False)),
        ({"engine": EngineError(failures.ENGINE_DENIED)}, "container engine", Verdict.MISSING, (False, True)),
        ({"engine": EngineError(failures.ENGINE_MISSING)}, "container engine", Verdict.MISSING, (False, True)),
        ({"compose": EngineError(failures.COMPOSE_MISSING)}, "compose", Verdict.MISSING, (False, True)),
        ({"mmdebstrap": None}, "offline base image", Verdict.LIMITED, (True, True)),
        (
            {"processes": Availability(usable=False, detail="old", advice="use Linux 5.3 or newer")},
            "--engine process",
            Verdict.MISSING,
            (True, False),
        ),
    ],
)
def test_what_is_missing_is_told_with_advice_and_with_what_it_prevents(change, name, verdict, engines):
    machine = replace(GOOD, **change)
    found = finding(machine, name)
    assert found.verdict is verdict
    assert found.advice
    assert tuple(diagnose(machine).engines.values()) == engines


def test_advice_on_an_engine_is_that_of_its_failure():
    machine = replace(GOOD, engine=EngineError(failures.ENGINE_DENIED, "no permission"))
    assert finding(machine, "container engine").advice == failures.ENGINE_DENIED.advice
    assert "no permission" in finding(machine, "container engine").detail


def test_missing_tpm_is_no_fault():
    assert finding(GOOD, "vTPM").verdict is Verdict.INFORMATION
    assert finding(replace(GOOD, tpm=True), "vTPM").verdict is Verdict.INFORMATION


def test_missing_gnutls_is_no_fault_of_a_lab_but_told_to_developers():
    without = replace(GOOD, gnutls=False)
    assert finding(without, "GnuTLS").verdict is Verdict.INFORMATION
    assert "gnutls-bin" in finding(without, "GnuTLS").advice
    assert diagnose(without).engines == diagnose(GOOD).engines


def test_sockets_of_the_default_lab_fit_where_the_doctor_says_so():
    longest = "/lab-0123ab/host-a/destination/vmcall.sock"
    assert len(longest) <= doctor.SOCKET_ROOM


def test_json_is_one_document(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "look", lambda _environ: GOOD)
    assert doctor.doctor(DoctorOptions(json=True)) == ExitStatus.SUCCESS
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["engines"] == {"docker": True, "process": True}
    assert {"name", "verdict", "detail", "advice"} == set(document["findings"][0])


def test_machine_that_can_run_nothing_is_a_negative_verdict(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "look", lambda _environ: replace(GOOD, platform="darwin"))
    assert doctor.doctor(DoctorOptions()) == ExitStatus.NEGATIVE
    assert "Linux virtual machine" in " ".join(capsys.readouterr().out.split())


def test_table_shows_texts_with_brackets_as_they_are(monkeypatch, capsys):
    machine = replace(GOOD, engine=EngineError(failures.ENGINE_LOST, "[red]x[/red]"))
    monkeypatch.setattr(doctor, "look", lambda _environ: machine)
    doctor.doctor(DoctorOptions())
    assert "[red]x[/red]" in capsys.readouterr().out.replace("\n", "")


def test_this_machine_can_be_looked_at():
    machine = doctor.look(os.environ)
    assert machine.memory > 0
    assert machine.free_disk > 0
    assert diagnose(machine).findings
