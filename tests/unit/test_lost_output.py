# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Output for people that has nowhere to go: a reader that left, a disk that is full."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator

import pytest
import structlog

from migtd.migration.logging import LogEntry, LogLevel
from migtd.td import print_entry, print_to_stderr
from vmm_stub.vmm.console import configure_logging


class Broken(io.StringIO):
    """Standard error whose reader is gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _broken_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.stderr", Broken())
    yield
    structlog.reset_defaults()


def test_an_entry_of_the_log_is_lost_and_nothing_else() -> None:
    print_entry(LogEntry(1, 2, LogLevel.INFO, "text"))


@pytest.mark.parametrize("configure", [print_to_stderr, configure_logging])
def test_a_line_of_a_migtd_or_a_host_is_lost_and_nothing_else(configure: Callable[[], None]) -> None:
    configure()
    logger = structlog.get_logger()
    logger.info("text")
    logger.error("text", exc_info=ZeroDivisionError())
