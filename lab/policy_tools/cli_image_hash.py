# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`migtd-hash`: measurements and ServTD hashes of a MigTD image (policy.md 5.6)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from lab.policy_tools import image_hash, servtd
from lab.policy_tools.cli import ToolParser, run, say
from lab.policy_tools.compact import push_json
from lab.policy_tools.files import MAX_IMAGE, read_file, write_file
from lab.policy_tools.image_hash import ImageFormat, Variant
from migtd.policy.tdinfo import masked_tdinfo

_U64_BITS = 64
_MOST_DIGITS = 20


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = ToolParser(
        prog="migtd-hash", description="Compute the hash of a MigTD image as the TDX module and other MigTDs see it."
    )
    made.add_argument("-m", "--manifest", required=True, metavar="FILE", help="JSON with the given fields of TDINFO")
    made.add_argument("-i", "--image", required=True, metavar="FILE", help="image; its name contains .bin or .igvm")
    made.add_argument("-o", "--output-file", metavar="FILE", help="write the hash here, not to standard output")
    made.add_argument("--json", action="store_true", help="the hash as JSON")
    made.add_argument(
        "-t", "--test-disable-ra-and-accept-all", action="store_true", help="the image verifies nothing of its peer"
    )
    made.add_argument("--policy-v2", action="store_true", help="the image has a policy v2 and its issuer chain")
    made.add_argument("-s", "--servtd-attr", type=_u64, default=0, metavar="N", help="SERVTD_ATTR, decimal, default 0")
    made.add_argument("-c", "--calc-servtd-hash", action="store_true", help="the second-level hash, not the first")
    made.add_argument("--output-td-info", metavar="FILE", help="write MRTD and RTMRs as JSON")
    made.add_argument("--update-tcb-mapping", metavar="FILE", help="put MRTD, RTMR0 and RTMR1 into this TCB mapping")
    made.add_argument("-v", "--verbose", action="store_true", help="tell more on standard error")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; its exit status."""
    return run(parser(), arguments, _run, "calculate hash")


def _run(options: argparse.Namespace) -> None:
    form = ImageFormat.of_name(options.image)
    image, manifest = read_file(options.image, MAX_IMAGE), read_file(options.manifest)
    variant = Variant(policy_v2=options.policy_v2, ra_disabled=options.test_disable_ra_and_accept_all)
    tdinfo = image_hash.tdinfo_of_image(image, form, manifest, variant)
    measured = image_hash.measured_fields(masked_tdinfo(tdinfo, options.servtd_attr))
    if options.verbose:
        say(f"{form.name} image of {len(image)} bytes, SERVTD_ATTR {options.servtd_attr:#x}")
        for name, value in measured.items():
            say(f"{name} {value.hex()}")
    if options.output_td_info is not None:
        write_file(options.output_td_info, push_json({name: value.hex() for name, value in measured.items()}))
    if options.update_tcb_mapping is not None:
        updated, absent = servtd.updated_mapping(read_file(options.update_tcb_mapping), measured)
        for name in absent:
            say(f"warning: {name} was not in the first mapping; it is added")
        write_file(options.update_tcb_mapping, updated)
    _write_hash(options, tdinfo)


def _write_hash(options: argparse.Namespace, tdinfo: bytes) -> None:
    name, found = "servtdInfoHash", image_hash.servtd_info_hash(tdinfo, options.servtd_attr)
    if options.calc_servtd_hash:
        name, found = "servtdHash", image_hash.servtd_hash(found, options.servtd_attr)
    document = {name: found.hex()}
    if options.output_file is not None:
        write_file(options.output_file, push_json(document) if options.json else found)
    elif options.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(found.hex() + "\n")


def _u64(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS) or int(text) >> _U64_BITS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no decimal number of 64 bits")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
