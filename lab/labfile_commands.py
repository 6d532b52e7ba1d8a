# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`lab.init` and `lab.validate`."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from lab import failures
from lab.errors import ExitStatus, UsageError
from lab.labfile import load_lab_file
from lab.options import InitOptions, ValidateOptions
from lab.plan import resolve

DEFAULT_TEXT: Final = """\
# A lab: emulated hosts, their MigTDs, and the migrations between them.
# Check it with `./inv lab.validate`, run it with `./inv up --lab lab.yaml`. Every key: docs/lab-file.md.
schema: 1

# name: my-lab                # default: lab- and 6 hex digits of the checkout's path
# engine: process             # docker or process; default: docker if one answers
attestation: lab              # lab, captured, or accept-all, which verifies nothing and says so
# policy_version: 2           # signed policies that the lab makes for its MigTDs; rebindings need them
session: ra-tls
transport: vmcall-raw

# Seconds; what is left out keeps its default.
# deadlines: {pre_session: 60, session: 60, read: 60, write: 60, call: 30, report: 60, connect: 60}

hosts:
  host-a:
    versions: 1..1            # migration versions of the host's TDX module
    migtds:
      source: {vcpus: 1, shared_memory_mib: 64}
  host-b:
    versions: 1..1
    # What the lab's PKI says of this machine; left out: an up-to-date one.
    # platform: {tcb_status: OutOfDate, tcb_date: 2023-08-09}
    # quoting: {fail_first: 5}  # so many GetQuote calls fail before one works
    # pcs: "127.0.0.1:8081"     # serve the lab's collateral over HTTP at this address of this machine
    # policy_file: policy.json  # migration policy of its MigTDs; default: the one that comes with the lab
    migtds:
      destination: {vcpus: 1, shared_memory_mib: 64}

# A target TD that several migrations name. Without one each migration takes a fresh TD.
# target_tds:
#   td-1: {uuid: [1, 2, 3, 4], binding_handle: 0x1234}

migrations:
  - source: {host: host-a, migtd: source}
    destination: {host: host-b, migtd: destination}
    count: 1
  # Your own MigTD as the destination, listening at this address:
  # - source: {host: host-a, migtd: source}
  #   destination: {external: "192.0.2.1:8001"}
  # Your own MigTD as the source. Our destination waits for it at this address of this machine:
  # - source: {external: "127.0.0.1:8001"}
  #   destination: {host: host-b, migtd: destination}
"""


def init(options: InitOptions) -> ExitStatus:
    """Write the commented default lab file. Raises UsageError (LAB-FILE-EXISTS, LAB-FILE-MISSING)."""
    try:
        with options.file.open("x", encoding="utf-8") as stream:
            stream.write(DEFAULT_TEXT)
    except FileExistsError as error:
        raise UsageError(failures.FILE_EXISTS, str(options.file)) from error
    except OSError as error:
        raise UsageError(failures.FILE_UNWRITABLE, f"{options.file}: {error.strerror}") from error
    print(f"wrote {options.file}; next: ./inv up --lab {options.file}", file=sys.stderr)  # noqa: T201 - a task talks
    return ExitStatus.SUCCESS


def validate(options: ValidateOptions) -> ExitStatus:
    """Check a lab file and print the resolved lab on standard output: YAML, or JSON. Raises as load_lab_file does."""
    resolved = resolve(load_lab_file(options.file))
    shown: dict[str, Any] = resolved.lab.model_dump(mode="json", by_alias=True, exclude_none=True)
    shown["name"] = resolved.name
    if options.json:
        text = json.dumps(shown)
    else:
        import yaml  # noqa: PLC0415 - only here

        text = yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=100).rstrip()
    print(text)  # noqa: T201 - a task's answer
    return ExitStatus.SUCCESS
