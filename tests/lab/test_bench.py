# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The bench on real processes: every row comes out, nothing is left behind. No test looks at a time."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.bench import command, report, rows, start
from lab.bench.checkout import fresh_checkout
from lab.bench.rows import Part, Row
from lab.bench.spread import Spread
from lab.engines.process import ProcessEngine
from lab.errors import EngineError, ExitStatus, UsageError
from lab.options import BenchOptions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder) / "migtd-lab"


@pytest.mark.engine
def test_quick_bench_measures_every_row_and_leaves_nothing(state: Path, capsys: pytest.CaptureFixture[str]):
    status = command.bench(BenchOptions(json=True, quick=True, engine="process"))

    assert status is ExitStatus.SUCCESS
    document = json.loads(capsys.readouterr().out)
    expected = {each.id for each in rows.QUANTITIES if each.part not in {Part.IMAGES, Part.COLD_START}}
    assert {row["quantity"] for row in document["rows"]} == expected
    assert all(row["n"] >= 1 for row in document["rows"])
    assert next(row["median"] for row in document["rows"] if row["quantity"] == "session-cpu") > 0
    assert ProcessEngine([state]).labs() == []


@pytest.mark.engine
@pytest.mark.usefixtures("state")
def test_one_row_alone_is_shown_alone(capsys: pytest.CaptureFixture[str]):
    command.bench(BenchOptions(json=True, quick=True, engine="process", only=("migtd-memory",)))

    assert [row["id"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["migtd-memory.process"]


@pytest.mark.engine
@pytest.mark.docker
def test_rows_of_the_docker_engine_are_measured_in_containers(capsys: pytest.CaptureFixture[str]):
    command.bench(BenchOptions(json=True, quick=True, engine="docker", only=("session-cpu", "image-size")))

    rows_shown = {row["id"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows_shown) == {"session-cpu.docker", "image-size.docker"}
    # The processes of containers are seen from here.
    assert rows_shown["session-cpu.docker"]["median"] > 0


def test_a_row_that_an_engine_does_not_have_is_refused():
    with pytest.raises(UsageError, match="image-size with process") as caught:
        command.bench(BenchOptions(json=True, engine="process", only=("image-size",)))
    assert caught.value.kind.id == "LAB-VALUE-UNKNOWN"


def test_a_machine_without_an_engine_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lab.engines.usable", lambda _name: [])
    with pytest.raises(EngineError) as caught:
        command.bench(BenchOptions(json=True))
    assert caught.value.kind.id == "LAB-ENGINE-UNAVAILABLE"


@pytest.mark.parametrize("part", [{"only": ("migtd-memory",)}, {"quick": True}])
def test_half_a_table_is_not_written(part: dict[str, Any]):
    with pytest.raises(UsageError, match="--write") as caught:
        command.bench(BenchOptions(write=True, engine="process", **part))
    assert caught.value.kind.id == "LAB-USAGE-VALUE-INVALID"


def test_the_table_is_written_into_the_page_with_the_command_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = tmp_path / report.PAGE
    page.parent.mkdir()
    shutil.copy(ROOT / report.PAGE, page)
    measured = Row(rows.LATENCY, "process", Spread.of([9.5]))

    async def found(*_: object) -> AsyncIterator[Row]:
        yield measured

    monkeypatch.setattr(command, "checkout_path", lambda: tmp_path)
    monkeypatch.setattr(command, "_measure", found)
    assert command.bench(BenchOptions(json=True, write=True, engine="process")) is ExitStatus.SUCCESS

    text = page.read_text(encoding="utf-8")
    assert "command: `./inv bench --engine process --write`" in text
    assert "| session-latency.process |" in text
    assert text.startswith("# Performance\n")
    assert "## What the rows mean" in text


def test_a_command_that_fails_is_told_with_its_last_lines():
    with pytest.raises(EngineError, match="LAB-USAGE-UNKNOWN-TASK") as caught:
        start.timed(ROOT, "no-such-task")
    assert caught.value.kind.id == "LAB-BENCH-COMMAND-FAILED"


def test_fresh_checkout_has_no_caches_and_a_base_image_of_its_own():
    with fresh_checkout(ROOT) as copy:
        assert not [path for path in copy.rglob("*") if path.name in {"__pycache__", ".cache"}]
        assert (copy / "images/base.sh").read_bytes() != (ROOT / "images/base.sh").read_bytes()
        seconds, printed = start.timed(copy, "--version")
        assert seconds > 0
        assert printed.strip()
    assert not copy.exists()
