# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from lab.outcome import Outcome, join
from lab.output import FULL_TABLES, Shown, one_line, show_outcomes
from lab.progress import Steps, steps
from migtd.checks import CheckName, CheckStatus
from migtd.observer import Phase
from vmm_stub.vmm.control.models import (
    CheckModel,
    ErrorModel,
    Fingerprints,
    MigrationModel,
    MigrationState,
    Role,
    SideOutcome,
)

GOLDEN = """\
migration 1
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃                ┃ source                      ┃ destination                 ┃
┃                ┃ host-a/source               ┃ host-b/destination          ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ result         │ Success (0)                 │ Success (0)                 │
│ phase          │ done                        │ done                        │
│ version        │ 1                           │ 1                           │
│ key →          │ 00112233                    │ 00112233                    │
│ key ←          │ 44556677                    │ 44556677                    │
│ keys           │ equal                       │ equal                       │
│ checks passed  │ 2: certificate, servtd-attr │ 2: certificate, servtd-attr │
│ checks failed  │ 0                           │ 0                           │
│ checks skipped │ 1: quote-peer               │ 1: quote-peer               │
│ handshake      │ N ms                        │ N ms                        │
│ whole          │ N ms                        │                             │
└────────────────┴─────────────────────────────┴─────────────────────────────┘
╭────────────────────────────────────────── accept-all ──────────────────────────────────────────╮
│ attestation mode accept-all: NOTHING about the peer was verified. No quote, no measurement, no │
│ policy.                                                                                        │
│ Whoever answers on the wire gets the migration session key. Use it to try things out, never as │
│ evidence.                                                                                      │
╰────────────────────────────────────────────────────────────────────────────────────────────────╯
1 of 1 migrations succeeded.
Next:
  ./inv migrate
  ./inv events
  ./inv down
"""


def side(sent: str, received: str | None, *, error: ErrorModel | None = None) -> SideOutcome:
    return SideOutcome(
        result="NetworkError" if error else "Success",
        code=5 if error else 0,
        phase=Phase.HANDSHAKE if error else Phase.DONE,
        error=error,
        key_written=received is not None,
        version=None if error else 1,
        fingerprints=Fingerprints(sent=sent, received=received),
        checks=[
            CheckModel(name=CheckName.CERTIFICATE, status=CheckStatus.PASSED),
            CheckModel(name=CheckName.QUOTE_PEER, status=CheckStatus.SKIPPED, detail="accept-all"),
            CheckModel(name=CheckName.SERVTD_ATTR, status=CheckStatus.PASSED),
        ],
        trace=[],
    )


def shown(
    source: SideOutcome | None, destination: SideOutcome | None, request_id: int = 1, attestation: str = "accept-all"
) -> Shown:
    outcome: Outcome = join(
        _model(Role.SOURCE, source) if source else None,
        _model(Role.DESTINATION, destination) if destination else None,
        duration_ms=12.3,
        lab="lab-1a2b3c",
        engine="process",
        attestation=attestation,
        session="ra-tls",
        transport="vmcall-raw",
        request_id=request_id,
        policy_version=1,
    )
    return Shown(outcome, "host-a/source", "host-b/destination")


def _model(role: Role, outcome: SideOutcome) -> MigrationModel:
    return MigrationModel(
        migtd=role.value,
        request_id=1,
        role=role,
        state=MigrationState.ENDED,
        address=None,
        started=0.0,
        duration_ms=1.0,
        phases_ms={Phase.HANDSHAKE: 3.21},
        outcome=outcome,
    )


def rendered(each: list[Shown], *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=98, force_terminal=colour, color_system="standard" if colour else None)
    show_outcomes(console, each, ["./inv migrate", "./inv events", "./inv down"])
    text = re.sub(r"\d+\.\d ms", "N ms", out.getvalue())
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def good() -> Shown:
    return shown(side("00112233", "44556677"), side("44556677", "00112233"))


def test_one_migration_is_shown_as_in_the_golden_text():
    text = rendered([good()])

    # Column widths follow the times that were cut out; the words and their order are what is fixed.
    def squeeze(part: str) -> str:
        return re.sub(r"[ ━─]+", " ", part)

    assert squeeze(text) == squeeze(GOLDEN)


def test_equal_fingerprints_are_green_and_different_ones_red():
    equal = rendered([good()], colour=True)
    different = rendered([shown(side("00112233", "44556677"), side("44556677", "ffffffff"))], colour=True)

    assert "\x1b[32m00112233\x1b[0m" in equal
    assert "\x1b[31m" not in equal.split("accept-all")[0]
    assert "\x1b[31mffffffff\x1b[0m" in different
    assert "DIFFER" in different


def test_failure_is_told_with_id_and_advice():
    error = ErrorModel(id="MIGTD-TRANSPORT-ENDED", message="the peer ended [the transport]", advice="look there")

    text = rendered([shown(side("aa", None, error=error), None)])

    assert "1 source: MIGTD-TRANSPORT-ENDED: the peer ended [the transport]\n  advice: look there\n" in text
    assert "not ours" in text
    assert "0 of 1 migrations succeeded." in text


def test_many_migrations_are_one_line_each():
    many = [
        shown(side("00112233", "44556677"), side("44556677", "00112233"), request_id=number)
        for number in range(1, FULL_TABLES + 2)
    ]

    text = rendered(many)

    assert text.count("host-a/source Success (0)") == FULL_TABLES + 1
    assert "checks" not in text
    assert "4 of 4 migrations succeeded." in text


def test_lab_without_migrations_is_ready_and_says_what_to_type():
    text = rendered([])

    assert text.startswith("The lab is ready")
    assert "./inv migrate" in text


def test_other_modes_carry_no_warning():
    text = rendered([shown(side("aa", "bb"), side("bb", "aa"), attestation="lab")])

    assert "NOTHING" not in text


def test_progress_without_a_terminal_is_plain_lines_with_elapsed_time():
    out = io.StringIO()
    times = iter([10.0, 10.0, 12.34])
    progress = Steps(out, lambda: next(times))

    progress("starting host-a")
    progress.say("[half] done")

    assert out.getvalue() == "[   0.0 s] starting host-a\n[   2.3 s] [half] done\n"


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]):
    with steps("first") as progress:
        progress("second")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"\[ +\d+\.\d s\] second\n", captured.err)


def rebinding() -> list[Shown]:
    outcome = side("00112233", None).model_copy(update={"fingerprints": Fingerprints(), "version": None})
    prepared = shown(outcome, outcome).outcome.model_copy(update={"operation": "rebind-prepare"})
    finalized = prepared.model_copy(update={"operation": "rebind-finalize", "source": None})
    return [Shown(each, "host-a/old", "host-a/new") for each in (prepared, finalized)]


def test_a_rebinding_names_the_old_and_the_new_migtd_and_shows_no_keys():
    text = rendered(rebinding())

    assert "rebind-prepare 1" in text
    assert "rebind-finalize 1" in text
    assert "host-a/old" in text
    assert "key →" not in text
    assert "not ours" not in text
    assert "2 of 2 operations succeeded." in text


def test_many_rebindings_are_one_line_each_with_what_they_are():
    text = rendered(rebinding() * 3)

    assert text.count("rebind-prepare") == text.count("rebind-finalize") == 3
    assert "unknown" not in text


def test_one_line_tells_of_the_end_of_a_rebinding_who_is_bound_now():
    assert one_line(rebinding()[1]) == "rebind-finalize 1 succeeded: host-a/new Success"
