# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`servtd-collateral-generator`: signed identity and TCB mapping with their chains in one document (policy.md 5.3)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lab.policy_tools import servtd
from lab.policy_tools.cli import ToolParser, run
from lab.policy_tools.files import read_file, write_file


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = ToolParser(
        prog="servtd-collateral-generator",
        description="Bundle what a policy says of MigTDs: signed identity, signed TCB mapping, their issuer chains.",
    )
    made.add_argument("--identity", required=True, metavar="FILE", help="signed identity")
    made.add_argument("--identity-chain", required=True, metavar="FILE", help="its issuer chain, PEM")
    made.add_argument("--mapping", required=True, metavar="FILE", help="signed TCB mapping")
    made.add_argument("--mapping-chain", required=True, metavar="FILE", help="its issuer chain, PEM")
    made.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; its exit status."""
    return run(parser(), arguments, _run, "generate servtd collateral")


def _run(options: argparse.Namespace) -> None:
    files = (options.identity, options.identity_chain, options.mapping, options.mapping_chain)
    write_file(options.output, servtd.bundle(*map(read_file, files)))


if __name__ == "__main__":
    sys.exit(main())
