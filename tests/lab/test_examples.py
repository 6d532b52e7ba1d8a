# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every lab file in examples/ ends as it says: a line `# expect:` for each outcome, in order; a rebinding has two.

    # expect: source=RESULT[/ERROR-ID[@CHECK]] destination=...

CHECK is the check that failed; `-` stands for a side that there is not. The labs run in this process, without engine:
all else is what an engine would start.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.evidence import new_pki
from lab.labfile import default_lab, load_lab_file
from lab.plan import ResolvedLab, resolve
from lab.testing_lab import outcomes_in_process
from migtd.checks import CheckStatus
from migtd.errors import MigrationResult
from vmm_stub.vmm.control.models import SideOutcome

pytestmark = pytest.mark.engine

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))
_EXPECT = re.compile(r"^# expect: source=(\S+) destination=(\S+)$", re.MULTILINE)


def resolved(file: Path) -> ResolvedLab:
    return resolve(load_lab_file(file), name="example").with_pki(new_pki(os.urandom, time.time()))


def expected(file: Path) -> list[tuple[str, str]]:
    """Both sides of each migration, as the file says."""
    return _EXPECT.findall(file.read_text(encoding="utf-8"))


def told(side: SideOutcome | None) -> str:
    """A side as `# expect:` writes it."""
    if side is None:
        return "-"
    failed = "".join(f"@{check.name.value}" for check in side.checks if check.status is CheckStatus.FAILED)
    return side.result + (f"/{side.error.id}{failed}" if side.error else failed)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
async def test_an_example_ends_as_it_says(file: Path):
    outcomes = await outcomes_in_process(resolved(file))

    assert [(told(each.source), told(each.destination)) for each in outcomes] == expected(file)
    for outcome in outcomes:
        sides = [side for side in (outcome.source, outcome.destination) if side]
        for side in sides:
            assert side.code == MigrationResult[side.result]
            # All of these refuse before the keys are exchanged, so neither side has one; nor has one in a rebinding.
            assert side.key_written is (side.result == "Success" and outcome.operation == "migration")
        assert outcome.success is all(side.result == "Success" for side in sides)
        assert outcome.msk_match is (True if outcome.success and outcome.operation == "migration" else None)


def test_examples_show_every_verdict_that_the_documentation_names():
    names = {file.stem for file in EXAMPLES}

    assert {"up-to-date", "out-of-date", "configuration-needed", "sw-hardening-needed"} <= names
    assert {"policy-key-rotated", "policy-and-mapping-keys-rotated", "all-policy-keys-rotated"} <= names
    assert {"policy-v2", "other-policy-root", "policy-svn", "rebinding"} <= names
    assert {"tcb-revoked", "pck-revoked", "mixed-fmspc", "mixed-fmspc-allowed", "expired-collateral"} <= names


def test_the_first_example_is_what_runs_without_a_lab_file():
    (file,) = (each for each in EXAMPLES if each.stem == "up-to-date")

    assert load_lab_file(file) == default_lab()


async def test_a_refusal_explains_itself_with_rule_reference_and_both_values():
    (file,) = (each for each in EXAMPLES if each.stem == "out-of-date")
    refused, _ = await outcomes_in_process(resolved(file))

    assert refused.source is not None
    assert refused.source.error is not None
    explain = "\n".join(refused.source.error.explain)
    for word in ("sgxtcbcomponents", "array-greater-or-equal", "local:", "peer:", "judged by the source"):
        assert word in explain


async def test_a_status_that_does_not_fit_the_record_is_refused_by_name(tmp_path: Path):
    status = "ConfigurationAndSWHardeningNeeded"
    (file,) = (each for each in EXAMPLES if each.stem == "configuration-needed")
    text = file.read_text(encoding="utf-8").replace("tcb_status: ConfigurationNeeded", f"tcb_status: {status}")
    assert status in text
    (tmp_path / "lab.yaml").write_text(text)
    (outcome,) = await outcomes_in_process(resolved(tmp_path / "lab.yaml"))

    assert told(outcome.source) == "MutualAttestationError/MIGTD-QUOTE-STATUS-TOO-LONG@quote-peer"


def test_an_example_cannot_be_run_in_a_mode_that_would_not_look_at_it():
    (file,) = (each for each in EXAMPLES if each.stem == "quoting-busy")

    with pytest.raises(UsageError) as refused:
        resolve(load_lab_file(file), attestation="accept-all")

    assert refused.value.kind.id == "LAB-EVIDENCE-UNUSED"
