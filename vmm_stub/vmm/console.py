# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a host prints: structured lines on standard error, JSON unless somebody looks at it."""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO, cast

import structlog
from pydantic_core import PydanticSerializationError, to_json

from migtd.output import LossyStream


def configure_logging() -> None:
    """Print info and above to standard error: plain lines on a terminal, else one JSON object a line.

    What is lost there is still in the history.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(serializer=_encode)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LossyStream(sys.stderr))),
        # Every entry of a guest's log passes here.
        cache_logger_on_first_use=True,
    )


def _encode(line: dict[str, object], **_options: object) -> str:
    """One line as JSON, several times as fast as by the standard library, which gets what this cannot take."""
    try:
        return to_json(line, fallback=str).decode()
    except PydanticSerializationError:
        return json.dumps(line, default=str)
