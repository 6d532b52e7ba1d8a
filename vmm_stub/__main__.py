# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`vmm-stub`: run an emulated host, or reach the control API of one.

Exit status: 0 success, 1 the host could not start or be reached, 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from migtd.errors import LabFailure
from vmm_stub import failures

_FAILED: Final = 1
_USAGE: Final = 2


class ConfigInvalid(LabFailure):
    """The configuration cannot be read or is not valid (VMM-CONFIG-INVALID)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            _serve(_config_text(options))
        else:
            _control_stdio(Path(options.control), options.wait)
    except ConfigInvalid as error:
        _complain(error)
        return _USAGE
    except LabFailure as error:
        _complain(error)
        return _FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmm-stub", description="An emulated TDX host: TDX module, VMM, control API.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run a host until SIGTERM or SIGINT")
    config = serve.add_mutually_exclusive_group(required=True)
    config.add_argument("--config", metavar="FILE", help="configuration as JSON; - reads standard input")
    config.add_argument("--config-env", metavar="NAME", help="environment variable with the configuration as JSON")
    stdio = commands.add_parser("control-stdio", help="join standard input and output to a host's control socket")
    stdio.add_argument("--control", metavar="PATH", required=True, help="the control socket")
    stdio.add_argument("--wait", metavar="SECONDS", type=_seconds, default=0.0, help="how long the host has to open it")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(text)
    return seconds


def _config_text(options: argparse.Namespace) -> str:
    if options.config_env is not None:
        text = os.environ.pop(options.config_env, None)
        if text is None:
            raise ConfigInvalid(failures.CONFIG_INVALID, f"there is no environment variable {options.config_env}")
        return text
    try:
        return sys.stdin.read() if options.config == "-" else Path(options.config).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(failures.CONFIG_INVALID, f"{options.config}: {error}") from error


def _serve(text: str) -> None:
    # Imported here: the other command must start at once, it stands between a lab and every host.
    import asyncio  # noqa: PLC0415

    from pydantic import ValidationError  # noqa: PLC0415

    from vmm_stub.vmm.console import configure_logging  # noqa: PLC0415
    from vmm_stub.vmm.control.models import HostConfig  # noqa: PLC0415
    from vmm_stub.vmm.host import Host  # noqa: PLC0415

    try:
        config = HostConfig.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        keys = [f"{'.'.join(map(str, each['loc'])) or 'configuration'}: {each['msg']}" for each in details]
        raise ConfigInvalid(failures.CONFIG_INVALID, "; ".join(keys)) from error
    configure_logging()
    asyncio.run(Host(config).run())


def _control_stdio(path: Path, wait: float) -> None:
    from vmm_stub.vmm.control.stdio import bridge  # noqa: PLC0415

    bridge(path, sys.stdin.fileno(), sys.stdout.fileno(), wait=wait)


def _complain(error: LabFailure) -> None:
    print(f"{error.kind.id}: {error}\n{error.kind.advice}", file=sys.stderr)  # noqa: T201 - for people


if __name__ == "__main__":
    sys.exit(main())
