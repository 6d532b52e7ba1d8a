# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What all tests share: the markers' meaning, and folders.

A test marked `docker` skips where no container engine answers, one marked `shared` where ../shared is absent. With
`--require-engines` (CI) a skip is a failure, except for `shared`: a run that tested nothing must not look green.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT.parent / "shared"
_STRICT = pytest.StashKey[bool]()
_ENGINE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-engines",
        action="store_true",
        help="a skipped test is a failure, except where ../shared is absent",
    )
    parser.addoption("--soak-seconds", type=float, default=600.0, help="how long a test marked `soak` runs")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STRICT] = bool(config.getoption("--require-engines"))


LONG = ("soak", "exhaustive")
"""Markers of tests that take minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless its marker is asked for by name."""
    left_out = [name for name in LONG if name not in config.getoption("-m")]
    long = [item for item in items if any(item.get_closest_marker(name) for name in left_out)]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip("../shared is absent")
    if item.get_closest_marker("docker") and (trouble := _engine_trouble(item.config)):
        pytest.skip(trouble)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    excused = hasattr(report, "wasxfail") or (item.get_closest_marker("shared") and not SHARED.is_dir())
    if report.skipped and item.config.stash[_STRICT] and not excused:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.stash[_STRICT]:
        _fail(report)
    return report


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of vectors that are not part of the project; only for tests marked `shared`."""
    if not SHARED.is_dir():
        pytest.skip("../shared is absent")
    return SHARED


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{reason}\nA skipped test is a failure here (--require-engines)."


def _engine_trouble(config: pytest.Config) -> str:
    """Why there is no container engine; empty if one answers. Asked once per run."""
    if _ENGINE not in config.stash:
        config.stash[_ENGINE] = _ask_engine()
    return config.stash[_ENGINE]


def _ask_engine() -> str:
    if shutil.which("docker") is None:
        return "no docker client"
    done = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, capture_output=True)
    return "" if done.returncode == 0 else "no container engine answers"
