# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`migtd-policy-verifier`: what a MigTD would say of a signed policy v2 (policy.md 5.5)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lab.policy_tools import verifier
from lab.policy_tools.cli import ToolParser, run
from lab.policy_tools.files import read_file


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = ToolParser(
        prog="migtd-policy-verifier",
        description="Verify a signed policy: its signature, its issuer chain, and the documents in it.",
    )
    made.add_argument("-p", "--policy", required=True, metavar="FILE", help="signed policy")
    made.add_argument("-c", "--cert-chain", required=True, metavar="FILE", help="policy issuer chain, PEM, leaf first")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; its exit status."""
    return run(parser(), arguments, _run, "verify policy")


def _run(options: argparse.Namespace) -> None:
    policy = verifier.verify(read_file(options.policy), read_file(options.cert_chain))
    sys.stdout.write(f"the policy and its issuer chain verify, policySvn {policy.data.policy_svn}\n")


if __name__ == "__main__":
    sys.exit(main())
