# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Running a task so that Ctrl-C and SIGTERM end it in good order."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_interruptible(task: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. The first Ctrl-C or SIGTERM cancels it, so that what it started can be ended.

    Raises KeyboardInterrupt after that; a second Ctrl-C ends at once.
    """
    try:
        return asyncio.run(_with_sigterm(task))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _with_sigterm(task: Coroutine[Any, Any, T]) -> T:
    """asyncio.run itself minds Ctrl-C only. CI systems end their jobs with SIGTERM."""
    current = asyncio.current_task()
    if current is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    return await task
