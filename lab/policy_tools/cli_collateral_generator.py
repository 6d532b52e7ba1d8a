# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`migtd-collateral-generator`: the collaterals document of policies v2 (policy.md 5.2)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.policy_tools import failures, pcs
from lab.policy_tools.cli import ToolParser, run, say
from lab.policy_tools.errors import ToolError
from lab.policy_tools.fetch import Fetcher, HttpFetcher
from lab.policy_tools.files import write_file
from lab.policy_tools.items import Items, collaterals_document, read_items, write_items

INTEL = "intel"
AZURE = ("azure-thim", "azure", "thim")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = ToolParser(
        prog="migtd-collateral-generator",
        description="Fetch the collateral of all platforms with TDX and write it as one document.",
    )
    made.add_argument("--provider", default=INTEL, help="intel (default) or azure-thim")
    made.add_argument("--pre-production", action="store_true", help="intel: its pre-production service")
    made.add_argument("--azure-region", default="useast", help="azure-thim: the region, default useast")
    made.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    made.add_argument("--base-url", metavar="URL", help="any PCS-compatible service, such as a lab's")
    made.add_argument("--from-files", metavar="DIR", help="fetch nothing: read the files of a folder")
    made.add_argument("--save-files", metavar="DIR", help="also write the files that --from-files reads")
    return made


def main(arguments: Sequence[str] | None = None, fetcher: Fetcher | None = None) -> int:
    """Run the tool; its exit status. `fetcher` None: over the network."""
    made = parser()
    return run(made, arguments, lambda options: _run(made, options, fetcher or HttpFetcher()), "generate collateral")


def _run(made: argparse.ArgumentParser, options: argparse.Namespace, fetcher: Fetcher) -> None:
    if options.base_url is not None and options.from_files is not None:
        made.error("--base-url and --from-files exclude each other")
    items = _items(options, fetcher)
    document = collaterals_document(items)
    if options.save_files is not None:
        write_items(items, Path(options.save_files))
    write_file(options.output, document)
    say(f"{len(items.tcb_infos)} platforms, {len(document)} bytes: {options.output}")


def _items(options: argparse.Namespace, fetcher: Fetcher) -> Items:
    service = _service(options)
    if options.from_files is not None:
        return read_items(Path(options.from_files))
    return pcs.PcsClient(service, fetcher).items()


def _service(options: argparse.Namespace) -> pcs.Service:
    provider = options.provider.lower()
    if provider not in (INTEL, *AZURE):
        raise ToolError(failures.PROVIDER_UNKNOWN, options.provider[:60])
    if options.base_url is not None:
        return pcs.compatible(options.base_url)
    if provider == INTEL:
        return pcs.intel(pre_production=options.pre_production)
    return pcs.azure_thim(options.azure_region)


if __name__ == "__main__":
    sys.exit(main())
