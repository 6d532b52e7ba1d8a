# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the bench shows, prints as JSON and writes into docs/performance.md."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lab.bench import report, rows
from lab.bench.report import BEGIN, END, PAGE
from lab.bench.rows import Row
from lab.bench.spread import Spread
from lab.bench.start import size_rows

ROOT = Path(__file__).parents[2]
LATENCY = Row(rows.LATENCY, "process", Spread(9.5123, 8.0, 11.25, 30))
RATIO = Row(rows.CPU_RATIO, "process", Spread(7.0, 7.0, 7.0, 1), "a | note")
PRIMITIVES = Row(rows.PRIMITIVES, "", Spread(2.1, 2.0, 2.2, 3))
MACHINE = {"processor": "2 x test", "load before": "0.10"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.5123, "9.51"), (120.0, "120"), (12345.0, "12300"), (0.07937, "0.0794"), (0.0, "0"), (-0.00002, "-0.00002")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str):
    assert report.number(value) == text


def test_document_has_each_row_with_spread_target_and_verdict():
    document = report.document([RATIO, LATENCY, PRIMITIVES], MACHINE)

    assert document["schema"] == 1
    assert document["machine"] == MACHINE
    assert [row["id"] for row in document["rows"]] == ["session-latency.process", "primitives", "cpu-ratio.process"]
    assert document["rows"][0] == {
        "id": "session-latency.process",
        "quantity": "session-latency",
        "engine": "process",
        "unit": "ms",
        "median": 9.5123,
        "p10": 8.0,
        "p90": 11.25,
        "n": 30,
        "target": {"at_most": 20},
        "verdict": "met",
        "note": "",
    }
    assert document["rows"][1]["engine"] is None
    assert document["rows"][1]["target"] is None
    assert document["rows"][2]["verdict"] == "missed"


def test_markdown_has_the_machine_and_one_line_a_row():
    lines = report.markdown([LATENCY, RATIO], MACHINE).splitlines()

    assert lines[:2] == ["processor: 2 x test  ", "load before: 0.10  "]
    assert lines[-2:] == [
        "| session-latency.process | session on resident nodes, process | ms | 9.51 | 8 to 11.2 | 30 | ≤ 20 | met |  |",
        "| cpu-ratio.process | session CPU over primitives, process | x | 7 |  | 1 | ≤ 2 | missed | a \\| note |",
    ]


def test_table_shows_missed_targets():
    out = io.StringIO()
    Console(file=out, width=150).print(report.table([LATENCY, RATIO]))

    assert "missed" in out.getvalue()
    assert "≤ 20" in out.getvalue()


def test_writing_replaces_the_measured_part_of_a_page_and_nothing_else():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    written = report.replace_measured(page, "new")

    assert written == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert report.replace_measured(written, "new") == written


@pytest.mark.parametrize("page", ["nothing", BEGIN, f"{END}\n{BEGIN}"])
def test_a_page_without_a_place_for_the_table_is_not_written(page: str):
    with pytest.raises(ValueError, match="no line"):
        report.replace_measured(page, "new")


def test_the_page_has_a_place_for_the_table_and_explains_every_row():
    text = (ROOT / PAGE).read_text(encoding="utf-8")

    assert report.replace_measured(text, "x") != text
    explained = text.partition("## What the rows mean")[2].replace(
        "rate-N", " ".join(q.id for q in rows.RATES.values())
    )
    assert [quantity.id for quantity in rows.QUANTITIES if quantity.id not in explained] == []


def test_image_rows_are_those_of_the_largest_image():
    listed = [
        {"target": "base", "bytes": 500_000_000, "own_bytes": 500_000_000},
        {"target": "source", "bytes": 79_000_000, "own_bytes": 30_000_000},
        {"target": "vmm-stub", "bytes": 80_000_000, "own_bytes": 31_000_000},
    ]

    image, layers = size_rows({"base": "debian", "images": listed})

    assert (image.spread.median, layers.spread.median) == (80, 31)
    assert image.note == "base: debian"
