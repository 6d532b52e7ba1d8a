# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the README and docs/ say is true of the code: links, tasks, keys, and the picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import labfile
from lab.labfile_policy import PolicySigningEntry
from lab.picture import PICTURE, lines_of
from tasks import namespace
from vmm_stub.vmm.control.models import DeadlinesModel
from vmm_stub.vmm.control.routes import ROUTES
from vmm_stub.vmm.history import HistoryKind

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def first_cells(page: str) -> list[str]:
    """The first cell of every table row of a page."""
    return re.findall(r"^\| (.+?) \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path):
    missing = [
        target for target in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / target).exists()
    ]
    assert missing == []


def test_readme_fits_one_screen_and_names_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert re.findall(r"^\./inv (\w+)", text, re.MULTILINE) == ["up", "test"]


def test_readme_names_every_task_that_there_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.compile(r"```.*?```", re.DOTALL)
    spans = " ".join([*blocks.findall(text), *re.findall(r"`([^`\n]+)`", blocks.sub("", text))])
    assert {name for name in namespace.task_names if not re.search(rf"(?<![\w.]){re.escape(name)}\b", spans)} == set()


def test_lab_file_page_has_every_key_of_the_model():
    named = " ".join(first_cells("docs/lab-file.md"))
    models = (
        labfile.LabFile,
        labfile.HostEntry,
        labfile.MigTdEntry,
        labfile.TargetTdEntry,
        labfile.MigrationEntry,
        labfile.RebindingEntry,
        PolicySigningEntry,
    )
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert {key for key in keys if key not in named} == set()


def test_lab_file_page_has_every_deadline():
    text = (ROOT / "docs/lab-file.md").read_text(encoding="utf-8")
    assert {name for name in DeadlinesModel.model_fields if name not in text} == set()


def test_control_api_page_has_every_route():
    cells = {cell.strip("`").partition("?")[0] for cell in first_cells("docs/control-api.md")}
    assert {f"{route.method} {route.path}" for route in ROUTES} <= cells


def test_events_page_has_every_kind():
    cells = {cell.strip("`") for cell in first_cells("docs/events.md")}
    assert {kind.value for kind in HistoryKind} <= cells


def test_picture_shows_a_successful_migration_with_equal_keys():
    lines = lines_of((ROOT / PICTURE).read_text(encoding="utf-8"))
    assert "$ ./inv up" in lines
    assert "1 of 1 migrations succeeded." in lines
    keys = [re.findall(r"[0-9a-f]{16}", line) for line in lines if "key " in line]
    assert [len(pair) for pair in keys] == [2, 2]
    assert all(source == destination for source, destination in keys)
