# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv up --attestation captured` as users type it, on the engine `process`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migtd.attestation.quote.collateral import push_packed
from migtd.choices import SKIPS_OF
from tests.lab.commands import Checkout, copied_checkout
from vmm_stub.testing_quoting import PKI, machine

pytestmark = pytest.mark.engine

UP = ("up", "--engine", "process", "--name", "captured", "--attestation", "captured")


@pytest.fixture(scope="module")
def inv() -> Iterator[Checkout]:
    with copied_checkout() as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Flags for a quote of some machine, its collateral, and the root that both end in."""
    own = machine()
    contents = {
        "quote-file": own.quote(),
        "collateral-file": push_packed(own.material.collateral),
        "root-ca-file": PKI.root_ca,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tuple(part for name in contents for part in (f"--{name}", str(tmp_path / name)))


async def test_a_captured_quote_runs_and_its_two_gaps_are_named(inv: Checkout, files: tuple[str, ...]):
    done = await inv.inv(*UP, *files, "--json")

    assert done.status == 0, done.err
    (document,) = done.documents
    assert (document["attestation"], document["success"], document["msk_match"]) == ("captured", True, True)
    for side in (document["source"], document["destination"]):
        skipped = {check["name"]: check["detail"] for check in side["checks"] if check["status"] == "skipped"}
        assert skipped == SKIPS_OF["captured"]
        assert {check["status"] for check in side["checks"]} == {"passed", "skipped"}
        assert len(side["checks"]) == 14

    again = await inv.inv("migrate", "--engine", "process", "--name", "captured")

    assert again.status == 0, again.err
    assert "checks skipped" in again.out
    assert all(name in again.out for name in skipped)


async def test_a_quote_with_a_changed_byte_is_refused_on_one_screen(
    inv: Checkout, files: tuple[str, ...], tmp_path: Path
):
    file = tmp_path / "quote-file"
    quote = bytearray(file.read_bytes())
    quote[600] ^= 1
    file.write_bytes(quote)

    done = await inv.inv(*UP, *files)

    assert done.status == 1
    assert "MIGTD-QUOTE-SIGNATURE" in done.out
    assert "advice:" in done.out
    assert len(done.out.splitlines()) < 60
