# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a host prints: one JSON object a line, whatever is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from vmm_stub.vmm.console import configure_logging


@pytest.fixture(autouse=True)
def _own_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("text", ["done", "für alle", 'a "quoted" \n line', "lone \udc80 surrogate"])
def test_a_line_of_the_host_is_one_json_object(text: str, capsys: pytest.CaptureFixture[str]):
    configure_logging()
    structlog.get_logger().warning(text, migtd="source", request_id=7)

    (line,) = capsys.readouterr().err.splitlines()
    printed = json.loads(line)
    assert printed.pop("timestamp").endswith("Z")
    assert printed == {"event": text, "level": "warning", "migtd": "source", "request_id": 7}


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str]):
    configure_logging()
    try:
        raise ValueError("why")  # noqa: TRY301 - the test needs one
    except ValueError:
        structlog.get_logger().exception("failed", cause=ValueError("a value"))

    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: why" in json.loads(line)["exception"]
    assert json.loads(line)["cause"] == "a value"
