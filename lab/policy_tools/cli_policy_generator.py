# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`migtd-policy-generator`: a policy v1 from collateral, or policyData of a v2 from its parts (policy.md 5.1)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.policy_tools import generate, pcs
from lab.policy_tools.cli import ToolParser, required, run
from lab.policy_tools.fetch import Fetcher, HttpFetcher
from lab.policy_tools.files import read_file, write_file
from lab.policy_tools.items import read_qe_identity, read_tcb_infos

V2 = "v2"


def parser() -> argparse.ArgumentParser:
    """The options of a v1 policy, and the subcommand v2 with its own."""
    made = ToolParser(
        prog="migtd-policy-generator",
        description="Generate a migration policy: v1 from the collateral of a service, v2 from its parts.",
    )
    made.add_argument("--pre-production", action="store_true", help="v1: ask Intel's pre-production service")
    made.add_argument("-o", "--output", metavar="FILE", help="v1: file to write")
    made.add_argument("--base-url", metavar="URL", help="v1: ask this PCS-compatible service")
    made.add_argument("--from-files", metavar="DIR", help="v1: read collateral from the files of a folder")
    made.add_argument("--collaterals", dest="document", metavar="FILE", help="v1: read it from a collaterals document")
    v2 = made.add_subparsers(dest="command", parser_class=ToolParser).add_parser(
        V2, prog="migtd-policy-generator v2", description="Put collaterals into policy data, ready to be signed."
    )
    v2.add_argument("--policy-data", required=True, metavar="FILE", help="object with all else that policyData has")
    v2.add_argument("--collaterals", metavar="FILE", help="document of the collateral generator")
    v2.add_argument("--servtd-collateral", metavar="FILE", help="document of the servtd collateral generator")
    v2.add_argument("-o", "--output", dest="output_v2", required=True, metavar="FILE", help="file to write")
    return made


def main(arguments: Sequence[str] | None = None, fetcher: Fetcher | None = None) -> int:
    """Run the tool; its exit status. `fetcher` None: over the network, without retries."""
    made = parser()
    used = fetcher or HttpFetcher(delays=())
    return run(made, arguments, lambda options: _run(made, options, used), "generate policy")


def _run(made: argparse.ArgumentParser, options: argparse.Namespace, fetcher: Fetcher) -> None:
    if options.command == V2:
        base = read_file(options.policy_data)
        parts = (
            required(options.collaterals, "--collaterals"),
            required(options.servtd_collateral, "--servtd-collateral"),
        )
        write_file(options.output_v2, generate.policy_v2(base, *map(read_file, parts)))
        return
    if options.output is None:
        made.exit(2, f"{made.prog}: --output is needed\n")
    write_file(options.output, _policy_v1(made, options, fetcher))


def _policy_v1(made: argparse.ArgumentParser, options: argparse.Namespace, fetcher: Fetcher) -> bytes:
    sources = [each for each in (options.base_url, options.from_files, options.document) if each is not None]
    if len(sources) > 1:
        made.error("--base-url, --from-files and --collaterals exclude each other")
    if options.document is not None:
        return generate.policy_v1_of_collaterals(read_file(options.document), pre_production=options.pre_production)
    if options.from_files is not None:
        folder = Path(options.from_files)
        bodies = {fmspc: each.body for fmspc, each in read_tcb_infos(folder).items()}
        return generate.policy_v1(bodies, read_qe_identity(folder).body, pre_production=options.pre_production)
    service = pcs.intel_for_v1(pre_production=options.pre_production)
    if options.base_url is not None:
        service = pcs.compatible(options.base_url)
    bodies, identity = pcs.PcsClient(service, fetcher).bodies_for_v1()
    return generate.policy_v1(bodies, identity, pre_production=options.pre_production)


if __name__ == "__main__":
    sys.exit(main())
