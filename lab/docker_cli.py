# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Commands of the container engine, and what its refusals mean.

The command line client is used rather than the SDK: it follows the user's contexts, DOCKER_HOST and ssh hosts by
itself, streams to control APIs need it anyway, and it answers in 20 ms where importing the SDK takes 150.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab import failures
from lab.errors import EngineError
from lab.programs import Completed, run_program
from migtd.errors import FailureKind

CLIENT: Final = "docker"
SHOWN_LINES: Final = 15
"""Lines of a failed command's output that go into the failure; its end tells most."""


ANSWER_LIMIT: Final = 60.0
"""Seconds that the engine has to answer a short question. One that says nothing would hold up the lab without end."""
LOOK_LIMIT: Final = 15.0
"""Seconds that it has to say whether it is there at all."""


def attempt(
    command: list[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
    keep_open: tuple[int, ...] = (),
) -> Completed:
    """Run a command to its end, or for `limit` seconds. `keep_open` are descriptors that it holds meanwhile.

    Raises EngineError: LAB-ENGINE-MISSING where there is no such program, LAB-ENGINE-LOST after the limit.
    """
    try:
        return run_program(command, stdin=stdin, environment=environment, limit=limit, keep_open=keep_open)
    except FileNotFoundError as error:
        raise EngineError(failures.ENGINE_MISSING, f"no `{command[0]}` on PATH") from error
    except PermissionError as error:
        raise EngineError(failures.ENGINE_MISSING, f"`{command[0]}` cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        words = " ".join(command[:3])
        raise EngineError(failures.ENGINE_LOST, f"`{words}` had no answer for {limit:g} s") from error


def run(
    command: list[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    otherwise: FailureKind = failures.ENGINE_REFUSED,
    limit: float | None = None,
    keep_open: tuple[int, ...] = (),
) -> str:
    """Run a command that must succeed, and give its standard output. Arguments as of `attempt`.

    Raises EngineError: LAB-ENGINE-MISSING, LAB-ENGINE-DENIED, LAB-ENGINE-LOST, LAB-PORT-IN-USE, and `otherwise` for
    every other refusal.
    """
    done = attempt(command, stdin=stdin, environment=environment, limit=limit, keep_open=keep_open)
    if done.status:
        raise refusal(done.stderr or done.stdout, otherwise)
    return done.stdout


def docker(*arguments: str) -> str:
    """A short `docker ARGUMENTS`, which must succeed within ANSWER_LIMIT. Raises as `run` does."""
    return run([CLIENT, *arguments], limit=ANSWER_LIMIT)


def refusal(output: str, otherwise: FailureKind) -> EngineError:
    """The failure that an engine's, or Compose's, error output stands for."""
    for pattern, kind in _MEANINGS:
        if pattern.search(output):
            return EngineError(kind, _last_line(output))
    port = _PORT.search(output)
    if port is not None and _IN_USE.search(output):
        return EngineError(failures.PORT_IN_USE, f"port {port[1]}")
    return EngineError(otherwise, "\n".join(output.strip().splitlines()[-SHOWN_LINES:]))


def server_version() -> str:
    """Version of the engine that answers. Raises EngineError: LAB-ENGINE-MISSING, -DENIED or -LOST."""
    command = [CLIENT, "version", "--format", "{{.Server.Version}}"]
    return run(command, otherwise=failures.ENGINE_LOST, limit=LOOK_LIMIT).strip()


def compose_command() -> list[str]:
    """The user's Compose plugin if there is one, else the stand-alone program installed beside this Python.

    Raises EngineError (LAB-COMPOSE-MISSING).
    """
    if shutil.which(CLIENT) and attempt([CLIENT, "compose", "version", "--short"], limit=LOOK_LIMIT).status == 0:
        return [CLIENT, "compose"]
    stand_alone = Path(sys.executable).parent / "docker-compose"
    if stand_alone.exists():
        return [str(stand_alone)]
    raise EngineError(failures.COMPOSE_MISSING)


_MEANINGS: Final = (
    (
        re.compile(r"permission denied while trying to connect|dial unix \S+: connect: permission denied"),
        failures.ENGINE_DENIED,
    ),
    (
        re.compile(
            r"Cannot connect to the Docker daemon|Is the docker daemon running|error during connect"
            r"|failed to connect to the docker API|connection reset by peer|broken pipe|\bEOF\b|i/o timeout"
        ),
        failures.ENGINE_LOST,
    ),
)
_PORT: Final = re.compile(r"(?:Bind for |listen tcp[46]? |bind host port (?:for )?)(?:\[[^]]*\]|[^\s:]*):(\d+)")
_IN_USE: Final = re.compile(r"port is already allocated|address already in use")


def _last_line(output: str) -> str:
    return output.strip().splitlines()[-1].strip()
