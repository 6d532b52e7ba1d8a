# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a host prints: structured lines on standard error, JSON unless somebody looks at it."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging() -> None:
    """Print info and above to standard error: plain lines on a terminal, else one JSON object a line."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
