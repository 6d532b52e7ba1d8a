# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv` as users run it: a process of its own, in a copy of the checkout with a state folder of its own.

The copy makes `--all` mean the labs of one test module and nobody else's, and lets nobody edit the sources meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.compose import CHECKOUT_LABEL, LAB_LABEL

ORIGINAL = Path(__file__).resolve().parents[2]
COPIED = ("compose", "images", "inv", "lab", "migtd", "requirements.txt", "tasks.py", "vmm_stub")
LINKED = (".cache", ".venv")
LIMIT = 120.0
"""Seconds after which a command counts as hanging."""

_PROBE = re.compile(r"[a-z0-9_]{8}")


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended: `status` is negative where a signal ended it."""

    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Standard output as JSON, one document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error_id(self) -> str:
        """Id of the failure that the command told."""
        return next((line.partition(":")[0] for line in self.err.splitlines() if line.startswith("LAB-")), "")


class Checkout:
    """A copy of the checkout, and the commands run there."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self.state = state
        self.python = str(path / ".venv" / "bin" / "python")
        self._started: list[Process] = []
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environ = {**own, "TMPDIR": str(state), "XDG_RUNTIME_DIR": str(state), "COLUMNS": "120"}

    async def start(self, *arguments: str, **environ: str) -> Process:
        """Start `./inv ARGUMENTS` in a process group of its own, as a terminal does."""
        return await self.start_program(str(self.path / "inv"), *arguments, **environ)

    async def start_program(self, *command: str, **environ: str) -> Process:
        """Start another program in the same surroundings."""
        env = {**self.environ, **environ}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=env, cwd=self.path, process_group=0
        )
        self._started.append(process)
        return process

    async def inv(self, *arguments: str, **environ: str) -> Done:
        """Run `./inv ARGUMENTS` to its end."""
        return await ended(await self.start(*arguments, **environ))

    async def clear(self) -> None:
        """End the commands that a failed test left, and remove every lab of the copy."""
        for process in self._started:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self._started.clear()
        await self.inv("down", "--all")

    def things(self, lab: str | None = None) -> list[str]:
        """Everything that the container engine has of the labs of this copy, or of one, by kind."""
        filters = ["--filter", f"label={CHECKOUT_LABEL}={self.path}"]
        filters += ["--filter", f"label={LAB_LABEL}={lab}"] if lab else []
        kinds = (("ps", "--all", "{{.Names}}"), ("network", "ls", "{{.Name}}"), ("volume", "ls", "{{.Name}}"))
        return [
            f"{kind} {name}" for kind, sub, form in kinds for name in _docker(kind, sub, *filters, "--format", form)
        ]

    def processes(self) -> list[int]:
        """Everything that runs from the copy, or was started by a command of it."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environ = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if os.fsencode(self.path) in environ and state != "Z":
                found.append(int(folder.name))
        return found

    def files(self) -> list[str]:
        """Every file and folder of state, save the private folder and what Python tries a folder with."""
        private = self.state / "migtd-lab"
        found = [each for each in self.state.rglob("*") if each != private and not _PROBE.fullmatch(each.name)]
        return sorted(str(each.relative_to(self.state)) for each in found)


@contextlib.contextmanager
def copied_checkout() -> Iterator[Checkout]:
    """A copy for the length of the block. Whatever of its labs is left at the end is removed."""
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        copy = Path(folder).resolve() / "checkout"
        state = Path(folder).resolve() / "s"
        copy.mkdir()
        state.mkdir()
        for name in COPIED:
            # Times are kept, and with them the byte code is: eight commands at once do not compile all of it each.
            (shutil.copytree if (ORIGINAL / name).is_dir() else shutil.copy2)(ORIGINAL / name, copy / name)
        for name in LINKED:
            (ORIGINAL / name).mkdir(exist_ok=True)
            (copy / name).symlink_to(ORIGINAL / name)
        checkout = Checkout(copy, state)
        try:
            yield checkout
        finally:
            asyncio.run(checkout.clear())


async def ended(process: Process) -> Done:
    """A started command once it ended, with what it printed. One that hangs is killed, and fails the test."""
    try:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return Done(process.returncode or 0, out.decode(), err.decode())


def _docker(*arguments: str) -> list[str]:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.split()
