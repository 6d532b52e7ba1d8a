# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How long `up` takes: the command as a user types it, from its start to its exit, outcome included.

Each run starts a lab of a name of its own, which is taken down before the next one; that is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab import failures
from lab.bench import rows
from lab.bench.checkout import fresh_checkout, images_of, remember_images
from lab.bench.resident import private_name
from lab.bench.rows import Row
from lab.bench.spread import Spread
from lab.engines.base import Progress
from lab.errors import EngineError
from lab.names import checkout_path

SHOWN_LINES: Final = 10
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StartPlan:
    """How often each `up` runs, and how many migrations the one with many has."""

    runs: int
    migrations: int


FULL = StartPlan(runs=5, migrations=100)
QUICK = StartPlan(runs=1, migrations=10)


def warm_rows(engine: str, plan: StartPlan, progress: Progress) -> Iterator[Row]:
    """`up` with everything there, with one migration and with many. Raises EngineError (LAB-BENCH-COMMAND-FAILED)."""
    checkout = checkout_path()
    # Images, the engine's own caches and byte code are there after this one.
    _timed_up(checkout, engine, 1)
    progress(f"{engine}: `up`, {plan.runs} times")
    yield Row(rows.WARM, engine, Spread.of(_timed_up(checkout, engine, 1) for _ in range(plan.runs)))
    progress(f"{engine}: `up` with {plan.migrations} migrations, {plan.runs} times")
    times = Spread.of(_timed_up(checkout, engine, plan.migrations) for _ in range(plan.runs))
    yield Row(rows.HUNDRED, engine, times, "" if plan.migrations == FULL.migrations else f"{plan.migrations} only")


def cold_row(engine: str, progress: Progress) -> Row:
    """The first `up` of a fresh checkout: base image from packages, wheels and images made for `docker`, byte code.

    Once: it takes a minute, and the caches of file system and package index are warm the second time. Raises
    EngineError (LAB-BENCH-COMMAND-FAILED).
    """
    progress(f"{engine}: the first `up` of a fresh checkout")
    with fresh_checkout(checkout_path()) as copy:
        if engine != "docker":
            return Row(rows.COLD, engine, Spread.of([_timed_up(copy, engine, 1)]), "byte code is made; no images")
        with images_of(copy):
            seconds, printed = timed(copy, "images", "--offline", "--json")
            remember_images(copy, printed)
            note = f"of it base, wheels and images {seconds:.1f} s"
            return Row(rows.COLD, engine, Spread.of([seconds + _timed_up(copy, engine, 1)]), note)


def image_rows(progress: Progress) -> Iterator[Row]:
    """Sizes of the images of this checkout, the largest of them in the rows. Raises as `./inv images` does."""
    progress("sizes of the images")
    _, printed = timed(checkout_path(), "images", "--json")
    yield from size_rows(json.loads(printed))


def size_rows(document: dict[str, Any]) -> Iterator[Row]:
    """The rows of a document of `./inv images --json`."""
    images = [image for image in document["images"] if image["target"] != "base"]
    note = f"base: {document['base']}"
    yield Row(rows.IMAGE, "docker", Spread.of([max(image["bytes"] for image in images) / _MB]), note)
    yield Row(rows.LAYERS, "docker", Spread.of([max(image["own_bytes"] for image in images) / _MB]), note)


def timed(checkout: Path, *arguments: str) -> tuple[float, str]:
    """Run a task of a checkout with this Python and its packages: seconds, and standard output.

    Raises EngineError (LAB-BENCH-COMMAND-FAILED).
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lab.program", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-SHOWN_LINES:])
        raise EngineError(
            failures.BENCH_COMMAND_FAILED, f"{' '.join(arguments)}: exit status {done.returncode}\n{last}"
        )
    return seconds, done.stdout


def _timed_up(checkout: Path, engine: str, migrations: int) -> float:
    name = private_name()
    try:
        return timed(checkout, "up", "--engine", engine, "--name", name, "--migrations", str(migrations), "--json")[0]
    finally:
        timed(checkout, "down", "--engine", engine, "--name", name)
