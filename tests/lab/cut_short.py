# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv` that sends itself a signal right before one of the steps by which it changes something.

Run as `python cut_short.py list FILE ARGUMENTS...` it only writes each step into FILE, one a line, as `NUMBER STEP`; as
`python cut_short.py SIGNAL NUMBER ARGUMENTS...` it sends the signal before that step. Steps are the audit events of
Python at which files are made, written, renamed or removed, programs are started and connections opened (PEP 578).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_STEPS = {"os.mkdir", "os.rename", "os.remove", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
_MODULES = {"lab.program", "lab.run", "lab.engines.docker"}


def step(event: str, arguments: tuple[object, ...]) -> str | None:
    """The step that an audit event stands for, in words; None if it changes nothing."""
    if event == "import" and arguments[0] in _MODULES:
        return f"import {arguments[0]}"
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        path = arguments[0]
        changes = arguments[2] & _WRITES and "__pycache__" not in path and not path.startswith("/dev/")
        return f"write {os.path.basename(path)}" if changes else None  # noqa: PTH119 - pathlib would be audited too
    if event not in _STEPS:
        return None
    what = arguments[1] if event == "socket.connect" else arguments[0]
    words = arguments[1] if event == "subprocess.Popen" else what
    return f"{event} {' '.join(str(word) for word in words[:3]) if isinstance(words, list) else str(words)}"


def main(first: str, second: str, arguments: list[str]) -> int:
    """Run `./inv ARGUMENTS` with the hook in place."""
    count = 0
    told = None if first != "list" else os.open(second, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event: str, event_arguments: tuple[object, ...]) -> None:
        nonlocal count
        found = step(event, event_arguments)
        if found is None:
            return
        count += 1
        if told is not None:
            os.write(told, f"{count} {found}\n".encode())
        elif count == int(second):
            # As Ctrl-C does it: to the whole group. SIGKILL is for this process alone: what it started goes on.
            os.kill(0 if first == "SIGINT" else os.getpid(), signal.Signals[first])

    sys.path.insert(0, str(Path.cwd()))
    sys.argv = ["./inv", *arguments]
    sys.addaudithook(hook)
    from lab.start import main as inv  # noqa: PLC0415 - being cut short there counts too

    return inv()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
